"""What processes have in common that compute an array of a plane for the plugin."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import HrvolError, one_line


def write_plane(compute: Callable[[], NDArray[Any]], file: str) -> int:
    """Write what a function computes as a ``.npy`` file, and return an exit code; errors are one line."""
    try:
        values = compute()
    except HrvolError as error:
        print(f"hrvol: error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        print(f"hrvol: error: unexpected {one_line(error)} (a fault in hrvol)", file=sys.stderr)
        return 1
    np.save(Path(file), values, allow_pickle=False)
    return 0


def print_progress(stage: str, done: int, total: int) -> None:
    """Print a line of progress, as the plugin reads it."""
    percent = 100 * done // max(1, total)
    print(f"{stage}: {percent} % ({done} of {total}), computing", file=sys.stderr, flush=True)
