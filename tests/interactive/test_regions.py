"""Blocks and tiles of a region, without a list of all of the volume."""

import numpy as np
import pytest

from hrvol.interactive.fetch import ahead, nearest
from hrvol.interactive.live import sampled, steps_of
from hrvol.interactive.region import Region
from hrvol.interactive.regions import (
    blocks_in,
    count_tiles,
    keys_of_region,
    on_grid,
    region_parts,
    spread_keys,
    tile_keys,
    tile_of,
)
from hrvol.recipe.specs import TileSpec
from hrvol.run.predict import part_views
from hrvol.volume.grid.regions import plane_tiles
from hrvol.volume.grid.tiling import blocks, core_side, intersection, whole

TILES = TileSpec(core=64, overlap=12, blend=4, planes=3, across=2)
SHAPES = [(7, 300, 215), (1, 80, 90), (5, 90, 400), (2, 64, 64)]


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_of_a_box_are_those_of_the_volume(shape):
    assert tuple(blocks_in(shape, TILES, whole(shape))) == blocks(shape, TILES)
    box = (slice(0, 1), slice(shape[1] // 2, shape[1]), slice(10, 40))
    expected = tuple(block for block in blocks(shape, TILES) if intersection(block.core, box))
    assert tuple(blocks_in(shape, TILES, box)) == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_belong_to_the_tiles_whose_cores_own_them(shape):
    for tile in plane_tiles(shape, TILES):
        y0, y1, x0, x1 = tile.core
        corners = np.array([[0, y, x] for y in (y0, y1 - 1) for x in (x0, x1 - 1)])
        keys = np.unique(tile_keys(shape, TILES, corners), axis=0)
        assert len(keys) == 1
        assert tile_of(shape, TILES, int(keys[0, 1]), int(keys[0, 2])) == tile


def test_a_trillion_voxels_take_no_time():
    shape = (10_000, 10_000, 10_000)
    region = Region(5000, slice(4000, 4512), slice(4000, 4512))
    keys = keys_of_region(shape, TileSpec(), region)
    assert 4 <= len(keys) <= 9
    assert keys[0] == (5000, 9, 9)  # nearest to the middle
    assert all(key[0] == 5000 for key in keys)


def tiles_of_region(shape, tiles, region):
    """The keys of all tiles with a weight in a region, those near its middle first."""
    found = {}
    for block in blocks_in(shape, tiles, region.box):
        box = intersection(block.core, region.box)
        for view in part_views(block, box, shape, tiles):
            y0, y1, x0, x1 = view.tile.core
            row, column = y0 // core_side(shape[1], tiles), x0 // core_side(shape[2], tiles)
            middle = region.centre
            distance = ((y0 + y1) / 2 - middle[0]) ** 2 + ((x0 + x1) / 2 - middle[1]) ** 2
            found[region.plane, row, column] = distance
    return tuple(sorted(found, key=lambda key: (found[key], key)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("blend", [0, 4, 12])
def test_keys_are_those_of_the_tiles_that_count(shape, blend):
    tiles = TILES.model_copy(update={"blend": blend})
    rng = np.random.default_rng(blend)
    for _ in range(30):
        rows, columns = (slice(*(np.sort(rng.choice(n + 1, 2, replace=False)).tolist())) for n in shape[1:])
        region = Region(0, rows, columns)
        expected = tiles_of_region(shape, tiles, region)
        assert keys_of_region(shape, tiles, region) == expected
        assert count_tiles(shape, tiles, region) == len(expected)
        for most in (1, 3, 7):
            assert keys_of_region(shape, tiles, region, most) == expected[:most]
        some = expected[::2]
        parts = region_parts(shape, tiles, region, some)
        views = [entry for part in parts for entry in zip(part.keys, part.views, strict=True)]
        assert {key for key, _ in views} == set(some)
        assert all(view.tile == tile_of(shape, tiles, *key[1:]) for key, view in views)


def test_a_plane_of_any_size_takes_the_time_of_its_middle():
    shape = (2, 10**9, 10**9)
    region = Region(1, slice(0, shape[1]), slice(0, shape[2]), 12)
    keys = keys_of_region(shape, TILES, region, 25)
    tiles = 10**9 // 64
    assert keys[0] == (1, tiles // 2 - 1, tiles // 2 - 1)  # of four
    assert len(set(keys)) == 25
    spread = spread_keys(shape, TILES, region, 24)
    assert len(set(spread)) == 24
    low, high = np.array(spread).min(axis=0), np.array(spread).max(axis=0)
    assert (low[1:] < tiles / 4).all()
    assert (high[1:] > 3 * tiles / 4).all()
    few = Region(1, slice(0, 100), slice(0, 130))
    assert spread_keys(shape, TILES, few, 24) == keys_of_region(shape, TILES, few)


@pytest.mark.parametrize("step", [1, 2, 3, 8])
def test_the_grid_of_a_preview_is_every_stepth_pixel(step):
    pixels = np.arange(100)
    shown = np.full(len(pixels[::step]), -1)
    for first in range(0, 100, 7):
        found = on_grid(first, min(7, 100 - first), step)
        if found is not None:
            shown[found[1]] = pixels[first : first + 7][found[0]]
    assert np.array_equal(shown, pixels[::step])


@pytest.mark.parametrize("step", [1, 2, 3, 8])
def test_parts_cover_a_region_once_at_any_step(step):
    shape = SHAPES[0]
    region = Region(3, slice(11, 290), slice(5, 203))
    rows, columns = (-(-(s.stop - s.start) // step) for s in (region.rows, region.columns))
    total = np.zeros((rows, columns))
    image = np.arange(300 * 215).reshape(300, 215)
    seen = np.zeros((rows, columns))
    for part in region_parts(shape, TILES, region):
        for view in part.views:
            found = sampled(view, part, region, step)
            if found is None:
                continue
            window = image[view.tile.window_slices]
            total[found.out] += found.weight
            seen[found.out] += found.weight * window[found.window]
    assert np.allclose(total, 1)
    assert np.allclose(seen, image[11:290:step, 5:203:step])


def test_a_region_is_clipped_to_the_volume():
    assert Region(1, slice(-5, 20), slice(100, 900)).clipped((3, 50, 120)) == Region(
        1, slice(0, 20), slice(100, 120)
    )
    assert Region(3, slice(0, 20), slice(0, 20)).clipped((3, 50, 120)) is None
    assert Region(0, slice(60, 80), slice(0, 20)).clipped((3, 50, 120)) is None


def test_steps_are_coarse_to_fine():
    assert steps_of(Region(0, slice(0, 100), slice(0, 100))) == (1,)
    assert steps_of(Region(0, slice(0, 512), slice(0, 512))) == (2, 1)
    assert steps_of(Region(0, slice(0, 1024), slice(0, 1024))) == (4, 1)
    assert steps_of(Region(0, slice(0, 4096), slice(0, 4096), level=3)) == (16, 8)


def test_neighbours_and_strokes_nearby_come_first():
    assert ahead(0, 5, 2) == (1, 2)
    assert ahead(3, 5, 2) == (4, 2, 1)
    assert ahead(3, 5, 0) == ()
    assert nearest([(9, 0, 0), (1, 0, 0), (4, 1, 1), (4, 0, 0)], 5) == (
        (4, 0, 0),
        (4, 1, 1),
        (1, 0, 0),
        (9, 0, 0),
    )
