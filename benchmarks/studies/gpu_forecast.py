"""Forecast GPU times of the presets from data sheets: ``python -m benchmarks.studies.gpu_forecast``.

No measurement: operations of the network and bytes that must move, divided by the rates of data sheets.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.markdown import table
from benchmarks.speed.peers import CHANNELS, DEPTH, PATCH
from benchmarks.speed.work import HALF, Work, network_flop, work_of
from hrvol.recipe.recipe import PRESETS
from hrvol.recipe.specs import DeepSpec

SHOWN = ("fast", "balanced", "best", "fast-0.1", "balanced-0.1", "best-0.1", "paper", "cas", "cas-volume")
CLASSICAL_CHANNELS = 58
UTILISATIONS = (0.2, 0.4)


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet: dense half-precision FLOP/s of its matrix units, and bytes/s of its memory."""

    name: str
    flops: float
    bandwidth: float


GPUS = (
    Gpu("A100 80 GB SXM", 312e12, 2.039e12),
    Gpu("H100 80 GB SXM", 989e12, 3.35e12),
)
A6000 = Gpu("RTX A6000", 154.8e12, 0.768e12)


@dataclass(frozen=True)
class Published:
    """Figures of the paper's table S4: its measurement, not ours."""

    name: str
    views: int
    seconds: float
    memory_mb: float


PUBLISHED = (
    Published("batched, shifts 1, 2", 17, 0.42, 1002),
    Published("sequential, shifts 1, 2", 17, 0.49, 472),
)
PUBLISHED_SIDE, PUBLISHED_REGISTERS = 350, 4
"""Of the image and the network in the notebook of the reference code that made table S4."""


def feature_bytes(spec: DeepSpec, kind: str = "hybrid") -> int:
    """Return the bytes of one pixel's features in half precision."""
    numbers = len(spec.block) if isinstance(spec.block, tuple) else 1
    return HALF * (CHANNELS * numbers + (CLASSICAL_CHANNELS if kind == "hybrid" else 0))


@dataclass(frozen=True)
class Outlook:
    """Seconds of one tile: of arithmetic at a utilisation, and of memory traffic at full bandwidth."""

    arithmetic: float
    memory: float

    @property
    def seconds(self) -> float:
        """The longer of both: they overlap at best."""
        return max(self.arithmetic, self.memory)


def outlook(work: Work, spec: DeepSpec, kind: str, gpu: Gpu, utilisation: float) -> Outlook:
    """Return the forecast for a tile.

    Features of pixels are written, and read and written again for each further view, and read in the end.
    """
    views = work.passes // (spec.offsets**2)
    pixels = work.pixels * feature_bytes(spec, kind) * (2 * views)
    return Outlook(work.flop / (utilisation * gpu.flops), (work.moved + pixels) / gpu.bandwidth)


def published_work() -> tuple[float, int]:
    """Return operations and tokens of one of the passes that table S4 of the paper timed."""
    side = (PUBLISHED_SIDE - PATCH) // 4 + 1
    tokens = side * side + 1 + PUBLISHED_REGISTERS
    return network_flop(tokens, DEPTH), tokens


def render(side: int, core: int, command: str) -> str:
    """Return the page, for tiles of some side (px) of which a core is kept."""
    works = {name: work_of(PRESETS[name].features.deep, (side, side)) for name in SHOWN}
    ratios = ", ".join(f"{gpu.flops / gpu.bandwidth:.0f} ({gpu.name})" for gpu in GPUS)
    head = f"""# Forecast for GPUs

**A forecast, not a measurement**: no GPU was used.
Made by `{command}`.

Operations are counted (matrix products of the network, ViT-S/14; norms and softmax left out), bytes are those
that have to move in half precision; time is the longer of operations / (utilisation x data-sheet peak) and
bytes / data-sheet bandwidth. A tile is {side} x {side} px, of which {core} x {core} are kept. Not counted:
filters, forest, decoding and writing, which must keep up beside it.

**Measured since on one H100** (`benchmarks/speed/gpu.md`): the network of `balanced` in half precision at 156
TFLOP/s, 16 % of the data sheet, so near the forecast. But all of it together labels 1.65 million voxels/s, a
teravoxel in 170 GPU hours and not in 5: filters, spreading and what happens between them do not keep up.

## Cost of a voxel

FLOP/B: operations for each byte of activations. The GPUs' own ratios are {ratios}:
a preset below them is bound by memory before it reaches the peak.

"""
    titles = ["preset", "passes x tokens", "blocks", "MFLOP / voxel", "activations, kB / voxel", "FLOP/B"]
    rows = [_cost_row(name, work, core) for name, work in works.items()]
    costs = table([*titles, "features, B / voxel"], rows)
    return f"{head}{costs}\n{_times(works, core)}\n{_published()}"


def _kind(name: str) -> str:
    return PRESETS[name].features.kind


def _cost_row(name: str, work: Work, core: int) -> list[str]:
    kept = core * core
    return [
        f"`{name}`",
        f"{work.passes} x {max(work.tokens)}",
        str(work.blocks),
        f"{work.flop / kept / 1e6:.2f}",
        f"{work.moved / kept / 1e3:.1f}",
        f"{work.flop / work.moved:.0f}",
        str(feature_bytes(PRESETS[name].features.deep, _kind(name))),
    ]


def _times(works: dict[str, Work], core: int) -> str:
    titles = [f"{gpu.name}, {100 * part:.0f} %" for gpu in GPUS for part in UTILISATIONS]
    rows = []
    for name, work in works.items():
        spec = PRESETS[name].features.deep
        cells = []
        for gpu in GPUS:
            for part in UTILISATIONS:
                found = outlook(work, spec, _kind(name), gpu, part)
                hours = found.seconds / core**2 * 1e12 / 3600
                cells.append(f"{hours:,.0f}".replace(",", " ") + " m" * (found.memory > found.arithmetic))
        rows.append([f"`{name}`", *cells])
    return f"""## Time of a teravoxel

GPU hours for 10^12 voxels (1 TB of 8 bits) on one GPU; *m*: memory is the bound, not arithmetic.

{table(["preset", *titles], rows)}"""


def _published() -> str:
    flop, tokens = published_work()
    measured = [
        [
            row.name,
            row.views,
            f"{row.seconds:.2f}",
            f"{row.memory_mb:.0f}",
            f"{row.views * flop / row.seconds / 1e12:.0f}",
            f"{100 * row.views * flop / row.seconds / A6000.flops:.0f} %",
            f"{1e6 * row.seconds / PUBLISHED_SIDE**2:.1f}",
        ]
        for row in PUBLISHED
    ]
    sequential = max(PUBLISHED, key=lambda row: row.seconds)
    utilisation = sequential.views * flop / sequential.seconds / A6000.flops
    forecast = []
    for name in ("fast", "balanced", "best", "paper"):
        spec = PRESETS[name].features.deep
        work = work_of(spec, (PUBLISHED_SIDE, PUBLISHED_SIDE))
        seconds = outlook(work, spec, "deep", A6000, utilisation).seconds
        forecast.append(
            [
                f"`{name}`",
                f"{work.flop / 1e12:.2f}",
                f"{seconds:.3f}",
                f"{1e6 * seconds / work.pixels:.2f}",
                f"{100 * seconds / sequential.seconds:.1f} %",
            ]
        )
    head = ["paper's way", "views", "s", "MB", "TFLOP/s", "of the peak", "us / voxel"]
    return f"""## Beside what is published

The paper's table S4: DINOv2-S/14, stride 4, float16, {A6000.name} ({A6000.flops / 1e12:.1f}\
 TFLOP/s dense, {A6000.bandwidth / 1e12:.3f} TB/s).
The table does not say how large the image is; the notebook of the reference code that makes it
takes {PUBLISHED_SIDE} x {PUBLISHED_SIDE} px: {tokens} tokens, {flop / 1e12:.2f} TFLOP a view.
What its times then are of the peak is the only measured utilisation in this document:

{table(head, measured)}
Forecast of hrvol on the same image and GPU, at the lower of these utilisations, or at full
bandwidth where that is longer; the deep features alone:

{table(["preset", "TFLOP", "s", "us / voxel", "of the paper's sequential time"], forecast)}
No throughput of napari-convpaint on a GPU is known, and none is guessed: `benchmarks/speed/speed.md` has
it on the CPU, beside hrvol and the reference code.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.gpu_forecast", description=__doc__)
    parser.add_argument("--side", type=int, default=518, help="of a tile, px")
    parser.add_argument("--core", type=int, default=448, help="of it that is kept, px")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/studies/gpu_forecast.md"))
    options = parser.parse_args(arguments)
    words = ["python -m benchmarks.studies.gpu_forecast"]
    for name in ("side", "core"):
        if getattr(options, name) != parser.get_default(name):
            words.append(f"--{name} {getattr(options, name)}")
    options.output.write_text(render(options.side, options.core, " ".join(words)), encoding="utf-8")


if __name__ == "__main__":
    main()
