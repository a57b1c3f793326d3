"""Features of a region, reduced by a PCA that is fitted once, tile by tile into a store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import UsageError
from hrvol.run.train import Window
from hrvol.volume.intensity import to_unit
from hrvol.volume.store import Volume
from hrvol.volume.tiling import Box, Tile, box_shape

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser


@dataclass(frozen=True, eq=False)
class Projection:
    """A PCA of standardised features.

    Attributes
    ----------
    mean, scale
        ``(C,)`` float32: what is taken off each channel, and what it is divided by.
    components
        ``(C, K)`` float32, orthonormal columns in falling order of variance.
    explained
        ``(K,)`` float64: share of the variance of the standardised features, in 0..1.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    components: NDArray[np.float32]
    explained: NDArray[np.float64]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project features ``(n, C)`` to ``(n, K)`` float32."""
        projected: NDArray[Any] = ((features - self.mean) / self.scale) @ self.components
        return projected.astype(np.float32, copy=False)


def fit_projection(samples: NDArray[np.float32], components: int) -> Projection:
    """Fit a PCA.

    Channels are standardised first, because deep and classical ones have different units. Each component's
    sign is such that its largest loading is positive, so that the same samples give the same axes.

    Parameters
    ----------
    samples
        ``(n, C)`` float32.
    components
        Number of components K.

    Raises
    ------
    UsageError
        K is not in 1..C.
    """
    channels = samples.shape[1]
    if not 1 <= components <= channels:
        raise UsageError(f"components: expected 1..{channels} for these features, got {components}")
    exact = samples.astype(np.float64)
    mean, scale = exact.mean(axis=0), exact.std(axis=0)
    scale[scale == 0] = 1.0  # a constant channel stays zero
    standard = (exact - mean) / scale
    variances, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
    vectors = vectors[:, ::-1][:, :components]
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.where(vectors[largest, np.arange(components)] < 0, -1.0, 1.0)
    explained = np.maximum(variances[::-1], 0.0) / max(float(variances.sum()), 1e-12)
    return Projection(
        mean.astype(np.float32), scale.astype(np.float32), vectors.astype(np.float32), explained[:components]
    )


def tile_features(
    volume: Volume,
    owned: Box,
    tile: Tile,
    featuriser: Featuriser,
    window: Window,
    projection: Projection | None,
    attention: bool,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield plane number and features ``(K, y, x)`` float32 of the voxels that a tile owns, plane by plane.

    The heads' attention, if asked for, comes after the features.
    """
    planes, rows, columns = owned
    y0, _, x0, _ = tile.window
    inside = (slice(rows.start - y0, rows.stop - y0), slice(columns.start - x0, columns.stop - x0))
    raw = volume.read((planes, *tile.window_slices))
    _, height, width = box_shape(owned)
    for z, plane in zip(range(planes.start, planes.stop), raw, strict=True):
        image = to_unit(plane, window, source=volume.source, origin=(z, y0, x0))
        found: Any = featuriser(image).numpy(force=True)[:, inside[0], inside[1]]
        if projection is not None:
            flat = np.moveaxis(found, 0, -1).reshape(height * width, -1)
            found = np.moveaxis(projection(flat).reshape(height, width, -1), -1, 0)
        if attention:
            heads = featuriser.upsampled(image, attention=True).attention
            assert heads is not None
            found = np.concatenate([found, heads[:, inside[0], inside[1]].numpy(force=True)])
        yield z, found
