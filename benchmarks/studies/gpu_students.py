"""Forecast students on GPUs from data sheets: ``python -m benchmarks.studies.gpu_students``.

No measurement: the operations of the convolutions and the bytes that must move, divided by the rates of data
sheets. Each convolution, pooling, enlargement and rearrangement reads and writes its arrays once, in half
precision; local normalisation makes 12 passes in single precision; voxels of the windows' margins count.
Over the bus go a byte of grey values and a byte of labels a voxel.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from benchmarks.markdown import table
from benchmarks.studies.gpu_forecast import GPUS, Gpu
from hrvol.segment.student.lattice import GPU_PLANES, lattice_of
from hrvol.segment.student.shapes import convolutions, flop_per_voxel
from hrvol.segment.student.spec import NAMES, StudentSpec, student_spec

OUTPUT = Path(__file__).parent / "gpu_students.md"

CLASSES = 4

HALF, SINGLE = 2, 4

NORMALISING = 12
"""Passes over single-precision grey values that local normalisation makes, reads and writes together."""

UTILISATIONS = (0.1, 0.3)
"""Of the arithmetic: convolutions of few channels fill matrix units badly."""

BUS = 25e9
"""Bytes per second over PCIe 4.0 x16 in one direction, in practice."""

SHAPE = (4096, 16384, 16384)


def bytes_per_voxel(spec: StudentSpec, classes: int = CLASSES) -> float:
    """Return the bytes of memory traffic of a prediction per voxel of its window."""
    cells = [prod(spec.stem)]
    for pool in spec.pools:
        cells.append(cells[-1] * prod(pool))
    numbers = 0.0
    for one in convolutions(spec, classes):
        numbers += (one.shape[0] + one.shape[1]) / cells[one.level]
    for level in range(len(spec.pools)):
        width, below = spec.widths[level], spec.widths[level] / cells[level + 1]
        numbers += width / cells[level] + below  # pooling
        numbers += below + 2 * width / cells[level]  # enlargement, added to what was kept
    numbers += 2 * spec.channels + 2 * classes  # rearrangement at both ends
    return HALF * numbers + SINGLE * (NORMALISING + classes)


def forecast(spec: StudentSpec, gpu: Gpu, utilisation: float) -> dict[str, float]:
    """Return voxels per second of labelled voxels by what limits them."""
    lattice = lattice_of(SHAPE, spec, GPU_PLANES, CLASSES)
    window = prod(c + 2 * around for c, around in zip(lattice.cell, spec.network_halo, strict=True))
    computed = window / prod(lattice.cell)
    arithmetic = utilisation * gpu.flops / (flop_per_voxel(spec, CLASSES) * computed)
    return {
        "arithmetic": arithmetic,
        "memory": gpu.bandwidth / (bytes_per_voxel(spec) * computed),
        "bus": BUS,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    args.output.write_text(render(), encoding="utf-8")
    return 0


def render() -> str:
    """Return the page."""
    lines = ["# Students on GPUs: a forecast", "", "Made by", "", "```"]
    lines += ["python -m benchmarks.studies.gpu_students", "```", ""]
    lines += [" ".join((__doc__ or "").split("\n\n", 1)[1].split()), ""]
    rows: list[list[Any]] = []
    for sees in ("planes", "volume"):
        for size in NAMES:
            spec = student_spec(size, sees)  # type: ignore[arg-type]
            for gpu in GPUS:
                low, high = (forecast(spec, gpu, utilisation) for utilisation in UTILISATIONS)
                least = [min(found["arithmetic"], found["memory"]) / 1e9 for found in (low, high)]
                rows.append(
                    [
                        f"{size}, {sees}",
                        gpu.name,
                        f"{flop_per_voxel(spec, CLASSES) / 1e3:.1f}",
                        f"{bytes_per_voxel(spec):.0f}",
                        f"{low['arithmetic'] / 1e9:.1f} to {high['arithmetic'] / 1e9:.1f}",
                        f"{low['memory'] / 1e9:.1f}",
                        f"{least[0]:.1f} to {least[1]:.1f}",
                        f"{1e3 / 3600 / least[0]:.2f} h",
                    ]
                )
    head = ["student", "GPU", "kFLOP a voxel", "bytes a voxel", "by arithmetic, Gvoxel/s"]
    head += ["by memory, Gvoxel/s", "the smaller", "10^12 voxels at the lowest rate"]
    lines += [table(head, rows), ""]
    lines += [
        f"The bus carries {BUS / 1e9:.0f} Gvoxel/s each way: a store of data is the limit before the GPU is."
        " None of this has run on a GPU.",
        "",
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.gpu_students", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    return parser


if __name__ == "__main__":
    sys.exit(main())
