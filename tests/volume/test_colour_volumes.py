"""Colour volumes of every format: their shape, their voxels, their channels, and what is refused."""

import pickle

import numpy as np
import pytest
import tifffile
import xarray
import zarr
from colour_data import make_coloured, write_ome
from PIL import Image

from hrvol.errors import InputError
from hrvol.info import describe
from hrvol.recipe.specs import IntensitySpec, TileSpec
from hrvol.volume.chunk_cache import ChunkCache, chunk_uses
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Tile
from hrvol.volume.input_state import changed_files, input_state
from hrvol.volume.intensity import intensity_window, read_unit, to_unit
from hrvol.volume.volume import open_labels, open_volume

COLOURS, _ = make_coloured((3, 40, 50))
PLANE = COLOURS[1]
OPAQUE = np.concatenate([PLANE, np.full((40, 50, 1), 255, np.uint8)], axis=2)


def is_colour(volume, expected):
    """Check shape, channels and voxels, whole and of a box, and after pickling."""
    shape = (1, *expected.shape[:2]) if expected.ndim == 3 else expected.shape[:3]
    assert (volume.shape, volume.channels, volume.colour) == (shape, 3, True)
    assert volume.ndim == expected.ndim - 1
    whole = expected.reshape(*shape, 3)
    np.testing.assert_array_equal(volume.read(), whole)
    box = (slice(0, shape[0]), slice(3, 20), slice(7, 9))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(box), whole[box])
    assert volume.identity()["channel"] == "rgb"
    assert volume.identity()["shape"] == list(shape[-volume.ndim :])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_image(tmp_path, compression, planar):
    values = PLANE if planar == "contig" else np.moveaxis(PLANE, 2, 0)
    how = {"photometric": "rgb", "planarconfig": planar, "compression": compression}
    tifffile.imwrite(tmp_path / "v.tif", values, metadata=None, **how)
    is_colour(open_volume(tmp_path / "v.tif"), PLANE)


def test_tiff_stack(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", COLOURS, photometric="rgb", metadata={"axes": "ZYXS"})
    is_colour(open_volume(tmp_path / "v.tif"), COLOURS)


def test_sixteen_bits(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", PLANE.astype(np.uint16) * 200, photometric="rgb")
    volume = open_volume(tmp_path / "v.tif")
    is_colour(volume, PLANE.astype(np.uint16) * 200)
    low, high = intensity_window(volume, IntensitySpec())
    assert low == pytest.approx(np.percentile(PLANE.astype(float) * 200, 0.1))
    assert high == pytest.approx(np.percentile(PLANE.astype(float) * 200, 99.9))


@pytest.mark.parametrize("name", ["v.png", "v.jpg"])
def test_png_and_jpeg(tmp_path, name):
    Image.fromarray(PLANE).save(tmp_path / name)
    is_colour(open_volume(tmp_path / name), np.asarray(Image.open(tmp_path / name)))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_folder_of_colour_planes(tmp_path, ending):
    (tmp_path / "v").mkdir()
    for z, plane in enumerate(COLOURS):
        file = tmp_path / f"v/{z}.{ending}"
        if ending == "png":
            Image.fromarray(plane).save(file)
        else:
            tifffile.imwrite(file, plane, photometric="rgb")
    is_colour(open_volume(tmp_path / "v"), COLOURS)


@pytest.mark.parametrize("axes", ["zyxc", "czyx", "zcyx", "cyx", "yxc", "tczyx"])
def test_ome_zarr(tmp_path, axes):
    expected = COLOURS if "z" in axes else PLANE
    values = np.moveaxis(expected, -1, axes.replace("t", "").index("c"))
    values = values[None] if "t" in axes else values
    path = write_ome(tmp_path / "v.zarr", values, axes, ("red", "green", "blue"))
    is_colour(open_volume(path), expected)
    is_colour(open_volume(path / "0"), expected)


def test_arrays():
    is_colour(open_volume(PLANE), PLANE)
    is_colour(open_volume(COLOURS), COLOURS)
    dims = xarray.DataArray(np.moveaxis(COLOURS, 3, 0), dims=("channel", "z", "y", "x"))
    is_colour(open_volume(dims), COLOURS)
    is_colour(open_volume(OPAQUE), PLANE)
    assert not open_volume(COLOURS[..., 0]).colour
    assert "channel" not in open_volume(COLOURS[..., 0]).identity()


def test_grey_volumes_with_three_planes_stay_grey():
    assert open_volume(np.zeros((3, 40, 50), np.uint8)).shape == (3, 40, 50)
    assert open_volume(np.zeros((40, 5, 3), np.uint8)).channels == 1


@pytest.mark.parametrize("name", ["v.png", "v.tif"])
def test_opaque_pictures_are_colour(tmp_path, name):
    if name == "v.png":
        Image.fromarray(OPAQUE).save(tmp_path / name)
    else:
        tifffile.imwrite(tmp_path / name, OPAQUE, photometric="rgb", extrasamples=["unassalpha"])
    is_colour(open_volume(tmp_path / name), PLANE)


def test_transparent_pictures_are_refused_unless_it_is_left_out(tmp_path):
    values = OPAQUE.copy()
    values[5, 5, 3] = 254
    Image.fromarray(values).save(tmp_path / "v.png")
    with pytest.raises(InputError, match=r"v\.png: found transparent pixels .* --channel rgb"):
        open_volume(tmp_path / "v.png")
    is_colour(open_volume(tmp_path / "v.png", channel="rgb"), PLANE)
    assert open_volume(tmp_path / "v.png", channel=3).read()[0, 5, 5] == 254


def test_stacks_with_a_fourth_sample_name_the_option(tmp_path):
    four = np.concatenate([COLOURS, np.full((3, 40, 50, 1), 255, np.uint8)], axis=3)
    tifffile.imwrite(tmp_path / "v.tif", four, photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(InputError, match=r"found 4 samples per pixel .* the first three with --channel rgb"):
        open_volume(tmp_path / "v.tif")
    is_colour(open_volume(tmp_path / "v.tif", channel="rgb"), COLOURS)


@pytest.mark.parametrize("count", [2, 4, 5])
def test_other_numbers_of_channels_are_refused(tmp_path, count):
    path = write_ome(tmp_path / "v.zarr", np.zeros((count, 2, 40, 50), np.uint8), "czyx")
    with pytest.raises(InputError, match=f"found {count} channels .* --channel N") as error:
        open_volume(path)
    assert "\n" not in str(error.value)
    assert ("--channel rgb" in str(error.value)) is (count == 4)
    if count != 4:
        with pytest.raises(InputError, match=f"found {count} channels .*expected 3"):
            open_volume(path, channel="rgb")
    assert open_volume(path, channel=1).shape == (2, 40, 50)


def test_times_are_no_colours():
    times = xarray.DataArray(np.zeros((3, 40, 50)), dims=("t", "y", "x"))
    with pytest.raises(InputError, match=r"found 3 along axis 't'"):
        open_volume(times)


def test_channels_by_name(tmp_path):
    path = write_ome(tmp_path / "v.zarr", np.moveaxis(COLOURS, 3, 0), "czyx", ("DAPI", "GFP", "Cy5"))
    for level in (path, path / "0"):
        np.testing.assert_array_equal(open_volume(level, channel="gfp").read(), COLOURS[..., 1])
    assert open_volume(path, channel="gfp").identity()["channel"] == 1
    with pytest.raises(InputError, match=r"found channels named DAPI, GFP, Cy5, expected one named 'red'"):
        open_volume(path, channel="red")
    with pytest.raises(InputError, match=r"found no names of channels, expected one named 'red'"):
        open_volume(PLANE, channel="red")


def test_labels_are_not_colours(tmp_path):
    Image.fromarray(PLANE).save(tmp_path / "labels.png")
    with pytest.raises(InputError, match=r"labels\.png: found a colour volume .* one value per voxel"):
        open_labels(tmp_path / "labels.png")
    np.testing.assert_array_equal(open_labels(open_volume(PLANE, channel=0)).read()[0], PLANE[..., 0])


@pytest.mark.parametrize("chunks", [(1, 2, 17, 23), (2, 2, 17, 23), (3, 3, 40, 50)])
def test_through_the_cache_of_chunks(tmp_path, chunks):
    path = write_ome(tmp_path / "v.zarr", np.moveaxis(COLOURS, 3, 0), "czyx", chunks=chunks)
    volume = open_volume(path)
    assert volume.decoded_itemsize == 3
    box = (slice(1, 3), slice(5, 40), slice(0, 44))
    cache, state = ChunkCache(), input_state(volume, box)
    grid = BlockGrid(volume.shape, TileSpec(core=64, overlap=0), volume.chunks)
    uses = chunk_uses(grid, volume.chunks).along(volume.axes)
    found = volume.read(box, lambda array, selection: cache.read(array, selection, uses, state.version))
    np.testing.assert_array_equal(found, COLOURS[box])
    last = tmp_path / "v.zarr/0/c" / str((3 - 1) // chunks[0]) / "1" / "0" / "0"
    if last.exists():
        last.touch()
        assert changed_files(volume, state, input_state(volume, box))


def test_values_in_a_window_are_those_of_channels_in_it():
    volume = open_volume(COLOURS)
    tile = Tile((4, 30, 6, 33), (4, 30, 6, 33), 0, 0)
    found = read_unit(volume, 2, tile, (20.0, 180.0))
    assert found.shape == (26, 27, 3)
    for channel in range(3):
        grey = read_unit(open_volume(COLOURS, channel=channel), 2, tile, (20.0, 180.0))
        np.testing.assert_array_equal(found[..., channel], grey)


def test_a_value_that_is_not_finite_is_named_by_its_place():
    values = COLOURS.astype(np.float32)
    values[2, 11, 13, 1] = np.nan
    with pytest.raises(InputError, match=r"found nan at z=2, y=11, x=13"):
        to_unit(values, (0, 1))


def test_as_grey_is_the_mean(tmp_path):
    path = write_ome(tmp_path / "v.zarr", np.moveaxis(COLOURS, 3, 0), "czyx")
    for volume in (open_volume(path).as_grey(), open_volume(COLOURS).as_grey()):
        assert not volume.colour
        expected = np.rint(COLOURS.mean(axis=3)).astype(np.uint8)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(), expected)
    grey = open_volume(COLOURS[..., 0])
    assert grey.as_grey() is grey


def test_description(tmp_path):
    path = write_ome(tmp_path / "v.zarr", np.moveaxis(COLOURS, 3, 0), "czyx")
    assert describe(str(path))["channels"] == 3
    assert describe(str(path))["shape"] == [3, 40, 50]
    zarr.save_array(tmp_path / "grey.zarr", COLOURS[..., 0])
    assert "channels" not in describe(str(tmp_path / "grey.zarr"))
