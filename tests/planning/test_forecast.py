"""The arithmetic of a forecast: sizes of blocks, bytes decoded, time of the workers, bytes written."""

import itertools
from math import ceil, prod

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from hrvol.arrays import even_edges
from hrvol.planning.forecast import (
    MOST_ASSIGNED,
    Pace,
    block_sizes,
    ledger_objects,
    level_bytes,
    level_objects,
    makespan,
    one_tile,
    pyramid_seconds,
    shard_bytes,
)
from hrvol.planning.mask_sample import sample_mask
from hrvol.progress import format_size
from hrvol.recipe.specs import TileSpec
from hrvol.volume.chunk_cache import ChunkCache, chunk_uses
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import blend_weight, blocks, box_shape, intersection, tiles_of, whole
from hrvol.volume.ome.metadata import Level
from hrvol.volume.ome.pyramid import plan_levels
from hrvol.volume.read_forecast import simulate_reads
from hrvol.volume.volume import open_volume

EVEN = Pace(alone=1.0, together=1.0, workers=1, busy=0.0)


@st.composite
def grids(draw, most=400):
    core = draw(st.integers(64, 90))
    spec = TileSpec(
        core=core,
        overlap=draw(st.integers(0, core // 2)),
        blend=draw(st.integers(0, core // 4)),
        planes=draw(st.integers(1, 5)),
        across=draw(st.integers(1, 3)),
        overlap_planes=draw(st.sampled_from([0, 0, 1, 4])),
    )
    side = st.integers(1, most)
    chunks = draw(st.tuples(st.integers(1, 9), st.integers(20, 120), st.integers(20, 120)))
    return BlockGrid((draw(st.integers(1, 12)), draw(side), draw(side)), spec, chunks)


@st.composite
def regions(draw, shape):
    spans = []
    for length in shape:
        start = draw(st.integers(0, length - 1))
        spans.append(slice(start, draw(st.integers(start + 1, length))))
    return tuple(spans)


def reaches(grid, block, region):
    """The pixels (y, x) that each tile of a block contributes to, inside a region, by its weights."""
    part = intersection(block.core, region)
    spans = []
    for tile in tiles_of(block, grid.shape[1:], grid.tiles):
        weight = blend_weight(tile, block)
        rows, columns = (np.flatnonzero(weight.any(axis=axis)) for axis in (1, 0))
        y0, _, x0, _ = tile.window
        reach = (
            part[0],
            slice(y0 + rows[0], y0 + rows[-1] + 1),
            slice(x0 + columns[0], x0 + columns[-1] + 1),
        )
        shared = intersection(reach, part)
        if shared is not None:
            spans.append(shared[1:])
    return part, spans


@given(st.data())
def test_sizes_of_blocks_are_those_of_their_tiles(data):
    grid = data.draw(grids())
    region = data.draw(regions(grid.shape))
    numbers = grid.inside(region)
    sizes = block_sizes(grid, numbers, region)
    assert sizes.voxels.sum() == prod(box_shape(region))
    for i, number in enumerate(numbers):
        part, spans = reaches(grid, grid[int(number)], region)
        assert sizes.planes[i] == part[0].stop - part[0].start
        assert sizes.voxels[i] == prod(box_shape(part))
        assert sizes.tiles[i] == len(spans)
        assert sizes.classified[i] == sum((y.stop - y.start) * (x.stop - x.start) for y, x in spans)


@given(st.data())
def test_one_tile_of_a_block_has_pixels_to_itself(data):
    grid = data.draw(grids())
    region = data.draw(regions(grid.shape))
    number = data.draw(st.sampled_from(grid.inside(region).tolist()))
    piece = one_tile(grid, grid[number], region)
    _, spans = reaches(grid, grid[number], region)
    assert piece.tiles == len(spans)
    if not piece.pixels:
        return  # tiles that are all blend
    box = (slice(0, 1), piece.rows, piece.columns)
    inside = [reach for reach in spans if intersection((slice(0, 1), *reach), box) is not None]
    assert len(inside) == 1
    windows = [tile.window for tile in tiles_of(grid[number], grid.shape[1:], grid.tiles)]
    height, width = (span.stop - span.start for span in piece.in_read)
    assert (height, width) in {(y1 - y0, x1 - x0) for y0, y1, x0, x1 in windows}


def test_work_is_a_unit_for_a_full_plane_of_a_tile():
    grid = BlockGrid((4, 518, 966), TileSpec())
    sizes = block_sizes(grid, np.arange(len(grid)), whole(grid.shape))
    assert sizes.classified.tolist() == [518 * 448, 518 * 448, 518 * 70]
    np.testing.assert_allclose(sizes.work(1.0, 518 * 448), [4, 4, 4])
    np.testing.assert_allclose(sizes.work(0.0, 518 * 448), [4, 4, 4 * 70 / 448])


def read_for_real(grid, numbers, region, workers, capacity):
    array = zarr.create_array({}, shape=grid.shape, chunks=grid.chunks, dtype="uint8", fill_value=0)
    spans = grid.read_spans(region)
    first = [span.start // side for span, side in zip(region, grid.side, strict=True)]
    uses = chunk_uses(grid, grid.chunks, region)
    decoded = 0
    edges = even_edges(len(numbers), workers, grid.layer_starts(numbers))  # as the engines share them out
    for share in (numbers[start:stop] for start, stop in itertools.pairwise(edges)):
        cache = ChunkCache(capacity)
        for number in share:
            index = grid[int(number)].index
            window = tuple(slice(*rows[i - f]) for rows, i, f in zip(spans, index, first, strict=True))
            cache.read(array, window, uses)
        decoded += cache.decoded_bytes
    return decoded


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_caches_decode_as_simulated(data):
    grid = data.draw(grids(most=250))
    region = data.draw(regions(grid.shape))
    numbers = grid.inside(region)
    numbers = numbers[data.draw(st.integers(0, len(numbers) // 2)) :]  # some are done
    workers = data.draw(st.integers(1, 3))
    # Small caches, in which chunks are not joined, and one that holds everything.
    capacity = data.draw(st.sampled_from([0, 20_000, 60_000, 2**30]))
    reads = simulate_reads(grid, numbers, region, 1, workers=workers, capacity=capacity)
    assert reads.held <= capacity
    assert reads.once <= reads.decoded or len(numbers) < len(grid.inside(region))
    decoded = read_for_real(grid, numbers, region, workers, capacity)
    assert reads.decoded == (decoded if capacity in (0, 2**30) else pytest.approx(decoded, rel=0.1))


@pytest.mark.parametrize(
    ("chunks", "most"),
    [((64, 64, 64), 2000), ((128, 128, 128), 2000), ((1, 2240, 2240), 10_000), ((100, 100, 100), 2000)],
)
def test_a_simulated_part_is_extrapolated_to_a_large_volume(chunks, most):
    grid = BlockGrid((512, 2240 * 2, 2240 * 2), TileSpec(), chunks)
    numbers, region = grid.order(), whole(grid.shape)
    given = {"workers": 1, "capacity": 128 * 2**20}
    full = simulate_reads(grid, numbers, region, 1, most=10**9, **given)
    part = simulate_reads(grid, numbers, region, 1, most=most, **given)
    assert full.decoded != part.decoded or chunks[0] == 64  # it was a part
    assert part.decoded == pytest.approx(full.decoded, rel=0.15)


costs = st.lists(st.floats(0.1, 10), min_size=1, max_size=60).map(np.array)


@given(costs, st.integers(1, 9))
def test_no_worker_is_idle_while_others_have_much_to_do(work, workers):
    seconds = makespan(work, workers, EVEN)
    assert seconds >= max(work.sum() / workers, work.max()) * (1 - 1e-9)
    # An idle worker takes the next block; it cannot take those in flight on another.
    assert seconds <= work.sum() / workers + 2 * work.max() + 1e-9


@given(costs)
def test_one_worker_takes_the_sum(work):
    assert makespan(work, 1, Pace(2.0, 3.0, 4, 0.1)) == pytest.approx(2 * work.sum())


def test_equal_blocks_are_done_in_rounds():
    assert makespan(np.ones(9), 2, EVEN) == pytest.approx(5)
    assert makespan(np.ones(8), 4, EVEN) == pytest.approx(2)
    assert makespan(np.ones(3), 8, EVEN) == pytest.approx(1)
    assert makespan(np.ones(0), 8, EVEN) == 0


def test_the_last_block_is_faster_when_the_other_worker_is_idle():
    # Two at once take 2 s each, then the third 1 s by itself.
    assert makespan(np.ones(3), 2, Pace(1.0, 2.0, 2, 0.1)) == pytest.approx(3)


def test_many_blocks_take_their_share_and_half_of_one():
    assert makespan(np.ones(2 * MOST_ASSIGNED), 4, EVEN) == pytest.approx(MOST_ASSIGNED / 2 + 0.5)


def test_pace_passes_through_the_measurements():
    pace = Pace(alone=2.0, together=4.0, workers=3, busy=0.25)
    assert [pace(n) for n in (1, 2, 3)] == [2.0, 3.0, 4.0]
    assert pace(4) == 4.0  # four keep all CPUs busy
    assert pace(8) == 8.0  # more than that are as fast together as four
    assert Pace(4.0, 3.9, 2, 0.1)(2) == 4.0  # noise: two at once are not faster


@given(st.floats(0.1, 5), st.floats(0.1, 5), st.integers(1, 8), st.floats(0.01, 1))
def test_more_workers_are_never_slower_in_all(alone, together, workers, busy):
    pace = Pace(alone, together, workers, busy)
    paces = np.array([pace(n) for n in range(1, 40)])
    assert (np.diff(paces) >= -1e-12).all()
    beyond = paces[workers - 1 :] / np.arange(workers, 40)
    assert (np.diff(beyond) <= 1e-12).all()


@pytest.fixture(scope="module")
def levels():
    return plan_levels((300, 1000, 2000), "zyx", Level("0", (1.0,) * 3, (0.0,) * 3), (64, 448, 448))


@settings(deadline=None)
@given(data=st.data())
def test_objects_of_coarser_levels_are_those_that_hold_the_region(data, levels):
    region = data.draw(regions((300, 1000, 2000)))
    expected, coarser = 0, np.ones(3, int)
    for plan in levels:
        coarser = coarser * plan.factor
        inside = tuple(
            slice(span.start // int(f), ceil(span.stop / f)) for span, f in zip(region, coarser, strict=True)
        )
        expected += sum(intersection(plan.box(part), inside) is not None for part in range(plan.parts))
    assert level_objects(levels, region) == expected


def test_objects_of_several_channels_and_of_images():
    first = Level("0", (1.0,) * 4, (0.0,) * 4)
    several = plan_levels((20, 300, 1000, 2000), "czyx", first, (64, 448, 448), 16)
    region = whole((300, 1000, 2000))
    assert level_objects(several, region) == sum(2 * plan.parts for plan in several)
    image = plan_levels((1000, 2000), "yx", Level("0", (1.0,) * 2, (0.0,) * 2), (1, 448, 448))
    assert level_objects(image, whole((1, 1000, 2000))) == sum(plan.parts for plan in image) > 0


def test_coarser_levels_take_less_than_they_do_in_memory(levels):
    voxels = 300 * 1000 * 2000
    total = sum(prod(plan.shape) for plan in levels)
    assert level_bytes(levels, voxels, 1.0, 1.0) == pytest.approx(total, rel=0.02)
    borders = level_bytes(levels, voxels, 0.01, 1.0)
    assert voxels * 0.01 / 7 < borders < voxels * 0.01 / 2


def test_coarser_levels_are_made_side_by_side_as_far_as_they_have_parts(levels):
    finer = 300 * 1000 * 2000 + sum(prod(plan.shape) for plan in levels[:-1])
    one = pyramid_seconds(levels, 1.0, 1e-9, 0.0, 1, EVEN)
    assert one == pytest.approx(finer * 1e-9, rel=0.02)
    assert one / 4 <= pyramid_seconds(levels, 1.0, 1e-9, 0.0, 4, EVEN) < one / 2
    assert pyramid_seconds(levels, 0.25, 1e-9, 0.0, 1, EVEN) == pytest.approx(one / 4)
    assert pyramid_seconds(levels, 0.0, 1e-9, 1e-10, 1, EVEN) == pytest.approx(one / 10)


def test_a_part_of_a_level_holds_the_finer_box(levels):
    voxels = prod(levels[0].shards)
    assert shard_bytes(levels[0], "mode", 2) == voxels * 2 * 9
    assert shard_bytes(levels[0], "mean", 2) == voxels * 9
    first = Level("0", (1.0,) * 4, (0.0,) * 4)
    several = plan_levels((20, 300, 1000, 2000), "czyx", first, (64, 448, 448), 16)
    assert shard_bytes(several[0], "mean", 1) == voxels * (8 + 2 * 16)


def test_a_ledger_has_a_record_for_512_blocks():
    assert ledger_objects(512, 0) == 2
    assert ledger_objects(512, 1) == 3


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (2**20, "1 MiB"),
        (1234 * 2**30, "1.21 TiB"),
        (1020 * 2**20, "1020 MiB"),
    ],
)
def test_sizes_are_readable(nbytes, text):
    assert format_size(nbytes) == text


def test_a_mask_is_sampled_in_a_few_blocks_of_many():
    grid = BlockGrid((2, 64 * 20, 64 * 20), TileSpec(core=64, overlap=0, planes=1))
    mask = np.zeros(grid.shape, np.uint8)
    mask[0, :, :640] = 1
    sample = sample_mask(open_volume(mask), grid, grid.order(), whole(grid.shape))
    assert sample.count == 64
    assert sample.blocks == sample.planes == sample.voxels == pytest.approx(0.25, abs=0.05)
    assert all(mask[grid[n].core].any() for n in sample.numbers)
    few = sample_mask(open_volume(mask), grid, grid.order()[:10], whole(grid.shape))
    assert few.count == 10
    none = sample_mask(None, grid, grid.order(), whole(grid.shape))
    assert (none.blocks, none.numbers) == (1.0, None)
    assert len(blocks(grid.shape, grid.tiles)) == len(grid)
