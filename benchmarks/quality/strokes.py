"""Draw reproducible brush strokes with ``tools/scribbles.py`` beside the shared data."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import Dense, data_dir
from hrvol.errors import InputError


def draw(
    data: Dense, seed: int, *, planes: Sequence[int] | None = None, strokes: int = 10
) -> NDArray[np.uint8]:
    """Draw strokes of at most 40 steps.

    Parameters
    ----------
    data
        The data set.
    seed
        Of the strokes.
    planes
        To draw on; ``None``: the training planes.
    strokes
        Per class and plane.

    Returns
    -------
    NDArray[np.uint8]
        ``(Z, Y, X)``; 0 is not drawn.
    """
    chosen = list(data.train if planes is None else planes)
    drawn: NDArray[np.uint8] = _tool().scribble(data.truth, chosen, strokes=strokes, seed=seed)
    return drawn


def _tool() -> ModuleType:
    path = data_dir().parent / "tools" / "scribbles.py"
    spec = importlib.util.spec_from_file_location("scribbles", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"{path}: found no such file, expected the tool that draws strokes")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool
