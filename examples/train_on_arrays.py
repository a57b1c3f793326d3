"""Train on strokes, segment and evaluate, on arrays in memory.

    python examples/train_on_arrays.py

Uses classical features, so that it needs no weights and runs in a minute; set `recipe="balanced"` to use the
network as well. The volume can also be a path, a Dask array or an xarray.DataArray.
"""

import tempfile
from pathlib import Path

import hrvol
from hrvol.analysis.evaluate import evaluate_volumes
from hrvol.phantom import draw_strokes, make_phantom


def main() -> None:
    """Train on two planes of a synthetic electrode, segment all planes, compare with the ground truth."""
    phantom = make_phantom((8, 128, 128), seed=1)
    strokes = draw_strokes(phantom.labels, planes=(2, 6), strokes=4)

    model = hrvol.train_model([(phantom.image, strokes)], recipe="classical", classes=phantom.class_names)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "labels.ome.zarr"
        hrvol.segment_volume(phantom.image, out, model)
        scores = evaluate_volumes(out, phantom.labels)
    for name, value in scores["iou"].items():
        print(f"{name:10} IoU {value:.3f}")
    print(f"{'mean':10} IoU {scores['miou']:.3f}")


if __name__ == "__main__":
    main()
