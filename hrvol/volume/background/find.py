"""Find what of a volume holds no material: the rim of a round reconstruction, and air around a sample.

What is not clearly background is material; so is a margin around it. No material may be lost: a run that
computes too much is slow, one that computes too little is wrong.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from hrvol.arrays import Shape3
from hrvol.volume.background.coarse_mask import CoarseMask
from hrvol.volume.background.coarse_values import CoarseValues, read_coarsely
from hrvol.volume.volume import Volume

MARGIN = 8
"""Voxels around material that are kept at least, and always a cell."""

LEAST = 0.02
"""Share of a volume below which background is not worth a mask."""

_BORDER = 0.75  # share of the border that air has to cover

_SIGMAS = 5.0  # how far from the median of air its cells may be

_APART = 4.0  # least distance of air and material, in standard deviations of air

_DARKER = 0.05  # share of material that may be darker than air

_ONE = 0.9  # share of the cells of the sample that are connected

_OPENING = 2  # cells

_CLOSING = 0.04  # of the longest side of a plane: gaps in a sample up to twice as wide are material

Cells = NDArray[np.bool_]


def find_material(volume: Volume) -> CoarseMask | None:
    """Return the mask of a volume's material, ``None`` if there is no background worth a mask.

    The rim of a round reconstruction is what has, in every plane that is read, the one value of all four
    corners. Air is one connected, uniform region that covers most of the border of the field of view, darker
    than nearly all else, and clearly separated by Otsu's threshold (Otsu, 1979) of the cells' means. It
    surrounds one object, of which pores and gaps are a part: inclusions in a matrix are no samples in air.

    Parameters
    ----------
    volume
        The volume; read as :func:`hrvol.volume.background.coarse_values.read_coarsely` does.

    Raises
    ------
    InputError
        The volume cannot be read.
    """
    values = read_coarsely(volume)
    z, y, x = (math.ceil(MARGIN / factor) for factor in values.factors)
    field = ~_rim(values)
    air = _air(values, field)
    parts = [] if field.all() else ["rim of a round reconstruction"]
    parts += [] if air is None else ["air around the sample"]
    material = _grown(field, (1, 1, 1))  # what is constant in all planes is no material: cells are the margin
    if air is not None:
        material &= _grown(field & ~air, (z, y, x))
    mask = CoarseMask(material, values.factors, volume.shape, " and ".join(parts))
    return mask if parts and mask.share >= LEAST else None


def _rim(values: CoarseValues) -> Cells:
    """Return cells that have in all planes the one value of the corners, and are connected with one."""
    low, high = values.low, values.high
    ends = np.stack([part[:, i, j] for part in (low, high) for i in (0, -1) for j in (0, -1)])
    none = np.zeros(low.shape, np.bool_)
    if ends.min() != ends.max():
        return none
    value = ends.flat[0]
    constant = ((low == value) & (high == value)).all(axis=0)
    labels, _ = ndimage.label(constant)
    at_corners = {int(labels[i, j]) for i in (0, -1) for j in (0, -1)} - {0}
    rim = np.isin(labels, list(at_corners))
    if rim.all():  # nothing but one value
        return none
    return np.broadcast_to(rim, low.shape).copy()


def _air(values: CoarseValues, field: Cells) -> Cells | None:
    """Return the cells of air around a sample in the field of view, ``None`` if it is not clear."""
    mean = values.mean
    inside = mean[field]
    if inside.size < 64 or float(inside.min()) == float(inside.max()):
        return None
    threshold = float(threshold_otsu(inside[:: max(1, inside.size // 2**22)]))
    border = _border(field)
    dark = border & (mean <= threshold)
    if np.count_nonzero(dark) < _BORDER * np.count_nonzero(border):
        return None
    median = [float(np.median(part[dark])) for part in (values.low, mean, values.high)]
    spread = [
        1.4826 * float(np.median(np.abs(part[dark] - centre)))
        for part, centre in zip((values.low, mean, values.high), median, strict=True)
    ]
    rest = inside[inside > threshold]
    if not rest.size or float(np.median(rest)) - median[1] < _APART * max(spread[1], 1e-12):
        return None
    limit = min(_SIGMAS * spread[1], threshold - median[1])
    like_air = field & (np.abs(mean - median[1]) <= limit)
    # A grain of dust changes the extremes of a cell long before its mean.
    like_air &= values.high <= median[2] + _SIGMAS * max(spread[2], spread[1])
    like_air &= values.low >= median[0] - _SIGMAS * max(spread[0], spread[1])
    # Cells that the edge of the field divides hold air and the rim's value, which is mostly darker.
    edge = field & ndimage.binary_dilation(~field, _plane_structure())
    if edge.any() and float(values.low[~field].min()) <= median[1]:
        like_air |= edge & (values.high <= median[2] + _SIGMAS * max(spread[2], spread[1]))
    filled = _between_planes(~like_air & field)
    if not _is_one(filled & field):
        return None  # inclusions in a matrix
    opened = _opened(~filled) & field
    labels, _ = ndimage.label(opened | ~field)
    at_border = np.unique(labels[border & opened])
    air = opened & np.isin(labels, at_border[at_border > 0])
    material = field & ~air
    if np.count_nonzero(air & border) < _BORDER * np.count_nonzero(border) or not material.any():
        return None
    darker = material & (mean < median[1] - limit)
    if np.count_nonzero(darker) > _DARKER * np.count_nonzero(material):
        return None  # it may be a phase of the sample: pores are darker
    return air if air.mean() >= LEAST else None


def _border(field: Cells) -> Cells:
    """Return the cells of the field of view that are next to its edge in their plane."""
    inner = ndimage.binary_erosion(field, _plane_structure(), border_value=0, iterations=2)
    return np.asarray(field & ~inner)


def _between_planes(material: Cells) -> Cells:
    """Close gaps in the material of each plane, and fill its holes: they are part of the sample."""
    radius = max(1, round(_CLOSING * max(material.shape[1:])))
    closed = np.zeros(material.shape, np.bool_)
    for plane, out in zip(material, closed, strict=True):
        if not plane.any():
            continue
        padded = np.pad(plane, 2 * radius)
        near = ndimage.distance_transform_edt(~padded) <= radius
        shrunk = ndimage.distance_transform_edt(near) > radius
        inside = slice(2 * radius, -2 * radius)
        out[...] = ndimage.binary_fill_holes((shrunk | padded)[inside, inside])
    return closed


def _is_one(material: Cells) -> bool:
    """Return whether nearly all material is connected: a sample, not inclusions."""
    labels, count = ndimage.label(material)
    largest = int(np.bincount(labels.ravel())[1:].max(initial=0))
    return bool(count) and largest >= _ONE * int(np.count_nonzero(material))


def _opened(background: Cells) -> Cells:
    """Return background without its narrow parts, in each plane; the border of the array does not count."""
    structure = _plane_structure()
    eroded = ndimage.binary_erosion(background, structure, iterations=_OPENING, border_value=1)
    return np.asarray(ndimage.binary_dilation(eroded, structure, iterations=_OPENING) & background)


def _plane_structure() -> Cells:
    square: Cells = ndimage.generate_binary_structure(2, 2)
    return square[None]


def _grown(material: Cells, margin: Shape3) -> Cells:
    """Return material with a margin of cells on all sides."""
    size = tuple(2 * cells + 1 for cells in margin)
    return np.asarray(ndimage.maximum_filter(material.astype(np.uint8), size=size) > 0)
