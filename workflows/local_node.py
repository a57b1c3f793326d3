"""Train on strokes and segment a volume with all cores of one machine: copy, change the paths, run.

    python workflows/local_node.py volume.ome.zarr strokes.tif labels.ome.zarr

The volume and the strokes may be Zarr, OME-Zarr or TIFF. Strokes are an integer image as large as the
volume: 0 where nothing is drawn, 1, 2, ... for the classes. Ctrl-C stops after the blocks in progress, a
second one at once; run the script again to resume.
"""

import argparse
import logging
import sys
from functools import cache
from pathlib import Path

import hrvol
from hrvol.errors import HrvolError

LOG = logging.getLogger("local_node")
CLASSES = ["pore", "binder", "particle"]  # names of the values 1, 2, 3; None: "class 1", ...


@cache
def log_once(message: str) -> None:
    """Log a message the first time it occurs."""
    LOG.info("%s", message)


def log_progress(stage: str, done: float, total: float) -> None:
    """Log the progress in percent; called often."""
    log_once(f"{stage}: {100 * done / max(total, 1):.0f} %")


def main() -> int:
    """Train and save a model unless it exists, then segment; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("volume", "strokes", "out"):
        parser.add_argument(name)
    parser.add_argument("--model", type=Path, default="model.hrvol", help="used if it exists, else trained")
    parser.add_argument("--recipe", default="balanced", help="preset or YAML file")
    parser.add_argument("--workers", type=int, help="worker processes; default: one per core")
    arguments = parser.parse_args()
    # Not the root logger: Dask would log workers as "lost" when they end.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for logger in (LOG, logging.getLogger("hrvol")):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)

    try:
        if arguments.model.exists():  # a model can be applied to other volumes without new strokes
            LOG.info("using %s; delete it to train again", arguments.model)
        else:
            pair = arguments.volume, arguments.strokes
            model = hrvol.train_model([pair], recipe=arguments.recipe, classes=CLASSES, progress=log_progress)
            hrvol.save_model(model, arguments.model)
        with hrvol.stop_signals(ends=True) as stop:
            report = hrvol.segment_volume(
                *(arguments.volume, arguments.out, arguments.model),
                engine="local",
                workers=arguments.workers,
                uncertainty=True,
                progress=log_progress,
                stop=stop,
            )
    except HrvolError as error:  # its message is one line
        LOG.error("%s", error)
        return error.exit_code
    for failure in report.failed:
        LOG.error("%s", failure)
    return 1 if report.failed else 0


# Worker processes import this file: without the guard each would start its own workers.
if __name__ == "__main__":
    sys.exit(main())
