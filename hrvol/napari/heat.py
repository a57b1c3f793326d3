"""Compute the similarity of a plane's pixels to a point: a process that the panel *Similar* starts.

``python -m hrvol.napari.heat VOLUME z y x FILE.npy [RECIPE]``
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from hrvol.errors import HrvolError, one_line


def main(arguments: list[str]) -> int:
    """Write the map ``(y, x)``, float32 in [-1, 1], and return an exit code; errors are one line."""
    from hrvol.explore.similar import find_similar

    volume, z, y, x, file, *recipe = arguments
    try:
        result = find_similar(
            volume, [(int(z), int(y), int(x))], recipe=recipe[0] if recipe else None, progress=_print
        )
    except HrvolError as error:
        print(f"hrvol: error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        print(f"hrvol: error: unexpected {one_line(error)} (a fault in hrvol)", file=sys.stderr)
        return 1
    np.save(Path(file), result.targets[0].heat, allow_pickle=False)
    return 0


def _print(stage: str, done: int, total: int) -> None:
    percent = 100 * done // max(1, total)
    print(f"{stage}: {percent} % ({done} of {total}), computing", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
