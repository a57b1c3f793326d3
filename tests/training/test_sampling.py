"""Which tiles and pixels stand for a volume."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_data import QUICK

from hrvol.errors import InputError
from hrvol.features.featuriser import Featuriser
from hrvol.recipe.specs import TileSpec
from hrvol.training.pixel_pairs import PIXELS, pixel_pairs
from hrvol.training.sampling import sample_pixels
from hrvol.training.tile_features import TileFeatures
from hrvol.volume.grid.regions import region_tiles, stratified_tiles
from hrvol.volume.grid.tiling import whole
from hrvol.volume.intensity import read_unit
from hrvol.volume.volume import open_volume

SHAPE = (5, 150, 170)
TILES = TileSpec(core=64, overlap=5, planes=2)


@st.composite
def regions(draw):
    """Volumes of up to 5 x 4 tiles a plane, often one, and a box in them."""
    height, width = draw(st.sampled_from([(74, 74), (300, 230)]))
    shape = tuple(draw(st.integers(1, most)) for most in (12, height, width))
    box = []
    for side in shape:
        start = draw(st.integers(0, side - 1))
        box.append(slice(start, draw(st.integers(start + 1, side))))
    return shape, tuple(box)


def places_of(shape, region):
    """The cores that own a part of a region, in each of its planes."""
    return {tile.core for _, tile in region_tiles(shape, region, TILES)}


@settings(max_examples=100, deadline=None)
@given(regions(), st.integers(1, 12) | st.integers(1, 250), st.integers(0, 2**32 - 1))
def test_tiles_are_spread_and_never_taken_twice(where, count, seed):
    shape, region = where
    depth = region[0].stop - region[0].start
    places = places_of(shape, region)
    found = stratified_tiles(shape, region, TILES, count, seed)
    total = depth * len(places)
    seen = [(z, tile.core) for z, _, tile in found]
    assert len(set(seen)) == len(seen) == min(count, total)
    if count >= total:
        assert set(seen) == {(z, core) for z in range(region[0].start, region[0].stop) for core in places}
    planes = np.array([z for z, _ in seen]) - region[0].start
    assert (np.diff(planes) >= 0).all()
    times = Counter(core for _, core in seen)
    assert max(times.values()) - min(times[core] for core in places) <= 1
    if count <= depth:
        index = np.arange(count)
        assert (planes >= index * depth // count).all()
        assert (planes < (index + 1) * depth // count).all()
    else:
        per_plane = np.bincount(planes, minlength=depth)
        assert per_plane.max() - per_plane.min() <= 1


@settings(max_examples=30, deadline=None)
@given(regions(), st.integers(1, 40), st.integers(0, 99), st.integers(1, 12), st.integers(1, 4))
def test_how_tiles_are_grouped_into_blocks_makes_no_difference(where, count, seed, planes, across):
    shape, region = where
    other = TILES.model_copy(update={"planes": planes, "across": across})
    expected = stratified_tiles(shape, region, TILES, count, seed)
    assert stratified_tiles(shape, region, other, count, seed) == expected
    assert stratified_tiles(shape, region, TILES, count, seed) == expected


def test_tiles_come_with_the_voxels_they_own():
    region = (slice(1, 4), slice(30, 149), slice(100, 130))
    for z, owned, tile in stratified_tiles(SHAPE, region, TILES, 5, 0):
        assert owned[0] == slice(z, z + 1)
        y0, y1, x0, x1 = tile.core
        assert owned[1:] == (slice(max(y0, 30), min(y1, 149)), slice(max(x0, 100), min(x1, 130)))


def test_the_seed_decides():
    cores = {
        tuple((z, tile.core) for z, _, tile in stratified_tiles(SHAPE, whole(SHAPE), TILES, 4, seed))
        for seed in range(5)
    }
    assert len(cores) == 5


class Tell:
    """Features that say where they were taken: the grey value itself, and how often it was asked."""

    def __init__(self, attention=None):
        self.attention = attention
        self.asked = []

    def pixels(self, image, y, x, *, unit, attention):
        self.asked.append((image.shape, unit, attention))
        return image[y, x][:, None], np.full(len(y), self.attention, np.float32) if attention else None


@pytest.fixture(scope="module")
def numbered():
    """A volume whose voxels are numbered, and a window that keeps their numbers apart."""
    size = int(np.prod(SHAPE))
    return open_volume(np.arange(size, dtype=np.float32).reshape(SHAPE)), (0.0, float(2**17))


def take(volume, window, region, featuriser=None, **options):
    options = {"pixels": 500, "most_tiles": 6, "seed": 0, **options}
    return sample_pixels(volume, region, TileFeatures(featuriser or Tell(), window, TILES), **options)


def numbers(sample):
    return np.rint(sample.features[:, 0] * 2.0**17).astype(int)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90_000), st.integers(1, 50), st.integers(0, 99), st.booleans())
def test_each_pixel_is_taken_at_most_once_and_tiles_by_their_area(numbered, pixels, tiles, seed, part):
    volume, window = numbered
    region = (slice(1, 4), slice(30, 149), slice(100, 166)) if part else whole(SHAPE)
    sample = take(volume, window, region, pixels=pixels, most_tiles=tiles, seed=seed)
    taken = numbers(sample)
    chosen = stratified_tiles(SHAPE, region, TILES, tiles, seed)
    areas = [np.prod([span.stop - span.start for span in owned]) for _, owned, _ in chosen]
    assert len(np.unique(taken)) == len(taken) == min(pixels, sum(areas))
    at = np.unravel_index(taken, SHAPE)
    for (_, owned, _), area in zip(chosen, areas, strict=True):
        inside = [(place >= span.start) & (place < span.stop) for place, span in zip(at, owned, strict=True)]
        assert abs(np.all(inside, axis=0).sum() - len(taken) * area / sum(areas)) < 1 + 1e-9
    assert sample.attention is None


def test_pixels_of_a_tile_are_spread_over_all_of_it(numbered):
    volume, window = numbered
    taken = numbers(take(volume, window, whole(SHAPE), pixels=40_000, most_tiles=45))
    share = len(taken) / np.prod(SHAPE)
    grid = np.zeros(SHAPE)
    grid.flat[taken] = 1
    for part in (grid[:, :, :64], grid[:, :64], grid[:, 60:70], grid[:, 140:], grid[-1]):
        assert part.mean() == pytest.approx(share, abs=0.03)


def test_the_same_seed_takes_the_same_pixels_whatever_the_blocks(numbered):
    volume, window = numbered
    expected = take(volume, window, whole(SHAPE)).features
    for planes, across in ((1, 1), (5, 2), (64, 3)):
        tiles = TILES.model_copy(update={"planes": planes, "across": across})
        features = TileFeatures(Tell(), window, tiles)
        found = sample_pixels(volume, whole(SHAPE), features, pixels=500, most_tiles=6, seed=0).features
        np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(take(volume, window, whole(SHAPE), seed=1).features, expected)


def test_what_is_wanted_is_asked_for_and_attention_comes_along(numbered):
    volume, window = numbered
    tell, seen = Tell(1.5), []
    sample = take(
        volume,
        window,
        whole(SHAPE),
        tell,
        unit=True,
        attention=True,
        progress=lambda *event: seen.append(event),
    )
    assert tell.asked == [((74, 74), True, True)] * 6
    assert sample.attention.dtype == np.float32
    np.testing.assert_array_equal(sample.attention, np.full(500, 1.5, np.float32))
    assert seen[0][0] == "sample"
    assert seen[-1][1] == seen[-1][2]


def test_features_are_those_of_the_tile_that_owns_the_pixel(numbered):
    image = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    volume, window = open_volume(image), (0.0, 255.0)
    featuriser = Featuriser(QUICK.features)
    sample = take(volume, window, whole(SHAPE), featuriser, pixels=200)
    z, y, x = np.unravel_index(numbers(take(*numbered, whole(SHAPE), pixels=200)), SHAPE)
    expected = np.empty_like(sample.features)
    for plane, owned, tile in stratified_tiles(SHAPE, whole(SHAPE), TILES, 6, 0):
        spans = zip((z, y, x), owned, strict=True)
        mine = np.all([(place >= span.start) & (place < span.stop) for place, span in spans], axis=0)
        features = featuriser(read_unit(volume, plane, tile, window)).numpy()
        expected[mine] = features[:, y[mine] - tile.window[0], x[mine] - tile.window[2]].T
    assert sample.features.dtype == np.float32
    np.testing.assert_array_equal(sample.features, expected)


def test_what_is_not_finite_is_named():
    image = np.zeros(SHAPE, np.float32)
    image[2, 70, 5] = np.nan
    with pytest.raises(InputError, match="found nan at z=2, y=70, x=5"):
        take(open_volume(image), (0.0, 1.0), whole(SHAPE), most_tiles=50)


class TellPlace:
    """Deep features that are the grey value of a pixel and its place in the window."""

    def __init__(self):
        self.groups = {"deep": slice(0, 3)}

    def pixels(self, image, y, x, *, unit):
        assert unit
        return np.stack([image[y, x], y, x], axis=1).astype(np.float32), None


def pairs(volume, window, region, tiles=TILES, **options):
    options = {"most_tiles": 8, "seed": 0, **options}
    return pixel_pairs(volume, region, TileFeatures(TellPlace(), window, tiles), **options)


def test_pairs_show_the_same_pixel_at_different_places(numbered):
    volume, window = numbered
    seen = []
    found = pairs(volume, window, whole(SHAPE), progress=lambda *event: seen.append(event))
    assert found.differences.dtype == np.float32
    assert len(found) == len(found.here) == len(found.there)
    assert 8 * 2 * PIXELS < len(found) <= 8 * 3 * PIXELS  # of three windows not all need to meet
    assert (found.differences[:, 0] == 0).all()
    # the stub says where in the window it is, in pixels: places agree with that
    moves = found.differences[:, 1:]
    np.testing.assert_allclose((found.here - found.there) * 74 / 2, moves, atol=1e-4)
    assert len(np.unique(moves, axis=0)) > 12
    assert np.abs(moves).max() < 74
    assert np.abs(found.here).max() < 1
    assert seen[-1][1] == seen[-1][2]


def test_pairs_are_the_same_however_tiles_are_grouped(numbered):
    volume, window = numbered
    expected = pairs(volume, window, whole(SHAPE))
    for planes, across in ((1, 1), (5, 3)):
        tiles = TILES.model_copy(update={"planes": planes, "across": across})
        found = pairs(volume, window, whole(SHAPE), tiles)
        np.testing.assert_array_equal(found.differences, expected.differences)
        np.testing.assert_array_equal(found.there, expected.there)
    assert not np.array_equal(pairs(volume, window, whole(SHAPE), seed=1).here, expected.here)


@pytest.mark.parametrize("shape", [(4, 74, 60), (1, 20, 200)])
def test_planes_of_one_window_are_seen_through_windows_that_reach_beyond_them(shape):
    volume = open_volume(np.arange(np.prod(shape), dtype=np.uint16).reshape(shape))
    found = pairs(volume, (0.0, 65535.0), whole(shape))
    assert len(found) > PIXELS
    assert (found.differences[:, 0] == 0).all()  # the same pixel, and one of the plane: nothing reflected
    sides = np.minimum(shape[1:], 74)
    np.testing.assert_allclose((found.here - found.there) * sides / 2, found.differences[:, 1:], atol=1e-3)


def test_a_plane_of_one_pixel_has_no_pairs():
    volume = open_volume(np.zeros((4, 1, 1), np.uint8))
    found = pairs(volume, (0.0, 255.0), whole(volume.shape))
    assert len(found) == 0
    assert found.differences.shape == (0, 3)
