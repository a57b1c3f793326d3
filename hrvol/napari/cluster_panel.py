"""The panel that finds classes without strokes, and turns them into strokes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGroupBox,
    QListWidget,
    QListWidgetItem,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import UsageError
from hrvol.napari.background import Background
from hrvol.napari.complete_request import completing, copy_command_line
from hrvol.napari.folders import new_model
from hrvol.napari.hub import Hub
from hrvol.napari.job_box import JobBox
from hrvol.napari.layers import classes_of, look_of_classes, plane_of
from hrvol.napari.merge_box import MergeBox
from hrvol.napari.notify import inform, reported
from hrvol.napari.region_field import PLANE, RegionField
from hrvol.napari.requests import ClusterRequest, absolute
from hrvol.napari.seeds import strokes_of
from hrvol.napari.widgets import PathField, VolumeField, button, form, guard_wheel, narrow, row, text_label

_DEFAULT = "automatic"

_PRESETS = (_DEFAULT, "cas", "cas-volume", "cas-paper")

_STROKES = "strokes"

_MOST = 2**33
"""Most voxels of a layer of strokes in memory; untouched pages take none."""


class ClusterPanel(QWidget):
    """Label a volume without strokes.

    Parameters
    ----------
    hub
        What the panels share.
    """

    title = "Cluster"

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.hub = hub
        self._background = Background(self)
        self.labels: Any = None
        self.volume = VolumeField(hub.viewer)
        self.region = RegionField(hub.viewer, self.volume.layer)
        self.region.choose(PLANE)
        self.recipe = narrow(QComboBox())
        self.recipe.addItems(_PRESETS)
        self.recipe.setEditable(True)
        self.recipe.setToolTip("A preset, or the path of a recipe file")
        self.classes, self.clusters, self.merge = QSpinBox(), QSpinBox(), QDoubleSpinBox()
        self.classes.setRange(0, 1000)
        self.classes.setSpecialValueText("by distance")
        self.classes.setToolTip("Merge clusters until so many classes are left")
        self.clusters.setRange(0, 10_000)
        self.clusters.setSpecialValueText("80")
        self.clusters.setToolTip("Number of k-means clusters before merging")
        self.merge.setRange(0.05, 10)
        self.merge.setSingleStep(0.05)
        self.merge.setValue(1)
        self.merge.setToolTip("Scale of the merging distance: below 1 merges less, above 1 more")
        self.output = PathField("Choose the output", "OME-Zarr (*.ome.zarr)", save=True, hint="*.ome.zarr")
        self.model = PathField(
            "Choose the model's file", "Models (*.hrvol)", save=True, hint="none, or *.hrvol"
        )
        self.fresh = QCheckBox("replace earlier output")
        self.run_button = button("Find classes", reported(self.run), "Group pixels that look alike")
        self.copy_button = button("Copy command", reported(self.copy_command))
        self.job = JobBox(hub.jobs, "cluster")
        self.list = QListWidget()
        self.list.setMaximumHeight(150)
        self.strokes_button = button(
            "Make strokes of chosen classes",
            reported(self.make_strokes),
            "Copy the inner parts of the chosen classes on the present plane to the layer of strokes",
        )
        self.merging = MergeBox(hub)
        self._lay_out()
        self.merging.changed.connect(self._list_merged)
        self.volume.changed.connect(self._suggest_output)
        self.classes.valueChanged.connect(lambda value: self.merge.setEnabled(not value))
        self.job.changed.connect(lambda: self.run_button.setEnabled(not self.job.running))
        self._suggest_output()

    def _lay_out(self) -> None:
        fields = form()
        for name, field in (
            ("Volume", self.volume),
            ("Region", self.region),
            ("Recipe", self.recipe),
            ("Classes", self.classes),
            ("Merge", self.merge),
            ("Clusters", self.clusters),
            ("Output", self.output),
            ("Model", self.model),
            ("", self.fresh),
        ):
            fields.addRow(name, field)
        self.found = QGroupBox("Classes")
        inner = QVBoxLayout(self.found)
        inner.addWidget(self.list)
        inner.addLayout(row(self.strokes_button))
        layout = QVBoxLayout(self)
        layout.addWidget(text_label("Finds classes without strokes; a few strokes decide better."))
        layout.addLayout(fields)
        layout.addLayout(row(self.run_button, self.copy_button))
        layout.addWidget(self.job)
        layout.addWidget(self.found)
        layout.addWidget(self.merging)
        layout.addStretch(1)
        self.found.hide()
        guard_wheel(self, self.recipe, self.classes, self.merge, self.clusters)

    def collect(self) -> Callable[[], ClusterRequest]:
        """Return a function that gives the request, to be called in a thread: it may save a layer.

        Raises
        ------
        UsageError
            Something is not chosen.
        """
        file, region = self.volume.file(), self.region.region()
        recipe = self.recipe.currentText().strip()
        request = ClusterRequest(
            volume="-",
            output=self.output.path(),
            classes=self.classes.value(),
            merge=round(self.merge.value(), 3),
            clusters=self.clusters.value(),
            recipe="" if recipe == _DEFAULT else recipe if recipe in _PRESETS else absolute(recipe),
            model=self.model.path(),
            fresh=self.fresh.isChecked(),
        )
        request.check()

        return completing(request, file, region)

    def run(self) -> None:
        """Find classes in a process of its own."""
        self._background.call(self.collect(), self.begin)

    def begin(self, request: ClusterRequest) -> None:
        """Start the search."""
        chosen = request.model
        model = chosen or str(new_model(Path(request.output).name.split(".")[0] or "classes"))
        request = replace(request, model=model)  # always: its clusters can be merged again

        def show(_: Any) -> None:
            self.merging.close_search()
            self.show_classes(self.hub.open_labels(request.output))
            if self.labels is not None:
                self.merging.open(request.volume, model, request.region, self.labels)
            if chosen:
                self.hub.model_chosen.emit(chosen)

        self.job.start(request.arguments(), show, name=request.output)
        self.fresh.setChecked(False)  # the next start resumes it

    def show_classes(self, labels: Any) -> None:
        """List the classes of a Labels layer."""
        self.labels = labels
        if labels is None:
            self.list.clear()
            return
        about = {"features": labels.features, "colormap": labels.colormap}
        values = [int(value) for value in labels.features.get("index", ()) if value]
        self._list(classes_of(about, values))
        self.found.show()

    def _list_merged(self) -> None:
        """List the classes of the preview, or else those of the search."""
        infos = self.merging.infos
        if infos is None:
            self.show_classes(self.labels)
        else:
            self._list(infos)

    def _list(self, infos: Sequence[ClassInfo]) -> None:
        self.list.clear()
        for info in map(_as_cluster, infos):
            item = QListWidgetItem(info.name)
            swatch = QPixmap(14, 14)
            swatch.fill(QColor(*info.colour))
            item.setIcon(_icon(swatch))
            item.setData(Qt.ItemDataRole.UserRole, info)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Unchecked)
            self.list.addItem(item)

    def make_strokes(self) -> None:
        """Add the inner parts of the chosen classes, on the present plane, to the layer of strokes."""
        items = [self.list.item(i) for i in range(self.list.count())]
        chosen = [
            item.data(Qt.ItemDataRole.UserRole)
            for item in items
            if item.checkState() == Qt.CheckState.Checked
        ]
        if not chosen:
            raise UsageError("strokes: found no chosen class, expected at least one")
        if self.labels is None or self.labels not in self.hub.viewer.layers:
            raise UsageError("strokes: the layer of the classes is gone, expected to find classes first")
        labels, board = self.labels, self.hub.board
        data = labels.data[0] if labels.multiscale else labels.data
        shown = plane_of(self.hub.viewer, labels)
        if shown is None:
            raise UsageError("strokes: found a place outside of the classes, expected one of their planes")
        plane = shown if data.ndim > 2 else None
        merged = None
        if self.merging.infos is not None:
            merged = self.merging.values(shown)
            if merged is None:
                raise UsageError("strokes: found no preview of this plane, expected to preview it first")

        def draw() -> NDArray[Any]:
            values = np.asarray(data if plane is None else data[plane]) if merged is None else merged
            drawn = strokes_of(values, [info.value for info in chosen])
            if not drawn.any():
                raise UsageError("strokes: found none of the chosen classes on this plane")
            return drawn

        def add(drawn: NDArray[Any]) -> None:
            if board is not self.hub.board:
                raise UsageError("strokes: found other strokes open by now, expected those of before")
            self._add(drawn, plane, data.shape, chosen)

        self._background.call(draw, add)

    def _add(self, drawn: NDArray[Any], plane: int | None, shape: tuple[int, ...], chosen: Any) -> None:
        """Draw on a plane of the strokes that are open, or of a layer."""
        board = self.hub.board
        if board is not None and tuple(shape) == board.store.array().shape:
            count = board.draw(plane or 0, drawn, chosen)
            self.hub.strokes_added.emit()
            inform(f"{count:,} pixels were added to {board.store.source}")
            return
        layer = self._strokes_layer(shape, drawn.dtype, chosen)
        where = np.nonzero(drawn)
        places = where if plane is None else (np.full(len(where[0]), plane), *where)
        layer.data_setitem(places, drawn[where])
        inform(f"{len(where[0]):,} pixels were added to the layer {layer.name}")

    def _strokes_layer(self, shape: tuple[int, ...], dtype: Any, chosen: Any) -> Any:
        """Return the layer of strokes of this shape, which is added without one."""
        from napari.layers import Labels

        layers = self.hub.viewer.layers
        if _STROKES in layers:
            layer = layers[_STROKES]
            if isinstance(layer, Labels) and not layer.multiscale and tuple(layer.data.shape) == tuple(shape):
                return layer
        if np.prod(shape, dtype=np.float64) > _MOST:
            raise UsageError(f"strokes: found a volume of {shape}, expected at most {_MOST:.1e} voxels")
        labels = self.labels
        return self.hub.viewer.add_labels(
            np.zeros(shape, dtype),
            name=_STROKES,
            scale=labels.scale,
            translate=labels.translate,
            units=labels.units,
            axis_labels=labels.axis_labels,
            **look_of_classes(chosen),
        )

    def copy_command(self) -> None:
        """Copy the exact command line."""
        self._background.call(self.collect(), copy_command_line)

    def _suggest_output(self) -> None:
        if self.output.property("suggested") in (None, self.output.path()):
            path = str(self.volume.folder() / f"{self.volume.name()}-classes.ome.zarr")
            self.output.set_path(path)
            self.output.setProperty("suggested", absolute(path))


def _as_cluster(info: ClassInfo) -> ClassInfo:
    """Return a class with a name that no class of strokes has by default: clusters mean nothing yet."""
    (default,) = default_classes((info.value,))
    return replace(info, name=f"cluster {info.value}") if info.name == default.name else info


def _icon(pixmap: QPixmap) -> Any:
    from qtpy.QtGui import QIcon

    return QIcon(pixmap)
