"""Measure what drawing strokes costs, and what a kill costs: ``python -m benchmarks.runs.painting``.

Strokes are drawn on a volume of 10^12 voxels that does not exist: only what is drawn is stored. A stroke is a
disc brush of radius 5 that is dragged over 100 pixels. Processes that draw are killed (SIGKILL) at random
moments, and their strokes are opened again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr
from numpy.typing import NDArray
from ome_zarr_models.v05 import ImageLabel

from benchmarks.markdown import table
from hrvol.arrays import Shape3
from hrvol.classes import default_classes
from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.strokes.merge import painted_of
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.strokes.painted import Painted
from hrvol.volume.volume import Volume

SHAPE: Shape3 = (10_000, 10_000, 10_000)
RADIUS, LENGTH = 5, 100
PLANES = 20
"""Planes on which a person draws, at a time."""


class Nothing:
    """The voxels of a volume that nobody reads."""

    shape, dtype = SHAPE, np.dtype(np.uint8)


def volume() -> Volume:
    """Return a volume of 10^12 voxels."""
    return Volume("volume", Nothing(), ("z", "y", "x"), (1.0, 1.0, 1.0), "micrometer", 3, "volume")


def stroke(number: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the voxels of a stroke: of one plane, in a direction that depends on the number."""
    rng = np.random.default_rng(number)
    z = 500 * (number % PLANES)
    first, angle = rng.uniform(200, 9_800, 2), rng.uniform(0, 2 * np.pi)
    path = first + np.outer(np.arange(LENGTH), [np.sin(angle), np.cos(angle)])
    rows, columns = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1]
    disc = np.stack([rows, columns], axis=-1)[rows**2 + columns**2 <= RADIUS**2]
    y, x = (np.rint(path)[:, None, :] + disc).reshape(-1, 2).astype(np.int64).T
    return np.full(len(y), z), y, x


def value(number: int) -> int:
    """Return the class of a stroke."""
    return 1 + number % 3


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call takes, and its result."""
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def waited(done: Callable[[], bool]) -> float:
    """Return the seconds until something is done."""
    began = time.perf_counter()
    while not done():
        time.sleep(0.001)
    return time.perf_counter() - began


def sizes(path: Path) -> tuple[int, int]:
    """Return the bytes of files, and those that files and folders take of the disk."""
    every = [*path.rglob("*"), path]
    return (
        sum(file.stat().st_size for file in every if file.is_file()),
        sum(file.stat().st_blocks * 512 for file in every),
    )


def drawing(folder: Path, counts: Sequence[int], pause: float) -> tuple[list[list[str]], list[list[str]]]:
    """Draw up to each number of strokes; return rows about drawing, and about opening what is drawn."""
    path, rows, opened = folder / "strokes.ome.zarr", [], []
    number = 0
    DrawingStore.create(path, volume(), default_classes([1, 2, 3])).close()
    for count in counts:
        store = DrawingStore.open(path, volume())
        seconds, worked = [], []
        memory = psutil.Process().memory_info().rss
        while number < count:
            one = stroke(number)
            processor = time.thread_time()
            took, _ = timed(partial(store.paint, one, value(number)))
            worked.append(time.thread_time() - processor)
            seconds.append(took)
            number += 1
            time.sleep(pause)
        (undone, _), (redone, _) = timed(store.undo), timed(store.redo)
        grown = psutil.Process().memory_info().rss - memory
        points, painted = timed(store.points)
        store.close()
        small, whole = sizes(path)
        millis = np.array(seconds) * 1000
        figures = [np.median(millis), np.quantile(millis, 0.95), millis.max(), max(worked) * 1e3]
        figures += [undone * 1e3, redone * 1e3]
        rows.append([f"{count:,}", *(f"{one:.1f}" for one in figures), f"{grown / 2**20:.0f}"])
        kept, store = timed(lambda: DrawingStore.open(path, volume()))
        store.close()
        (path / "0/.drawing/counts.npy").unlink()
        counted, store = timed(lambda: DrawingStore.open(path, volume()))
        store.close()
        read, found = timed(lambda: painted_of(open_strokes(path, volume())))
        assert np.array_equal(found.places, painted.places)
        figures = [kept, counted, points, read]
        disk = [f"{len(painted):,}", f"{small / count / 1000:.2f}", f"{whole / count / 1000:.1f}"]
        opened.append([f"{count:,}", *disk, *(f"{one:.2f}" for one in figures)])
        print(f"{count} strokes: {rows[-1]} {opened[-1]}", flush=True)
    return rows, opened


def delays(folder: Path, strokes: int) -> list[list[str]]:
    """Return rows: seconds from a stroke until it is in the journal, on the disk, and in the labels."""
    found = []
    with DrawingStore.create(folder / "delays.ome.zarr", volume(), default_classes([1, 2, 3])) as store:
        journal, rng = store._keeper._journal, np.random.default_rng(0)
        for number in range(strokes):
            store.paint(stroke(number), value(number))
            written = waited(lambda: not journal.waiting)
            synced = written + waited(lambda: not journal.unsynced)
            found.append((written, synced, synced + waited(lambda: store.saved)))
            time.sleep(rng.uniform(0, 0.3))
    names = ("outlives the process", "outlives the machine", "is in the labels, for other programs")
    return [
        [name, f"{np.median(column):.3f}", f"{max(column):.3f}"]
        for name, column in zip(names, zip(*found, strict=True), strict=True)
    ]


def draw_until_killed(path: Path, first: int) -> None:
    """Draw strokes from a number on, and print each with the time."""
    with DrawingStore.open(path) as store:
        for number in range(first, 10**6):
            store.paint(stroke(number), value(number))
            print(number, time.monotonic(), flush=True)
            time.sleep(0.03)


def kills(folder: Path, count: int, longest: float) -> dict[str, float]:
    """Kill processes that draw; return what was lost and found."""
    path = folder / "killed.ome.zarr"
    DrawingStore.create(path, volume(), default_classes([1, 2, 3])).close()
    rng = np.random.default_rng(0)
    lost, seconds, number, damaged = [], [0.0], 0, 0
    for kill in range(count):
        words = [sys.executable, "-m", "benchmarks.runs.painting", "--child", str(path), str(number)]
        with (folder / "log").open("w") as output:
            process = subprocess.Popen(words, stdout=output)
            waited(lambda: (folder / "log").stat().st_size > 0)
            time.sleep(rng.uniform(0, longest))
            os.kill(process.pid, signal.SIGKILL)
            killed = time.monotonic()
            process.wait()
        reports = [line.split() for line in (folder / "log").read_text().splitlines()]
        with warnings.catch_warnings(action="error"):
            ImageLabel.from_zarr(zarr.open_group(path, mode="r"))
        drawn = 0
        with DrawingStore.open(path) as store:
            painted = store.points()
            while np.all(store.read_places(stroke(drawn)) > 0):
                drawn += 1
        ones = [np.stack(stroke(i), axis=1) for i in range(drawn)]
        values = [np.full(len(one), value(i)) for i, one in enumerate(ones)]
        expected = Painted.of(np.concatenate(ones), np.concatenate(values))
        same = np.array_equal(painted.places, expected.places)
        damaged += not (same and np.array_equal(painted.values, expected.values))
        missing = [float(at) for name, at in reports if int(name) >= drawn]
        lost.append(len(missing))
        seconds += [killed - min(missing)] if missing else []
        number = drawn
        print(f"kill {kill + 1}: {drawn} strokes, {len(missing)} lost, {damaged} damaged", flush=True)
    return {"kills": count, "strokes": number, "lost": sum(lost), "seconds": max(seconds), "damaged": damaged}


def render(
    options: argparse.Namespace,
    drawn: tuple[list[list[str]], list[list[str]]],
    waits: list[list[str]],
    killed: dict[str, float],
) -> str:
    """Return the page."""
    from benchmarks.machine import describe_machine  # imports torch, which takes longer than most kills

    painting = [
        "strokes",
        "median, ms",
        "95 %, ms",
        "longest, ms",
        "longest on the processor, ms",
        "undo, ms",
        "redo, ms",
        "memory, MiB",
    ]
    opening = [
        "strokes",
        "voxels",
        "kB of files a stroke",
        "kB of disk a stroke",
        "open, s",
        "open without counts, s",
        "all points, s",
        "read as OME-Zarr, s",
    ]
    return f"""# Drawing strokes

Made by `python -m benchmarks.runs.painting`. {describe_machine(1)}

The volume has {" x ".join(map(str, SHAPE))} voxels. A stroke is a disc of radius {RADIUS} dragged
over {LENGTH} pixels, anywhere on {PLANES} planes; there are {options.pause} s between two strokes, and they
are saved meanwhile. Time on the processor is that of the thread that draws: the rest of the longest time is
waiting for a processor, of which others of this machine have their share. Undo and redo are those of one
stroke; memory is what the process grew by. The aim is less than 50 ms a stroke.

{table(painting, drawn[0], spaced=True)}
Opening such strokes, in this process and as OME-Zarr by the reader of `hrvol train`. Without the cached
counts of chunks, all chunks are read. Files are small: most of the disk's bytes are blocks of folders. The
aim is less than 1 s for 100 strokes.

{table(opening, drawn[1], spaced=True)}
Seconds from a stroke until it is safe, of {options.delays} strokes. The aim is less than 2 s.

{table(["a stroke ...", "median, s", "longest, s"], waits, spaced=True)}
{killed["kills"]} processes were killed (SIGKILL) at random moments while they drew
{killed["strokes"]:,} strokes. After opening the strokes again, {killed["lost"]}
strokes were missing in all, at most the last {killed["seconds"]:.2f} s before a kill, and
{killed["damaged"]} times anything else differed from what was drawn.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.painting",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--strokes", type=int, nargs="+", default=[100, 1000])
    options.add_argument("--pause", type=float, default=0.02, help="seconds between two strokes")
    options.add_argument("--delays", type=int, default=20, help="strokes whose saving is waited for")
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seconds", type=float, default=3.0, help="longest time until a kill")
    options.add_argument("--folder", help="where strokes are written; a temporary folder is made in it")
    options.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options.add_argument("-o", "--out", type=Path, default=Path("benchmarks/runs/painting.md"))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    options = parser().parse_args(arguments)
    if options.child:
        draw_until_killed(Path(options.child[0]), int(options.child[1]))
        return
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        drawn = drawing(folder, options.strokes, options.pause)
        waits = delays(folder, options.delays)
        killed = kills(folder, options.kills, options.seconds)
        options.out.write_text(render(options, drawn, waits, killed), encoding="utf-8")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
