"""Blocks and tiles of a region, without a list of all of the volume."""

import numpy as np
import pytest

from hrvol.interactive.fetch import ahead, nearest
from hrvol.interactive.live import sampled, steps_of
from hrvol.interactive.region import Region
from hrvol.interactive.regions import (
    blocks_in,
    keys_of_region,
    region_parts,
    tile_keys,
    tile_of,
)
from hrvol.recipe.specs import TileSpec
from hrvol.volume.grid.regions import plane_tiles
from hrvol.volume.grid.tiling import blocks, intersection, whole

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
