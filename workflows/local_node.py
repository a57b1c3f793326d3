"""Train on strokes and segment a volume with all cores of one machine: copy, change the paths, run.

    python workflows/local_node.py volume.ome.zarr strokes.tif labels.ome.zarr

The volume and the strokes may be Zarr, OME-Zarr or TIFF. Strokes are an integer image as large as the
volume: 0 where nothing is drawn, 1, 2, ... for the classes.
"""

import argparse
import logging

import hrvol

LOG = logging.getLogger("local_node")
CLASSES = ["pore", "binder", "particle"]  # names of the values 1, 2, 3; None: "class 1", ...


def tell(stage: str, done: float, total: float) -> None:
    """Log what has been done; called often."""
    LOG.info("%s: %.0f %%", stage, 100 * done / max(total, 1))


def main() -> None:
    """Train, save the model, segment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("volume")
    parser.add_argument("strokes")
    parser.add_argument("out")
    parser.add_argument("--recipe", default="balanced", help="preset or YAML file")
    parser.add_argument("--workers", type=int, help="worker processes; default: one per core")
    arguments = parser.parse_args()
    # A handler of its own: with a root handler Dask would tell of workers that are "lost" when they end.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)

    model = hrvol.train_model(
        [(arguments.volume, arguments.strokes)], recipe=arguments.recipe, classes=CLASSES, progress=tell
    )
    hrvol.save_model(model, "model.hrvol")  # can be applied to other volumes without new strokes

    report = hrvol.segment_volume(
        arguments.volume,
        arguments.out,
        "model.hrvol",
        engine="local",
        workers=arguments.workers,
        uncertainty=True,
        progress=tell,
    )
    for failure in report.failed:
        LOG.error("%s", failure)
    raise SystemExit(1 if report.failed else 0)


# Worker processes import this file: without the guard each would start workers of its own.
if __name__ == "__main__":
    main()
