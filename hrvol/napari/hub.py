"""What the panels of a dock share."""

from __future__ import annotations

from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from hrvol.napari.jobs import Jobs
from hrvol.napari.notify import report


class Hub(QObject):
    """The viewer, the processes, and news from one panel for the others.

    Parameters
    ----------
    viewer
        The viewer.
    parent
        The dock.
    """

    model_chosen = Signal(str)
    """Path of a model that was opened, trained or distilled."""
    weights_chosen = Signal(str)
    """Class weights of the model that was trained last, as a line of text."""
    strokes_added = Signal()
    """A panel drew in the strokes that are open."""

    def __init__(self, viewer: Any, parent: QWidget) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.jobs = Jobs(parent)
        self.board: Any = None  # the strokes that are open, a hrvol.napari.painting.board.Board

    def take_model(self, path: str) -> None:
        """Pass a model on to the panels."""
        if isalive(self):
            self.model_chosen.emit(path)

    def open_labels(self, output: str) -> Any:
        """Show the labels of an output; layers that show it already are replaced. Return the Labels layer."""
        from hrvol.napari.layers import layer_of, source_of
        from hrvol.volume.pictures import open_pictures

        try:
            pictures = open_pictures(output)
            sources = {picture.finest.source for picture in pictures}
            for layer in [layer for layer in self.viewer.layers if source_of(layer) in sources]:
                self.viewer.layers.remove(layer)
            labels = None
            for picture in pictures:
                data, about, kind = layer_of(picture)
                added = getattr(self.viewer, f"add_{kind}")(data, **about)
                labels = added if kind == "labels" else labels
        except Exception as error:
            report(error)
            return None
        return labels
