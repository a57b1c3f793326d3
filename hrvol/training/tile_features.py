"""Features of a volume's tiles, computed as a segmentation computes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.backend import TORCH
from hrvol.features.weights.source import WeightsSource
from hrvol.recipe.specs import FeatureSpec, TileSpec
from hrvol.volume.grid.tiling import Tile
from hrvol.volume.intensity import Window, read_unit
from hrvol.volume.volume import Volume

if TYPE_CHECKING:
    from torch import Tensor

    from hrvol.features.featuriser import Featuriser


@dataclass(frozen=True)
class TileFeatures:
    """How the features of tiles are computed from a volume.

    Attributes
    ----------
    featuriser
        Computes the features of a tile's image.
    window
        Grey values (low, high) that become 0 and 1.
    tiles
        Size and overlap of the tiles.
    """

    featuriser: Featuriser
    window: Window
    tiles: TileSpec

    def of(self, volume: Volume, z: int, tile: Tile) -> Tensor:
        """Return the features ``(C, Y, X)`` float32 of a tile of plane ``z``, context included."""
        return self.featuriser(self.image(volume, z, tile))

    def at(
        self, volume: Volume, z: int, tile: Tile, rows: NDArray[Any], columns: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Return the features ``(n, C)`` of some pixels of a tile of plane ``z``.

        Parameters
        ----------
        volume, z, tile
            The tile.
        rows, columns
            ``(n,)`` integers in its window.
        """
        values: NDArray[np.float32] = self.of(volume, z, tile)[:, rows, columns].numpy(force=True).T
        return values

    def image(self, volume: Volume, z: int, tile: Tile) -> NDArray[np.float32]:
        """Return the values ``(Y, X)`` in [0, 1] of a tile of plane ``z``, context included.

        Of a colour volume they are ``(Y, X, 3)``.

        The plane is reflected where the tile's window reaches beyond it.
        """
        y0, y1, x0, x1 = tile.window
        _, height, width = volume.shape
        inside = (max(y0, 0), min(y1, height), max(x0, 0), min(x1, width))
        if inside == tile.window:
            return read_unit(volume, z, tile, self.window)
        beyond = ((max(-y0, 0), max(y1 - height, 0)), (max(-x0, 0), max(x1 - width, 0)))
        image = read_unit(volume, z, replace(tile, window=inside), self.window)
        return np.pad(image, (*beyond, *[(0, 0)] * (image.ndim - 2)), mode="reflect")


def load_features(spec: FeatureSpec, device: str, weights: WeightsSource, backend: str = TORCH) -> Featuriser:
    """Load the featuriser of a recipe on a device (``cpu``, ``cuda`` or another name of torch's).

    ``backend`` computes its network, see :func:`hrvol.backend.choose_backend`.
    """
    from hrvol.features.featuriser import load_featuriser  # torch: only where features are computed

    return load_featuriser(
        spec, device=device, weights_path=weights.path, offline=weights.offline, backend=backend
    )
