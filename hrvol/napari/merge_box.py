"""Merge the clusters of a search again, with a preview of the present plane."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QDoubleSpinBox, QGroupBox, QSlider, QSpinBox, QVBoxLayout

from hrvol.classes import ClassInfo
from hrvol.errors import UsageError
from hrvol.napari.background import Background
from hrvol.napari.folders import new_model, plugin_folder
from hrvol.napari.hub import Hub
from hrvol.napari.job_box import JobBox
from hrvol.napari.layers import look_of_classes, plane_of
from hrvol.napari.notify import inform, report, reported
from hrvol.napari.widgets import PathField, button, form, guard_wheel, row

_LAYER = "merged classes"

_MAPS = 8
"""Number of planes whose clusters are kept."""


class MergeBox(QGroupBox):
    """Other numbers of classes, or merging distances, of the clusters that a search has found.

    The nearest cluster of each pixel of a plane is computed once; classes are looked up in it.

    Parameters
    ----------
    hub
        What the panels share.
    """

    changed = Signal()
    """Other classes are shown."""

    def __init__(self, hub: Hub) -> None:
        super().__init__("Merge again")
        self.hub = hub
        self._background = Background(self)
        self._volume, self._path = "", ""
        self._labels: Any = None
        self._rows_columns: tuple[slice, slice] | None = None
        self._fitted: Any = None  # the model of the search
        self._merged: Any = None  # its clusters, merged again
        self._wanted: dict[str, Any] = {}
        self._merging = self._draw_again = False
        self._maps: dict[int, NDArray[np.uint16]] = {}
        self._computed: tuple[str, int] | None = None  # the model and the plane of the process
        self.layer: Any = None
        self._layer_plane: int | None = None
        self.classes, self.slider = QSpinBox(), QSlider(Qt.Orientation.Horizontal)
        self.classes.setToolTip("Merge clusters until so many classes are left")
        self.merge = QDoubleSpinBox()
        self.merge.setRange(0.05, 10)
        self.merge.setSingleStep(0.05)
        self.merge.setToolTip("Scale of the merging distance: below 1 merges less, above 1 more")
        self.job = JobBox(hub.jobs, "preview")
        self.model = PathField("Choose the model's file", "Models (*.hrvol)", save=True, hint="*.hrvol")
        self.preview_button = button(
            "Preview this plane", reported(self.preview), "Show the classes on the present plane"
        )
        self.reset_button = button("As found", reported(self.reset), "Return to the classes of the search")
        self.save_button = button(
            "Save model", reported(self.save), "Write these classes as a model, and segment with it"
        )
        fields = form()
        fields.addRow("Classes", row(self.slider, self.classes, stretch=0))
        fields.addRow("Merge", self.merge)
        layout = QVBoxLayout(self)
        layout.addLayout(fields)
        layout.addLayout(row(self.preview_button, self.reset_button))
        layout.addWidget(self.job)
        layout.addLayout(row(self.model, self.save_button, stretch=0))
        guard_wheel(self, self.classes, self.slider, self.merge)
        self.slider.valueChanged.connect(self.classes.setValue)
        self.classes.valueChanged.connect(lambda n: self._want(classes=n))
        self.merge.valueChanged.connect(lambda factor: self._want(merge=round(factor, 3)))
        self.job.changed.connect(lambda: QTimer.singleShot(0, self._ended))
        self.hide()

    @property
    def infos(self) -> tuple[ClassInfo, ...] | None:
        """Names and colours of the classes that are shown; ``None``: those of the search."""
        return None if self._merged is None else tuple(self._merged.model.classes)

    def open(self, volume: str, model: str, region: Any, labels: Any) -> None:
        """Take the clusters of a search.

        Parameters
        ----------
        volume, model
            Paths of the volume and of the model that the search wrote.
        region
            Box (z, y, x) that was searched; ``None``: the whole volume.
        labels
            The layer of its labels.
        """
        self.close_search()
        self._volume, self._path, self._labels = volume, model, labels
        self._rows_columns = None if region is None else (region[1], region[2])

        def load() -> Any:
            from hrvol.segment.model.model import load_model

            return load_model(model)

        self._background.call(load, lambda fitted: self._take(fitted, model))

    def close_search(self) -> None:
        """Forget the clusters and the preview."""
        if self.job.running:
            self.job.stop()
        self._remove_layer()
        self._path, self._fitted, self._merged = "", None, None
        self._wanted, self._maps, self._draw_again = {}, {}, False
        self.hide()

    def values(self, plane: int) -> NDArray[np.uint16] | None:
        """Return the classes ``(Y, X)`` of a plane, 0 outside of the region; ``None`` without a preview."""
        nearest = self._maps.get(plane)
        if nearest is None or self._merged is None:
            return None
        finest = self._labels.data[0] if self._labels.multiscale else self._labels.data
        values = np.zeros(finest.shape[-2:], np.uint16)
        inside = self._rows_columns or (slice(None), slice(None))
        values[inside] = self._merged.of_cluster[nearest]
        return values

    def preview(self) -> None:
        """Show the classes on the present plane."""
        if self._merged is None:
            self._want(classes=self.classes.value())
        else:
            self._draw()

    def reset(self) -> None:
        """Return to the classes of the search."""
        self._merged, self._wanted, self._draw_again = None, {}, False
        if self.job.running:
            self.job.stop()
        self._remove_layer()
        self._show_numbers()
        self.changed.emit()

    def save(self) -> None:
        """Write the model, and give it to the other panels."""
        if self._fitted is None:
            raise UsageError("model: found no search, expected to find classes first")
        model = self._fitted if self._merged is None else self._merged.model
        path = self.model.path() or str(new_model("merged"))
        search = self._path

        def write() -> str:
            from hrvol.files import MODEL, check_file
            from hrvol.segment.model.model import save_model
            from hrvol.volume.guard import keep_inputs

            keep_inputs(path, search)  # previews are computed with it
            check_file(path, MODEL, overwrite=True)
            save_model(model, path)
            return path

        def tell(_: str) -> None:
            inform(f"{path}: {len(model.classes)} classes")
            self.hub.take_model(path)

        self._background.call(write, tell)

    def _take(self, fitted: Any, path: str) -> None:
        if path != self._path:  # another search has ended meanwhile
            return
        self._fitted = fitted
        self._show_numbers()
        known = fitted.classifier.tally.attention is not None
        self.merge.setEnabled(known)  # without attention there is no distance to merge by
        self.show()

    def _show_numbers(self) -> None:
        """Show the settings of the present classes without merging again."""
        model = self._fitted if self._merged is None else self._merged.model
        if model is None:
            return
        fields = (self.classes, self.slider, self.merge)
        for field in fields:
            field.blockSignals(True)
        for field in (self.classes, self.slider):
            field.setRange(1, len(self._fitted.classifier.of_cluster))
            field.setValue(self._wanted.get("classes", len(model.classes)))
        self.merge.setValue(self._wanted.get("merge", model.recipe.cluster.merge))
        for field in fields:
            field.blockSignals(False)

    def _want(self, **settings: Any) -> None:
        if self._fitted is not None:
            self._wanted = settings
            self._merge()

    def _merge(self) -> None:
        """Merge with the settings that are wanted last; one merging at a time."""
        if self._merging:
            return
        fitted, wanted = self._fitted, self._wanted
        self._merging = True

        def merge() -> Any:
            from hrvol.training.merging import merged

            return merged(fitted, **wanted)

        def current() -> bool:
            self._merging = False
            if fitted is self._fitted and wanted == self._wanted:
                return True
            if self._fitted is not None and self._wanted:
                self._merge()
            return False

        def show(result: Any) -> None:
            if current():
                self._merged = result
                self._show_numbers()
                self.changed.emit()
                self._draw()

        def failed(error: Exception) -> None:
            if current():
                report(error)

        self._background.call(merge, show, failed)

    def _draw(self) -> None:
        """Show the present plane, whose clusters are computed first unless they are known."""
        plane = plane_of(self.hub.viewer, self._labels)
        if plane is None:
            raise UsageError("preview: found a place outside of the classes, expected one of their planes")
        values = self.values(plane)
        if values is not None:
            self._put(plane, values)
        elif not self.job.running:
            self._compute(plane)
        elif self._computed != (self._path, plane):
            self._draw_again = True
            self.job.stop()

    def _ended(self) -> None:
        """Compute what waited for the end of another process."""
        if self._draw_again and not self.job.running:
            self._draw_again = False
            if self._merged is not None:
                reported(self._draw)()

    def _compute(self, plane: int) -> None:
        result = plugin_folder("logs") / f"{uuid4().hex}.npy"
        path, box = self._path, self._rows_columns
        spans = () if box is None else (",".join(f"{span.start}:{span.stop}" for span in box),)

        def take(_: Any) -> None:
            try:
                nearest = np.load(result, allow_pickle=False)
            finally:
                result.unlink(missing_ok=True)
            if path != self._path:
                return
            self._maps[plane] = nearest
            while len(self._maps) > _MAPS:
                del self._maps[next(iter(self._maps))]
            if self._merged is not None:
                self._draw()

        arguments = (self._volume, path, str(plane), str(result), *spans)
        self._computed = path, plane
        self.job.start(
            arguments,
            take,
            module="hrvol.napari.cluster_map",
            failed=lambda _: result.unlink(missing_ok=True),
        )

    def _put(self, plane: int, values: NDArray[np.uint16]) -> None:
        """Show classes in the layer of the preview."""
        labels, layers = self._labels, self.hub.viewer.layers
        shown = values if labels.ndim == 2 else values[None]
        look = look_of_classes(self._merged.model.classes)
        if self.layer is not None and self.layer in layers and self._layer_plane == plane:
            self.layer.data = shown
            self.layer.colormap, self.layer.features = look["colormap"], look["features"]
            return
        translate = np.array(labels.translate, float)
        if labels.ndim > 2:
            translate[-3] += plane * labels.scale[-3]
        self._remove_layer()
        self.layer = self.hub.viewer.add_labels(
            shown,
            name=_LAYER,
            scale=labels.scale,
            translate=translate,
            units=labels.units,
            axis_labels=labels.axis_labels,
            **look,
        )
        self._layer_plane = plane
        labels.visible = False

    def _remove_layer(self) -> None:
        layers = self.hub.viewer.layers
        if self.layer is not None:
            if self.layer in layers:
                layers.remove(self.layer)
            if self._labels in layers:
                self._labels.visible = True
        self.layer = None
