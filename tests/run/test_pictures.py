"""Pictures show what they are given, and touch no global state."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.image import imread

from hrvol.classes import default_classes
from hrvol.errors import InputError
from hrvol.run.pictures import coloured, draw_planes, draw_scores

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
    code = "import sys, hrvol.run.pictures; raise SystemExit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
