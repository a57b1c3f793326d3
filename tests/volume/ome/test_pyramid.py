"""Coarser levels: the commonest label wins, the same way every time, whatever the shards."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hrvol.volume.ome.metadata import Level
from hrvol.volume.ome.pyramid import (
    ImagePlan,
    mean_reduce,
    mode_reduce,
    next_factor,
    plan_levels,
    write_levels,
)

SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)


def plan_of(group, axes, block):
    """Plan a pyramid of labels of the array "0"."""
    array = group["0"]
    first = Level("0", (1.0,) * len(axes), (0.0,) * len(axes))
    levels = plan_levels(array.shape, axes, first, block, array.shape[0])
    return ImagePlan("", axes, None, "mode", first, levels)


def slow(values, factor, choose):
    """Reduce cell by cell."""
    out = np.empty([-(-n // f) for n, f in zip(values.shape, factor, strict=True)], values.dtype)
    for index in product(*map(range, out.shape)):
        cell = values[tuple(slice(i * f, i * f + f) for i, f in zip(index, factor, strict=True))]
        out[index] = choose(cell)
    return out


def commonest(cell):
    votes = Counter(cell.ravel().tolist())
    most = max(votes.values())
    equal = sorted(value for value, n in votes.items() if n == most)
    return next((value for value in equal if value), 0)


@settings(deadline=None)
@given(
    hnp.arrays(st.sampled_from([np.uint8, np.uint16]), SHAPES, elements=st.integers(0, 3) | st.just(255)),
    st.sampled_from([(2, 2, 2), (1, 2, 2), (2, 1, 2), (1, 2, 1)]),
)
def test_mode(labels, factor):
    np.testing.assert_array_equal(mode_reduce(labels, factor), slow(labels, factor, commonest))


def test_ties_go_to_the_smallest_that_is_not_zero():
    assert mode_reduce(np.array([[[0, 0], [5, 5]]], np.uint8), (1, 2, 2)) == 5
    assert mode_reduce(np.array([[[7, 5], [5, 7]]], np.uint8), (1, 2, 2)) == 5
    assert mode_reduce(np.array([[[0, 0], [0, 7]]], np.uint8), (1, 2, 2)) == 0
    assert mode_reduce(np.array([[[65535, 0], [0, 65535]]], np.uint16), (1, 2, 2)) == 65535


@settings(deadline=None)
@given(
    hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=3).map(lambda s: tuple(2 * n for n in s))
    )
)
def test_mean_rounds_halves_up(image):
    expected = slow(image, (2, 2, 2), lambda cell: int(np.floor(cell.astype(float).mean() + 0.5)))
    np.testing.assert_array_equal(mean_reduce(image, (2, 2, 2)), expected)


def test_mean_of_floats_and_negative_numbers():
    assert mean_reduce(np.array([[[0.25, 0.5], [1, 0]]], np.float32), (1, 2, 2)) == np.float32(0.4375)
    assert mean_reduce(np.array([[[-3, -3], [-3, -2]]], np.int16), (1, 2, 2)) == -3


@pytest.mark.parametrize("dtype", "bBhHiIlL")
def test_mean_of_every_integer_type(dtype):
    found = mean_reduce(np.array([[[100, 101], [101, 101]]], dtype), (1, 2, 2))
    assert found == 101
    assert found.dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    ("shape", "size", "factor"),
    [
        ((256, 256, 256), (1, 1, 1), None),
        ((64, 1000, 1000), (1, 1, 1), (2, 2, 2)),
        ((64, 1000, 1000), (10, 1, 1), (1, 2, 2)),
        ((12, 1000, 1000), (1, 1, 1), (1, 2, 2)),
        ((1, 1, 1000), (1, 1, 1), (1, 1, 2)),
        ((1000, 200, 200), (1, 1, 1), (2, 2, 2)),
        ((1000, 200, 200), (10, 1, 1), None),
    ],
)
def test_factors(shape, size, factor):
    assert next_factor(shape, size) == factor


@pytest.mark.parametrize("axes", ["zyx", "yx", "czyx", "cyx"])
def test_levels_do_not_depend_on_shards(tmp_path, axes):
    sides = {"c": 2, "z": 34, "y": 265, "x": 517}
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, [sides[a] for a in axes], np.uint8)
    results = []
    for block in ((64, 448, 448), (8, 64, 100)):
        group = zarr.create_group(tmp_path / str(block[0]))
        group.create_array("0", data=values)
        seen = []
        plan = plan_of(group, axes, block)
        write_levels(group, plan, lambda done, total, seen=seen: seen.append((done, total)))
        assert seen[-1][0] == seen[-1][1]
        results.append([np.asarray(group[level.path]) for level in plan.resolutions])
    assert len(results[0]) == 3
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    flat = values.reshape((-1, sides["z"] if "z" in axes else 1, 265, 517))
    factor = (2 if "z" in axes else 1, 2, 2)
    expected = np.stack([mode_reduce(channel, factor) for channel in flat])
    np.testing.assert_array_equal(results[0][1].reshape(expected.shape), expected)


def test_a_shard_at_a_time(tmp_path, monkeypatch):
    values = np.ones((40, 300, 400), np.uint8)
    group = zarr.create_group(tmp_path / "g")
    group.create_array("0", data=values, chunks=(20, 64, 64))
    largest = []

    def watched(box, factor):
        largest.append(box.size)
        return mode_reduce(box, factor)

    monkeypatch.setattr("hrvol.volume.ome.pyramid.mode_reduce", watched)
    write_levels(group, plan_of(group, "zyx", (16, 64, 64)))
    assert max(largest) <= 8 * 16 * 64 * 64
