"""Choose the region of a volume to work on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.compat import isalive
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QLabel, QSpinBox, QVBoxLayout, QWidget

from hrvol.errors import UsageError
from hrvol.napari.layers import plane_of
from hrvol.napari.regions import rectangle_region, shape_corners
from hrvol.napari.requests import region_text
from hrvol.napari.widgets import guard_wheel, narrow, row
from hrvol.volume.grid.tiling import Box
from hrvol.volume.volume import Volume

WHOLE, PLANE = "Whole volume", "Present plane"

_MOST = 2**31 - 1

Region = Callable[[Volume], Box | None]


class RegionField(QWidget):
    """The whole volume, the plane that is shown, or the rectangle of a Shapes layer on some planes.

    Parameters
    ----------
    viewer
        The viewer.
    layer
        Returns the layer of the volume; ``None`` if no layer shows it.
    """

    changed = Signal()

    def __init__(self, viewer: Any, layer: Callable[[], Any]) -> None:
        super().__init__()
        self._viewer, self._layer = viewer, layer
        self._box = narrow(QComboBox())
        self._box.setToolTip("Draw a rectangle in a Shapes layer to choose it here")
        self._first, self._last = QSpinBox(), QSpinBox()
        for spin, tip in ((self._first, "First plane"), (self._last, "Last plane")):
            spin.setRange(0, _MOST)
            spin.setToolTip(tip)
            spin.setMinimumWidth(60)
            spin.valueChanged.connect(lambda *_: self.changed.emit())
        self._planes = QWidget()
        self._planes.setLayout(row(QLabel("planes"), self._first, QLabel("to"), self._last))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self._box)
        layout.addWidget(self._planes)
        guard_wheel(self, self._box, self._first, self._last)
        for event in ("inserted", "removed", "reordered"):
            getattr(viewer.layers.events, event).connect(self._refresh)
        self._refresh()
        self._box.currentIndexChanged.connect(self._chosen)
        self._chosen()

    def choose(self, text: str) -> None:
        """Choose an entry by its text, or by the name of a Shapes layer."""
        i = self._box.findText(text)
        self._box.setCurrentIndex(i if i >= 0 else self._box.findText(f"Rectangle in {text}"))

    def set_box(self, box: Box | None) -> None:
        """Choose a given box, in voxels; ``None``: the whole volume."""
        if box is None:
            self._box.setCurrentIndex(0)
            return
        text = region_text(box).replace(",", ", ")
        if self._box.findText(text) < 0:
            self._box.addItem(text, box)
        self._box.setCurrentIndex(self._box.findText(text))

    def set_planes(self, first: int, last: int) -> None:
        """Choose the planes of a rectangle, both included."""
        self._first.setValue(first)
        self._last.setValue(last)

    def region(self) -> Region:
        """Return a function that gives the region of a volume, ``None`` for all of it; for a thread.

        Raises
        ------
        UsageError
            The Shapes layer is empty, or the last plane is before the first.
        """
        layer, text = self._box.currentData(), self._box.currentText()
        if layer is None and text == WHOLE:
            return lambda volume: None
        if isinstance(layer, tuple):
            return lambda volume: layer
        point = self._viewer.dims.point
        world = float(point[-3]) if len(point) > 2 else None
        if layer is None:
            return lambda volume: plane_region(volume, world)
        corners = shape_corners(layer)
        planes = self._first.value(), self._last.value() + 1
        if planes[1] <= planes[0]:
            raise UsageError(
                f"region: found planes {planes[0]} to {planes[1] - 1}, expected a last one after"
            )
        flat = world is None
        return lambda volume: rectangle_region(corners, volume, None if flat else planes)

    def _chosen(self, *_: Any) -> None:
        layer = self._box.currentData()
        three = self._viewer.dims.ndim > 2
        drawn = layer is not None and not isinstance(layer, tuple)
        self._planes.setVisible(drawn and three)
        if drawn and three:
            shown = self._layer()
            step = max(0, int(self._viewer.dims.current_step[-3]))  # of a path: nothing better is known
            plane = step if shown is None else plane_of(self._viewer, shown) or 0
            self.set_planes(plane, plane)
        self.changed.emit()

    def _refresh(self, *_: Any) -> None:
        if not isalive(self):
            return
        before, text = self._box.currentData(), self._box.currentText()
        boxes = [
            (self._box.itemText(i), self._box.itemData(i))
            for i in range(self._box.count())
            if isinstance(self._box.itemData(i), tuple)
        ]
        self._box.blockSignals(True)
        self._box.clear()
        self._box.addItem(WHOLE, None)
        self._box.addItem(PLANE, None)
        for layer in self._viewer.layers:
            if layer._type_string == "shapes":
                self._box.addItem(f"Rectangle in {layer.name}", layer)
        for name, box in boxes:
            self._box.addItem(name, box)
        self._box.setCurrentIndex(max(0, self._box.findText(text)))
        self._box.blockSignals(False)
        if before is not self._box.currentData():
            self._chosen()


def plane_region(volume: Volume, world: float | None) -> Box:
    """Return the plane of a volume at a world coordinate.

    Raises
    ------
    UsageError
        It is outside of the volume.
    """
    _, height, width = volume.shape
    z = (
        0
        if world is None or volume.ndim == 2
        else round((world - volume.translation[0]) / volume.voxel_size[0])
    )
    if not 0 <= z < volume.shape[0]:
        raise UsageError(f"region: found plane {z}, expected 0 to {volume.shape[0] - 1}")
    return slice(z, z + 1), slice(0, height), slice(0, width)
