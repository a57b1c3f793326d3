"""Do a share of the cases: make the files, run the command, judge, and write a line of JSON for each."""

from __future__ import annotations

import functools
import hashlib
import json
import shlex
import shutil
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.runs.hostile import sound as files
from benchmarks.runs.hostile.case import Case, nothing
from benchmarks.runs.hostile.judge import Sound, bare, judge, observe
from benchmarks.runs.hostile.runner import LIMIT, call, in_child, run

_LIBRARIES = f"{sysconfig.get_path('purelib')}/"


@dataclass(frozen=True)
class Record:
    """Verdict on a case: seconds and MB above an ordinary run, the message, and how to repeat it."""

    group: str
    name: str
    generated: bool
    verdict: str
    note: str
    code: int | None
    seconds: float
    mb: float
    line: str
    command: str


def prepare(folder: Path) -> None:
    """Make the sound files, and run a command of each kind; in a child."""
    files.make_volumes(folder)
    files.make_outputs(folder)
    for words in files.WARM:
        call(words)
    for path in folder.glob("w.*"):  # their outputs
        shutil.rmtree(path) if path.is_dir() else path.unlink()


class Slot:
    """Runs cases one after the other, in folders of their own."""

    def __init__(self, base: Path, work: Path, keep: bool = False) -> None:
        self._base, self._work, self._keep, self._count = base, work, keep, 0
        self._sound = functools.cache(self._sound_of)

    def record(self, case: Case) -> Record:
        """Run a case and return its record."""
        sound = self._sound(case.command, case.files)
        folder = self._folder(case)
        log = folder.parent / "damage.log"
        if not in_child(lambda: case.damage(folder), log):
            raise ValueError(f"{case.title}: {log.read_text().splitlines()[-1]}")
        before = {name: _digest(folder / name) for name in case.keep}
        ending = run(case.command, folder, LIMIT, case.tty)
        kept = all(_digest(folder / name) == digest for name, digest in before.items())
        verdict, note = judge(case, ending, observe(case.command, folder, ending), sound, kept)
        note = note.replace(_LIBRARIES, "")
        last = next((line for line in reversed(ending.err.splitlines()) if line.strip()), "")
        if not self._keep:
            shutil.rmtree(folder.parent, ignore_errors=True)
        mb = max(0.0, ending.peak - sound.peak)
        command = shlex.join(("hrvol", *(word if len(word) < 200 else word[:200] for word in case.command)))
        if self._keep:
            print(f"{folder}: {command!a}", flush=True)
        return Record(
            *(case.group, case.name, case.generated, verdict, ascii(note)[1:-1][:300], ending.code),
            *(round(ending.seconds, 2), round(mb), ascii(last.replace(_LIBRARIES, ""))[1:-1][:300], command),
        )

    def _folder(self, case: Case) -> Path:
        """Return a new folder with the sound files that the command names."""
        self._count += 1
        folder = self._work / f"{self._count:05d}" / "here"
        folder.mkdir(parents=True)
        for name in {*case.command, *case.files}:
            source = self._base / name if name and "/" not in name and name[0] != "." else None
            if source is None or len(name) > 200 or not source.exists():
                continue
            if source.is_dir():
                shutil.copytree(source, folder / name)
            else:
                shutil.copyfile(source, folder / name)
        return folder

    def _sound_of(self, command: tuple[str, ...], names: tuple[str, ...]) -> Sound:
        case = Case("sound", "", command, nothing, files=names)
        folder = self._folder(case)
        ending = run(command, folder)
        result = observe(command, folder, ending)
        shutil.rmtree(folder.parent, ignore_errors=True)
        peak = ending.peak if ending.code == 0 else self._usual(command)
        return Sound(
            result, peak, frozenset(bare(line) for line in ending.err.splitlines() if ending.code == 0)
        )

    def _usual(self, command: tuple[str, ...]) -> float:
        """Return the memory of an ordinary run of a command, where its request is odd without any damage."""
        usual = next((words for words in files.WARM if words[0] == command[0]), files.WARM[0])
        if command[0] in ("segment", "cluster", "plan"):
            usual = files.SEGMENT
        if command[0] == "status":
            usual = ("status", "out.ome.zarr", "--json")
        if command == usual:
            raise RuntimeError(f"an ordinary command failed: {command}")
        return self._sound(usual, ()).peak


def _digest(path: Path) -> str | None:
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(path.rglob("*")):
            if file.is_file():
                digest.update(str(file).encode() + file.read_bytes())
        return digest.hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def run_cases(cases: Sequence[Case], slot: Slot, results: Path) -> None:
    """Run cases and append a line of JSON for each to a file."""
    began = time.monotonic()
    with results.open("a") as stream:
        for number, case in enumerate(cases, start=1):
            try:
                record = slot.record(case)
            except ValueError as error:
                print(f"cannot be damaged: {error!a}", flush=True)
                continue
            stream.write(json.dumps(asdict(record)) + "\n")
            stream.flush()
            if record.verdict not in ("ok", "refused"):
                where = f"{number}/{len(cases)} {time.monotonic() - began:.0f} s"
                print(f"{where}  {record.verdict}  {case.group}/{case.name!a}: {record.note}", flush=True)
