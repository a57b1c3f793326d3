"""Show strokes as a Labels layer that paints into their store.

There is one history, that of the store: it is saved with the strokes, and knows edits of classes, too.
napari's own history of the layer knows neither; its steps, taken back after a class was merged or deleted,
would draw voxels of a class that is gone. So the layer's ``undo`` and ``redo``, which its keys call, are the
store's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hrvol.napari.layers import look_of_classes, placed
from hrvol.napari.notify import inform, reported
from hrvol.napari.painting.board import Board

MOST_IN_3D = 2**28
"""Most voxels of strokes that are shown in 3-D."""

_BRUSH = 5  # pixels


def add_strokes_layer(viewer: Any, board: Board, name: str) -> Any:
    """Add the layer of strokes, select it to paint, and return it."""
    store = board.store
    array = store.array()
    layer = viewer.add_labels(
        array,
        name=name,
        visible=viewer.dims.ndisplay != 3 or array.size <= MOST_IN_3D,
        metadata={"hrvol": {"source": store.source}},
        opacity=0.9,
        **placed(board.volume),
    )
    show_classes(layer, board)
    if store.classes:
        layer.selected_label = store.classes[0].value
    layer.brush_size = _BRUSH
    layer.undo, layer.redo = reported(store.undo), reported(store.redo)
    layer.mouse_drag_callbacks.insert(0, _one_step(board))
    layer.mode = "paint"
    return layer


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


def hide_in_3d(viewer: Any, layer: Any) -> bool:
    """Hide strokes that are too large for the 3-D display, and return whether it did.

    To be called before napari reads them: in 3-D it reads all.
    """
    if viewer.dims.ndisplay != 3 or not layer.visible or layer.data.size <= MOST_IN_3D:
        return False
    layer.visible = False
    inform(f"{layer.name}: strokes of {layer.data.size:.1e} voxels are hidden in the 3-D display")
    return True


def let_go(viewer: Any, layer: Any) -> None:
    """Remove the layer of strokes that are closed: nothing could be painted into it."""
    if layer in viewer.layers:
        viewer.layers.remove(layer)
