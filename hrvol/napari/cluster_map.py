"""Compute the nearest cluster of each pixel of a plane: a process that the box *Merge again* starts.

``python -m hrvol.napari.cluster_map VOLUME MODEL.hrvol z FILE.npy [y0:y1,x0:x1]``
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from hrvol.errors import HrvolError, one_line


def main(arguments: list[str]) -> int:
    """Write the map ``(y, x)``, uint16, and return an exit code; errors are one line."""
    from hrvol.run.nearest_clusters import nearest_clusters
    from hrvol.segment.model.model import load_model

    volume, model, z, file, *box = arguments
    try:
        nearest = nearest_clusters(
            volume, load_model(model), int(z), _spans(box[0]) if box else None, progress=_print
        )
    except HrvolError as error:
        print(f"hrvol: error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        print(f"hrvol: error: unexpected {one_line(error)} (a fault in hrvol)", file=sys.stderr)
        return 1
    np.save(Path(file), nearest, allow_pickle=False)
    return 0


def _spans(text: str) -> tuple[slice, slice]:
    rows, columns = (slice(*map(int, span.split(":"))) for span in text.split(","))
    return rows, columns


def _print(stage: str, done: int, total: int) -> None:
    percent = 100 * done // max(1, total)
    print(f"{stage}: {percent} % ({done} of {total}), computing", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
