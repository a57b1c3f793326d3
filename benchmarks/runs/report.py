"""Measure time, memory and size of a report: ``python -m benchmarks.runs.report``.

The output is synthetic: a small volume and its true labels, side by side as often as needed, are written in
the layout of a run, with its records and coarser levels, because a real run over a gigavoxel takes much
longer than its report.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import zarr

from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from hrvol.arrays import Shape3
from hrvol.phantom import draw_strokes, make_phantom
from hrvol.recipe.recipe import Recipe
from hrvol.run.ledger import Ledger
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import Model
from hrvol.training.train import train_model
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.ome.label_documents import LabelOutputs
from hrvol.volume.ome.labels import LabelStore, create_labels
from hrvol.volume.volume import Volume, open_volume
from hrvol.volume.write_image import write_image

SMALL = (48, 256, 256)

VOXEL_SIZE = (0.2, 0.2, 0.2)

RECIPE = Recipe.from_dict(
    {
        "features": {"kind": "classical", "classical": {"filters": ["gaussian"], "sigmas": [1]}},
        "classifier": {"trees": 5, "samples_per_class": 500},
        "tiles": {"core": 512, "overlap": 12, "planes": 64},
    }
)

_MEASURED = """
import json, resource, sys, time
began = time.perf_counter()
from hrvol.report.write_report import write_report
files = write_report(sys.argv[1], sys.argv[2])
cpu = time.process_time()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
planes = files.values["planes"]
level = None if planes is None else planes["level"]
print(json.dumps([time.perf_counter() - began, cpu, peak, files.page.stat().st_size, level]))
"""


def make_grey(folder: Path, shape: Shape3) -> tuple[Volume, np.ndarray]:
    """Write the grey volume with its coarser levels; return it and the labels of the small one."""
    phantom = make_phantom(SMALL, seed=0)
    small = np.rint(phantom.image / phantom.image.max() * 255).astype(np.uint8)
    repeats = [-(-side // length) for side, length in zip(shape, SMALL, strict=True)]
    tiled = dask.array.tile(dask.array.from_array(small, chunks=SMALL), repeats)
    z, y, x = shape
    volume = open_volume(tiled[:z, :y, :x], voxel_size=VOXEL_SIZE, unit="um")
    return write_image(folder / "grey.ome.zarr", volume), phantom.labels


def trained(folder: Path, labels: np.ndarray) -> Model:
    """Return a model whose classes are those of the labels."""
    image = open_volume(folder / "grey.ome.zarr").read(tuple(slice(0, side) for side in labels.shape))
    return train_model([(image, draw_strokes(labels, (8, 40)))], recipe=RECIPE)


def write_output(
    folder: Path, name: str, grey: Volume, model: Model, labels: np.ndarray, pyramid: bool
) -> Path:
    """Write an output of a run over the grey volume whose labels are the small ones, side by side."""
    small = folder / f"{name}-small.ome.zarr"
    segment_volume(np.zeros((2, 64, 64), np.uint8), small, model)
    made: dict[str, Any] = dict(zarr.open_group(small, mode="r").attrs["hrvol"])  # type: ignore[call-overload]
    made |= {"input": grey.identity(), "region": [[0, side] for side in grey.shape]}
    made["outputs"] = {**made["outputs"], "uncertainty": True}
    grid = BlockGrid(grey.shape, model.recipe.tiles)
    outputs = LabelOutputs(uncertainty=True)
    out = folder / f"{name}.ome.zarr"
    store = create_labels(
        out, grey, classes=model.classes, block_shape=grid.side, attributes=made, outputs=outputs
    )
    with Ledger(store.location, len(grid)) as ledger:
        for number in range(len(grid)):
            _write_block(store, ledger, grid, number, labels)
    if pyramid:
        store.finish()
    return out


def _write_block(store: LabelStore, ledger: Ledger, grid: BlockGrid, number: int, labels: np.ndarray) -> None:
    """Write a block and its record."""
    block = grid[number]
    indices = [
        np.arange(span.start, span.stop) % side for span, side in zip(block.core, labels.shape, strict=True)
    ]
    values = labels[np.ix_(*indices)]
    doubt = np.where(values == labels.max(), 200, 20).astype(np.uint8)
    store.write(block.core, values, uncertainty=doubt)
    (checksum,) = store.checksums([block.index])
    counts = {str(value): int(n) for value, n in enumerate(np.bincount(values.ravel())) if value and n}
    report = {"voxels": values.size, "seconds": 1.0, "counts": counts, "seams": [1000, 20, 5.0]}
    ledger.mark_done(number, checksum, read=values.size, peak=2**30, **report)


def measure(out: Path, page: Path) -> tuple[float, float, int, int, int | None]:
    """Write a report in a process of its own; return its seconds, those of CPU, memory, size, and level."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(out), str(page)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, cpu, peak, size, level = json.loads(done.stdout.splitlines()[-1])
    return seconds, cpu, peak, size, level


def render(rows: Sequence[Sequence[str]], shape: Shape3) -> str:
    """Return the page."""
    words = "" if list(shape) == parser().get_default("shape") else f" --shape {' '.join(map(str, shape))}"
    head = ["output", "seconds", "CPU seconds", "peak memory [MiB]", "page [MB]", "level of figures along z"]
    return f"""# Reports

Made by `python -m benchmarks.runs.report{words}`. {describe_machine(1)}

`hrvol report` in a process of its own, its imports included, on an output of {math.prod(shape) / 1e9:.2f}
gigavoxels ({" x ".join(map(str, shape))}) with uncertainty and its grey volume (uint8), both as OME-Zarr. The
output is synthetic: a phantom of {" x ".join(map(str, SMALL))} voxels and its true labels, side by side.

{table(head, rows, spaced=True)}"""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.runs.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--shape", type=int, nargs=3, default=[1000, 1024, 1024], metavar=("Z", "Y", "X"))
    options.add_argument("--folder", type=Path, help="keep the volumes and pages in this folder")
    options.add_argument("-o", "--out", type=Path, default=Path("benchmarks/runs/report.md"))
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the page."""
    options = parser().parse_args(arguments)
    z, y, x = options.shape
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        began = time.perf_counter()
        grey, labels = make_grey(folder, (z, y, x))
        log(f"grey volume in {time.perf_counter() - began:.0f} s")
        model = trained(folder, labels)
        rows = []
        for name, pyramid in (("complete", True), ("unfinished", False)):
            out = write_output(folder, name, grey, model, labels, pyramid)
            log(f"{out} written")
            seconds, cpu, peak, size, level = measure(out, folder / f"{name}.html")
            about = (
                "complete, with coarser levels" if pyramid else "all blocks done, no coarser levels of labels"
            )
            along = "none is small enough" if level is None else str(level)
            rows.append(
                [about, f"{seconds:.1f}", f"{cpu:.1f}", f"{peak / 2**20:.0f}", f"{size / 1e6:.2f}", along]
            )
            log(" | ".join(rows[-1]))
    options.out.write_text(render(rows, (z, y, x)), encoding="utf-8")


if __name__ == "__main__":
    main()
