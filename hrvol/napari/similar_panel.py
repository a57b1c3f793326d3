"""The panel that shows what is similar to a point."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import numpy as np
from qtpy.QtWidgets import QComboBox, QPushButton, QVBoxLayout, QWidget

from hrvol.errors import UsageError
from hrvol.napari.background import Background
from hrvol.napari.folders import plugin_folder
from hrvol.napari.hub import Hub
from hrvol.napari.job_box import JobBox
from hrvol.napari.layers import placed
from hrvol.napari.notify import report, reported
from hrvol.napari.process import Process
from hrvol.napari.requests import absolute
from hrvol.napari.widgets import VolumeField, form, guard_wheel, narrow, row, text_label
from hrvol.volume.volume import Volume, open_volume

_DEFAULT = "automatic"

_PRESETS = (_DEFAULT, "deep", "best")


class SimilarPanel(QWidget):
    """Click a point of an image: a heat map shows how similar each pixel of the plane is to it.

    Parameters
    ----------
    hub
        What the panels share.
    """

    title = "Similar"

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self.hub = hub
        self._background = Background(self)
        self.heat: Any = None
        self.volume = VolumeField(hub.viewer)
        self.recipe = narrow(QComboBox())
        self.recipe.addItems(_PRESETS)
        self.recipe.setEditable(True)
        self.recipe.setToolTip("A preset with deep features, or the path of a recipe file")
        self.pick = QPushButton("Pick a point")
        self.pick.setCheckable(True)
        self.pick.setToolTip("Then click a pixel of the image")
        self.pick.toggled.connect(self._picking)
        self.job = JobBox(hub.jobs, "similar")
        fields = form()
        fields.addRow("Volume", self.volume)
        fields.addRow("Recipe", self.recipe)
        layout = QVBoxLayout(self)
        layout.addWidget(
            text_label(
                "Pick a point: the features of the network there are compared with those of its plane."
            )
        )
        layout.addLayout(fields)
        layout.addLayout(row(self.pick))
        layout.addWidget(self.job)
        layout.addStretch(1)
        guard_wheel(self, self.recipe)
        self.job.changed.connect(lambda: self.pick.setEnabled(not self.job.running))

    def _picking(self, on: bool) -> None:
        callbacks = self.hub.viewer.mouse_drag_callbacks
        if on and self._clicked not in callbacks:
            callbacks.append(self._clicked)
        elif not on and self._clicked in callbacks:
            callbacks.remove(self._clicked)

    def _clicked(self, viewer: Any, event: Any) -> None:
        self.pick.setChecked(False)
        reported(self.search)(tuple(event.position))

    def search(self, position: tuple[float, ...]) -> None:
        """Compare the plane of a point with it, in a process of its own.

        Parameters
        ----------
        position
            World coordinates, of which the last are z, y, x, or y, x.
        """
        file = self.volume.file()

        def locate() -> tuple[str, Volume, tuple[int, int, int]]:
            path = file()
            volume = open_volume(path)
            return path, volume, voxel_at(position, volume)

        self._background.call(locate, lambda found: self._begin(*found))

    def _begin(self, path: str, volume: Volume, point: tuple[int, int, int]) -> None:
        result = plugin_folder("logs") / f"{uuid4().hex}.npy"
        recipe = self.recipe.currentText().strip()
        names = () if recipe == _DEFAULT else (recipe if recipe in _PRESETS else absolute(recipe),)

        def show(_: Process) -> None:
            try:
                self._show(np.load(result, allow_pickle=False), volume, point)
            finally:
                result.unlink(missing_ok=True)

        arguments = (path, *map(str, point), str(result), *names)
        self.job.start(arguments, show, module="hrvol.napari.heat")

    def _show(self, heat: Any, volume: Volume, point: tuple[int, int, int]) -> None:
        """Show a map at its plane, in the layer of the map before, and the point."""
        z, y, x = point
        about = placed(volume)
        limits = min(float(np.percentile(heat, 1)), 0.99), 1.0
        if volume.ndim == 3:
            heat = heat[None]
            start = (about["translate"][0] + z * about["scale"][0], *about["translate"][1:])
            about["translate"] = start
        layers = self.hub.viewer.layers
        if self.heat is not None and self.heat in layers:
            layers.remove(self.heat)
        name = f"similar to {z}, {y}, {x}" if volume.ndim == 3 else f"similar to {y}, {x}"
        try:
            self.heat = self.hub.viewer.add_image(
                heat, name=name, colormap="turbo", contrast_limits=limits, opacity=0.6, **about
            )
        except Exception as error:
            report(error)


def voxel_at(position: tuple[float, ...], volume: Volume) -> tuple[int, int, int]:
    """Return the voxel (z, y, x) at world coordinates.

    Raises
    ------
    UsageError
        It is outside of the volume.
    """
    n = min(volume.ndim, len(position))
    size, start = volume.voxel_size[-n:], volume.translation[-n:]
    places = [round((p - a) / s) for p, a, s in zip(position[-n:], start, size, strict=True)]
    z, y, x = ([0, 0, 0, *places])[-3:]
    if not all(0 <= i < length for i, length in zip((z, y, x), volume.shape, strict=True)):
        sides = " x ".join(map(str, volume.shape[-volume.ndim :]))
        raise UsageError(f"similar: found a point at {z}, {y}, {x}, expected one inside {sides}")
    return z, y, x
