"""The phantom is a fair test: its phases are there, and grey values alone do not give them away."""

import time

import numpy as np
import pytest
from scipy import ndimage
from sklearn.tree import DecisionTreeClassifier

from hrvol.phantom import BINDER, CRACK, PARTICLE, PORE, draw_strokes, make_phantom


@pytest.fixture(scope="module")
def phantom():
    return make_phantom()


def test_every_phase_has_its_share(phantom):
    assert phantom.image.shape == phantom.labels.shape == (32, 256, 256)
    assert (phantom.image.dtype, phantom.labels.dtype) == (np.uint16, np.uint8)
    share = np.bincount(phantom.labels.ravel(), minlength=5) / phantom.labels.size
    assert share[0] == 0
    assert share[PORE] > 0.1
    assert share[BINDER] > 0.1
    assert 0.3 < share[PARTICLE] < 0.7
    assert 0.005 < share[CRACK] < 0.06
    for plane in phantom.labels:
        assert set(np.unique(plane)) == {1, 2, 3, 4}


@pytest.mark.parametrize("seed", [0, 1])
def test_grey_value_alone_does_not_tell_phases_apart(seed):
    made = make_phantom(seed=seed)
    grey, truth = made.image[::4].reshape(-1, 1), made.labels[::4].ravel()
    scores = []
    for weight in (None, "balanced"):
        # A tree on one number is the best set of thresholds; it is scored on what it was fitted to.
        tree = DecisionTreeClassifier(max_leaf_nodes=64, class_weight=weight, random_state=0)
        found = tree.fit(grey, truth).predict(grey)
        iou = [
            ((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum() for c in (1, 2, 3, 4)
        ]
        scores.append(np.mean(iou))
    assert max(scores) < 0.55


def test_texture_and_shape_do(phantom):
    image = phantom.image.astype(np.float32)
    near = ndimage.uniform_filter(image, (0, 7, 7))
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(image**2, (0, 7, 7)) - near**2, 0))
    inside = {v: ndimage.binary_erosion(phantom.labels == v, np.ones((1, 7, 7))) for v in (BINDER, PARTICLE)}
    assert np.median(spread[inside[BINDER]]) > 1.2 * np.median(spread[inside[PARTICLE]])
    # Cracks are thin, and lie in particles; pores are not thin.
    depth = [ndimage.distance_transform_edt(plane == CRACK).max() for plane in phantom.labels]
    assert max(depth) < 8
    around = ndimage.binary_dilation(phantom.labels == CRACK, iterations=2) & (phantom.labels != CRACK)
    assert (phantom.labels[around] == PARTICLE).mean() > 0.8
    assert ndimage.distance_transform_edt(phantom.labels[16] == PORE).max() > 8


def test_rings_lie_around_the_rotation_axis(phantom):
    """The mean along circles varies more from radius to radius in the centre's frame than off it."""

    def roughness(centre):
        y, x = np.indices(phantom.image.shape[1:])
        radius = np.hypot(y - centre[0], x - centre[1]).astype(int)
        values = phantom.image.astype(float) - ndimage.gaussian_filter(phantom.image.astype(float), (0, 3, 3))
        mean = ndimage.mean(values.mean(axis=0), radius, np.arange(30, 120))
        return np.std(np.diff(mean))

    on_axis = max(roughness((128 + dy, 128 + dx)) for dy in range(-4, 5, 2) for dx in range(-4, 5, 2))
    assert on_axis > 1.5 * roughness((90, 170))


def test_same_seed_same_phantom():
    shape = (6, 96, 96)
    a, b, c = make_phantom(shape, 3), make_phantom(shape, 3), make_phantom(shape, 4)
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert (a.labels != c.labels).mean() > 0.1


@pytest.mark.parametrize("shape", [(1, 128, 128), (3, 64, 200), (40, 50, 50)])
def test_other_shapes(shape):
    made = make_phantom(shape)
    assert made.image.shape == made.labels.shape == shape
    assert made.image.std() > 0


def test_it_is_quick():
    began = time.process_time()
    make_phantom()
    assert time.process_time() - began < 6  # about one second on a quiet machine


def test_strokes_are_right_few_and_repeatable(phantom):
    strokes = draw_strokes(phantom.labels, [4, 20], seed=1)
    drawn = strokes > 0
    np.testing.assert_array_equal(strokes[drawn], phantom.labels[drawn])
    assert sorted(np.unique(np.nonzero(drawn)[0])) == [4, 20]
    for z in (4, 20):
        assert set(np.unique(strokes[z])) == {0, 1, 2, 3, 4}
        assert drawn[z].mean() < 0.03
    np.testing.assert_array_equal(strokes, draw_strokes(phantom.labels, [20, 4], seed=1))
    np.testing.assert_array_equal(strokes[4], draw_strokes(phantom.labels, [4], seed=1)[4])
    assert (strokes != draw_strokes(phantom.labels, [4, 20], seed=2)).any()


def test_more_and_longer_strokes_draw_more(phantom):
    few = (draw_strokes(phantom.labels, [4], strokes=1, length=10) > 0).sum()
    more = (draw_strokes(phantom.labels, [4], strokes=4, length=10) > 0).sum()
    longer = (draw_strokes(phantom.labels, [4], strokes=4, length=60) > 0).sum()
    assert few < more < longer
