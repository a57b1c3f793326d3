from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.errors import InputError
from hrvol.quality.matching import match_classes, purity, relabel
from hrvol.quality.metrics import Confusion, binary_iou, cor_loc, mean_iou, pixel_accuracy

few = settings(max_examples=50, deadline=None)


@st.composite
def confusions(draw, least_pred=0, most=5):
    """Counts of two random label images whose numbers of classes differ."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    truth = rng.integers(0, draw(st.integers(1, most)) + 1, 60)
    truth[0] = 1
    # Half of the prediction follows the truth: with noise alone every matching is about as bad.
    pred = rng.integers(least_pred, draw(st.integers(1, most)) + 1, 60)
    follow = rng.random(60) < 0.5
    pred[follow] = np.maximum(least_pred, (truth[follow] * 3) % (pred.max() + 1))
    return Confusion.of(pred, truth)


def test_classes_of_other_numbers_are_matched_by_hand():
    truth = np.array([1, 1, 1, 1, 2, 2, 2, 3, 3, 0])
    pred = np.array([5, 5, 5, 2, 2, 2, 0, 4, 4, 4])
    counts = Confusion.of(pred, truth)
    assert match_classes(counts.matrix) == {2: 2, 4: 3, 5: 1}
    figures = counts.matched().to_dict(["a", "b", "c"])
    assert figures["iou"] == {"a": 3 / 4, "b": 2 / 4, "c": 1.0}
    assert figures["confusion"] == [[3, 1, 0], [0, 2, 0], [0, 0, 2]]
    assert figures["unlabelled"] == 1


def test_the_best_sum_is_not_the_greedy_one():
    # Greedy takes 1 -> 1 (0.6), which leaves 2 with nothing in common with 2.
    counts = np.array([[0, 0, 0], [0, 60, 40], [0, 50, 0]])
    assert match_classes(counts) == {1: 2, 2: 1}


def test_a_surplus_class_is_a_miss_and_no_false_find():
    truth = np.repeat([1, 2], 10)
    pred = np.repeat([1, 3, 2], [6, 4, 10])
    counts = Confusion.of(pred, truth)
    matched = counts.matched()
    assert match_classes(counts.matrix) == {1: 1, 2: 2}
    assert matched.matrix.tolist() == [[0, 0, 0], [4, 6, 0], [0, 0, 10]]
    assert mean_iou(matched.matrix) == (0.6 + 1.0) / 2
    assert pixel_accuracy(matched.matrix) == 16 / 20


def test_a_true_class_without_a_partner_counts_as_zero():
    truth = np.repeat([1, 2], 10)
    matched = Confusion.of(np.full(20, 7), truth).matched()
    assert mean_iou(matched.matrix) == 0.25
    # A class that shares nothing with the one left over is not given it.
    assert match_classes(np.array([[0, 0, 0], [0, 3, 2], [4, 0, 0]])) == {1: 1}


def test_splitting_at_random_does_not_pay_one_to_one_and_pays_in_purity():
    truth = np.repeat([1, 2], 500)
    split = truth * 100 + np.random.default_rng(0).integers(0, 50, 1000)
    counts = Confusion.of(split, truth)
    assert mean_iou(counts.matched().matrix) < 0.1
    assert purity(counts.matrix) == 1.0


@few
@given(confusions(), st.randoms(use_true_random=False))
def test_the_numbers_of_predicted_classes_do_not_matter(counts, random):
    labels = list(range(1, len(counts.matrix)))
    shuffled = random.sample(labels, len(labels))
    order = [0, *shuffled]
    other = Confusion(counts.matrix[:, order])
    assert mean_iou(other.matched().matrix) == pytest.approx(mean_iou(counts.matched().matrix))
    assert purity(other.matrix) == purity(counts.matrix)


@few
@given(confusions())
def test_no_relabelling_has_a_better_mean_iou(counts):
    best = mean_iou(counts.matched().matrix)
    found = [int(v) for v in np.flatnonzero(counts.matrix[:, 1:].any(axis=0)) + 1]
    true = [int(v) for v in np.flatnonzero(counts.matrix.any(axis=1))]
    targets = true + [0] * max(0, len(found) - len(true))
    every = [
        mean_iou(relabel(counts.matrix, dict(zip(found, choice, strict=True))))
        for choice in set(permutations(targets, len(found)))
    ]
    assert best == pytest.approx(max(every))
    assert best >= mean_iou(counts.matrix) - 1e-12


@few
@given(confusions())
def test_matching_is_one_to_one_and_keeps_every_pixel(counts):
    mapping = match_classes(counts.matrix)
    assert len(set(mapping.values())) == len(mapping)
    matched = counts.matched().matrix
    np.testing.assert_array_equal(matched.sum(axis=1), counts.matrix.sum(axis=1)[: len(matched)])
    assert matched.sum() == counts.matrix.sum()
    # Matched again, nothing gets better: another matching may be as good.
    again = counts.matched().matched().matrix
    np.testing.assert_allclose(mean_iou(again), mean_iou(matched))


@few
@given(confusions())
def test_a_perfect_segmentation_under_other_numbers_is_perfect(counts):
    true = np.diag(counts.matrix.sum(axis=1))
    shifted = np.roll(np.pad(true, ((0, 3), (0, 3))), 3, axis=1)
    assert mean_iou(Confusion(shifted).matched().matrix) == 1.0


@few
@given(confusions(least_pred=1))
def test_purity_is_between_the_largest_share_and_one(counts):
    share = counts.matrix.sum(axis=1).max() / counts.matrix.sum()
    assert share <= purity(counts.matrix) <= 1


@few
@given(confusions())
def test_purity_is_the_accuracy_of_the_best_class_for_each(counts):
    pairs = counts.matrix[1:, 1:]
    mapping = {int(k) + 1: int(pairs[:, k].argmax()) + 1 for k in np.flatnonzero(pairs.any(axis=0))}
    assert purity(counts.matrix) == pytest.approx(pixel_accuracy(relabel(counts.matrix, mapping)))
    assert purity(counts.matrix) >= pixel_accuracy(counts.matched().matrix)


def test_purity_by_hand_and_pixels_without_a_prediction():
    counts = Confusion.of(np.array([1, 1, 1, 2, 0, 0]), np.array([1, 1, 2, 2, 2, 0]))
    assert purity(counts.matrix) == 3 / 5
    assert np.isnan(purity(np.zeros((3, 3), np.int64)))


def test_nothing_to_match():
    nothing = Confusion.of(np.array([0, 0]), np.array([1, 2]))
    assert match_classes(nothing.matrix) == {}
    assert mean_iou(nothing.matched().matrix) == 0
    assert match_classes(np.zeros((1, 1), np.int64)) == {}


def test_foregrounds():
    pred, truth = np.array([[1, 1, 0, 0]], bool), np.array([[0, 7, 7, 0]])
    assert binary_iou(pred, truth) == 1 / 3
    assert binary_iou(pred, ~pred) == 0.0
    assert binary_iou(np.zeros(4, bool), np.zeros(4, bool)) == 1.0
    with pytest.raises(InputError, match=r"found shape \(1, 4\), expected the truth's \(4, 1\)"):
        binary_iou(pred, truth.T)
    with pytest.raises(InputError, match="truth: found values of type float64, expected a mask"):
        binary_iou(pred, truth / 7)


def test_corloc_of_several_boxes_is_a_hit_if_one_is():
    true = [[(0, 0, 10, 10), (50, 50, 60, 60)]]
    assert cor_loc([[(20, 20, 30, 30), (50, 50, 60, 60)]], true) == 1.0
    assert cor_loc([[(20, 20, 30, 30), (50, 50, 60, 64)]], true, threshold=0.8) == 0.0
    assert cor_loc([np.array([[20, 20, 30, 30], [0, 0, 10, 9]])], true) == 1.0
    # One image with none, one with a box and one with several: in one list.
    assert cor_loc([[], (0, 0, 10, 10), [(0, 0, 10, 10)], None], true * 4) == 0.5
    assert cor_loc([np.zeros((0, 4))], true) == 0.0
    with pytest.raises(InputError, match=r"found an array of shape \(1, 3\), expected y0, x0, y1, x1"):
        cor_loc([[(0, 0, 10)]], true)
