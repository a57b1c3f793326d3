"""Measure how soon a session answers: from a stroke to its preview, on a first visit, and its memory.

Run it alone on a machine with idle cores: ``python -m benchmarks.runs.interactive``. With ``--convpaint`` and
the Python of an environment that has napari-convpaint, that draws the same strokes on the same view, too.

``--quick`` checks that it works, with few strokes and planes; its figures mean nothing and are printed only.
Other programs on the cores change the times, so the processor time of the session is measured too: on idle
cores the time from stroke to preview is between the processor time over the number of threads and the
processor time. What drawing itself takes is measured by ``benchmarks.runs.painting``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from benchmarks.runs.interactive_convpaint import Convpaint, Scene
from hrvol.classes import default_classes
from hrvol.errors import InputError
from hrvol.interactive.array_drawing import ArrayDrawing
from hrvol.interactive.results import Preview
from hrvol.interactive.session import Session
from hrvol.phantom import CLASS_NAMES, Phantom, draw_strokes, make_phantom
from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.volume import Volume

TARGETS = {512: (1.0, 1.5), 1024: (2.5, None)}
"""Seconds from a stroke to its preview by the side of the view: median, and 95 % of the strokes."""

VOLUME = (10_000, 10_000, 10_000)
"""Voxels of the volume on which memory is measured."""

OUTPUT = Path("benchmarks/runs/interactive.md")

START = 100
"""First row and column of the views."""

_LONGEST = 600.0

_BUDGET = 300.0  # seconds of the strokes of napari-convpaint


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
    """Return a phantom of at least this side: one of 512, repeated, because large ones take minutes.

    Each repetition along z is shifted: features are kept by content, so a plane that was seen costs nothing.
    """
    tile = make_phantom((min(planes, 8), 512, 512), seed=seed)
    depth, across = len(tile.image), -(-side // 512) + 1

    def stacked(values: np.ndarray) -> np.ndarray:
        shifted = (np.roll(values[z % depth], shift_of(z // depth), (0, 1)) for z in range(planes))
        return np.stack([np.tile(plane, (across, across)) for plane in shifted])

    return Phantom(stacked(tile.image), stacked(tile.labels))


def shift_of(number: int) -> tuple[int, int]:
    """Return by how many rows and columns a repetition is shifted: another one for the first 512."""
    return 37 * number % 512, 53 * number % 512


def first_strokes(phantom: Phantom) -> np.ndarray:
    """Return a few strokes ``(z, y, x)`` on the first plane of a phantom."""
    strokes = np.zeros_like(phantom.labels)
    strokes[:1, :512, :512] = draw_strokes(phantom.labels[:1, :512, :512], (0,), strokes=3, seed=1)
    return strokes


def begin(phantom: Phantom, options: argparse.Namespace, **changes: Any) -> tuple[Session, ArrayDrawing]:
    """Return a session on a phantom with a few strokes on its first plane."""
    strokes = first_strokes(phantom)
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


def scene_of(side: int, count: int) -> Scene:
    """Return what :func:`measure_strokes` shows and draws, cut to the view."""
    phantom, rng = scene(side, 1), np.random.default_rng(0)
    view = slice(START, START + side)
    drawn = [stroke_at(phantom.labels[0], rng, (START, START + side)) for _ in range(count)]
    places = np.array([(rows.start - START, columns.start - START) for rows, columns, _ in drawn])
    values = np.stack([stroke for _, _, stroke in drawn])
    return Scene(phantom.image[0, view, view], first_strokes(phantom)[0, view, view], places, values)


def measure_strokes(options: argparse.Namespace, side: int, count: int) -> Latency:
    """Draw strokes one after the other in a view whose features are there, each after its preview."""
    phantom = scene(side, 1)
    session, drawing = begin(phantom, options)
    watcher = Watcher(session)
    rng = np.random.default_rng(0)
    with session:
        session.view(0, slice(START, START + side), slice(START, START + side))
        session.live = True
        watcher.wait(lambda p: p.stage == "recipe" and p.complete and p.step == 1)
        coarse, fine, cpu = [], [], []
        process = psutil.Process()
        for number in range(count):
            rows, columns, values = stroke_at(phantom.labels[0], rng, (START, START + side))
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
        session.view(0, slice(START, START + 512), slice(START, START + 512))
        session.live = True
        watcher.wait(lambda p: p.stage == "recipe" and p.complete)
        for number in range(count):
            plane = 8 * number + 5
            began = time.perf_counter()
            session.view(plane, slice(START, START + 512), slice(START, START + 512))
            for stage in ("filters", "recipe"):
                when = watcher.wait(
                    lambda p, z=plane, s=stage: p.plane == z and p.complete and p.stage in (s, "recipe")
                )
                found.setdefault(stage, []).append(when - began)
            log(f"visit {number + 1}: {', '.join(f'{k} {v[-1]:.2f} s' for k, v in found.items())}")
    return found


@dataclass(frozen=True)
class Repeated:
    """A phantom that is repeated without end, shifted each time, of which nothing is stored."""

    tile: np.ndarray
    shape: tuple[int, int, int] = VOLUME

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels."""
        return self.tile.dtype

    def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
        z, y, x = (np.arange(n)[span] for span, n in zip(box, self.shape, strict=True))
        depth, height, width = self.tile.shape
        planes = []
        for plane in z:
            down, right = shift_of(int(plane) // depth)
            rows, columns = (y - down) % height, (x - right) % width
            planes.append(self.tile[plane % depth][np.ix_(rows, columns)])
        return np.stack(planes) if planes else np.empty((0, len(y), len(x)), self.tile.dtype)


def measure_memory(recipe: str, threads: int, planes: int, folder: Path) -> tuple[float, float, float]:
    """Visit planes of a volume of 10^12 voxels in turn, strokes in their store and features also on disk.

    Returns
    -------
    tuple
        The most memory of this process in GB, GB of features on disk, MB of strokes on disk.
    """
    phantom = make_phantom((8, 512, 512))
    image = Repeated(phantom.image)
    volume = Volume("volume", image, ("z", "y", "x"), (1.0, 1.0, 1.0), "micrometer", 3, "volume")
    cache, strokes = folder / "features", folder / "strokes.ome.zarr"
    with DrawingStore.create(strokes, volume, default_classes((1, 2, 3, 4), CLASS_NAMES)) as store:
        first = draw_strokes(phantom.labels[:1], (0,), strokes=3, seed=1)
        z, y, x = np.nonzero(first)
        store.paint((z, y, x), first[z, y, x])
        keywords: dict[str, Any] = {"recipe": recipe, "cache": cache, "device": "cpu", "threads": threads}
        with Session.open(volume, store, **keywords) as session:
            watcher = Watcher(session)
            session.live = True
            for number in range(planes):
                plane = number * (VOLUME[0] // planes)
                session.view(plane, slice(START, START + 512), slice(START, START + 512))
                watcher.wait(lambda p, z=plane: p.plane == z and p.stage == "recipe" and p.complete)
                watcher.seen.clear()
                if number % 10 == 0:
                    log(f"plane {number + 1} of {planes}: {_peak():.2f} GB")
    return _peak(), _size(cache) / 1e9, _size(strokes) / 1e6


def _peak() -> float:
    """Return the most memory that this process had, in GB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e9


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a process that has done nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


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
    memory: tuple[float, float, float, int],
    convpaint: str,
    machine: str,
) -> str:
    """Return the page."""
    head = ["view", "strokes", "coarse (s)", "full (s)", "95 % (s)", "CPU (s)", "at most (s)"]
    first = [
        [name, f"{np.median(times):.2f}", f"{max(times):.2f}", str(limit)]
        for (name, times), limit in zip(visits.items(), (1, 5), strict=True)
    ]
    gigabytes, disk, drawn, planes = memory
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
            f"Most memory of a process that visits {planes} planes of a volume of 10^12 voxels:"
            f" {gigabytes:.2f} GB (at most 2.5); features on disk {disk:.2f} GB, strokes {drawn:.2f} MB.",
            "",
            convpaint,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("-o", "--output", type=Path, help=f"Markdown page [{OUTPUT}, with --quick none]")
    add("--recipe", default="fast")
    add("--threads", type=int, default=2)
    add("--convpaint", type=Path, metavar="PYTHON", help="of an environment with napari-convpaint")
    add("--quick", action="store_true", help="few strokes and planes")
    options = parser.parse_args()
    strokes, visits, planes = (4, 1, 2) if options.quick else (50, 10, 100)
    sides = (512,) if options.quick else (512, 1024)
    with tempfile.TemporaryDirectory(prefix="hrvol-interactive-") as folder:
        # First, while nothing else is in memory or in the cache of the system.
        memory, disk, drawn = in_own_process(
            measure_memory, options.recipe, options.threads, planes, Path(folder)
        )
        latencies = {side: measure_strokes(options, side, strokes) for side in sides}
        visited = measure_visits(options, visits)
        beside = ""
        if options.convpaint is not None:
            convpaint = Convpaint(options.convpaint, options.threads, Path(folder))
            measured, failed = {}, []
            for side in sides:
                try:
                    measured[side] = convpaint.measure(
                        scene_of(side, strokes), 20 if options.quick else _BUDGET
                    )
                except InputError as error:  # it may need more memory than there is
                    failed.append(f"\n\nView of {side} x {side}: {error}.")
                    log(f"napari-convpaint, {side} px: {error}")
            hrvol = {side: latency.fine for side, latency in latencies.items()}
            visit = float(np.median(visited["recipe"]))
            beside = (convpaint.page(hrvol, visit, measured) if measured else "") + "".join(failed)
    rows = [row(side, latency) for side, latency in latencies.items()]
    machine = describe_machine(options.threads)
    page = render(rows, visited, (memory, disk, drawn, planes), beside, machine)
    print(page)
    output = options.output or (None if options.quick else OUTPUT)
    if output is not None:
        output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
