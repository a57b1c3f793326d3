"""Draw the surfaces of classes in 3D, without a display: marching cubes and matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.measure import marching_cubes

from hrvol.arrays import Spacing3

MOST_FACES = 250_000
"""Most triangles of a picture; beyond, the labels are taken coarser."""

_INCHES, _DPI = 6.0, 120

_SMOOTH = 0.7  # voxels

Colour = tuple[int, int, int]


def draw_surfaces(
    labels: NDArray[np.integer[Any]], colours: Mapping[int, Colour], spacing: Spacing3
) -> NDArray[np.uint8] | None:
    """Draw the surfaces of some classes inside the frame of the volume.

    Parameters
    ----------
    labels
        ``(z, y, x)``, some million voxels at most.
    colours
        Of the values to be drawn.
    spacing
        Voxel size (z, y, x).

    Returns
    -------
    numpy.ndarray or None
        uint8 ``(Y, X, 3)`` on white; ``None`` if none of the classes occurs.
    """
    step = 1
    while True:
        coarse = labels[::step, ::step, ::step]
        size = tuple(side * step for side in spacing)
        meshes = [
            (mesh, colour) for value, colour in colours.items() if (mesh := _mesh(coarse == value, size))
        ]
        faces = sum(len(mesh[1]) for mesh, _ in meshes)
        if faces <= MOST_FACES or min(coarse.shape) < 8:
            break
        step += 1
    if not meshes:
        return None
    figure = Figure(figsize=(_INCHES, _INCHES))
    FigureCanvasAgg(figure)
    axes: Any = figure.add_axes((0, 0, 1, 1), projection="3d")
    axes.set_axis_off()
    triangles = np.concatenate([vertices[faces] for (vertices, faces), _ in meshes])
    shades = np.concatenate([_shaded(vertices, faces, colour) for (vertices, faces), colour in meshes])
    axes.add_collection3d(
        Poly3DCollection(triangles, facecolors=shades, edgecolors="none", antialiased=False)
    )
    lengths = [side * length for side, length in zip(spacing[::-1], labels.shape[::-1], strict=True)]
    axes.add_collection3d(Line3DCollection(_frame(lengths), colors="#606060", linewidths=1.0))
    axes.set_xlim(0, lengths[0])
    axes.set_ylim(lengths[1], 0)  # y points down in the planes
    axes.set_zlim(lengths[2], 0)
    axes.set_box_aspect(lengths, zoom=0.85)
    axes.view_init(elev=28, azim=-56)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=_DPI, format="png")
    return _trimmed(np.asarray(Image.open(stream).convert("RGB")))


def _mesh(
    mask: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
    """Return vertices (x, y, z) and triangles of a class, closed at the ends of the volume."""
    if not mask.any():
        return None
    soft = ndimage.gaussian_filter(np.pad(mask, 1).astype(np.float32), _SMOOTH)
    if soft.max() <= 0.5:  # only parts that are thinner than a voxel of this level
        soft = np.pad(mask, 1).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(soft, 0.5, spacing=tuple(spacing))
    return vertices[:, ::-1] - np.array(spacing[::-1], np.float32), faces.astype(np.int64)


def _shaded(vertices: NDArray[np.float32], faces: NDArray[np.int64], colour: Colour) -> NDArray[np.float64]:
    """Return the colours of triangles in light from above."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    light = LightSource(azdeg=225, altdeg=50).direction * (1, 1, -1)  # z points down
    bright = 0.35 + 0.65 * np.abs(normals / np.maximum(length, 1e-12) @ light)
    return np.asarray(bright[:, None] * (np.array(colour) / 255), np.float64).clip(0, 1)


def _frame(lengths: Sequence[float]) -> list[NDArray[np.float64]]:
    """Return the twelve edges of a box."""
    corners = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)]) * np.array(lengths)
    pairs = [(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit]
    return [corners[[i, j]] for i, j in pairs]


def _trimmed(picture: NDArray[np.uint8], margin: int = 8) -> NDArray[np.uint8]:
    """Return a picture without its white borders."""
    used = (picture != 255).any(axis=-1)
    rows, columns = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    y0, x0 = (max(int(found[0]) - margin, 0) for found in (rows, columns))
    return np.ascontiguousarray(picture[y0 : rows[-1] + 1 + margin, x0 : columns[-1] + 1 + margin])
