import math
import pickle
from itertools import product
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from hrvol.analysis import object_blocks as module
from hrvol.analysis.object_blocks import join_blocks, label_block
from hrvol.analysis.objects import Object, as_rows, find_objects, foreground_mask
from hrvol.errors import InputError

FOREGROUND = (1, 2, 4)


def _slices(box):
    middle = len(box) // 2
    return tuple(slice(*ends) for ends in zip(box[:middle], box[middle:], strict=True))


def _cuts(shape, block):
    """The blocks of a grid: first voxels and ends."""
    for origin in product(*[range(0, size, step) for size, step in zip(shape, block, strict=True)]):
        stops = np.minimum(np.add(origin, block), shape)
        yield origin, tuple(stops.tolist())


def _reports(labels, block, foreground=FOREGROUND):
    for origin, stops in _cuts(labels.shape, block):
        halo_low = tuple(int(low > 0) for low in origin)
        open_high = tuple(np.less(stops, labels.shape).astype(int).tolist())
        where = _slices((*np.subtract(origin, halo_low), *stops))
        yield label_block(labels[where], origin, halo_low, foreground, open_high=open_high)


def _plainly(labels, foreground, min_size):
    """Components class by class, and of all classes, with another library."""
    everything = np.ones((3,) * labels.ndim)

    def components(mask):
        numbered, count = ndimage.label(mask, everything)
        for number in range(1, count + 1):
            where = np.argwhere(numbered == number)
            box = (*where.min(axis=0).tolist(), *(where.max(axis=0) + 1).tolist())
            yield -len(where), box

    found = sorted(
        (size, box, label) for label in set(foreground) for size, box in components(labels == label)
    )
    boxes = [Object(label, box, -size, False) for size, box, label in found if -size >= min_size]
    largest = min(components(np.isin(labels, foreground)), default=None)
    superbox = None if largest is None else Object(0, largest[1], -largest[0], True)
    return boxes, superbox


@st.composite
def label_maps(draw, dimensions=(2, 3), longest=12):
    """Maps of labels 0..4 (3 is no foreground), from sparse to dense; large ones from a seed (fast)."""
    shape = draw(hnp.array_shapes(min_dims=min(dimensions), max_dims=max(dimensions), max_side=longest))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.0, 0.05, 0.15, 0.3, 0.6, 1.0]))
    classes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True))
    labels = random.choice(classes, shape) * (random.random(shape) < share)
    return labels.astype(draw(st.sampled_from([np.uint8, np.uint16, np.int64])))


@settings(max_examples=50, deadline=None)
@given(label_maps(), st.integers(1, 6))
def test_objects_are_those_of_a_plain_search(labels, min_size):
    boxes, superbox = _plainly(labels, FOREGROUND, min_size)
    found = find_objects(labels, FOREGROUND, min_size=min_size, superbox_iou=1)
    assert found == ((superbox, *boxes) if superbox else ())
    assert find_objects(labels, FOREGROUND, min_size=min_size, mode="single") == found[:1]


@settings(max_examples=50, deadline=None)
@given(label_maps(), st.integers(1, 4))
def test_boxes_hold_their_objects_tightly(labels, min_size):
    for item in find_objects(labels, FOREGROUND, min_size=min_size):
        inside = labels[_slices(item.box)]
        mask = foreground_mask(inside, FOREGROUND if item.superbox else [item.label])
        numbered, _ = ndimage.label(mask, np.ones((3,) * labels.ndim))
        touching = [
            set(np.unique(numbered.take(end, axis))) for axis in range(labels.ndim) for end in (0, -1)
        ]
        reaching = set.intersection(*touching) - {0}
        assert item.size in [int((numbered == number).sum()) for number in reaching]
    boxes = [item for item in find_objects(labels, FOREGROUND, min_size=1, superbox_iou=1) if item.label]
    covered = np.zeros(labels.shape, int)
    for item in boxes:
        covered[_slices(item.box)] += 1
    assert (covered[foreground_mask(labels, FOREGROUND)] > 0).all()
    assert sum(item.size for item in boxes) == foreground_mask(labels, FOREGROUND).sum()


@settings(max_examples=50, deadline=None)
@given(
    label_maps(dimensions=(3, 3)),
    st.tuples(*[st.integers(1, 7)] * 3).filter(lambda block: math.prod(block) > 11),
    st.randoms(use_true_random=False),
    st.integers(1, 5),
    st.sampled_from([0, 5, 40, 10**6]),
)
def test_blocks_give_the_objects_of_the_whole(labels, block, random, min_size, compact):
    reports = list(_reports(labels, block))
    random.shuffle(reports)
    with mock.patch.object(module, "_COMPACT", compact):
        for options in ({}, {"mode": "single"}, {"superbox_iou": 0.5}, {"superbox_iou": 1.0}):
            whole = find_objects(labels, FOREGROUND, min_size=min_size, **options)
            assert join_blocks(iter(reports), min_size=min_size, **options) == whole


@settings(max_examples=30, deadline=None)
@given(label_maps(dimensions=(2, 2), longest=25), st.integers(2, 9), st.integers(2, 9))
def test_a_plane_in_blocks_is_a_volume_of_one_plane(labels, height, width):
    flat = find_objects(labels, FOREGROUND, min_size=2)
    blocked = join_blocks(_reports(labels[None], (1, height, width)), min_size=2)
    lifted = [
        Object(item.label, (0, *item.box[:2], 1, *item.box[2:]), item.size, item.superbox) for item in flat
    ]
    assert list(blocked) == lifted


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(3, 5)] * 3), st.booleans())
def test_snakes_through_many_blocks_stay_whole(seed, block, two_classes):
    random = np.random.default_rng(seed)
    labels = np.zeros((12, 12, 12), np.uint8)
    place = random.integers(0, 12, 3)
    for step in range(150):
        labels[tuple(place)] = 1 + (two_classes and step % 30 >= 15)
        place = np.clip(place + random.integers(-1, 2, 3), 0, 11)
    reports = list(_reports(labels, block))
    random.shuffle(reports)
    found = join_blocks(reports, min_size=1, superbox_iou=1)
    assert found == find_objects(labels, FOREGROUND, min_size=1, superbox_iou=1)
    assert found[0].size == np.count_nonzero(labels)
    assert two_classes or len(found) == 2


@pytest.mark.parametrize("second", [1, 2])
@pytest.mark.parametrize("step", [s for s in product((-1, 0, 1), repeat=3) if any(s)])
def test_voxels_that_touch_across_a_corner_of_blocks(step, second):
    labels = np.zeros((4, 4, 4), np.uint8)
    first = np.array([1 if s > 0 else 2 for s in step])
    other = first + step
    labels[tuple(first)], labels[tuple(other)] = 1, second
    low, high = np.minimum(first, other), np.maximum(first, other) + 1
    found = join_blocks(_reports(labels, (2, 2, 2)), min_size=1, superbox_iou=1)
    assert found[0] == Object(0, (*low, *high), 2, True)
    assert [item.size for item in found[1:]] == ([2] if second == 1 else [1, 1])


def test_a_component_seen_only_in_a_halo_joins_its_parts():
    # Two diagonal voxels of a plane: only the block that owns neither has both.
    labels = np.zeros((1, 4, 4), np.uint8)
    labels[0, 1, 2] = labels[0, 2, 1] = 1
    reports = {report.origin: report for report in _reports(labels, (1, 2, 2))}
    assert reports[0, 2, 2].components.sizes.tolist() == [0, 0]  # of the class, and of all classes
    (box, *_) = join_blocks(reports.values(), min_size=2)
    assert (box.box, box.size) == ((0, 1, 1, 1, 3, 3), 2)


def test_min_size_is_the_least_size_of_an_object_but_not_of_the_superbox():
    labels = np.zeros((30, 30), np.uint8)
    labels[:10, :20] = 1
    labels[15:16, :20] = 2
    sizes = {
        least: [item.size for item in find_objects(labels, [1, 2], min_size=least) if not item.superbox]
        for least in (20, 21, 200, 201)
    }
    assert sizes == {20: [200, 20], 21: [200], 200: [200], 201: []}
    assert [item.size for item in find_objects(labels, [1, 2])] == [200]
    assert find_objects(labels, [1, 2], min_size=201) == (Object(0, (0, 0, 10, 20), 200, True),)
    assert find_objects(labels, [2], mode="single") == (Object(0, (15, 0, 16, 20), 20, True),)


def _head_and_body(head):
    """One object, 10 x 10 pixels, of which a class takes ``head`` columns."""
    labels = np.full((10, 10), 1, np.uint8)
    labels[:, :head] = 2
    return labels


@pytest.mark.parametrize(("head", "kept"), [(1, False), (2, True), (3, True)])
def test_the_superbox_is_left_out_above_80_percent_of_another_box(head, kept):
    labels = _head_and_body(head)
    body, top = (
        Object(1, (0, head, 10, 10), 100 - 10 * head, False),
        Object(2, (0, 0, 10, head), 10 * head, False),
    )
    superbox = Object(0, (0, 0, 10, 10), 100, True)
    assert find_objects(labels, [1, 2], min_size=5) == ((superbox,) if kept else ()) + (body, top)
    assert join_blocks(_reports(labels[None], (1, 4, 4)), min_size=5)[0].superbox == kept
    assert find_objects(labels, [1, 2], min_size=5, mode="single") == (superbox,)
    assert not find_objects(labels, [1, 2], min_size=5, superbox_iou=0.69)[0].superbox


def test_the_superbox_is_around_the_largest_component_of_all_classes_together():
    labels = np.zeros((20, 40), np.uint8)
    labels[:8, :10] = 1
    labels[8:16, :10] = 2
    labels[:10, 20:30] = 4  # the largest of one class
    found = find_objects(labels, FOREGROUND, min_size=1)
    assert [(item.label, item.size) for item in found] == [(0, 160), (4, 100), (1, 80), (2, 80)]
    assert found[0].box == (0, 0, 16, 10)
    assert [item.label for item in find_objects(labels, [1, 4], min_size=1)] == [4, 1]


def test_equals_are_ordered_by_box_and_class():
    labels = np.array([[0, 1, 0, 0, 2], [1, 2, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 2, 0, 0]])
    found = find_objects(labels, [2, 1], min_size=1, superbox_iou=1)
    assert [(item.label, item.size, item.box) for item in found] == [
        (0, 3, (0, 0, 2, 2)),
        (1, 2, (0, 0, 2, 2)),
        (2, 1, (0, 4, 1, 5)),
        (2, 1, (1, 1, 2, 2)),
        (1, 1, (1, 4, 2, 5)),
        (1, 1, (3, 0, 4, 1)),
        (2, 1, (3, 2, 4, 3)),
    ]
    checks = np.array([[2, 1], [1, 2]])  # two classes of one size in one box
    assert [item.label for item in find_objects(checks, [2, 1], min_size=1, superbox_iou=1)] == [0, 1, 2]


@pytest.mark.parametrize("mode", ["multi", "single"])
@pytest.mark.parametrize("foreground", [[], [7]])
def test_without_foreground_there_is_nothing(mode, foreground):
    labels = np.ones((1, 6, 6), np.uint8)
    assert find_objects(labels, foreground, min_size=1, mode=mode) == ()
    assert find_objects(labels[0], foreground, min_size=1, mode=mode) == ()
    assert join_blocks(_reports(labels, (1, 4, 4), foreground), min_size=1, mode=mode) == ()
    assert not foreground_mask(labels, foreground).any()
    assert join_blocks([], mode=mode) == ()


def test_saliency_is_all_foreground_classes():
    mask = foreground_mask(np.array([[0, 1], [2, 3]], np.uint8), [3, 1, 300])
    assert mask.dtype == bool
    assert mask.tolist() == [[False, True], [False, True]]


def test_rows_of_a_table():
    solid = Object(3, (1, 2, 3, 4, 5, 6), 27, False)
    flat = Object(0, (1, 2, 4, 5), 9, True)
    assert as_rows([flat, solid]) == [
        {"class": 0, "superbox": 1, "size": 9, "y0": 1, "x0": 2, "y1": 4, "x1": 5},
        {"class": 3, "superbox": 0, "size": 27, "z0": 1, "y0": 2, "x0": 3, "z1": 4, "y1": 5, "x1": 6},
    ]
    assert list(as_rows([solid])[0]) == ["class", "superbox", "size", "z0", "y0", "x0", "z1", "y1", "x1"]


def test_reports_are_small_and_travel():
    labels = np.ones((32, 64, 64), np.uint8)
    labels[::4] = 2
    reports = [pickle.dumps(report) for report in _reports(labels, (16, 32, 32))]
    assert max(map(len, reports)) < 4000
    found = join_blocks(map(pickle.loads, reports))
    assert found == find_objects(labels, FOREGROUND)


def test_what_no_block_can_touch_any_more_is_let_go():
    labels = np.zeros((64, 4, 4), np.uint8)
    labels[::2] = 1
    joiner = module._Joiner(1)
    with mock.patch.object(module, "_COMPACT", 10):
        joiner._limit = 10
        held = []
        for report in _reports(labels, (2, 4, 4)):
            joiner.add(report)
            held.append((joiner._count, len(joiner._edges), len(joiner._waiting)))
    assert max(count for count, _, _ in held) <= 14
    assert max(waiting for *_, waiting in held) == 1
    objects, largest = joiner.finish()
    assert len(objects) == 32
    assert largest == Object(0, (0, 0, 0, 1, 4, 4), 16, True)


def test_blocks_that_do_not_fit_are_refused():
    labels = np.ones((4, 4, 4), np.uint8)
    reports = list(_reports(labels, (2, 2, 2)))
    for missing in range(8):
        with pytest.raises(InputError, match="contacts of one block only"):
            join_blocks(reports[:missing] + reports[missing + 1 :])
    with pytest.raises(InputError, match=r"block at \(0, 2, 0\): found twice"):
        join_blocks([*reports, reports[2]])
    others = list(_reports(np.zeros_like(labels), (2, 2, 2)))
    with pytest.raises(InputError, match="expected the same labels in both"):
        join_blocks([*reports[:7], others[7]])


def test_labels_that_do_not_fit_are_refused():
    labels = np.ones((4, 4, 4))
    for wrong, message in (
        (lambda: find_objects(labels, [1]), "found values of type float64, expected integer"),
        (lambda: find_objects(np.ones(4, int), [1]), r"found shape \(4,\), expected \(Y, X\) or"),
        (lambda: find_objects(labels.astype(int), [2, 0]), r"found classes \[0, 2\], expected them from 1"),
        (lambda: foreground_mask(labels, [1]), "float64"),
        (lambda: label_block(labels, (0,) * 3, (0,) * 3, [1], open_high=(0,) * 3), "float64"),
        (
            lambda: label_block(labels[0], (0,) * 3, (0,) * 3, [1], open_high=(0,) * 3),
            r"found a block of shape \(4, 4\)",
        ),
    ):
        with pytest.raises(InputError, match=message):
            wrong()
