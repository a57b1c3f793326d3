"""Strokes are kept whole in folds, or cut with a gap, the same way every time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from hrvol.training.tuning.folds import ALWAYS, UNUSED, number_strokes, split_strokes


def pixels(strokes):
    """All drawn pixels of (Z, Y, X) strokes of image 0."""
    z, y, x = np.nonzero(strokes)
    return np.stack([np.zeros_like(z), z, y, x], axis=1), strokes[z, y, x]


def lines(planes=1, per_class=5, length=40, classes=(1, 2)):
    """Horizontal strokes of 3 x length pixels, far from each other."""
    strokes = np.zeros((planes, 20 * per_class * len(classes), length + 20), np.uint8)
    for z in range(planes):
        for i in range(per_class):
            for k, value in enumerate(classes):
                y = 20 * (i * len(classes) + k)
                strokes[z, y : y + 3, 10 : 10 + length] = value
    return strokes


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0.05, 0.7))
def test_strokes_are_the_connected_components_of_each_class_and_plane(seed, share):
    rng = np.random.default_rng(seed)
    strokes = rng.choice([0, 1, 3], p=[1 - share, share / 2, share / 2], size=(2, 12, 9))
    strokes[0, 0, :2] = 1
    where, labels = pixels(strokes)
    numbers = number_strokes(where, labels)
    seen = set()
    for z, plane in enumerate(strokes):
        for value in (1, 3):
            expected, count = ndimage.label(plane == value, np.ones((3, 3)))
            for i in range(1, count + 1):
                inside = (where[:, 1] == z) & (expected[where[:, 2], where[:, 3]] == i) & (labels == value)
                (number,) = set(numbers[inside])
                assert number not in seen
                seen.add(number)


def test_strokes_are_kept_whole_and_each_class_is_in_every_fold():
    strokes = lines(per_class=6)
    where, labels = pixels(strokes)
    folds = split_strokes(where, labels, 4, seed=0)
    numbers = number_strokes(where, labels)
    assert all(len(set(folds.of[numbers == n])) == 1 for n in set(numbers))
    for value in (1, 2):
        sizes = np.bincount(folds.of[labels == value], minlength=4)
        assert sorted(sizes) == [120, 120, 240, 240]  # 6 strokes of 120 px in 4 folds
    assert folds.description == "4 folds of whole strokes"


def test_large_strokes_are_balanced_by_small_ones():
    strokes = lines(per_class=5)
    strokes[:, :, 25:][strokes[:, :, 25:] == 1] = 0
    strokes[0, :3, 10:50] = 1  # one stroke of 120 px, four of 45 px
    where, labels = pixels(strokes)
    folds = split_strokes(where, labels, 2, seed=0)
    assert sorted(np.bincount(folds.of[labels == 1])) == [135, 165]


def test_planes_are_kept_whole_where_enough_of_them_show_all_classes():
    strokes = lines(planes=5, per_class=2)
    strokes[4][strokes[4] == 2] = 0
    where, labels = pixels(strokes)
    folds = split_strokes(where, labels, 4, seed=3)
    by_plane = [set(folds.of[where[:, 1] == z]) for z in range(5)]
    assert all(len(found) == 1 for found in by_plane)
    assert set.union(*by_plane[:4]) == {0, 1, 2, 3}  # the plane without class 2 joins another
    assert folds.description == "4 folds of whole planes (5 drawn on)"
    assert "strokes" in split_strokes(where, labels, 5, seed=3).description


def test_a_class_of_few_strokes_is_cut_with_a_gap():
    strokes = lines(per_class=4, length=260)
    where, labels = pixels(strokes)
    keep = (labels == 1) | (where[:, 2] < 23)  # class 2 keeps its first stroke
    where, labels = where[keep], labels[keep]
    folds = split_strokes(where, labels, 4, seed=0)
    cut = labels == 2
    parts = [where[cut & (folds.of == fold)][:, 2:] for fold in range(4)]
    assert all(len(part) > 100 for part in parts)
    for i in range(4):
        for j in range(i):
            assert cdist(parts[i], parts[j]).min() >= 14
    assert (folds.of[cut] == UNUSED).sum() == pytest.approx(3 * 3 * 14, abs=20)
    assert not (folds.of[~cut] == UNUSED).any()
    assert folds.description.endswith("class 2 has 1 stroke, cut into 4 pieces 14 px apart")
    train, test = folds.split(0)
    assert not set(folds.of[train]) & {0, UNUSED}
    assert set(folds.of[test]) == {0}


def test_a_short_stroke_is_cut_once_with_a_smaller_gap():
    strokes = lines(per_class=4, length=30)
    where, labels = pixels(strokes)
    keep = (labels == 1) | (where[:, 2] < 23)
    where, labels = where[keep], labels[keep]
    folds = split_strokes(where, labels, 4, seed=0)
    assert UNUSED in folds.of[labels == 2]
    assert len(set(folds.of[labels == 2]) - {UNUSED}) == 2
    assert folds.description.endswith("class 2 has 1 stroke, cut into 2 pieces 10 px apart")


def test_a_dot_is_trained_on_in_every_fold():
    strokes = lines(per_class=4)
    strokes[strokes == 2] = 0
    strokes[0, 15, 5] = 2
    where, labels = pixels(strokes)
    folds = split_strokes(where, labels, 4, seed=0)
    (dot,) = np.flatnonzero(labels == 2)
    assert folds.of[dot] == ALWAYS
    assert all(dot in folds.split(fold)[0] for fold in range(4))
    assert "class 2 has one stroke too small to cut" in folds.description


@pytest.mark.parametrize("planes", [1, 4])
def test_folds_depend_on_strokes_and_seed_alone(planes):
    where, labels = pixels(lines(planes=planes, per_class=7))
    shuffled = np.random.default_rng(1).permutation(len(where))
    folds = split_strokes(where, labels, 3, seed=5)
    again = split_strokes(where[shuffled], labels[shuffled], 3, seed=5)
    np.testing.assert_array_equal(folds.of[shuffled], again.of)
    assert any((split_strokes(where, labels, 3, seed=s).of != folds.of).any() for s in range(3))
