"""Measure how soon a session answers: from a stroke to its preview, on a first visit, and its memory.

Run it alone on a machine with idle cores::

    python -m benchmarks.runs.interactive benchmarks/runs/interactive.md

``--quick`` checks that it works, with few strokes and planes; its figures mean nothing. Other programs on
the cores change the times, so the processor time of the session is measured too: on idle cores the time from
stroke to preview is between the processor time over the number of threads and the processor time.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from hrvol.classes import default_classes
from hrvol.interactive.array_drawing import ArrayDrawing
from hrvol.interactive.results import Preview
from hrvol.interactive.session import Session
from hrvol.phantom import CLASS_NAMES, Phantom, draw_strokes, make_phantom

TARGETS = {512: (1.0, 1.5), 1024: (2.5, None)}
"""Seconds from a stroke to its preview by the side of the view: median, and 95 % of the strokes."""

_LONGEST = 600.0


@dataclass
class Watcher:
    """Waits for previews of a session, and notes when they came."""

    session: Session
    seen: list[tuple[float, Preview]] = field(default_factory=list)
    new: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.session.on_preview(self._add)
        self.session.on_error(lambda line: log(f"error: {line}"))

    def _add(self, preview: Preview) -> None:
        with self.new:
            self.seen.append((time.perf_counter(), preview))
            self.new.notify_all()

    def wait(self, wanted: Callable[[Preview], bool]) -> float:
        """Return when the first preview came that is wanted."""

        def found() -> float | None:
            return next((when for when, preview in self.seen if wanted(preview)), None)

        with self.new:
            if not self.new.wait_for(lambda: found() is not None, _LONGEST):
                raise TimeoutError("no preview")
            when = found()
        assert when is not None
        return when


@dataclass(frozen=True)
class Latency:
    """Seconds from strokes to previews, and of processor time."""

    coarse: tuple[float, ...]
    fine: tuple[float, ...]
    cpu: tuple[float, ...]


def scene(side: int, planes: int, seed: int = 0) -> Phantom:
    """Return a phantom of at least this side: one of 512, repeated, because large ones take minutes."""
    tile = make_phantom((min(planes, 8), 512, 512), seed=seed)
    repeats = (-(-planes // len(tile.image)), -(-side // 512) + 1, -(-side // 512) + 1)
    image, labels = (np.tile(values, repeats)[:planes] for values in (tile.image, tile.labels))
    return Phantom(image, labels)


def begin(phantom: Phantom, options: argparse.Namespace, **changes: Any) -> tuple[Session, ArrayDrawing]:
    """Return a session on a phantom with a few strokes on its first plane."""
    strokes = np.zeros_like(phantom.labels)
    strokes[:1, :512, :512] = draw_strokes(phantom.labels[:1, :512, :512], (0,), strokes=3, seed=1)
    drawing = ArrayDrawing(strokes, default_classes((1, 2, 3, 4), CLASS_NAMES))
    keywords: dict[str, Any] = {"recipe": options.recipe, "cache": False, "device": "cpu"} | changes
    return Session.open(phantom.image, drawing, threads=options.threads, **keywords), drawing


def stroke_at(
    labels: np.ndarray, rng: np.random.Generator, span: tuple[int, int]
) -> tuple[slice, slice, np.ndarray]:
    """Return rows, columns and class values of a short horizontal stroke, three pixels wide, of one class."""
    y, x = (int(v) for v in rng.integers(span[0] + 2, span[1] - 34, 2))
    rows, columns = slice(y - 1, y + 2), slice(x, x + 30)
    inside = labels[rows, columns]
    return rows, columns, np.where(inside == labels[y, x], inside, 0)


def measure_strokes(options: argparse.Namespace, side: int, count: int) -> Latency:
    """Draw strokes one after the other in a view whose features are there, each after its preview."""
    phantom = scene(side, 1)
    session, drawing = begin(phantom, options)
    watcher = Watcher(session)
    rng = np.random.default_rng(0)
    start = 100
    with session:
        session.view(0, slice(start, start + side), slice(start, start + side))
        session.live = True
        watcher.wait(lambda p: p.stage == "recipe" and p.complete and p.step == 1)
        coarse, fine, cpu = [], [], []
        process = psutil.Process()
        for number in range(count):
            rows, columns, values = stroke_at(phantom.labels[0], rng, (start, start + side))
            values = np.where(values > 0, values, drawing.read((slice(0, 1), rows, columns))[0])
            used = sum(process.cpu_times()[:2])
            began = time.perf_counter()
            drawing.paint((slice(0, 1), rows, columns), values[None])
            version = drawing.version
            for times, step in ((coarse, 8), (fine, 1)):
                when = watcher.wait(
                    lambda p, v=version, s=step: (
                        p.version >= v and p.complete and p.stage == "recipe" and p.step <= s
                    )
                )
                times.append(when - began)
            cpu.append(sum(process.cpu_times()[:2]) - used)
            watcher.seen.clear()
            log(f"{side} px: stroke {number + 1}: {coarse[-1]:.2f} s, {fine[-1]:.2f} s, CPU {cpu[-1]:.2f} s")
    return Latency(tuple(coarse), tuple(fine), tuple(cpu))


def measure_visits(options: argparse.Namespace, count: int) -> dict[str, list[float]]:
    """Visit planes whose features are not there yet; return seconds to each stage."""
    phantom = scene(512, 8 * count)
    session, _ = begin(phantom, options)
    watcher = Watcher(session)
    found: dict[str, list[float]] = {}
    with session:
        session.view(0, slice(100, 612), slice(100, 612))
        session.live = True
        watcher.wait(lambda p: p.stage == "recipe" and p.complete)
        for number in range(count):
            plane = 8 * number + 5
            began = time.perf_counter()
            session.view(plane, slice(100, 612), slice(100, 612))
            for stage in ("filters", "recipe"):
                when = watcher.wait(
                    lambda p, z=plane, s=stage: p.plane == z and p.complete and p.stage in (s, "recipe")
                )
                found.setdefault(stage, []).append(when - began)
            log(f"visit {number + 1}: {', '.join(f'{k} {v[-1]:.2f} s' for k, v in found.items())}")
    return found


def measure_memory(options: argparse.Namespace, planes: int, folder: Path) -> tuple[float, float]:
    """Visit planes in turn with a cache on disk; return the most memory in GB, and GB on disk."""
    phantom = scene(512, planes)
    session, _ = begin(phantom, options, cache=folder)
    watcher = Watcher(session)
    process = psutil.Process()
    most = 0.0
    with session:
        session.live = True
        for plane in range(planes):
            session.view(plane, slice(100, 612), slice(100, 612))
            watcher.wait(lambda p, z=plane: p.plane == z and p.stage == "recipe" and p.complete)
            watcher.seen.clear()
            most = max(most, process.memory_info().rss / 1e9)
            if plane % 10 == 0:
                log(f"plane {plane + 1} of {planes}: {most:.2f} GB")
    return most, sum(file.stat().st_size for file in folder.iterdir()) / 1e9


def row(side: int, latency: Latency) -> list[str]:
    """Return a row of the table of strokes."""
    median, most = TARGETS[side]
    fine = np.array(latency.fine)
    return [
        f"{side} x {side}",
        str(len(fine)),
        f"{np.median(latency.coarse):.2f}",
        f"{np.median(fine):.2f}",
        f"{np.quantile(fine, 0.95):.2f}",
        f"{np.median(latency.cpu):.2f}",
        f"{median:g}" + ("" if most is None else f", 95 % {most:g}"),
    ]


def render(
    strokes: Sequence[list[str]],
    visits: dict[str, list[float]],
    memory: tuple[float, float, int],
    machine: str,
) -> str:
    """Return the page."""
    head = ["view", "strokes", "coarse (s)", "full (s)", "95 % (s)", "CPU (s)", "at most (s)"]
    first = [
        [name, f"{np.median(times):.2f}", f"{max(times):.2f}", str(limit)]
        for (name, times), limit in zip(visits.items(), (1, 5), strict=True)
    ]
    gigabytes, disk, planes = memory
    return "\n".join(
        [
            "# Interactive sessions",
            "",
            f"{machine} Times need idle cores: `python -m benchmarks.runs.interactive`.",
            "",
            "From a stroke to the preview of the whole view, features of the plane at hand: every second",
            "pixel (coarse), every pixel (full); medians, 95 % of the strokes, and processor time.",
            "",
            table(head, strokes),
            "",
            "First visit of a plane, strokes elsewhere:",
            "",
            table(["stage", "median (s)", "most (s)", "at most (s)"], first),
            "",
            f"Memory of the process after {planes} visited planes: {gigabytes:.2f} GB (at most 2.5);"
            f" on disk {disk:.2f} GB.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, nargs="?", help="Markdown page to write")
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("interactive-cache"), help="for tokens on disk")
    parser.add_argument("--quick", action="store_true", help="few strokes and planes")
    options = parser.parse_args()
    strokes, visits, planes = (4, 1, 2) if options.quick else (50, 10, 100)
    sides = (512,) if options.quick else (512, 1024)
    rows = [row(side, measure_strokes(options, side, strokes)) for side in sides]
    visited = measure_visits(options, visits)
    memory, disk = measure_memory(options, planes, options.folder)
    page = render(rows, visited, (memory, disk, planes), describe_machine(options.threads))
    print(page)
    if options.page is not None:
        options.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
