"""A grid of blocks is the tuple of blocks without the memory, and its order keeps neighbours together."""

import pickle
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.recipe.specs import TileSpec
from hrvol.volume.grid.order import BlockGrid, morton_order
from hrvol.volume.grid.tiling import blend_weight, blocks, intersection, tiles_of, whole

counts = st.tuples(*[st.integers(1, 9)] * 3)


@st.composite
def grids(draw):
    core = draw(st.integers(64, 90))
    spec = TileSpec(
        core=core,
        overlap=draw(st.integers(0, core // 2)),
        blend=draw(st.integers(0, core // 2)),
        planes=draw(st.integers(1, 5)),
        across=draw(st.integers(1, 3)),
        overlap_planes=draw(st.sampled_from([0, 0, 1, 4])),
    )
    side = st.integers(1, 500)
    chunks = draw(st.none() | st.tuples(*[st.integers(1, 20)] * 3))
    return BlockGrid((draw(st.integers(1, 12)), draw(side), draw(side)), spec, chunks)


@st.composite
def regions(draw, shape):
    spans = []
    for length in shape:
        start = draw(st.integers(0, length - 1))
        spans.append(slice(start, draw(st.integers(start + 1, length))))
    return tuple(spans)


@given(counts, st.booleans())
def test_the_order_is_a_permutation(counts, layers):
    order = morton_order(counts, layers=layers)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(prod(counts)))


@given(counts)
def test_the_order_weaves_the_bits_of_z_x_and_y(counts):
    def code(flat):
        z, y, x = np.unravel_index(flat, counts)
        bits = range(4)
        return sum(
            (int(v) >> bit & 1) << (3 * bit + place) for bit in bits for place, v in enumerate((z, x, y))
        )

    order = morton_order(counts)
    assert list(order) == sorted(range(prod(counts)), key=code)


@given(st.tuples(*[st.integers(1, 4)] * 3))
def test_aligned_groups_of_eight_follow_each_other(powers):
    counts = tuple(2**power for power in powers)
    groups = morton_order(counts).reshape(-1, 8)
    corners = np.array(np.unravel_index(groups, counts)) // 2
    assert (corners == corners[:, :, :1]).all()


def test_the_two_blocks_of_a_deep_chunk_follow_each_other():
    z, y, x = np.unravel_index(morton_order((6, 5, 7)), (6, 5, 7))
    np.testing.assert_array_equal(z[0::2] + 1, z[1::2])
    np.testing.assert_array_equal(y[0::2], y[1::2])
    np.testing.assert_array_equal(x[0::2], x[1::2])


def test_layers_are_finished_one_by_one_along_the_same_curve():
    z, y, x = np.unravel_index(morton_order((3, 5, 6), layers=True), (3, 5, 6))
    np.testing.assert_array_equal(z, np.repeat(np.arange(3), 30))
    flat_layer = morton_order((1, 5, 6))
    for layer in range(3):
        np.testing.assert_array_equal((y * 6 + x)[z == layer], flat_layer)


@settings(deadline=None)
@given(grids())
def test_a_grid_is_the_tuple_of_blocks(grid):
    expected = blocks(grid.shape, grid.tiles)
    assert len(grid) == len(expected) == prod(grid.counts)
    assert tuple(grid) == expected
    assert [grid[i] for i in grid.order()] == [expected[i] for i in grid.order()]
    assert grid[-1] == expected[-1]
    assert grid[1:3] == expected[1:3]
    assert pickle.loads(pickle.dumps(grid)) == grid
    with pytest.raises(IndexError):
        grid[len(expected)]


@settings(deadline=None)
@given(st.data(), grids())
def test_blocks_of_a_region_are_those_that_touch_it_in_the_order_of_all(data, grid):
    region = data.draw(regions(grid.shape))
    touching = [i for i in grid.order() if intersection(grid[i].core, region) is not None]
    np.testing.assert_array_equal(grid.inside(region), touching)


def test_nothing_touches_a_region_outside():
    grid = BlockGrid((4, 100, 100), TileSpec())
    assert grid.inside((slice(4, 9), slice(0, 100), slice(0, 100))).shape == (0,)
    assert grid.inside((slice(0, 4), slice(5, 5), slice(0, 100))).shape == (0,)


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(None, False), (1, True), (10, True), (32, True), (64, True), (48, False), (128, False)],
)
def test_work_goes_layer_by_layer_where_layers_share_few_chunks(depth, layers):
    chunks = None if depth is None else (depth, 128, 128)
    grid = BlockGrid((640, 1000, 1000), TileSpec(), chunks)
    assert grid.layers is layers
    np.testing.assert_array_equal(grid.order(), morton_order(grid.counts, layers=layers))


@pytest.mark.parametrize(("around", "layers"), [(0, True), (7, True), (9, False)])
def test_layers_that_share_planes_of_context_are_no_reason_to_finish_one_first(around, layers):
    tiles = TileSpec(planes=64, overlap_planes=around)
    assert BlockGrid((640, 1000, 1000), tiles, (1, 128, 128)).layers is layers


@settings(deadline=None, max_examples=60)
@given(st.data(), grids())
def test_read_spans_are_those_of_the_tiles_that_count_in_a_region(data, grid):
    region = data.draw(st.none() | regions(grid.shape))
    spans = grid.read_spans(region)
    box = whole(grid.shape) if region is None else region
    expected = [{}, {}, {}]
    for i in grid.inside(box):
        block = grid[i]
        part = intersection(block.core, box)
        around = grid.tiles.overlap_planes
        planes = [z for z in range(part[0].start - around, part[0].stop + around) if 0 <= z < grid.shape[0]]
        reads = [(planes[0], planes[-1] + 1)]
        windows = []
        for tile in tiles_of(block, grid.shape[1:], grid.tiles):
            weight = np.zeros(grid.shape[1:], np.float32)
            weight[tile.window_slices] = blend_weight(tile, block)
            if weight[part[1:]].any():
                windows.append(tile.window)
        windows = np.array(windows)
        reads += [(windows[:, k].min(), windows[:, k + 1].max()) for k in (0, 2)]
        for axis, read in enumerate(reads):
            assert expected[axis].setdefault(block.index[axis], read) == read
    assert spans == tuple(tuple(rows[i] for i in sorted(rows)) for rows in expected)


@pytest.mark.parametrize(
    ("pixel", "span"), [(89, (0, 140)), (90, (0, 220)), (109, (0, 220)), (110, (80, 220))]
)
def test_a_tile_is_read_where_only_its_ramp_reaches_into_the_region(pixel, span):
    tiles = TileSpec(core=100, overlap=20, blend=10, across=2)
    region = (slice(0, 1), slice(0, 600), slice(pixel, pixel + 1))
    assert BlockGrid((1, 600, 1000), tiles).read_spans(region)[2] == (span,)


def test_ten_million_blocks_are_ordered_without_making_them():
    grid = BlockGrid((64 * 250, 448 * 200, 448 * 200), TileSpec())
    assert len(grid) == 10_000_000
    order = grid.order()
    assert order.nbytes == 8 * len(grid)
    assert len(pickle.dumps(grid)) < 2000
    assert grid[int(order[-1])].index == (249, 199, 199)
