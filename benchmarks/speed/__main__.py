"""Measure hrvol's speed beside the reference code and napari-convpaint: ``python -m benchmarks.speed``.

Everything is measured on this machine, in turn, on the same images with the same weights, each in a process
of its own (``benchmarks.speed.own``, ``benchmarks.speed.peers``). ``--hrdv2`` is a checkout of the reference
code; ``--convpaint`` the Python of an environment that has napari-convpaint. Writes a Markdown page, its
figures as JSON and a picture, side by side, after each measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import data_dir, load_dense
from benchmarks.machine import describe_machine, log
from benchmarks.results import load, save_parts
from benchmarks.speed.peers import JOBS as PEERS
from benchmarks.speed.tables import CONVPAINT, FILTERS, HRVOL, REFERENCE, render, save_curves
from benchmarks.speed.work import work_of
from hrvol.device import cpus
from hrvol.errors import HrvolError, InputError
from hrvol.features.weights.registry import load_verified
from hrvol.recipe.recipe import PRESETS
from hrvol.recipe.specs import DeepSpec, FeatureSpec

ROOT = Path(__file__).resolve().parents[2]
BOUND = 1e-3
"""The reference code must give the recorded features to this relative error before it is timed."""

GUESS = 45e9
"""FLOP/s of a thread, to estimate times until the machine's own rate is measured."""

BUDGET = 60.0
"""Seconds for the repeats of a measurement; longer ones are not repeated after the peers either."""

OFFSETS = (1, 2, 3, 4, 5, 7)
SHIFTS: tuple[tuple[int, ...], ...] = ((), (1,), (1, 2))
WORKERS = (1, 2)
PLANES_SIDE = 896
CEILINGS = (("balanced", 518), ("balanced", 336), ("paper", 336))


@dataclass
class Session:
    """Options of the measurements, and the figures so far, as they are written to JSON."""

    options: argparse.Namespace
    folder: Path
    parts: dict[str, Any]
    rate: float
    images: dict[int, Path] = field(default_factory=dict)

    def part(self, name: str) -> dict[str, Any]:
        """Start a part over and return it."""
        about = {"command": command(self.options), "machine": describe_machine(self.options.threads)}
        self.parts[name] = {**about, "rows": []}
        figures: dict[str, Any] = self.parts[name]
        return figures

    def image(self, side: int) -> Path:
        """Return a file of a square image: the middle of a real plane, mirrored where it is too small."""
        if side not in self.images:
            plane = load_dense("vnc").images[0]
            more = max(0, side - min(plane.shape))
            plane = np.pad(plane, ((0, more), (0, more)), "symmetric")
            top, left = ((length - side) // 2 for length in plane.shape)
            self.images[side] = self.folder / f"{side}.npy"
            np.save(self.images[side], np.ascontiguousarray(plane[top : top + side, left : left + side]))
        return self.images[side]

    def weights(self) -> Path:
        """Return a file of the cached weights for processes that have no hrvol."""
        file = self.folder / "weights.npz"
        if not file.is_file():
            arrays: dict[str, Any] = {
                key: value.numpy() for key, value in load_verified("dinov2_vits14")[0].items()
            }
            np.savez(file, **arrays)
        return file

    def do(self, what: str, *, python: str = sys.executable, **job: Any) -> dict[str, Any]:
        """Run one job in a process of its own and return its figures.

        Raises
        ------
        InputError
            The process failed; the message has its last line.
        """
        threads = self.options.threads
        arguments = {"what": what, "threads": threads, **job}
        # Workers have a thread each, unless their environment sets another number.
        count = 1 if what == "volume" else threads
        limits = {f"{name}_NUM_THREADS": str(count) for name in ("OMP", "MKL", "OPENBLAS")}
        module = "peers" if what in PEERS else "own"
        command = [python, "-m", f"benchmarks.speed.{module}", json.dumps(arguments, default=str)]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | limits, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise InputError(f"{what} ({python}): {last}; expected figures")
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return figures

    def save(self) -> None:
        """Write figures, page and picture."""
        out: Path = self.options.output
        parts = {name: self.parts[name] for name in PARTS if name in self.parts}
        rounded = {name: {**part, "rows": _rounded(part["rows"])} for name, part in parts.items()}
        save_parts(out.with_suffix(".json"), rounded)
        picture = out.with_suffix(".png")
        save_curves(self.parts, picture)
        out.write_text(render(self.parts, picture.name), encoding="utf-8")

    def hrvol(self, spec: FeatureSpec, side: int, together: bool = False) -> dict[str, Any]:
        """Time hrvol's features of an image."""
        options = self.options
        return self.do(
            "hrvol",
            spec=spec.to_dict(),
            image=self.image(side),
            repeats=options.repeats,
            budget=BUDGET,
            time_limit=options.time_limit,
            flop_rate=self.rate,
            together=together,
        )


def utilisation(session: Session) -> None:
    """Measure the machine's ceiling and hrvol's network beside it."""
    part = session.part("utilisation")
    largest = max(session.options.sides)
    for name, side in dict.fromkeys((name, min(side, largest)) for name, side in CEILINGS):
        spec = PRESETS[name].features.deep
        figures = session.do("ceiling", spec=spec.to_dict(), side=side, seconds=session.options.seconds)
        part["rows"].append({"name": name, **figures})
        network, square = (figures[key] / 1e9 for key in ("network", "square"))
        log(f"{name}, {side} px: network {network:.1f} of {square:.1f} GFLOP/s")
        session.save()
    session.rate = part["rows"][0]["network"]


def compare(session: Session) -> None:
    """Time hrvol, the peers, and hrvol again, for each size of image."""
    options, part = session.options, session.part("compare")
    part["left_out"] = []
    if options.hrdv2:
        part["check"] = session.do(
            "check",
            checkout=options.hrdv2.resolve(),
            weights=session.weights(),
            features=data_dir() / "hrdv2_features",
        )
        worst = max(part["check"], key=part["check"].__getitem__)
        if part["check"][worst] > BOUND:
            raise InputError(
                f"{options.hrdv2}: features {worst} are {part['check'][worst]:.1e} off those recorded,"
                f" expected less than {BOUND:g}"
            )
        log(f"reference code: recorded features reproduced to {part['check'][worst]:.1e}")
    else:
        part["left_out"].append("the reference code (`--hrdv2` was not given)")
    if not options.convpaint:
        part["left_out"].append("napari-convpaint (`--convpaint` was not given)")
    for side in options.sides:
        _compare_side(session, part, side)


def _compare_side(session: Session, part: dict[str, Any], side: int) -> None:
    options = session.options

    def add(who: str, name: str, when: str, figures: dict[str, Any]) -> None:
        row = {"views": 1, "of": 1} | figures
        part["rows"].append({"who": who, "name": name, "side": side, "round": when, **row})
        session.save()
        shown = ", ".join(f"{value * row['of'] / row['views']:.2f}" for value in row["seconds"])
        log(f"{side} px, {who} {name} ({when}): {shown} s, {row['peak_mb']:.0f} MB")

    filters = FeatureSpec(kind="classical")
    quick = []
    for name in options.presets:
        figures = session.hrvol(_deep(name), side, together=True)
        add(HRVOL, name, "before", figures)
        if sum(figures["seconds"]) <= BUDGET:
            quick.append(name)
    add(FILTERS, "classical", "before", session.hrvol(filters, side, together=True))
    if options.hrdv2:
        job = {"checkout": options.hrdv2.resolve(), "time_limit": options.time_limit}
        figures = session.do("reference", weights=session.weights(), image=session.image(side), **job)
        add(REFERENCE, "published", "once", figures)
    if options.convpaint:
        try:
            figures = session.do(
                "convpaint",
                python=str(options.convpaint),
                weights=session.weights(),
                image=session.image(side),
                repeats=options.repeats,
                budget=BUDGET,
            )
            add(CONVPAINT, "dinov2", "once", figures)
        except InputError as error:
            log(str(error))
            part["left_out"].append(f"napari-convpaint at {side} px (it failed)")
    for name in quick:
        add(HRVOL, name, "after", session.hrvol(_deep(name), side, together=True))


def scaling(session: Session) -> None:
    """Time hrvol's presets on images of growing side, while the estimate is below the time limit."""
    options, part = session.options, session.part("scaling")
    for side in options.scaling_sides:
        for name in options.presets:
            spec = _deep(name)
            estimate = work_of(spec.deep, (side, side)).flop / session.rate
            if estimate > options.time_limit:
                log(f"{side} px, {name}: left out, some {estimate:.0f} s")
                continue
            figures = session.hrvol(spec, side)
            part["rows"].append({"who": HRVOL, "name": name, "side": side, "round": "before", **figures})
            session.save()
            log(f"{side} px, {name}: {min(figures['seconds']):.2f} s, {figures['peak_mb']:.0f} MB")


def views(session: Session) -> None:
    """Time growing numbers of interleaved offsets, and of shifted views, on one image."""
    side, part = session.options.sides[0], session.part("views")
    plain = PRESETS["balanced"].features.deep
    specs: dict[str, dict[str, Any]] = {f"offsets {count} x {count}": {"offsets": count} for count in OFFSETS}
    specs |= {
        f"shifts {', '.join(map(str, shifts)) or 'none'}": {"offsets": 1, "shifts": shifts}
        for shifts in SHIFTS
    }
    for name, changes in specs.items():
        deep = DeepSpec.model_validate(plain.to_dict() | changes)
        figures = session.hrvol(FeatureSpec(kind="deep", deep=deep), side)
        part["rows"].append({"who": HRVOL, "name": name, "side": side, "round": "before", **figures})
        session.save()
        log(f"{name}: {min(figures['seconds']):.2f} s, {figures['passes']} passes")


def workers(session: Session) -> None:
    """Label a small volume with one worker and with two, and again the other way round."""
    options, part = session.options, session.part("workers")
    side = min(PLANES_SIDE, options.volume_side)
    made = session.do("train", folder=session.folder, planes=options.planes, side=side, preset="fast")
    for number, count in enumerate((*WORKERS, *reversed(WORKERS))):
        out = session.folder / f"{number}.ome.zarr"
        figures = session.do("volume", **made, out=out, workers=count)
        about = f"{options.planes} planes of {side} x {side} px of vnc"
        part["rows"].append({"name": "fast", "workers": count, "about": about, **figures})
        session.save()
        log(f"{count} workers: {figures['seconds'][0]:.1f} s")


PARTS: dict[str, Callable[[Session], None]] = {
    "utilisation": utilisation,
    "compare": compare,
    "scaling": scaling,
    "views": views,
    "workers": workers,
}


def _deep(preset: str) -> FeatureSpec:
    return FeatureSpec(kind="deep", deep=PRESETS[preset].features.deep)


def _rounded(value: Any) -> Any:
    """Round figures to five digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def command(options: argparse.Namespace) -> str:
    """Return the command that reproduces these figures, without the paths of the peers."""
    default = parser().parse_args([])
    words = ["python", "-m", "benchmarks.speed"]
    words += ["--hrdv2", "HR-Dv2"] * bool(options.hrdv2)
    words += ["--convpaint", "venv/bin/python"] * bool(options.convpaint)
    names = ("parts", "sides", "presets", "scaling_sides", "repeats", "time_limit", "planes", "volume_side")
    for name in (*names, "seconds", "threads"):
        value = getattr(options, name)
        if list(np.ravel(value)) != list(np.ravel(getattr(default, name))):
            words += [f"--{name.replace('_', '-')}", *(f"{item}" for item in np.ravel(value))]
    return shlex.join(words)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = options.add_argument
    add("--hrdv2", type=Path, metavar="PATH", help="checkout of the reference code")
    add("--convpaint", type=Path, metavar="PYTHON", help="of an environment with napari-convpaint")
    add("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS), metavar="PART")
    add("--sides", nargs="+", type=int, default=[336, 518], help="of the images that are compared on, px")
    add("--presets", nargs="+", choices=tuple(PRESETS), default=["fast", "balanced", "best", "paper"])
    add("--scaling-sides", nargs="+", type=int, default=[112, 224, 336, 518, 700, 896, 1120])
    add("--repeats", type=int, default=3, help="of a measurement, where the time limit allows them")
    add("--time-limit", type=float, default=300, help="seconds; slower settings run some views only")
    add("--seconds", type=float, default=2, help="to measure one matrix product")
    add("--planes", type=int, default=2, help="of the volume that workers label")
    add("--volume-side", type=int, default=PLANES_SIDE, help="of its planes, px")
    add("--threads", type=int, default=cpus())
    add("--add", action="store_true", help="keep the figures of other parts in the JSON")
    add("-o", "--output", type=Path, default=Path("benchmarks/speed/speed.md"), help="Markdown page")
    return options


def _check(options: argparse.Namespace) -> None:
    """Raise InputError if a peer is missing, before anything is measured."""
    if options.hrdv2 and not (options.hrdv2 / "hr_dv2").is_dir():
        raise InputError(
            f"{options.hrdv2}: found no folder hr_dv2, expected a checkout of the reference code"
        )
    if options.convpaint and not os.access(options.convpaint, os.X_OK):
        raise InputError(f"{options.convpaint}: found no program, expected the Python of an environment")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the page after each measurement."""
    options = parser().parse_args(arguments)
    figures = options.output.with_suffix(".json")
    parts = load(figures) if options.add else {}
    try:
        _check(options)
        with tempfile.TemporaryDirectory(prefix="hrvol-speed-") as name:
            session = Session(options, Path(name), parts, GUESS * options.threads)
            if "utilisation" in parts:
                session.rate = parts["utilisation"]["rows"][0]["network"]
            for part in PARTS:
                if part in options.parts:
                    PARTS[part](session)
    except HrvolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
