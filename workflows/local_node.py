"""Train on strokes and segment a volume with all cores of one machine: copy, change the paths, run.

    python workflows/local_node.py volume.ome.zarr strokes.tif labels.ome.zarr

The volume and the strokes may be Zarr, OME-Zarr or TIFF. Strokes are an integer image as large as the
volume: 0 where nothing is drawn, 1, 2, ... for the classes. Ctrl-C stops after the blocks in progress, a
second one at once; run it again, and it goes on where it was.
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
def say(news: str) -> None:
    """Log something, if it was not said before."""
    LOG.info("%s", news)


def tell(stage: str, done: float, total: float) -> None:
    """Log what has been done; called often."""
    say(f"{stage}: {100 * done / max(total, 1):.0f} %")


def main() -> int:
    """Train and save a model unless there is one, segment; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("volume", "strokes", "out"):
        parser.add_argument(name)
    parser.add_argument("--model", type=Path, default="model.hrvol", help="taken if it is there, else made")
    parser.add_argument("--recipe", default="balanced", help="preset or YAML file")
    parser.add_argument("--workers", type=int, help="worker processes; default: one per core")
    given = parser.parse_args()
    # A handler of its own: with a root handler Dask would tell of workers that are "lost" when they end.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for logger in (LOG, logging.getLogger("hrvol")):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)

    try:
        if given.model.exists():  # a model can be applied to other volumes without new strokes
            LOG.info("taking %s as it is; delete it to train anew", given.model)
        else:
            pair = given.volume, given.strokes
            model = hrvol.train_model([pair], recipe=given.recipe, classes=CLASSES, progress=tell)
            hrvol.save_model(model, given.model)
        with hrvol.stop_signals(ends=True) as stop:
            report = hrvol.segment_volume(
                *(given.volume, given.out, given.model),
                engine="local",
                workers=given.workers,
                uncertainty=True,
                progress=tell,
                stop=stop,
            )
    except HrvolError as error:  # one line that tells what was found and what was expected
        LOG.error("%s", error)
        return error.exit_code
    for failure in report.failed:
        LOG.error("%s", failure)
    return 1 if report.failed else 0


# Worker processes import this file: without the guard each would start workers of its own.
if __name__ == "__main__":
    sys.exit(main())
