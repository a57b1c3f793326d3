"""Interrupt and damage runs at random, then compare their outputs: ``python -m benchmarks.runs.faults``.

Every fault is injected at a random place or moment (seeded; the system's scheduler adds chance). The same
command then resumes the run, and its output is compared with that of an uninterrupted run: all arrays and
attributes, bit for bit. The table goes into ``docs/explanation/reliability.md``.

Kills, signals and full disks happen to real processes. Damage to files is followed by a run in this process,
with short pauses between tries.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # shares the helpers of the tests

from fault_data import (
    ARRAYS,
    HARMS,
    Case,
    Cluster,
    Run,
    change,
    contents,
    copied,
    differing,
    documents,
    harm,
    labels_are_zero,
    progress_of,
    shards,
    small_disk,
    wait_for,
)

from benchmarks.machine import describe_machine
from benchmarks.markdown import table as markdown_table
from hrvol.engine import spec as spec_module
from hrvol.engine.life import Limits
from hrvol.errors import HrvolError
from hrvol.segment.model.model import load_model, save_model

DOCUMENT = Path(__file__).parents[2] / "docs" / "explanation" / "reliability.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

SHAPE = (4, 520, 88)
"""Voxels of the volume: 36 blocks, so that there are enough left when a fault is injected."""

IDENTICAL, NAMED, SILENT, STUCK = "identical", "named", "silent", "stuck"
VERDICTS = (IDENTICAL, NAMED, SILENT, STUCK)


@dataclass(frozen=True)
class Bench:
    """The case, its unfinished output, a folder for outputs, and the random generator."""

    case: Case
    unfinished: Path
    folder: Path
    rng: random.Random

    def new_folder(self) -> Path:
        """Return a new folder."""
        return Path(tempfile.mkdtemp(dir=self.folder))


@dataclass
class Row:
    """Verdicts on the outputs with one kind of fault."""

    faults: Counter[str] = field(default_factory=Counter)
    outputs: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


Episode = Callable[[Bench, Path], tuple[int, str]]
"""Make an output in a folder and inject faults; return their number, and the verdict on the output."""


def judge(case: Case, out: Path) -> str:
    """Run the same command again and return the verdict on its output.

    Returns
    -------
    str
        ``identical``: bit-for-bit identical to an uninterrupted run. ``named``: exactly the failed blocks
        were reported and hold 0, and the same command again made it identical. ``silent``: reported as
        complete, but different. ``stuck``: it cannot be finished.
    """
    try:
        report = case.segment(out)
        named = [failure.index for failure in report.failed]
        if named:
            if not labels_are_zero(out, case, named):
                return SILENT
            report = case.segment(out)
    except (HrvolError, OSError) as error:
        print(f"  stuck: {error}")
        return STUCK
    if report.failed:
        return STUCK
    wrong = differing(contents(out), case.expected)
    if wrong:
        print(f"  differs: {', '.join(wrong)}")
        return SILENT
    return NAMED if named else IDENTICAL


def driver_at_a_write(bench: Bench, folder: Path) -> tuple[int, str]:
    """Kill the driver before or after it gives a file its name, one to four times in a row."""
    out, kills, enough = folder / "out.ome.zarr", 0, bench.rng.randint(1, 4)
    most = bench.rng.choice([30, 150, 900])  # creation, the first blocks, anywhere
    while kills < enough:
        with Run(bench.case.command(out), folder / "log", dies_at=bench.rng.randint(1, most)) as run:
            if run.wait(300) != -signal.SIGKILL:
                break
        kills += 1
    return kills, judge(bench.case, out)


def driver_of_workers(bench: Bench, folder: Path) -> tuple[int, str]:
    """Kill the driver of two worker processes; they must exit with it."""
    out = folder / "out.ome.zarr"
    with Run(bench.case.command(out, engine="local"), folder / "log") as run:
        reach(bench, run, out)
        outlived = run.kill()
    if outlived:
        print(f"  {len(outlived)} workers outlived their driver")
        return 1, STUCK
    return 1, judge(bench.case, out)


def workers(bench: Bench, folder: Path) -> tuple[int, str]:
    """Kill workers of one run, one by one; the run continues."""
    out, kills = folder / "out.ome.zarr", 0
    with Run(bench.case.command(out, engine="local"), folder / "log") as run:
        while kills < 4:
            reach(bench, run, out, ahead=8)
            living = run.workers()
            if run.over or not living:
                break
            bench.rng.choice(living).kill()
            kills += 1
        code = run.wait(300)
    if code != 0:
        print(f"  exit code {code}: {run.said.splitlines()[-1]}")
    return kills, judge(bench.case, out)


def stopped_workers(bench: Bench, folder: Path) -> tuple[int, str]:
    """Stop worker processes (SIGSTOP), which then hold their blocks; the run replaces them and continues."""
    out, stops = folder / "out.ome.zarr", 0
    limits = Limits(report=0.2, silent=3.0)
    with Run(bench.case.command(out, engine="local"), folder / "log", limits=limits) as run:
        while stops < 2:
            reach(bench, run, out, ahead=12)
            living = run.workers()
            if run.over or not living:
                break
            bench.rng.choice(living).suspend()
            stops += 1
        code = run.wait(300)
    if code != 0:
        print(f"  exit code {code}: {run.said.splitlines()[-1]}")
        return max(stops, 1), STUCK
    return max(stops, 1), judge(bench.case, out)


def other_model(bench: Bench, folder: Path) -> tuple[int, str]:
    """Replace the model file while a run continues, and kill its workers, so that others load a model."""
    case, out = bench.case, folder / "out.ome.zarr"
    whole = case.model.read_bytes()
    model = load_model(case.model)
    with Run(case.command(out, engine="local"), folder / "log") as run:
        wait_for(lambda: run.over or (out / "zarr.json").exists(), 300)  # the driver has read the model
        try:
            save_model(replace(model, window=(model.window[0], 2 * model.window[1])), case.model)
            reach(bench, run, out)
            for worker in run.workers():
                worker.kill()
            code = run.wait(300)
        finally:
            case.model.write_bytes(whole)
    if code != 0 or differing(contents(out), case.expected):
        print(f"  exit code {code}: {run.said.splitlines()[-1] if run.said else 'no word'}")
        return 1, SILENT if code == 0 else STUCK
    return 1, judge(case, out)


def metadata(bench: Bench, folder: Path) -> tuple[int, str]:
    """Change one byte of the metadata of an unfinished or a complete output."""
    source = bench.rng.choice([bench.unfinished, bench.case.reference])
    out = copied(source, folder / "out.ome.zarr")
    change(bench.rng.choice([out / name for name in sorted(documents(out))]), bench.rng)
    return 1, judge(bench.case, out)


def shard(bench: Bench, folder: Path) -> tuple[int, str]:
    """Damage a shard of an unfinished or a complete output."""
    source = bench.rng.choice([bench.unfinished, bench.case.reference])
    out = copied(source, folder / "out.ome.zarr")
    victims = [path for array in ARRAYS for path in shards(out, array)]
    harm(bench.rng.choice(victims), bench.rng.choice(HARMS), bench.rng.random())
    return 1, judge(bench.case, out)


def record(bench: Bench, folder: Path) -> tuple[int, str]:
    """Damage a record of the ledger of an unfinished or a complete output."""
    source = bench.rng.choice([bench.unfinished, bench.case.reference])
    out = copied(source, folder / "out.ome.zarr")
    victims = sorted((out / "ledger").rglob("zarr.json"))
    harm(bench.rng.choice(victims), bench.rng.choice(HARMS[:3]), bench.rng.random())
    return 1, judge(bench.case, out)


def chunk(bench: Bench, folder: Path) -> tuple[int, str]:
    """Make a chunk of the input unreadable; restore it afterwards."""
    case, out = bench.case, folder / "out.ome.zarr"
    path = bench.rng.choice(shards(case.volume, "."))
    whole, index = path.read_bytes(), tuple(int(name) for name in path.parts[-3:])
    path.write_bytes(bench.rng.choice([b"garbage", b"", whole[: len(whole) // 2]]))
    try:
        report = case.segment(out)
    except HrvolError as error:  # the fingerprint of the input cannot be read: refused, nothing written
        refused = str(case.volume) in str(error) and not out.exists()
        exact = refused
    else:
        named = [failure.index for failure in report.failed]
        exact = named == case.readers(index) and labels_are_zero(out, case, named)
    finally:
        path.write_bytes(whole)
    verdict = judge(case, out)
    return 1, (NAMED if exact else SILENT) if verdict == IDENTICAL else verdict


def stopped(bench: Bench, folder: Path) -> tuple[int, str]:
    """Send a stop signal to a run in one process."""
    return _signalled(bench, folder, "serial")


def stopped_with_workers(bench: Bench, folder: Path) -> tuple[int, str]:
    """Send a stop signal to a driver, or to it and its workers."""
    return _signalled(bench, folder, "local")


def _signalled(bench: Bench, folder: Path, engine_name: str) -> tuple[int, str]:
    out = folder / "out.ome.zarr"
    number = bench.rng.choice([signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
    with Run(bench.case.command(out, engine=engine_name), folder / "log") as run:
        reach(bench, run, out)
        run.send(number, group=bench.rng.random() < 0.5)
        if number == signal.SIGINT and bench.rng.random() < 0.5:
            time.sleep(bench.rng.random() / 2)
            run.send(number, group=True)
        code, expected = run.wait(300), 130 if number == signal.SIGINT else 75
    if code not in (0, expected, -number) or "Traceback" in run.said:  # -number: the run had ended
        print(f"  {number.name}: exit code {code}: {run.said}")
        return 1, STUCK
    return 1, judge(bench.case, out)


def scheduler(bench: Bench, folder: Path) -> tuple[int, str]:
    """Kill a worker of a Dask cluster, and then its scheduler."""
    out = folder / "out.ome.zarr"
    with (
        Cluster(folder) as cluster,
        Run(bench.case.command(out, engine=cluster.address), folder / "log") as run,
    ):
        reach(bench, run, out, ahead=8)
        cluster.workers[0].kill()
        reach(bench, run, out, ahead=8)
        cluster.scheduler.kill()
        code = run.wait(300)
    if code != 75:
        print(f"  exit code {code}: {run.said}")
        return 2, STUCK
    return 2, judge(bench.case, out)


def disk(bench: Bench, folder: Path) -> tuple[int, str]:
    """Fill the disk at some point; then free space again."""
    with small_disk(folder, bench.rng.randint(20, 600)) as (folder_on_disk, filler):
        out = folder_on_disk / "out.ome.zarr"
        with Run(bench.case.command(out), folder / "log") as run:
            code = run.wait(300)
        if code != 1 or "No space left" not in run.said.splitlines()[-1]:
            print(f"  exit code {code}: {run.said}")
            return 1, STUCK
        filler.unlink()
        return 1, judge(bench.case, out)


def reach(bench: Bench, run: Run, out: Path, ahead: int = 0) -> None:
    """Wait until a run has done some more blocks or ended, and a moment longer."""
    before = progress_of(out)[0]
    aim = before + bench.rng.randint(1, ahead) if ahead else bench.rng.randint(0, 34)
    wait_for(lambda: run.over or (out.exists() and progress_of(out)[0] >= aim), 300)
    time.sleep(bench.rng.random() / 5)


EPISODES: tuple[tuple[str, Episode, int], ...] = (
    ("driver killed while it writes", driver_at_a_write, 60),
    ("driver of two workers killed", driver_of_workers, 8),
    ("worker killed", workers, 20),
    ("worker stopped", stopped_workers, 8),
    ("model file replaced", other_model, 8),
    ("worker and scheduler of a Dask cluster killed", scheduler, 6),
    ("signal to a run in one process", stopped, 20),
    ("signal to a run with workers", stopped_with_workers, 6),
    ("shard damaged", shard, 60),
    ("record of the ledger damaged", record, 20),
    ("one byte of metadata changed", metadata, 90),
    ("chunk of the input unreadable", chunk, 20),
    ("disk full", disk, 8),
)
"""Name, function, and least number of faults."""


def measure(bench: Bench, episodes: Sequence[tuple[str, Episode, int]]) -> dict[str, Row]:
    """Inject faults and count the verdicts on the outputs."""
    rows: dict[str, Row] = {}
    for name, episode, least in episodes:
        row = rows[name] = Row()
        began = time.monotonic()
        while row.faults.total() < least:
            folder = bench.new_folder()
            faults, verdict = episode(bench, folder)
            row.faults[verdict] += faults
            row.outputs[verdict] += 1
            shutil.rmtree(folder, ignore_errors=True)
            print(f"{name}: {row.faults.total()} of {least}, {verdict}", flush=True)
        row.seconds = time.monotonic() - began
    return rows


def table(rows: dict[str, Row]) -> str:
    """Return the figures as Markdown."""
    head = [
        "fault",
        "injected",
        "outputs",
        "identical after the same command",
        "blocks named, then identical",
        "silent losses",
        "stuck",
    ]
    total = Row()
    for row in rows.values():
        total.faults.update(row.faults)
        total.outputs.update(row.outputs)
    cells = [
        [name, row.faults.total(), row.outputs.total(), *(row.outputs[v] for v in VERDICTS)]
        for name, row in (*rows.items(), ("**all**", total))
    ]
    return markdown_table(head, cells, spaced=True).rstrip()


def write(rows: dict[str, Row], seed: int, document: Path) -> None:
    """Write the table into a document, between its markers."""
    seconds = sum(row.seconds for row in rows.values())
    about = (
        f"Made by `python -m benchmarks.runs.faults --seed {seed}` in {seconds / 60:.0f} minutes, on"
        f" {describe_machine(2)}"
    )
    text = document.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    document.write_text(f"{before}{BEGIN}\n{about}\n\n{table(rows)}\n{END}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the faults to inject")
    parser.add_argument("--only", help="kinds of faults whose name contains this; writes no table")
    options: Any = parser.parse_args(arguments)
    spec_module.BACK_OFF = 0.01
    with tempfile.TemporaryDirectory(prefix="hrvol-faults-") as name:
        folder = Path(name)
        case = Case.make(folder, SHAPE)
        assert case.expected
        unfinished = case.begin(folder / "unfinished.ome.zarr")
        bench = Bench(case, unfinished, folder, random.Random(options.seed))
        chosen = [
            (kind, episode, max(1, round(options.share * count)))
            for kind, episode, count in EPISODES
            if not options.only or options.only in kind
        ]
        rows = measure(bench, chosen)
    print(table(rows))
    if not options.only:
        write(rows, options.seed, DOCUMENT)


if __name__ == "__main__":
    main()
