import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics as reference

from hrvol.errors import InputError
from hrvol.quality.metrics import (
    Confusion,
    SeamDisagreement,
    box_iou,
    confusion_matrix,
    cor_loc,
    dice,
    evaluate,
    iou_per_class,
    mean_iou,
    pixel_accuracy,
    seam_disagreement,
)


def _labels(seed, shape=(40, 50), low=0, high=5):
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.uint8)


@given(st.integers(0, 2**32 - 1))
def test_figures_agree_with_scikit_learn(seed):
    truth, pred = _labels(seed, (11, 13)), _labels(seed + 1, (11, 13), low=1)
    known = truth > 0
    t, p = truth[known], pred[known]
    present = np.unique(t)
    matrix = confusion_matrix(pred, truth, 4)
    assert np.array_equal(matrix[1:, 1:], reference.confusion_matrix(t, p, labels=[1, 2, 3, 4]))
    iou = reference.jaccard_score(t, p, labels=present, average=None)
    assert np.allclose(iou_per_class(matrix)[present - 1], iou)
    assert math.isclose(mean_iou(matrix), iou.mean())
    assert np.allclose(dice(matrix)[present - 1], reference.f1_score(t, p, labels=present, average=None))
    assert math.isclose(pixel_accuracy(matrix), reference.accuracy_score(t, p))


def test_a_case_worked_by_hand():
    truth = np.array([1, 1, 1, 2, 2, 0])
    pred = np.array([1, 1, 2, 2, 0, 2])
    result = evaluate(pred, truth, ["pore", "matrix"])
    assert result["iou"] == {"pore": 2 / 3, "matrix": 1 / 3}
    assert result["dice"] == {"pore": 4 / 5, "matrix": 2 / 4}
    assert result["miou"] == 0.5
    assert result["accuracy"] == 3 / 5
    assert result["confusion"] == [[2, 1], [0, 1]]
    assert result["unlabelled"] == 1


def test_a_class_that_the_truth_lacks_is_left_out_of_the_mean_but_costs_the_others():
    truth, pred = np.array([1, 1, 2, 2]), np.array([1, 3, 2, 2])
    result = evaluate(pred, truth)
    assert result["iou"] == {"1": 0.5, "2": 1.0, "3": None}
    assert result["miou"] == 0.75
    assert result["dice"]["3"] is None


def test_names_may_be_given_by_value():
    result = evaluate(np.array([1, 3]), np.array([1, 3]), {1: "pore", 3: "crack"})
    assert result["iou"] == {"pore": 1.0, "2": None, "crack": 1.0}


@pytest.mark.parametrize("cut", [1, 7, 39])
def test_chunks_add_up_to_the_whole(cut):
    truth, pred = _labels(0), _labels(1)
    truth[:cut] = np.minimum(truth[:cut], 2)
    pred[:cut] = np.minimum(pred[:cut], 2)  # this chunk alone has fewer classes
    parts = Confusion.of(pred[:cut], truth[:cut]) + Confusion.of(pred[cut:], truth[cut:])
    assert parts.to_dict() == evaluate(pred, truth)


def test_result_is_json():
    result = evaluate(_labels(0), _labels(1))
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_what_cannot_be_compared_is_refused():
    labels = _labels(0)
    with pytest.raises(InputError, match=r"found shape \(39, 50\)"):
        evaluate(labels[1:], labels)
    with pytest.raises(InputError, match=r"found labels 0..4, expected them in 0..3"):
        confusion_matrix(labels, labels, 3)
    with pytest.raises(InputError, match="expected integer labels"):
        evaluate(labels.astype(np.float32), labels)
    with pytest.raises(InputError, match="no labelled pixels"):
        evaluate(labels, np.zeros_like(labels))
    with pytest.raises(InputError, match="each name once"):
        evaluate(labels, labels, ["a", "a", "b", "c"])
    with pytest.raises(InputError, match="found a label 60000"):  # its matrix would fill 29 GB
        evaluate(labels, np.full(labels.shape, 60000, np.uint16))


def test_overlap_of_boxes():
    assert box_iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert math.isclose(box_iou((0, 0, 2, 2), (1, 1, 3, 3)), 1 / 7)
    assert box_iou((0, 0, 2, 2), (0, 2, 2, 4)) == 0  # half-open: side by side
    assert box_iou((0, 0, 1, 1), (5, 5, 6, 6)) == 0  # apart along both axes
    assert box_iou((0, 0, 0, 2, 2, 2), (0, 0, 1, 2, 2, 2)) == 0.5
    assert box_iou((1, 1, 1, 1), (1, 1, 1, 1)) == 0  # nothing and nothing


corner = st.integers(0, 8)


@settings(deadline=None)
@given(*[hnp.arrays(np.int64, (2, 3), elements=corner)] * 2)
def test_overlap_is_that_of_the_voxels(a, b):
    masks = []
    for ends in (a, b):
        ends.sort(axis=0)
        mask = np.zeros((8, 8, 8), bool)
        mask[tuple(slice(*pair) for pair in ends.T)] = True
        masks.append(mask)
    common, total = (masks[0] & masks[1]).sum(), (masks[0] | masks[1]).sum()
    found = box_iou(a.ravel().tolist(), b.ravel().tolist())
    assert math.isclose(found, common / total if total else 0)


def test_corloc_counts_images_with_a_hit():
    true = [[(0, 0, 10, 10)], [(0, 0, 10, 10), (50, 50, 60, 60)], [(0, 0, 10, 10)], [(0, 0, 10, 10)]]
    pred = [(0, 0, 10, 10), (50, 50, 60, 60), (0, 0, 4, 10), None]
    assert cor_loc(pred, true) == 0.5
    assert cor_loc(pred, true, threshold=0.4) == 0.75
    assert cor_loc([(0, 0, 5, 10)], [[(0, 0, 10, 10)]]) == 1.0  # an overlap of one half is a hit
    assert cor_loc([(20, 20, 30, 30)], [[(0, 0, 10, 10)]], threshold=0.01) == 0.0
    with pytest.raises(InputError, match="found 1 predictions"):
        cor_loc([None], [])


def test_seam_disagreement_of_known_tiles():
    a, b = np.array([[1, 1, 2, 0]]), np.array([[1, 2, 2, 1]])
    pa = np.array([[[0.9, 0.6, 0.2, 0.0]], [[0.1, 0.4, 0.8, 0.0]]], np.float32)
    pb = np.array([[[0.9, 0.3, 0.2, 1.0]], [[0.1, 0.7, 0.8, 0.0]]], np.float32)
    seam = seam_disagreement(a, b, pa, pb)
    assert (seam.pixels, seam.labels_differ) == (3, 1)
    assert seam.label_share == 1 / 3
    assert seam.mean_probability_difference == pytest.approx(0.3 / 3)
    twice = seam + seam_disagreement(a, a, pa, pa)
    assert twice.label_share == 1 / 6
    assert twice.mean_probability_difference == pytest.approx(0.3 / 6)
    assert SeamDisagreement().label_share == 0.0
    with pytest.raises(InputError, match="seam"):
        seam_disagreement(a, b, pa, pb[:, :, :3])
