"""Compare forecasts of ``hrvol plan`` with runs: ``python -m benchmarks.runs.forecast``.

Two runs are planned, one with classical features on a synthetic volume, one with deep ones on vnc; each run
follows its plan at once, with two workers of the local engine. Time, memory of a worker, bytes decoded, bytes
and files written are compared.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.data import load_dense
from benchmarks.markdown import line, table
from hrvol.phantom import draw_strokes, make_phantom
from hrvol.planning.plan import Plan, check_resources
from hrvol.planning.plan_run import plan_run
from hrvol.progress import duration
from hrvol.run.report import SegmentReport
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import save_model
from hrvol.training.train import train_model
from hrvol.volume.volume import open_volume
from hrvol.volume.write_image import write_image

WORKERS = 2
AIM = 0.25

STEADY = 1.2
"""Plans before and after a run differ by less than this factor if other work on the machine was the same."""


@dataclass(frozen=True)
class Case:
    """A planned run: its name, files and options."""

    name: str
    volume: Path
    model: Path
    options: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """Plan, run and another plan, with load averages before each and at the end.

    The peak memory of workers comes from the system: reports of blocks do not cover the coarser levels.
    """

    case: str
    plan: Plan
    again: Plan
    report: SegmentReport
    peak: int
    nbytes: int
    files: int
    loads: tuple[float, ...]

    @property
    def steady(self) -> bool:
        """Whether other work on the machine was about the same before and after the run."""
        both = sorted([self.plan.seconds, self.again.seconds])
        return both[1] <= STEADY * both[0]


class Watch:
    """Record the peak memory of child processes, while a ``with`` statement lasts.

    Attributes
    ----------
    peak
        Bytes of the largest.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.2):
            for child in psutil.Process().children(recursive=True):
                with suppress(OSError, StopIteration):  # has ended
                    lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
                    peak = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
                    self.peak = max(self.peak, int(peak) * 1024)


def phantom_case(folder: Path, planes: int) -> Case:
    """Return a phantom of 251 Mvoxel, a smaller one with its mirror images, and a model of it."""
    phantom = make_phantom((32, 512, 512), seed=1)
    model = train_model(
        [(phantom.image, draw_strokes(phantom.labels, [8, 20]))],
        recipe="classical",
        classes=phantom.class_names,
    )
    large = np.pad(phantom.image, ((0, 96), (0, 888), (0, 888)), "symmetric")
    write_image(folder / "phantom.ome.zarr", open_volume(large))
    save_model(model, folder / "classical.hrvol")
    roi = (slice(0, planes), slice(0, 960), slice(0, 960))
    return Case(
        f"phantom, classical, {planes} x 960 x 960 of 128 x 1400 x 1400",
        folder / "phantom.ome.zarr",
        folder / "classical.hrvol",
        {"roi": roi, "uncertainty": True},
    )


def vnc_case(folder: Path, planes: int) -> Case:
    """Return the first planes of vnc, and a model with deep features."""
    data = load_dense("vnc")
    strokes = draw_strokes(data.truth, data.train[:2])
    model = train_model([(data.images, strokes)], recipe="fast", classes=data.classes)
    write_image(folder / "vnc.ome.zarr", open_volume(data.images))
    save_model(model, folder / "fast.hrvol")
    roi = (slice(0, planes), slice(0, 1024), slice(0, 1024))
    return Case(
        f"vnc, fast, {planes} x 1024 x 1024",
        folder / "vnc.ome.zarr",
        folder / "fast.hrvol",
        {"roi": roi, "probabilities": True},
    )


def in_process(make: Callable[[Path, int], Case], folder: Path, planes: int) -> Case:
    """Make a case in a process of its own, to keep its memory out of this one."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(make, folder, planes).result()


def run_case(case: Case, folder: Path, seconds: float) -> Result:
    """Plan a run, run it, and plan it again."""
    out = folder / "out.ome.zarr"
    loads = [os.getloadavg()[0]]
    engine: dict[str, Any] = {"engine": "local", "workers": WORKERS}
    plan = plan_run(case.volume, out, case.model, seconds=seconds, **engine, **case.options)
    check_resources(plan)
    loads.append(os.getloadavg()[0])
    with Watch() as watch:
        report = segment_volume(case.volume, out, case.model, **engine, **case.options)
    loads.append(os.getloadavg()[0])
    files = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    other = folder / "again.ome.zarr"
    again = plan_run(case.volume, other, case.model, seconds=seconds, **engine, **case.options)
    loads.append(os.getloadavg()[0])
    nbytes, count = sum(files), len(files)
    return Result(case.name, plan, again, report, watch.peak, nbytes, count, tuple(loads))


def render(results: Sequence[Result], options: argparse.Namespace) -> str:
    """Return the page."""
    memory = max(abs(result.plan.worker_memory / result.peak - 1) for result in results)
    times = [abs(result.plan.seconds / result.report.seconds - 1) for result in results if result.steady]
    farthest = f"{100 * max(times):.0f} %" if times else "not measured, as other work changed every time"
    head = ["run", "load", "time: plan, run, plan again", "memory of a worker", "decoded", "output", "files"]
    return f"""# Forecasts

Made by `{command(options)}`, on {os.cpu_count()} CPUs that other work shared. A plan
tries blocks for about {options.seconds:g} s besides the start of the workers; the run follows at once,
{WORKERS} workers of the local engine each, and then another plan. Load: processes that ran or waited, in the
mean of a minute, before each of the three and at the end. Where the plans differ by more than a fifth, other
work was not the same during the run, and its time is set in brackets.

The aim is to forecast time and memory within {100 * AIM:.0f} %. Farthest off here: time by {farthest}, memory
of a worker by {100 * memory:.0f} %.

{table(head, map(_row, results), spaced=True)}"""


def _row(result: Result) -> list[str]:
    plan, report = result.plan, result.report
    times = ", ".join(duration(seconds) for seconds in (plan.seconds, report.seconds, result.again.seconds))
    times = f"{times} ({_off(plan.seconds, report.seconds)})"
    return [
        result.case,
        ", ".join(f"{value:.1f}" for value in result.loads),
        times if result.steady else f"[{times}]",
        _pair(plan.worker_memory, result.peak),
        _pair(plan.read, report.read),
        _pair(plan.output_bytes, result.nbytes),
        f"{plan.files}, {result.files}",
    ]


def _pair(planned: float, measured: float) -> str:
    """Return two numbers of bytes in MiB, and how far the first is off."""
    return f"{planned / 2**20:.0f}, {measured / 2**20:.0f} MiB ({_off(planned, measured)})"


def _off(planned: float, measured: float) -> str:
    return f"{100 * (planned / measured - 1):+.0f} %"


def command(options: argparse.Namespace) -> str:
    """Return the command that reproduces these figures."""
    default = parser().parse_args([])
    words = ["python -m benchmarks.runs.forecast"]
    for name in ("planes", "vnc_planes", "repeats", "seconds"):
        value = getattr(options, name)
        words += [f"--{name.replace('_', '-')} {value:g}"] * (value != getattr(default, name))
    return " ".join(words)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.forecast",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--planes", type=int, default=8, help="of the phantom to label")
    options.add_argument("--vnc-planes", type=int, default=4)
    options.add_argument("--repeats", type=int, default=2)
    options.add_argument("--seconds", type=float, default=30, help="for which a plan tries blocks")
    options.add_argument("-o", "--out", type=Path, default=Path("benchmarks/runs/forecast.md"))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    options = parser().parse_args(arguments)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for make, planes in ((phantom_case, options.planes), (vnc_case, options.vnc_planes)):
            case = in_process(make, folder, planes)
            for repeat in range(options.repeats):
                target = folder / f"{case.volume.name}-{repeat}"
                target.mkdir()
                results.append(run_case(case, target, options.seconds))
                print(line(_row(results[-1])), flush=True)
    options.out.write_text(render(results, options), encoding="utf-8")


if __name__ == "__main__":
    main()
