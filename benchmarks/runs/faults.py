"""Runs that are killed, stopped, starved and harmed, again and again: ``python -m benchmarks.runs.faults``.

Every fault is injected at a random place or moment (seeded; what the system's scheduler adds is chance). Then
the same command goes on, and what it makes is compared with the output of a run that nothing happened to: all
arrays and attributes, bit for bit. The table goes into ``docs/explanation/reliability.md``.

Kills, signals and full disks happen to real processes. Damage to files is followed by a run in this process,
in which pauses between tries are cut short.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # its helpers are those of the tests

from fault_data import (
    ARRAYS,
    HARMS,
    Case,
    Cluster,
    Run,
    contents,
    copied,
    differing,
    harm,
    labels_are_zero,
    progress_of,
    shards,
    small_disk,
    wait_for,
)

from benchmarks.machine import describe_machine
from benchmarks.markdown import table as markdown_table
from hrvol.engine import engine
from hrvol.errors import HrvolError

DOCUMENT = Path(__file__).parents[2] / "docs" / "explanation" / "reliability.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

IDENTICAL, NAMED, SILENT, STUCK = "identical", "named", "silent", "stuck"
VERDICTS = (IDENTICAL, NAMED, SILENT, STUCK)


@dataclass(frozen=True)
class Bench:
    """What is harmed, where, and by which chance."""

    case: Case
    unfinished: Path
    folder: Path
    rng: random.Random

    def place(self) -> Path:
        """Return a new folder."""
        return Path(tempfile.mkdtemp(dir=self.folder))


@dataclass
class Row:
    """What became of the outputs that one kind of fault was injected into."""

    faults: Counter[str] = field(default_factory=Counter)
    outputs: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


Episode = Callable[[Bench, Path], tuple[int, str]]
"""Makes an output in a folder and injects faults; returns how many, and the verdict on the output."""


def judge(case: Case, out: Path) -> str:
    """Give the same command again, and say what came of it.

    Returns
    -------
    str
        ``identical``: bit for bit what an uninterrupted run makes. ``named``: blocks were named and hold 0,
        no others, and once more the same command made it identical. ``silent``: anything else that was
        called well. ``stuck``: it cannot be finished.
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
    """Kill the driver of two worker processes; they must not outlive it."""
    out = folder / "out.ome.zarr"
    with Run(bench.case.command(out, engine="local"), folder / "log") as run:
        reach(bench, run, out)
        outlived = run.kill()
    if outlived:
        print(f"  {len(outlived)} workers outlived their driver")
        return 1, STUCK
    return 1, judge(bench.case, out)


def workers(bench: Bench, folder: Path) -> tuple[int, str]:
    """Kill workers of one run, one by one; it goes on by itself."""
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


def shard(bench: Bench, folder: Path) -> tuple[int, str]:
    """Harm a shard of an unfinished or a complete output."""
    source = bench.rng.choice([bench.unfinished, bench.case.reference])
    out = copied(source, folder / "out.ome.zarr")
    victims = [path for array in ARRAYS for path in shards(out, array)]
    harm(bench.rng.choice(victims), bench.rng.choice(HARMS), bench.rng.random())
    return 1, judge(bench.case, out)


def record(bench: Bench, folder: Path) -> tuple[int, str]:
    """Harm a record of the ledger of an unfinished or a complete output."""
    source = bench.rng.choice([bench.unfinished, bench.case.reference])
    out = copied(source, folder / "out.ome.zarr")
    victims = sorted((out / "ledger").rglob("zarr.json"))
    harm(bench.rng.choice(victims), bench.rng.choice(HARMS[:3]), bench.rng.random())
    return 1, judge(bench.case, out)


def chunk(bench: Bench, folder: Path) -> tuple[int, str]:
    """Make a chunk of the input unreadable; afterwards it is mended."""
    case, out = bench.case, folder / "out.ome.zarr"
    path = bench.rng.choice(shards(case.volume, "."))
    whole, where = path.read_bytes(), tuple(int(name) for name in path.parts[-3:])
    path.write_bytes(bench.rng.choice([b"garbage", b"", whole[: len(whole) // 2]]))
    try:
        report = case.segment(out)
    except HrvolError as error:  # what tells the input from others cannot be read: refused, nothing written
        refused = str(case.volume) in str(error) and not out.exists()
        exact = refused
    else:
        named = [failure.index for failure in report.failed]
        exact = named == case.readers(where) and labels_are_zero(out, case, named)
    finally:
        path.write_bytes(whole)
    found = judge(case, out)
    return 1, (NAMED if exact else SILENT) if found == IDENTICAL else found


def stopped(bench: Bench, folder: Path) -> tuple[int, str]:
    """Send a signal that asks to stop to a run in one process."""
    return _signalled(bench, folder, "serial")


def stopped_with_workers(bench: Bench, folder: Path) -> tuple[int, str]:
    """Send a signal that asks to stop to a driver, or to it and its workers."""
    return _signalled(bench, folder, "local")


def _signalled(bench: Bench, folder: Path, where: str) -> tuple[int, str]:
    out = folder / "out.ome.zarr"
    number = bench.rng.choice([signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
    with Run(bench.case.command(out, engine=where), folder / "log") as run:
        reach(bench, run, out)
        run.send(number, group=bench.rng.random() < 0.5)
        if number == signal.SIGINT and bench.rng.random() < 0.5:
            time.sleep(bench.rng.random() / 2)
            run.send(number, group=True)
        code, expected = run.wait(300), 130 if number == signal.SIGINT else 75
    if code not in (0, expected, -number) or "Traceback" in run.said:  # -number: it was over
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
    """Let the disk be full at some point; then there is room again."""
    with small_disk(folder, bench.rng.randint(20, 600)) as (place, filler):
        out = place / "out.ome.zarr"
        with Run(bench.case.command(out), folder / "log") as run:
            code = run.wait(300)
        if code != 1 or "No space left" not in run.said.splitlines()[-1]:
            print(f"  exit code {code}: {run.said}")
            return 1, STUCK
        filler.unlink()
        return 1, judge(bench.case, out)


def reach(bench: Bench, run: Run, out: Path, ahead: int = 0) -> None:
    """Wait until a run has done some more of its blocks, or is over, and a moment longer."""
    before = progress_of(out)[0]
    aim = before + bench.rng.randint(1, ahead) if ahead else bench.rng.randint(0, 34)
    wait_for(lambda: run.over or (out.exists() and progress_of(out)[0] >= aim), 300)
    time.sleep(bench.rng.random() / 5)


EPISODES: tuple[tuple[str, Episode, int], ...] = (
    ("driver killed while it writes", driver_at_a_write, 60),
    ("driver of two workers killed", driver_of_workers, 8),
    ("worker killed", workers, 20),
    ("worker and scheduler of a Dask cluster killed", scheduler, 6),
    ("signal to a run in one process", stopped, 20),
    ("signal to a run with workers", stopped_with_workers, 6),
    ("shard harmed", shard, 60),
    ("record of the ledger harmed", record, 20),
    ("chunk of the input unreadable", chunk, 20),
    ("disk full", disk, 8),
)
"""Name, what is done, and how many faults are injected at least."""


def measure(bench: Bench, episodes: Sequence[tuple[str, Episode, int]]) -> dict[str, Row]:
    """Inject faults and count what becomes of the outputs."""
    rows: dict[str, Row] = {}
    for name, episode, least in episodes:
        row = rows[name] = Row()
        begun = time.monotonic()
        while row.faults.total() < least:
            folder = bench.place()
            faults, verdict = episode(bench, folder)
            row.faults[verdict] += faults
            row.outputs[verdict] += 1
            shutil.rmtree(folder, ignore_errors=True)
            print(f"{name}: {row.faults.total()} of {least}, {verdict}", flush=True)
        row.seconds = time.monotonic() - begun
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
    """Put the table into a document, between its markers."""
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
    parser.add_argument("--share", type=float, default=1.0, help="of the faults that the table is made of")
    parser.add_argument("--only", help="kinds of faults whose name has this in it; writes no table")
    asked: Any = parser.parse_args(arguments)
    engine.BACK_OFF = 0.01
    with tempfile.TemporaryDirectory(prefix="hrvol-faults-") as name:
        folder = Path(name)
        case = Case.make(folder)
        assert case.expected
        unfinished = case.begin(folder / "unfinished.ome.zarr")
        bench = Bench(case, unfinished, folder, random.Random(asked.seed))
        chosen = [
            (kind, episode, max(1, round(asked.share * count)))
            for kind, episode, count in EPISODES
            if not asked.only or asked.only in kind
        ]
        rows = measure(bench, chosen)
    print(table(rows))
    if not asked.only:
        write(rows, asked.seed, DOCUMENT)


if __name__ == "__main__":
    main()
