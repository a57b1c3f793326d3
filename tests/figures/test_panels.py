"""Pictures show what they are given, and touch no global state."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.image import imread

from hrvol.analysis.objects import Object
from hrvol.classes import default_classes
from hrvol.errors import InputError
from hrvol.figures import overlays
from hrvol.figures.overlays import (
    MOST_PIXELS,
    ComponentRow,
    HeatPanel,
    draw_components,
    draw_detection,
    draw_similar,
    thin,
)
from hrvol.figures.panels import coloured, draw_planes, draw_scores
from hrvol.segment.retrieval import Match

CLASSES = default_classes([1, 2], ["pore", "particle"])


def plane():
    image = np.tile(np.arange(40, dtype=np.uint16) * 100, (30, 1))
    labels = np.zeros((30, 40), np.uint8)
    labels[:10], labels[20:] = 1, 2
    return image, labels


def test_labels_are_coloured_and_the_rest_stays_grey():
    image, labels = plane()
    picture = coloured(image, labels, CLASSES, opacity=1.0)
    assert picture.shape == (30, 40, 3)
    np.testing.assert_allclose(picture[0, 0], np.array(CLASSES[0].colour) / 255, atol=1e-6)
    np.testing.assert_allclose(picture[29, 5], np.array(CLASSES[1].colour) / 255, atol=1e-6)
    assert np.ptp(picture[15], axis=-1).max() == 0
    assert picture[15, 0, 0] == 0
    assert picture[15, -1, 0] == 1


def test_strokes_are_opaque_whatever_the_opacity():
    image, labels = plane()
    strokes = np.where(np.arange(40) == 20, labels, 0)
    picture = coloured(image, strokes, CLASSES, opacity=0.3)
    np.testing.assert_allclose(picture[0, 20], np.array(CLASSES[0].colour) / 255, atol=1e-6)
    assert abs(coloured(image, labels, CLASSES, opacity=0.3)[0, 20] - picture[0, 20]).max() > 0.1


def test_a_flat_image_is_drawn():
    assert np.isfinite(coloured(np.full((5, 6), 7, np.uint8), None, CLASSES)).all()


def test_labels_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"\(3, 4\).*\(5, 6\)"):
        coloured(np.zeros((5, 6)), np.zeros((3, 4), np.uint8), CLASSES)


def test_planes_are_written_with_the_colours_in_them(tmp_path):
    image, labels = plane()
    path = draw_planes(
        tmp_path / "p.png", {"image": (image, None), "result": (image, labels)}, CLASSES, opacity=1
    )
    pixels = imread(path)[..., :3]
    for info in CLASSES:
        distance = np.abs(pixels - np.array(info.colour) / 255).max(axis=-1)
        assert (distance < 0.02).sum() > 1000


def test_scores_are_written_with_gaps_for_absent_classes(tmp_path):
    scores = {"classical": {"pore": 0.5, "mean": 0.5}, "hybrid": {"pore": float("nan"), "mean": 0.7}}
    path = draw_scores(tmp_path / "s.png", scores)
    assert imread(path).std() > 0


def test_pyplot_is_never_imported():
    code = "import sys, hrvol.figures.overlays; raise SystemExit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


OBJECTS = (Object(0, (2, 2, 28, 38), 700, True), Object(1, (2, 3, 10, 37), 300, False))
RED, BLUE = np.array([180, 4, 38]) / 255, np.array([59, 76, 192]) / 255  # the ends of the scale


def shows(path, colour, at_least):
    """Whether a picture has so many pixels of a colour."""
    pixels = imread(path)[..., :3]
    return (np.abs(pixels - colour).max(axis=-1) < 0.02).sum() >= at_least


def drawn_detection(path, objects=OBJECTS, density=(3.0, 0.5)):
    image, labels = plane()
    labels = np.where(labels == 0, 2, labels)
    unit = image.astype(np.float32) / image.max()
    return draw_detection(path, "cell.tif", unit, labels, CLASSES, np.array(density), objects)


def test_boxes_are_drawn_in_the_colours_of_their_classes(tmp_path):
    boxed, plain = (drawn_detection(tmp_path / f"{n}.png", OBJECTS[:n]) for n in (2, 0))
    for colour in (np.array(CLASSES[0].colour) / 255, np.ones(3)):
        distance = [(np.abs(imread(p)[..., :3] - colour).max(axis=-1) < 0.02).sum() for p in (boxed, plain)]
        assert distance[0] > distance[1] + 100


def test_boxes_are_around_their_pixels_and_the_superbox_is_dashed(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(overlays, "_save", lambda figure, path: figures.append(figure))
    drawn_detection(tmp_path / "d.png")
    boxes = [axis.patches for axis in figures[0].axes if axis.patches]
    assert [patch.get_linestyle() for patch in boxes[0]] == ["--", "-"]
    # Edges of pixels are half a pixel from their centres, where matplotlib puts them.
    assert [patch.get_bbox().extents.tolist() for patch in boxes[0]] == [
        [1.5, 1.5, 37.5, 27.5],
        [2.5, 1.5, 36.5, 9.5],
    ]


def test_attention_density_is_that_of_the_classes(tmp_path):
    path = drawn_detection(tmp_path / "d.png", (), (3.0, 0.0))
    brightest, darkest = (np.array(colormaps["magma"](end)[:3]) for end in (1.0, 0.0))
    assert shows(path, brightest, 3000)
    assert shows(path, darkest, 3000)
    drawn_detection(tmp_path / "none.png", (), (np.nan, np.nan))  # an image where nothing is attended to


def test_similar_is_red_and_all_targets_share_one_scale(tmp_path):
    image = np.zeros((30, 40), np.float32)
    image[::2] = 1
    near, far = np.full((30, 40), 0.2, np.float32), np.full((30, 40), 0.4, np.float32)
    near[10:20, 10:20] = 1.0
    panels = [
        HeatPanel("a", image, heat, [(Match(12, 12, 1.0),), (Match(1, 1, 0.9),)]) for heat in (near, far)
    ]
    path = draw_similar(tmp_path / "s.png", ("q", image), [(5, 5), (9, 30)], panels)
    # Overlays are 0.55 of the colour and 0.45 of black or white, here with 0.2 as blue and 1 as red.
    assert shows(path, 0.55 * RED, 50)
    assert shows(path, 0.55 * BLUE, 1000)
    quarter = np.array(colormaps["coolwarm"](0.25)[:3])
    assert shows(path, 0.55 * quarter, 1000)
    assert shows(path, np.array([1.0, 0, 0]), 20)  # the cross


def test_components_are_drawn_as_they_are(tmp_path):
    image = np.zeros((40, 20), np.float32)
    image[::2] = 1
    colours = np.zeros((40, 20, 3), np.uint8)
    colours[:20] = (10, 200, 90)
    rows = [
        ComponentRow("a", image, colours, np.ones_like(image)),
        ComponentRow("b", image, colours, 4 * image),
    ]
    path = draw_components(tmp_path / "c.png", rows)
    assert shows(path, np.array([10, 200, 90]) / 255, 20000)
    without = draw_components(tmp_path / "w.png", [replace(row, attention=None) for row in rows])
    assert imread(without).shape[1] < imread(path).shape[1]


def test_large_planes_are_thinned_and_marks_stay_where_they_are(tmp_path):
    assert thin(np.zeros((MOST_PIXELS, 9))).shape == (MOST_PIXELS, 9)
    assert thin(np.zeros((2 * MOST_PIXELS + 1, 9, 3))).shape == (-(-(2 * MOST_PIXELS + 1) // 3), 3, 3)
    pictures = []
    for side in (100, 2 * MOST_PIXELS):
        image = np.zeros((side, side), np.float32)
        image[:, side // 2 :] = 1
        panel = HeatPanel("t", image, image, [()])
        path = tmp_path / f"{side}.png"
        pictures.append(draw_similar(path, ("q", image), [(side // 4, side // 5)], [panel]))
    where = [
        np.argwhere(np.abs(imread(p)[..., :3] - (1, 0, 0)).max(axis=-1) < 0.02).mean(axis=0) for p in pictures
    ]
    assert np.abs(where[0] - where[1]).max() < 3
