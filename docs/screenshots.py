"""Make the screenshots of the napari plugin: a real viewer works on the sample, and is photographed.

It needs a display with OpenGL (``xvfb-run -s "-screen 0 1280x800x24" python docs/screenshots.py``), the extra
``napari-qt``, and a minute per picture. ``python docs/screenshots.py segment similar`` makes some of them,
``python docs/screenshots.py tour`` those of the tutorial, each of which continues the one before. Weights are
those in ``$HRVOL_CACHE_DIR``, else they are downloaded.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tour import TOUR

IMAGES = Path(__file__).parent / "images"

SIZE = 1280, 800

_TOUR = "tour-"

COLOURS = 256
"""Of the PNG files, which are small then."""


def main(names: list[str]) -> None:
    """Make the pictures of these names, or all."""
    with tempfile.TemporaryDirectory(prefix="tomography-") as folder:
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "napari.yaml")
        os.environ["HOME"] = folder  # what the panels suggest is there
        for tutorial in (False, True):
            _make(Path(folder), names, tutorial)


def _make(folder: Path, names: list[str], tutorial: bool) -> None:
    """Make the pictures of the tutorial, or the others, in a window of their own."""
    chosen = {
        name: make
        for name, make in PICTURES.items()
        if name.startswith(_TOUR) == tutorial
        and (not names or name in names or (tutorial and "tour" in names))
    }
    if not chosen:
        return
    stage = Stage(folder)
    if not tutorial:
        stage.open_sample()
    for name, make in chosen.items():
        make(stage)
        stage.photograph(name)
        print(f"docs/images/napari-{name}.png", flush=True)
    stage.viewer.close()


class Stage:
    """A viewer, and folders for what is computed.

    Parameters
    ----------
    folder
        Folder for what is computed.
    """

    def __init__(self, folder: Path) -> None:
        import napari
        from npe2 import PluginManager, PluginManifest

        from hrvol.napari import commands

        self.folder, self.commands = folder, commands
        self.viewer = napari.Viewer(show=False)
        manager = PluginManager.instance()
        if "hrvol" not in manager:  # not installed, but on the path
            manager.register(PluginManifest.from_file(Path(__file__).parents[1] / "hrvol/napari/napari.yaml"))
        self.window = self.viewer.window._qt_window
        self.window.resize(*SIZE)
        self.window.show()
        self.model = folder / "phases.hrvol"
        self._fitted = False
        self.truth: Any = None  # of the volume of the tutorial

    def open_sample(self) -> None:
        """Open the sample of the plugin at its middle plane."""
        self.viewer.open_sample("hrvol", "phantom")
        self.viewer.dims.set_current_step(0, 16)

    def wait(self, condition: Callable[[], Any], seconds: float = 7200) -> None:
        """Run the window until a condition holds."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("the picture is not ready")
            QApplication.processEvents()
            time.sleep(0.01)

    def rest(self, seconds: float = 1.0) -> None:
        """Run the window for some time."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > end)

    def panel(self, title: str, volume: str = "electrode") -> Any:
        """Show a tab of the dock."""
        panel = self.commands.show(title, self.viewer)
        panel.volume.set_layer(self.viewer.layers[volume])
        if not self._fitted:  # the dock has made the canvas narrower
            self._fitted = True
            self.rest()
            self.viewer.reset_view()
        return panel

    def scroll_down(self, panel: Any) -> None:
        """Show the end of a panel."""
        self.rest(0.5)  # until it is laid out
        bar = panel.parent().parent().verticalScrollBar()
        bar.setValue(bar.maximum())

    def train(self) -> None:
        """Train a model on the strokes of the sample, with classical features."""
        import hrvol
        from hrvol.napari.sample_data import phantom_folder

        if not self.model.exists():
            sample = phantom_folder()
            pair = sample / "volume.ome.zarr", sample / "strokes.ome.zarr"
            hrvol.save_model(hrvol.train_model([pair], recipe="classical"), self.model)

    def photograph(self, name: str) -> None:
        """Save the window as a small PNG."""
        from PIL import Image
        from qtpy.QtCore import QBuffer

        self.rest()
        for note in self.viewer.window._qt_viewer.findChildren(_notification()):
            note.close()
        self.rest(0.5)
        buffer = QBuffer()
        buffer.open(QBuffer.OpenModeFlag.WriteOnly)
        self.window.grab().save(buffer, "PNG")
        picture = Image.open(io.BytesIO(bytes(buffer.data()))).convert("RGB")
        # Without the refinement, the colours of thin strokes would be merged.
        small = picture.quantize(COLOURS, Image.Quantize.MEDIANCUT, 3, dither=Image.Dither.NONE)
        small.save(IMAGES / f"napari-{name}.png", optimize=True)


def _notification() -> Any:
    from napari._qt.dialogs.qt_notification import NapariQtNotification

    return NapariQtNotification


def sample(stage: Stage) -> None:
    """The sample, and the dock as it opens."""
    stage.panel("Segment")


def plan(stage: Stage) -> None:
    """The plan of a segmentation."""
    stage.train()
    panel = stage.panel("Segment")
    panel.model.set_path(str(stage.model))
    panel.uncertainty.setChecked(True)
    stage.wait(panel.model_text.text)
    panel.plan_button.click()
    stage.wait(panel.start_button.isEnabled)


def result(stage: Stage) -> None:
    """The result, opened when it is complete."""
    panel = stage.panel("Segment")
    if not panel.start_button.isEnabled():
        plan(stage)
    panel.start_button.click()
    stage.wait(lambda: "electrode-labels.ome.zarr" in stage.viewer.layers)
    stage.viewer.layers["strokes"].visible = False
    stage.wait(lambda: not panel.run.measures.isHidden())
    stage.scroll_down(panel)


def distil(stage: Stage) -> None:
    """A student, and how it agrees with its teacher."""
    stage.train()
    panel = stage.panel("Distil")
    panel.model.set_path(str(stage.model))
    panel.minutes.setValue(0.5)
    panel.size.setCurrentText("small")
    panel.engine.setCurrentText("serial")
    panel.accept.setChecked(True)
    panel.run_button.click()
    stage.wait(panel.result.text)


def cluster(stage: Stage) -> None:
    """Classes without strokes, and strokes made of two of them."""
    from qtpy.QtCore import Qt

    for layer in stage.viewer.layers:
        layer.visible = layer.name == "electrode"
    panel = stage.panel("Cluster")
    panel.classes.setValue(3)
    panel.run_button.click()
    stage.wait(lambda: panel.list.count())
    for i in range(2):
        panel.list.item(i).setCheckState(Qt.CheckState.Checked)


def merge(stage: Stage) -> None:
    """The classes of a search, merged again."""
    panel = stage.panel("Cluster")
    box = panel.merging
    if not panel.list.count():
        cluster(stage)
    stage.wait(box.isVisible)
    box.preview_button.click()
    stage.wait(lambda: box.layer is not None)
    box.classes.setValue(2)
    stage.wait(lambda: box.infos is not None and len(box.infos) == 2)
    stage.scroll_down(panel)


def similar(stage: Stage) -> None:
    """What is similar to a point."""
    for layer in stage.viewer.layers:
        layer.visible = layer.name == "electrode"
    panel = stage.panel("Similar")
    panel.search((16 * 50.0, 37 * 50.0, 67 * 50.0))  # in a pore
    stage.wait(lambda: panel.heat is not None)


def paint(stage: Stage) -> None:
    """Strokes, and what they give."""
    from hrvol.napari.sample_data import phantom_folder

    for layer in stage.viewer.layers:
        layer.visible = layer.name == "electrode"
    stage.viewer.dims.set_current_step(0, 16)
    panel = stage.panel("Paint")
    panel.learn.recipe.setCurrentText("classical")
    panel.new_button.click()
    stage.wait(lambda: panel.desk.session is not None)
    names = "pore", "binder"
    for number, name in enumerate(names):
        panel.classes.table.item(number, 0).setText(name)
    panel.import_from(str(phantom_folder() / "strokes.ome.zarr"))
    stage.wait(panel.desk.board.store.boxes)
    panel.learn.update_button.click()
    stage.wait(lambda: panel.learn.state.text() == "exact")
    panel.learn.quality_button.click()
    stage.wait(panel.learn.quality.text)


PICTURES: dict[str, Callable[[Stage], None]] = {
    function.__name__.replace("_", "-"): function
    for function in (sample, plan, result, distil, cluster, merge, similar, paint, *TOUR)
}


if __name__ == "__main__":
    main(sys.argv[1:])
