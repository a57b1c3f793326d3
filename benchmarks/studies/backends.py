"""Compare what computes students on a CPU: ``python -m benchmarks.studies.backends --cache DIR``.

The students are those of the first drawing of ``python -m benchmarks.quality.students --cache DIR``.
Each predicts the compared planes of its data set on one thread. int8 (NNCF, calibrated on 8 windows of the
volume) and ONNX Runtime are measured where they are installed; hrvol itself has torch and OpenVINO.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.data import DENSE, FURTHER, load_dense
from benchmarks.machine import describe_machine, log
from benchmarks.markdown import table
from benchmarks.results import load, save
from hrvol.quality.metrics import Confusion, mean_iou
from hrvol.run.students.predict_student import run_lattice
from hrvol.segment.model.model import load_model
from hrvol.segment.student.network import network_arrays
from hrvol.segment.student.openvino_network import graph
from hrvol.segment.student.runner import StudentRunner
from hrvol.volume.intensity import to_unit
from hrvol.volume.volume import open_volume

OUTPUT = Path(__file__).parent / "backends.md"

ALL = (*DENSE, *FURTHER)

CALIBRATION = 8

Levels = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    figures = args.output.with_suffix(".json")
    found = load(figures)
    for name in args.datasets:
        for file in sorted(args.cache.glob(f"{name}-*/auto-0-{args.size}-*.hrvol")):
            found[f"{name} {args.size}"] = measure(name, file)
            save(figures, found)
    args.output.write_text(render(found), encoding="utf-8")
    return 0


def measure(name: str, file: Path) -> dict[str, dict[str, float]]:
    """Return time, changed labels and mean IoU of a student with each backend."""
    data, model = load_dense(name), load_model(file)
    student: Any = replace(model.classifier, temperature=1.0)
    volume = open_volume(data.images)
    lattice = run_lattice(volume.shape, student, "cpu")
    unit = to_unit(volume.read(), model.window)
    depth = lattice.cell[0]
    layers = sorted({z // depth * depth for z in data.test})
    inside = (slice(0, side) for side in volume.shape[1:])
    box = (slice(layers[0], min(layers[-1] + depth, volume.shape[0])), *inside)
    cells = [cell for cell in lattice.cells((box[0], box[1], box[2])) if cell[0].start in layers]
    windows = [np.ascontiguousarray(lattice.cut(lattice.window(cell), unit, (0, 0, 0))) for cell in cells]
    rows: dict[str, dict[str, float]] = {}
    exact: NDArray[np.uint8] | None = None
    for backend, runner in _runners(student, windows).items():
        labels = np.zeros(volume.shape, np.uint8)
        runner.scores(windows[0])  # compiles
        seconds = 0.0
        for cell, window in zip(cells, windows, strict=True):
            began = time.process_time()
            scores = runner.scores(window)
            seconds += time.process_time() - began
            placed = np.asarray(scores.placed(np.asarray(scores.values).argmax(0).astype(np.uint8))) + 1
            target = labels[cell]
            target[:] = placed[tuple(slice(0, side) for side in target.shape)]
        compared = labels[list(data.test)]
        exact = compared if exact is None else exact
        matrix = Confusion.of(compared, data.truth[list(data.test)], len(data.classes)).matrix
        voxels = sum(int(np.prod([s.stop - s.start for s in cell])) for cell in cells)
        rows[backend] = {
            "us": round(1e6 * seconds / voxels, 4),
            "changed": round(float((compared != exact).mean()), 6),
            "miou": round(mean_iou(matrix), 5),
        }
        log(f"{name}, {backend}: {rows[backend]}")
    return rows


def _runners(student: Any, windows: Sequence[NDArray[np.float32]]) -> dict[str, StudentRunner]:
    runners = {name: StudentRunner(student, backend=name) for name in ("torch", "openvino", "openvino-bf16")}
    inputs: list[NDArray[np.float32]] = []
    recording = StudentRunner(student)
    levels = recording._levels
    recording._levels = lambda first: levels(inputs.append(first.copy()) or first)  # type: ignore[func-returns-value]
    for window in windows[:: max(1, len(windows) // CALIBRATION)][:CALIBRATION]:
        recording.scores(window)
    arrays = network_arrays(recording._network)
    others: dict[str, Callable[[], Levels]] = {
        "openvino, int8": lambda: _int8(student.spec, arrays, inputs),
        "onnxruntime": lambda: _onnx(recording, inputs[0]),
    }
    for (name, make), package in zip(others.items(), ("nncf", "onnxruntime"), strict=True):
        if find_spec(package) is not None:
            runners[name] = StudentRunner(student)
            runners[name]._levels = make()
    return runners


def _int8(spec: Any, arrays: Any, inputs: Sequence[NDArray[np.float32]]) -> Levels:
    import nncf
    import openvino

    calibration = nncf.Dataset(list(inputs))
    model = nncf.quantize(graph(spec, arrays, inputs[0].shape), calibration, subset_size=len(inputs))
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "bf16"}
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda first: request.infer(first, share_inputs=True, share_outputs=True)[0]


def _onnx(runner: StudentRunner, first: NDArray[np.float32]) -> Levels:
    import onnxruntime

    network, is_3d = runner._network.to(memory_format=torch.contiguous_format), runner.spec.is_3d

    class Levels(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if is_3d:
                return network.levels(x.permute(3, 0, 1, 2)[None])[0].permute(1, 2, 3, 0)
            return network.levels(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    file = io.BytesIO()
    torch.onnx.export(Levels(), (torch.from_numpy(first),), file, dynamo=False, input_names=["x"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file.getvalue(), options, ["CPUExecutionProvider"])
    return lambda values: session.run(None, {"x": values})[0]


def render(found: dict[str, Any]) -> str:
    """Return the page of results."""
    lines = ["# What computes students on CPUs", "", "Made by", "", "```"]
    lines += ["python -m benchmarks.studies.backends --cache DIR", "```", ""]
    lines += [f"Machine: {describe_machine(1)}.", "", " ".join((__doc__ or "").split("\n\n")[1].split()), ""]
    rows = []
    for name, backends in found.items():
        exact = backends["torch"]
        for backend, row in backends.items():
            times = exact["us"] / row["us"]
            change = f"{row['miou'] - exact['miou']:+.4f}" if row is not exact else f"{row['miou']:.4f}"
            rows.append(
                [name, backend, f"{row['us']:.3f}", f"{times:.2f}", f"{100 * row['changed']:.3f}", change]
            )
    head = ["student", "backend", "us a voxel", "times as fast", "labels changed, %", "mean IoU, change"]
    return "\n".join([*lines, table(head, rows), ""])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.backends", description=__doc__)
    add = parser.add_argument
    add("--datasets", nargs="*", choices=ALL, default=list(ALL), metavar="NAME", help=f"of {', '.join(ALL)}")
    add("--size", default="small")
    add("--cache", type=Path, default=Path("benchmark-cache"), help="folder of the students")
    add("-o", "--output", type=Path, default=OUTPUT)
    return parser


if __name__ == "__main__":
    sys.exit(main())
