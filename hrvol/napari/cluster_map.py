"""Compute the nearest cluster of each pixel of a plane: a process that the box *Merge again* starts.

``python -m hrvol.napari.cluster_map VOLUME MODEL.hrvol z FILE.npy [y0:y1,x0:x1]``
"""

from __future__ import annotations

import sys

from hrvol.napari.plane_process import print_progress, write_plane


def main(arguments: list[str]) -> int:
    """Write the map ``(y, x)``, uint16, and return an exit code."""
    from hrvol.run.nearest_clusters import nearest_clusters
    from hrvol.segment.model.model import load_model

    volume, model, z, file, *box = arguments
    spans = _spans(box[0]) if box else None
    return write_plane(
        lambda: nearest_clusters(volume, load_model(model), int(z), spans, progress=print_progress), file
    )


def _spans(text: str) -> tuple[slice, slice]:
    rows, columns = (slice(*map(int, span.split(":"))) for span in text.split(","))
    return rows, columns


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
