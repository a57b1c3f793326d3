"""Open, close and smooth label maps by balls: steps for which a voxel depends on those around it only.

Voxels outside of the map do not count: nothing is eroded from the borders of a volume, nor grown into it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hrvol.analysis.cleaning.steps import CLOSE, MAJORITY, OPEN, Step
from hrvol.arrays import Spacing3
from hrvol.errors import InputError

_EDGE = 1 + 1e-6  # voxels at exactly the radius belong to the ball

_MOST_VALUES = 255


def apply_filter(labels: NDArray[Any], step: Step, *, background: bool = False) -> NDArray[Any]:
    """Return a label map after a local step.

    Parameters
    ----------
    labels
        Unsigned integers ``(z, y, x)``.
    step
        ``open``, ``close`` or ``majority``. Opening gives the voxels that no ball inside the class covers to
        the nearest other class (of equally near ones the smallest value). Closing gives the class the voxels
        that no ball outside of it covers. The majority is the most frequent class of the ball (of equally
        frequent ones the smallest value).
    background
        Whether 0 is a class like others. Otherwise it is what is not labelled: it has no vote and is not
        changed by the majority, and is given to voxels only where there is nothing else.

    Returns
    -------
    numpy.ndarray
        Of the same type. Correct from :attr:`Step.reach` voxels on from where a map was cut.

    Raises
    ------
    InputError
        There are more than 255 values, of the majority.
    """
    if step.name == MAJORITY:
        return _majority(labels, step.radius, background)
    (value,) = step.classes
    inside = labels == value
    if step.name == CLOSE:
        grown = _within(inside, step.radius)
        closed = ~_within(~grown, step.radius)
        return np.where(closed, np.asarray(value, labels.dtype), labels)
    assert step.name == OPEN
    core = inside & ~_within(~inside, step.radius)
    lost = inside & ~_within(core, step.radius)
    result = labels.copy()
    if step.into is not None:
        result[lost] = step.into
    elif lost.any():
        result[lost] = _nearest_other(labels, lost, value, step.radius, background)
    return result


def ball(radius: Spacing3) -> NDArray[np.bool_]:
    """Return the ball of half-axes (z, y, x) in voxels, as a map of odd sides."""
    sides = [int(np.floor(r + 1e-6)) for r in radius]
    offsets = np.meshgrid(*(np.arange(-side, side + 1) for side in sides), indexing="ij")
    inside: NDArray[np.bool_] = _distance(offsets, radius) <= _EDGE
    return inside


def _within(mask: NDArray[np.bool_], radius: Spacing3) -> NDArray[np.bool_]:
    """Return where a ball around a voxel holds one of a mask."""
    if not mask.any():
        return np.zeros_like(mask)
    distance = ndimage.distance_transform_edt(~mask, sampling=[1 / r for r in radius])
    near: NDArray[np.bool_] = distance <= _EDGE
    return near


def _majority(labels: NDArray[Any], radius: Spacing3, background: bool) -> NDArray[Any]:
    from skimage.filters import rank  # takes a while to import

    values, indices = np.unique(labels, return_inverse=True)
    if len(values) > _MOST_VALUES:
        raise InputError(f"labels: found {len(values)} values in a block, expected at most {_MOST_VALUES}")
    of_voxel = indices.reshape(labels.shape).astype(np.uint8)  # in order of value
    votes = np.ones(labels.shape, np.uint8) if background else (labels > 0).astype(np.uint8)
    winners = values[rank.majority(of_voxel, ball(radius).astype(np.uint8), mask=votes)]
    return np.where(votes > 0, winners, labels).astype(labels.dtype)


def _nearest_other(
    labels: NDArray[Any], lost: NDArray[np.bool_], value: int, radius: Spacing3, background: bool
) -> NDArray[Any]:
    """Return for each lost voxel the nearest other value; where none is in the ball, its own."""
    sides = [int(np.floor(r + 1e-6)) for r in radius]
    padded = np.pad(labels, [(side, side) for side in sides], constant_values=value)
    places = np.stack(np.nonzero(lost), axis=1) + sides
    found = np.full(len(places), value, labels.dtype)
    last = found.copy()  # what is not labelled, for where there is nothing else
    open_places = np.arange(len(places))
    offsets = np.stack(np.nonzero(ball(radius)), axis=1) - sides
    distances = np.round(_distance(offsets.T, radius), 6)
    for distance in np.unique(distances)[1:]:
        if not len(open_places):
            break
        best = np.full(len(open_places), np.iinfo(np.int64).max)
        for offset in offsets[distances == distance]:
            z, y, x = (places[open_places] + offset).T
            other = padded[z, y, x].astype(np.int64)
            skip = (other == value) | ((other == 0) & (not background))
            if not background:
                last[open_places[other == 0]] = 0
            best = np.where(skip, best, np.minimum(best, other))
        done = best < np.iinfo(np.int64).max
        found[open_places[done]] = best[done]
        open_places = open_places[~done]
    found[open_places] = last[open_places]
    return found


def _distance(offset: Any, radius: Spacing3) -> Any:
    """Return the length of offsets (z, y, x) in radii."""
    return np.sqrt(sum((part / r) ** 2 for part, r in zip(offset, radius, strict=True)))
