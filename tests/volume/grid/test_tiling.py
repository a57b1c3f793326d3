"""Blocks and tiles cover everything once, windows have one size, blending changes nothing that agrees."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.recipe.specs import TileSpec
from hrvol.volume.grid.tiling import (
    blend_weight,
    block_shape,
    blocks,
    box_shape,
    core_side,
    intersection,
    overlap_pairs,
    shard_and_chunk,
    tiles_of,
    whole,
    windows_box,
)


@st.composite
def layouts(draw):
    core = draw(st.integers(64, 100))
    spec = TileSpec(
        core=core,
        overlap=draw(st.integers(0, core // 2)),
        blend=draw(st.integers(0, core // 2)),
        planes=draw(st.integers(1, 5)),
        across=draw(st.integers(1, 3)),
        overlap_planes=draw(st.sampled_from([0, 0, 1, 4])),
    )
    side = st.integers(1, 420)
    return (draw(st.integers(1, 12)), draw(side), draw(side)), spec


@settings(deadline=None, max_examples=60)
@given(layouts())
def test_blocks_own_each_voxel_once(layout):
    shape, spec = layout
    owners = np.zeros(shape, np.uint8)
    side = block_shape(shape, spec)
    for block in blocks(shape, spec):
        owners[block.core] += 1
        for index, span, step, length in zip(block.index, block.core, side, shape, strict=True):
            assert span.start == index * step
            assert span.stop == min(span.start + step, length)
    assert (owners == 1).all()


@settings(deadline=None, max_examples=60)
@given(layouts())
def test_tiles_own_each_pixel_of_their_block_once(layout):
    shape, spec = layout
    for block in blocks((1, *shape[1:]), spec):
        owners = np.zeros(shape[1:], np.uint8)
        for tile in tiles_of(block, shape[1:], spec):
            owners[tile.core_slices] += 1
        inside = np.zeros(shape[1:], np.uint8)
        inside[block.core[1:]] = 1
        np.testing.assert_array_equal(owners, inside)


@settings(deadline=None, max_examples=60)
@given(layouts())
def test_windows_have_one_size_and_cover_core_and_overlap(layout):
    shape, spec = layout
    plane = shape[1:]
    size = tuple(min(side, spec.core + 2 * spec.overlap) for side in plane)
    for block in blocks((1, *plane), spec):
        for tile in tiles_of(block, plane, spec):
            assert tile.window_shape == size
            for i, side in enumerate(plane):
                start, stop = tile.window[2 * i : 2 * i + 2]
                assert start >= 0
                assert stop <= side
                assert start <= max(0, tile.core[2 * i] - spec.overlap)
                assert stop >= min(side, tile.core[2 * i + 1] + spec.overlap)
            inner = np.zeros(tile.window_shape)
            inner[tile.core_in_window] = 1
            assert inner.sum() == np.ones(plane)[tile.core_slices].sum()


@settings(deadline=None, max_examples=60)
@given(layouts())
def test_the_windows_of_a_block_are_in_its_box_with_the_planes_around(layout):
    shape, spec = layout
    for block in blocks(shape, spec):
        box = windows_box(block, shape, spec)
        read = np.zeros(shape, bool)
        for tile in tiles_of(block, shape[1:], spec):
            read[(block.core[0], *tile.window_slices)] = True
        planes = np.flatnonzero(read.any(axis=(1, 2)))
        around = range(planes[0] - spec.overlap_planes, planes[-1] + 1 + spec.overlap_planes)
        assert list(range(shape[0]))[box[0]] == [z for z in around if 0 <= z < shape[0]]
        read[block.core[0]] = False
        assert not read.any()
        assert box_shape(box)[1] >= min(shape[1], box_shape(block.core)[1])


@settings(deadline=None, max_examples=60)
@given(layouts())
def test_weights_of_a_block_add_up_to_one_inside_and_nothing_outside(layout):
    shape, spec = layout
    plane = shape[1:]
    for block in blocks((1, *plane), spec):
        total = np.zeros(plane)
        for tile in tiles_of(block, plane, spec):
            weight = blend_weight(tile, block)
            assert weight.dtype == np.float32
            assert weight.min() >= 0
            total[tile.window_slices] += weight
        expected = np.zeros(plane)
        expected[block.core[1:]] = 1
        np.testing.assert_allclose(total, expected, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(layouts(), st.integers(0, 2**31))
def test_blending_tiles_that_agree_changes_nothing(layout, seed):
    shape, spec = layout
    truth = np.random.default_rng(seed).dirichlet([1, 1, 1], shape[1:]).astype(np.float32)
    blended = np.zeros_like(truth)
    for block in blocks((1, *shape[1:]), spec):
        for tile in tiles_of(block, shape[1:], spec):
            blended[tile.window_slices] += blend_weight(tile, block)[..., None] * truth[tile.window_slices]
    np.testing.assert_allclose(blended, truth, atol=1e-6)


def test_blend_is_even_at_the_face_and_over_at_the_end_of_the_ramp():
    spec = TileSpec(core=64, overlap=20, blend=10, across=2)
    block = blocks((1, 60, 200), spec)[0]
    left, right = tiles_of(block, (60, 200), spec)
    on_left = blend_weight(left, block)[30]
    on_right = blend_weight(right, block)[30]
    assert on_left[63 - left.window[2]] > 0.5 > on_left[64 - left.window[2]] > 0.4
    assert on_left[53 - left.window[2]] == 1
    assert on_right[53 - right.window[2] if right.window[2] <= 53 else 0] <= 1e-2
    assert on_left[74 - left.window[2] : 84].max(initial=0) == 0


def test_default_tiles_of_a_large_plane():
    spec = TileSpec()
    shape = (130, 1024, 1024)
    assert block_shape(shape, spec) == (64, 448, 448)
    assert len(blocks(shape, spec)) == 3 * 3 * 3
    middle = tiles_of(blocks(shape, spec)[4], (1024, 1024), spec)
    assert [tile.window for tile in middle] == [(413, 931, 413, 931)]
    corner = tiles_of(blocks(shape, spec)[8], (1024, 1024), spec)
    assert [tile.window for tile in corner] == [(506, 1024, 506, 1024)]


@pytest.mark.parametrize(("side", "tiles"), [(448, 1), (518, 1), (519, 2)])
def test_a_plane_that_one_window_covers_is_one_tile(side, tiles):
    found = [
        tile
        for block in blocks((1, side, side), TileSpec())
        for tile in tiles_of(block, (side, side), TileSpec())
    ]
    assert len(found) == tiles**2
    assert core_side(side, TileSpec()) == (side if tiles == 1 else 448)


@settings(deadline=None, max_examples=40)
@given(layouts())
def test_overlap_pairs_lie_in_both_windows_and_across_the_face(layout):
    shape, spec = layout
    plane = shape[1:]
    tiles = [tile for block in blocks((1, *plane), spec) for tile in tiles_of(block, plane, spec)]
    pairs = overlap_pairs(tiles)
    rows, columns = len({t.core[0] for t in tiles}), len({t.core[2] for t in tiles})
    expected = rows * (columns - 1) + columns * (rows - 1)
    assert len(pairs) == (expected if spec.overlap else 0)
    for i, j, (y0, y1, x0, x1) in pairs:
        for tile in (tiles[i], tiles[j]):
            assert tile.window[0] <= y0 < y1 <= tile.window[1]
            assert tile.window[2] <= x0 < x1 <= tile.window[3]
        below = tiles[j].core[0] > tiles[i].core[0]
        low, high, face = (y0, y1, tiles[j].core[0]) if below else (x0, x1, tiles[j].core[2])
        assert low < face < high


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=3))
def test_one_shard_is_one_block_of_whole_chunks(axes):
    shape = tuple(length for length, _ in axes)
    block = tuple(min(length, step) for length, step in axes)
    shards, chunks = shard_and_chunk(shape, block)
    for length, step, shard, chunk in zip(shape, block, shards, chunks, strict=True):
        assert shard % chunk == 0
        assert -(-length // shard) == -(-length // step)
        if step < length:
            assert shard == step
        else:
            assert chunk == min(64, length)


@pytest.mark.parametrize(
    ("shape", "block", "shards", "chunks"),
    [
        ((1, 512, 512), (1, 512, 512), (1, 512, 512), (1, 64, 64)),
        ((12, 300, 2000), (12, 300, 448), (12, 320, 448), (12, 64, 64)),
        ((200, 900, 900), (64, 449, 450), (64, 449, 450), (64, 449, 75)),
    ],
)
def test_shards_by_example(shape, block, shards, chunks):
    assert shard_and_chunk(shape, block) == (shards, chunks)


def test_boxes():
    a = (slice(0, 4), slice(2, 9), slice(0, 5))
    assert intersection(a, whole((3, 4, 5))) == (slice(0, 3), slice(2, 4), slice(0, 5))
    assert intersection(a, (slice(4, 5), slice(0, 9), slice(0, 9))) is None
    assert box_shape(a) == (4, 7, 5)
