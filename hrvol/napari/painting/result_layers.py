"""Show previews: layers of prediction, uncertainty and probabilities of the visible region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo
from hrvol.napari.layers import look_of_classes, placed
from hrvol.napari.painting.board import Board

PREDICTION, UNCERTAINTY = "prediction", "uncertainty"


class ResultLayers:
    """The layers of one volume's previews.

    Parameters
    ----------
    viewer
        The viewer.
    board
        The volume.
    strokes
        The layer of strokes, below which they are put.
    """

    def __init__(self, viewer: Any, board: Board, strokes: Any) -> None:
        self._viewer, self._board, self._strokes = viewer, board, strokes
        self._layers: dict[str, Any] = {}
        self._classes: tuple[ClassInfo, ...] = ()
        self.uncertainty = self.probabilities = False

    def show(self, preview: Any) -> None:
        """Show a preview; layers that are not wanted are removed."""
        region = placed_region(self._board, preview)
        look = {} if preview.classes == self._classes else look_of_classes(preview.classes)
        self._put(PREDICTION, "labels", preview.labels, region, {"opacity": 0.5}, look)
        self._classes = preview.classes
        grey = {"contrast_limits": (0, 1), "opacity": 0.6}
        if self.uncertainty:
            about = grey | {"colormap": "magma"}
            self._put(UNCERTAINTY, "image", preview.uncertainty, region, about)
        kept = {PREDICTION, *([UNCERTAINTY] if self.uncertainty else ())}
        for info, plane in zip(preview.classes, preview.probabilities, strict=True):
            if self.probabilities:
                name = f"probability of {info.name}"
                self._put(name, "image", plane, region, grey | _tint(info))
                kept.add(name)
        self.remove(set(self._layers) - kept)

    def remove(self, names: set[str] | None = None) -> None:
        """Remove layers of these names, or all."""
        for name in set(self._layers) if names is None else names:
            layer = self._layers.pop(name)
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    def _put(
        self,
        name: str,
        kind: str,
        plane: NDArray[Any],
        region: Mapping[str, Any],
        about: Mapping[str, Any],
        look: Mapping[str, Any] | None = None,
    ) -> None:
        data = plane[None] if self._board.volume.ndim == 3 else plane
        layer = self._layers.get(name)
        if layer is not None and layer in self._viewer.layers:
            for key, value in (look or {}).items():
                setattr(layer, key, value)
            layer.data = data
            for key in ("scale", "translate"):
                if not np.array_equal(getattr(layer, key), region[key]):
                    setattr(layer, key, region[key])
            return
        look = look_of_classes(self._classes) if look == {} else look
        layers = self._viewer.layers
        chosen = layers.selection.active
        layer = getattr(self._viewer, f"add_{kind}")(
            data, name=name, **{**placed(self._board.volume), **region, **about, **(look or {})}
        )
        if kind == "labels":
            layer.editable = False
        if self._strokes in layers:
            layers.move(layers.index(layer), layers.index(self._strokes))
        layers.selection.active = chosen
        self._layers[name] = layer


def placed_region(board: Board, preview: Any) -> dict[str, tuple[float, ...]]:
    """Return scale and position of a preview: a value is in the middle of the pixels it stands for."""
    volume, step = board.volume, preview.step
    size = tuple(s * k for s, k in zip(volume.voxel_size, (1, step, step), strict=True))
    first = (preview.plane, preview.rows.start + (step - 1) / 2, preview.columns.start + (step - 1) / 2)
    place = tuple(t + s * at for t, s, at in zip(volume.translation, volume.voxel_size, first, strict=True))
    n = volume.ndim
    return {"scale": size[-n:], "translate": place[-n:]}


def _tint(info: ClassInfo) -> dict[str, Any]:
    from napari.utils.colormaps import Colormap

    colours = [[0, 0, 0, 0], [*np.divide(info.colour, 255), 1]]
    return {"colormap": Colormap(colours, name=info.name), "blending": "additive"}
