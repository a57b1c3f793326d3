"""Segment each reconstruction that appears in a folder, as soon as it is finished: copy, change, run.

    python watch_folder.py /data/visit/processed -m phases.hrvol -o /data/visit/labels --pattern '*/*_rec.h5'

A file or folder is finished when the sizes and times of its files have not changed for --stable seconds, or,
with --marker, when another file exists: --marker '{path}.done', --marker '{path}/finished.txt'. Use a marker
where the writer may pause for longer. HTTomo writes a folder per run, nabu a file or a folder of TIFF planes:
--pattern names what of it is one volume.

The command ``hrvol segment`` does the work, one volume after the other, with the options after ``--``:

    python watch_folder.py incoming -m phases.hrvol -o labels -- --workers 16 --uncertainty

Ctrl-C and SIGTERM stop after the blocks in progress. Start the script again to resume: OUT/.watch has a file
for each volume, with what became of it. A volume that fails is tried --tries times in all; delete its file to
try again. Only Python's own library is used, so the script also runs beside an hrvol in another environment.
"""

import argparse
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from urllib.parse import quote

LOG = logging.getLogger("watch_folder")
STOPPED = (75, 130)  # exit codes of hrvol: stopped, can be resumed
USAGE = 2  # exit code: a wrong option, which no other try mends
SUFFIXES = (".ome.zarr", ".ome.tiff", ".ome.tif", ".nii.gz")


class Stop:
    """A request to stop, passed on to the command that runs."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.child: subprocess.Popen[bytes] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.signal = self.signal or number
        if self.child is not None:
            self.child.send_signal(number)


def stamp(path: Path) -> tuple[int, int, int]:
    """Return number, size and latest change (ns) of the files of a volume; zeros if it vanishes meanwhile."""
    number = size = latest = 0
    try:
        files = [path] if path.is_file() else [Path(d, f) for d, _, names in os.walk(path) for f in names]
        for file in files:
            status = file.stat()
            number, size = number + 1, size + status.st_size
            latest = max(latest, status.st_mtime_ns)
    except OSError:
        return 0, 0, 0
    return number, size, latest


class Finished:
    """Tells which volumes are finished.

    Parameters
    ----------
    stable
        Seconds without a change after which a volume is finished.
    marker
        Template of a file that marks a finished volume instead.
    """

    def __init__(self, stable: float, marker: str | None) -> None:
        self.stable, self.marker = stable, marker
        self.seen: dict[Path, tuple[tuple[int, int, int], float]] = {}

    def __call__(self, path: Path) -> bool:
        """Return whether a volume is finished now."""
        if self.marker is not None:
            return Path(self.marker.format(path=path, name=path.name, stem=stem(path))).exists()
        now, found = time.monotonic(), stamp(path)
        before, since = self.seen.get(path, ((), now))
        if found != before:  # also the first time: the clock of a file server may be another
            self.seen[path] = found, now
            return self.stable <= 0 and found[0] > 0
        return found[0] > 0 and now - since >= self.stable


def stem(path: Path) -> str:
    """Return the name of a volume without its suffix."""
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), path.suffix)
    return path.name.removesuffix(path.name[len(path.name) - len(suffix) :]) if suffix else path.name


def candidates(folder: Path, pattern: str, out: Path) -> Iterator[Path]:
    """Yield what a pattern finds, except for hidden names and the outputs."""
    for path in sorted(folder.glob(pattern)):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        inside = out.resolve() in (path.resolve(), *path.resolve().parents)
        if not hidden and not inside and path not in out.resolve().parents:
            yield path


def files_of(path: Path, arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Return the journal and the labels of a volume."""
    relative = path.relative_to(arguments.folder)
    journal = arguments.output / ".watch" / f"{quote(str(relative), safe='')}.json"
    return journal, arguments.output / relative.parent / f"{stem(path)}.ome.zarr"


def read_journal(file: Path) -> dict[str, object]:
    """Return what became of a volume so far."""
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError):  # none, or half-written by another program
        return {}
    return values if isinstance(values, dict) else {}


def write_journal(file: Path, values: dict[str, object]) -> None:
    """Write it atomically."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=1))
    partial.replace(file)


def last_line(log: Path) -> str:
    """Return the last line of a log."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"


def segment(path: Path, labels: Path, log: Path, arguments: argparse.Namespace, stop: Stop) -> int:
    """Run ``hrvol segment`` and return its exit code."""
    command = ["hrvol", "segment", str(path), str(labels), "-m", str(arguments.model), *arguments.options]
    with log.open("ab") as output:
        # A session of its own: Ctrl-C at a terminal reaches this script, which passes it on once.
        stop.child = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        if stop.signal is not None:  # it came before the command was there
            stop.child.send_signal(stop.signal)
        code = stop.child.wait()
        stop.child = None
    return code


def handle(path: Path, arguments: argparse.Namespace, stop: Stop) -> None:
    """Segment a finished volume unless that is done, or was tried often enough."""
    journal, labels = files_of(path, arguments)
    log, found = journal.with_suffix(".log"), list(stamp(path))
    values = read_journal(journal)
    tries = int(str(values.get("tries", 0)))
    if values.get("state") in ("done", "changed", "failed"):
        if values["state"] == "done" and found[0] and values.get("stamp") != found:
            again = f"delete {labels} and {journal} to segment it again"
            LOG.warning("%s: changed since it was segmented; %s", path, again)
            write_journal(journal, {**values, "state": "changed"})
        return
    if time.time() < float(str(values.get("next", 0))):
        return
    labels.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    code = segment(path, labels, log, arguments, stop)
    seconds = time.monotonic() - began
    if code in STOPPED or stop.signal is not None:
        LOG.info("%s: stopped after %.0f s", path, seconds)
        return
    tries += 1
    values = {"path": str(path), "stamp": found, "tries": tries, "seconds": round(seconds, 1)}
    if code == 0:
        LOG.info("%s: done in %.0f s: %s", path, seconds, labels)
        write_journal(journal, {**values, "state": "done"})
        return
    final = code == USAGE or tries >= arguments.tries
    delay = arguments.retry_delay * 2 ** (tries - 1)
    outcome = "given up" if final else f"another try in {delay:.0f} s"
    LOG.error("%s: try %d failed with exit code %d, %s: %s", path, tries, code, outcome, last_line(log))
    state = {"state": "failed"} if final else {"state": "again", "next": time.time() + delay}
    write_journal(journal, {**values, **state, "reason": last_line(log)})


def waiting(arguments: argparse.Namespace) -> bool:
    """Return whether a volume of the folder is neither done nor given up."""
    for path in candidates(arguments.folder, arguments.pattern, arguments.output):
        if read_journal(files_of(path, arguments)[0]).get("state") not in ("done", "changed", "failed"):
            return True
    return False


def parsed() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where reconstructions appear")
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the labels")
    parser.add_argument("--pattern", default="*", help="glob of volumes in the folder [*]")
    parser.add_argument("--stable", type=float, default=60, metavar="SECONDS", help="[60]")
    parser.add_argument("--marker", metavar="TEMPLATE", help="file that marks a finished one")
    parser.add_argument("--interval", type=float, default=10, metavar="SECONDS", help="between looks [10]")
    parser.add_argument("--tries", type=int, default=3, help="of a volume that fails [3]")
    parser.add_argument("--retry-delay", type=float, default=60, metavar="SECONDS", help="then doubled [60]")
    parser.add_argument("--once", action="store_true", help="end when every volume in the folder is handled")
    own, options = (sys.argv[1:], [])
    if "--" in own:
        own, options = own[: own.index("--")], own[own.index("--") + 1 :]
    arguments = parser.parse_args(own)
    try:
        (arguments.marker or "").format(path="", name="", stem="")
    except (KeyError, IndexError, ValueError):
        parser.error(f"--marker: found {arguments.marker}, expected {{path}}, {{name}} or {{stem}} in it")
    arguments.options = options
    return arguments


def main() -> int:
    """Watch; return the exit code: 75 if it was stopped (130 by Ctrl-C), 1 if a volume failed (--once)."""
    arguments = parsed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    (arguments.output / ".watch").mkdir(parents=True, exist_ok=True)
    lock = (arguments.output / ".watch" / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        LOG.error("%s: another watch_folder.py writes there", arguments.output)
        return 1
    stop, finished = Stop(), Finished(arguments.stable, arguments.marker)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    LOG.info("watching %s for %s", arguments.folder, arguments.pattern)
    while stop.signal is None:
        for path in candidates(arguments.folder, arguments.pattern, arguments.output):
            if stop.signal is None and finished(path):
                handle(path, arguments, stop)
        if arguments.once and not waiting(arguments):
            break
        end = time.monotonic() + arguments.interval
        while stop.signal is None and time.monotonic() < end:
            time.sleep(min(0.2, arguments.interval))
    if stop.signal is not None:
        return 130 if stop.signal == signal.SIGINT else 75
    states = [read_journal(file).get("state") for file in (arguments.output / ".watch").glob("*.json")]
    return 1 if "failed" in states else 0


if __name__ == "__main__":
    sys.exit(main())
