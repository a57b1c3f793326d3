"""Compute the similarity of a plane's pixels to a point: a process that the panel *Similar* starts.

``python -m hrvol.napari.heat VOLUME z y x FILE.npy [RECIPE]``
"""

from __future__ import annotations

import sys

from hrvol.napari.plane_process import print_progress, write_plane


def main(arguments: list[str]) -> int:
    """Write the map ``(y, x)``, float32 in [-1, 1], and return an exit code."""
    from hrvol.explore.similar import find_similar

    volume, z, y, x, file, *recipe = arguments
    point, used = (int(z), int(y), int(x)), recipe[0] if recipe else None
    return write_plane(
        lambda: find_similar(volume, [point], recipe=used, progress=print_progress).targets[0].heat, file
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
