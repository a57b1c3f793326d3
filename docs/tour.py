"""The pictures of the tutorial ``docs/tutorial/napari.md``: from a folder of images to a measured result.

``docs/screenshots.py`` takes them, one after the other: each continues the one before. The code stands in
for the user, whose clicks it makes on the panels themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from screenshots import Stage

PLANES = 16

SIDE = 256

VOXEL = 50  # nanometers

SHOWN = 8  # the plane that is painted on first

NAMES = ("pore", "binder", "particle", "crack")


def tour_open(stage: Stage) -> None:
    """A folder of TIFF files, opened."""
    import tifffile

    from hrvol.phantom import make_phantom

    folder = stage.folder / "slices"
    folder.mkdir()
    phantom = make_phantom((PLANES, SIDE, SIDE), seed=3)
    about = {"spacing": VOXEL, "unit": "nm"}
    for number, plane in enumerate(phantom.image):
        resolution = 1 / VOXEL, 1 / VOXEL
        tifffile.imwrite(
            folder / f"slice-{number:03d}.tif", plane, imagej=True, resolution=resolution, metadata=about
        )
    stage.truth = phantom.labels
    stage.viewer.open(folder, plugin="hrvol")
    stage.viewer.dims.set_current_step(0, SHOWN)
    stage.panel("Paint", "slices")


def tour_strokes(stage: Stage) -> None:
    """New strokes: classes, and a few lines of each on a plane."""
    panel = stage.panel("Paint", "slices")
    panel.learn.recipe.setCurrentText("classical")
    panel.new_button.click()
    stage.wait(lambda: panel.desk.session is not None)
    for number, name in enumerate(NAMES):
        if number >= panel.classes.table.rowCount():
            panel.classes.add()
        panel.classes.table.item(number, 0).setText(name)
    _paint(stage, SHOWN, seed=1)
    panel.classes.choose(1)


def tour_update(stage: Stage) -> None:
    """What the strokes give on the plane."""
    panel = stage.panel("Paint", "slices")
    _update(stage, panel)


def tour_next(stage: Stage) -> None:
    """The place where a stroke would teach most."""
    panel = stage.panel("Paint", "slices")
    panel.learn.uncertainty.setChecked(True)
    panel.learn.next_button.click()
    stage.wait(lambda: "next place" in stage.viewer.layers)
    stage.viewer.layers["prediction"].visible = False


def tour_quality(stage: Stage) -> None:
    """More strokes, another plane, quality, and the model."""
    panel = stage.panel("Paint", "slices")
    panel.learn.uncertainty.setChecked(False)
    stage.viewer.layers["prediction"].visible = True
    if "next place" in stage.viewer.layers:
        stage.viewer.layers.remove("next place")
    for plane in (2, 13):
        _paint(stage, plane, seed=2)
    stage.viewer.dims.set_current_step(0, 2)
    stage.viewer.reset_view()
    _update(stage, panel)
    panel.learn.quality_button.click()
    stage.wait(panel.learn.quality.text)
    panel.learn.save_button.click()
    segment = stage.panel("Segment", "slices")
    stage.wait(lambda: segment.model.path() == panel.learn.model.path())
    stage.wait(segment.model_text.text)
    stage.panel("Paint", "slices")


def tour_plan(stage: Stage) -> None:
    """What the segmentation of the volume would cost."""
    for name in ("prediction", "slices-strokes"):
        if name in stage.viewer.layers:
            stage.viewer.layers[name].visible = False
    stage.viewer.dims.set_current_step(0, SHOWN)
    panel = stage.panel("Segment", "slices")
    panel.plan_button.click()
    stage.wait(panel.start_button.isEnabled)


def tour_result(stage: Stage) -> None:
    """Labels of the volume, and what each class fills."""
    panel = stage.panel("Segment", "slices")
    panel.start_button.click()
    stage.wait(lambda: "slices-labels.ome.zarr" in stage.viewer.layers)
    stage.wait(lambda: not panel.run.measures.isHidden())
    stage.viewer.layers["slices-labels.ome.zarr"].opacity = 0.55
    stage.scroll_down(panel)


def _paint(stage: Stage, plane: int, seed: int) -> None:
    """Draw short lines of each class, as the brush does."""
    from hrvol.phantom import draw_strokes

    drawn: Any = draw_strokes(stage.truth, (plane,), strokes=3, length=30, seed=seed)
    layer = stage.panel("Paint", "slices").layer
    for value in range(1, len(NAMES) + 1):
        layer.data_setitem(np.nonzero(drawn == value), value)


def _update(stage: Stage, panel: Any) -> None:
    panel.learn.update_button.click()
    stage.wait(lambda: panel.learn.state.text() != "exact")
    stage.wait(lambda: panel.learn.state.text() == "exact")


TOUR = (tour_open, tour_strokes, tour_update, tour_next, tour_quality, tour_plan, tour_result)
