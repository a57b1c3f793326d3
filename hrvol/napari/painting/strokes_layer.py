"""Show strokes as a Labels layer that paints into their store.

There is one history, that of the store: it is saved with the strokes, and knows edits of classes, too.
napari's own history of the layer knows neither; its steps, taken back after a class was merged or deleted,
would draw voxels of a class that is gone. So the layer's ``undo`` and ``redo``, which its keys call, are the
store's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.napari.layers import look_of_classes, placed
from hrvol.napari.notify import inform, reported
from hrvol.napari.painting.board import Board
from hrvol.volume.drawing_store.paintable import Paintable, PaintableArray

MOST_IN_3D = 2**28
"""Most voxels of strokes that are shown in 3-D."""

_BRUSH = 5  # pixels

_PLACE = "next place"

_MARK = 24  # pixels of the mark of a place


class ShownStrokes(PaintableArray):
    """Strokes as napari shows them: in 3-D it reads all, and before it tells anybody that it turned.

    So strokes that are too large for that are hidden when they are read, and a voxel takes their place.

    Parameters
    ----------
    store
        The strokes.
    """

    def __init__(self, store: Paintable) -> None:
        super().__init__(store)
        self.hide: Callable[[], None] | None = None
        self.hidden = False

    def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        sides = [span.stop - span.start for span in box]
        if min(sides, default=0) < 2 or float(np.prod(sides, dtype=float)) <= MOST_IN_3D:
            return super()._read(box)
        if self.hide is not None:
            self.hidden = True
            self.hide()
        return np.zeros((1,) * len(box), self.dtype)


def add_strokes_layer(viewer: Any, board: Board, name: str) -> Any:
    """Add the layer of strokes, select it to paint, and return it."""
    store = board.store
    array = ShownStrokes(store.array().strokes)
    array.hidden = viewer.dims.ndisplay == 3 and array.size > MOST_IN_3D
    layer = viewer.add_labels(
        array,
        name=name,
        visible=not array.hidden,
        metadata={"hrvol": {"source": store.source}},
        opacity=0.9,
        **placed(board.volume),
    )
    array.hide = reported(lambda: _hide(layer))
    show_classes(layer, board)
    if store.classes:
        layer.selected_label = store.classes[0].value
    layer.brush_size = _BRUSH
    layer.mouse_drag_callbacks.insert(0, _one_step(board))
    set_paintable(layer, board, on=True)
    return layer


def set_paintable(layer: Any, board: Board, *, on: bool) -> None:
    """Let the layer be painted, undone and redone, or not for a while."""
    layer.editable = on
    if on:
        layer.mode = "paint"
        layer.undo, layer.redo = reported(board.store.undo), reported(board.store.redo)
    else:
        layer.undo = layer.redo = lambda: inform(f"{layer.name}: strokes are being imported")


def show_classes(layer: Any, board: Board) -> None:
    """Show names and colours of the classes."""
    look = look_of_classes(board.store.classes)
    if look:
        layer.features = look["features"]
        layer.colormap = look["colormap"]


def _one_step(board: Board) -> Any:
    """Return a callback that makes one step of undo of all that is painted while the button is held."""

    def drag(_: Any, event: Any) -> Iterator[None]:
        with board.store.stroke():
            yield
            while event.type == "mouse_move":
                yield

    return drag


def show_again(viewer: Any, layer: Any) -> None:
    """Show strokes again that were hidden in 3-D, if the display is 2-D."""
    if viewer.dims.ndisplay == 2 and layer.data.hidden:
        layer.data.hidden = False
        layer.visible = True


def _hide(layer: Any) -> None:
    layer.visible = False
    inform(f"{layer.name}: strokes of {layer.data.size:.1e} voxels are hidden in the 3-D display")


def let_go(viewer: Any, layer: Any) -> None:
    """Remove the layer of strokes that are closed: nothing could be painted into it."""
    if layer in viewer.layers:
        viewer.layers.remove(layer)


def mark_place(viewer: Any, board: Board, point: tuple[int, ...], mark: Any) -> Any:
    """Move the mark of the next place to a voxel, or add it, and return its layer."""
    if mark is not None and mark in viewer.layers:
        mark.data = [point]
        return mark
    return viewer.add_points(
        [point],
        name=_PLACE,
        size=_MARK,
        symbol="ring",
        face_color="yellow",
        border_width=0,
        opacity=0.9,
        **placed(board.volume),
    )
