"""Select and read single planes of volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError, UsageError
from hrvol.recipe.recipe import CLUSTER_BLOCK, Recipe
from hrvol.recipe.specs import ClusterSpec, DeepSpec, FeatureSpec, IntensitySpec
from hrvol.volume.grid.tiling import whole
from hrvol.volume.intensity import Window, common_window, to_unit
from hrvol.volume.volume import Volume

LOOK_RECIPE = Recipe(
    features=FeatureSpec(kind="deep", deep=DeepSpec(block=CLUSTER_BLOCK, offsets=2, flips=True)),
    cluster=ClusterSpec(position_degree=6),
)
"""Default recipe of ``similar`` and ``pca``: as fast as the preset ``deep``, with the positional component
subtracted, which makes the same thing look different at another place."""


def find_plane(volume: Volume, plane: int | None, advice: str = "choose it with --plane z") -> int:
    """Check the number of a plane of a volume; an image has only plane 0, whatever ``plane`` is.

    Raises
    ------
    UsageError
        The volume has several planes, and ``plane`` is ``None`` (the message ends in ``advice``) or not one
        of them.
    """
    depth = volume.shape[0]
    if depth == 1:
        return 0
    if plane is None:
        raise UsageError(f"{volume.source}: found a stack of {depth} planes, expected one plane; {advice}")
    if not 0 <= plane < depth:
        raise UsageError(f"{volume.source}: found plane {plane}, expected 0 <= z < {depth}")
    return plane


def unit_windows(volumes: Sequence[Volume], spec: IntensitySpec, seed: int) -> dict[Volume, Window]:
    """Return the intensity window of each volume.

    Volumes of one data type share a window, which holds the windows of all of them, because a grey value
    means the same in them. Between types it does not.
    """
    by_type: dict[Any, list[Volume]] = {}
    for volume in dict.fromkeys(volumes):
        by_type.setdefault(volume.dtype, []).append(volume)
    shared = {kind: common_window(same_type, spec, seed) for kind, same_type in by_type.items()}
    return {volume: shared[volume.dtype] for volume in volumes}


def read_plane(volume: Volume, z: int, window: Window) -> NDArray[np.float32]:
    """Return one plane ``(Y, X)``, or ``(Y, X, 3)`` of colour, in [0, 1].

    Raises an :class:`InputError` if a value is not finite.
    """
    _, rows, columns = whole(volume.shape)
    raw = volume.read((slice(z, z + 1), rows, columns))
    plane: NDArray[np.float32] = to_unit(raw, window, source=volume.source, origin=(z, 0, 0))[0]
    return plane


def is_plain(plane: NDArray[np.float32]) -> bool:
    """Return whether all pixels of a plane have one grey value, or one colour."""
    return not np.ptp(plane, axis=(0, 1)).any()


def check_seen(plane: NDArray[np.float32], name: str) -> None:
    """Raise an :class:`InputError` if a plane has one grey value only: its features would show positions."""
    if is_plain(plane):
        raise InputError(f"{name}: found one grey value everywhere, expected structure")


def name_of(volume: Volume, z: int) -> str:
    """Return the name of a plane: the volume's short name, and the plane's number where there are several."""
    return volume.name if volume.shape[0] == 1 else f"{volume.name}, plane {z}"
