"""Volumes as arrays that viewers slice, and what a path holds for them."""

import json
import threading

import numpy as np
import pytest
import tifffile

from hrvol.classes import default_classes
from hrvol.errors import InputError
from hrvol.volume.chunk_cache import ChunkCache
from hrvol.volume.pictures import open_pictures
from hrvol.volume.strokes.open_strokes import whole_strokes
from hrvol.volume.strokes.strokes import Strokes
from hrvol.volume.strokes.write import write_strokes
from hrvol.volume.volume import open_labels, open_volume
from hrvol.volume.voxel_array import VoxelArray
from hrvol.volume.write_image import write_image

VALUES = np.arange(5 * 7 * 9, dtype=np.uint16).reshape(5, 7, 9)


@pytest.fixture(params=["memory", "stored", "cached"])
def array(request, tmp_path):
    if request.param == "memory":
        return VoxelArray(open_volume(VALUES))
    volume = write_image(tmp_path / "v.ome.zarr", open_volume(VALUES))
    return VoxelArray(volume, ChunkCache() if request.param == "cached" else None)


@pytest.mark.parametrize(
    "key",
    [
        *(3, -1, (2, 3), (1, 2, 3), ..., (..., 4), (slice(None), 2), slice(1, 4), slice(None, None, 2)),
        *(np.s_[::-1], np.s_[4:1:-2, ::3, 5:2:-1], np.s_[3:3], np.s_[7:], None, (None, 1), (1, None, ..., 2)),
        *([0, 4], ([1, 1, 3], [0, 6, 2], [8, 8, 0]), (slice(1, 3), [0, 5]), (np.array([-1, 0]), 2)),
        *(VALUES > 300, (VALUES[:, 0, 0] > 100), np.int64(2), (slice(None), slice(None), np.array([], int))),
    ],
    ids=str,
)
def test_slices_are_those_of_numpy(array, key):
    found, expected = array[key], VALUES[key]
    np.testing.assert_array_equal(found, expected)
    assert np.shape(found) == np.shape(expected)
    assert np.asarray(found).dtype == VALUES.dtype


def test_it_looks_like_an_array(array):
    assert (array.shape, array.ndim, array.size, array.nbytes, len(array)) == ((5, 7, 9), 3, 315, 630, 5)
    assert array.dtype == np.uint16
    np.testing.assert_array_equal(np.asarray(array), VALUES)
    assert np.asarray(array, np.float32).dtype == np.float32


@pytest.mark.parametrize("key", [5, -6, (0, 7), [0, 5], (0, 0, 0, 0), (..., ...)], ids=str)
def test_what_is_outside_is_an_error(array, key):
    with pytest.raises(IndexError):
        array[key]


def test_an_image_has_two_axes():
    array = VoxelArray(open_volume(VALUES[0]))
    assert array.shape == (7, 9)
    np.testing.assert_array_equal(array[2:5, ::2], VALUES[0, 2:5, ::2])


def test_a_cache_decodes_a_chunk_once(tmp_path):
    volume = write_image(tmp_path / "v.ome.zarr", open_volume(VALUES))
    cache = ChunkCache()
    array = VoxelArray(volume, cache)
    threads = [threading.Thread(target=lambda z=z: array[z]) for z in range(5) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.decoded_chunks == 1


def test_a_pyramid_keeps_its_levels_and_labels_of_an_image_are_found(tmp_path):
    large = np.zeros((2, 300, 280), np.uint8)
    image = tmp_path / "image.ome.zarr"
    write_image(image, open_volume(large))
    classes = default_classes([1, 2], ["dark", "bright"])
    large[:, 5] = 2
    inside = image / "labels" / "mine"
    strokes = Strokes("s", large.shape, open_volume(large), classes=classes)
    write_strokes(strokes, inside.with_suffix(".zarr"), open_volume(image))
    inside.with_suffix(".zarr").rename(inside)
    about = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": {"version": "0.5", "labels": ["mine"]}},
    }
    (image / "labels" / "zarr.json").write_text(json.dumps(about))
    picture, labels = open_pictures(image)
    assert [level.shape for level in picture.levels] == [(2, 300, 280), (2, 150, 140)]
    assert (picture.kind, labels.kind, labels.name) == ("image", "labels", "image.ome.zarr: mine")
    assert [info.name for info in labels.classes] == ["bright"]  # those that occur
    assert open_pictures(inside)[0].kind == "labels"


def test_strokes_and_files_of_other_formats(tmp_path):
    write_strokes(whole_strokes(open_volume(VALUES)), tmp_path / "strokes.zarr")
    (picture,) = open_pictures(tmp_path / "strokes.zarr")
    assert (picture.kind, len(picture.levels), picture.settled) == ("labels", 1, True)
    tifffile.imwrite(tmp_path / "v.tif", VALUES, photometric="minisblack")
    (picture,) = open_pictures(tmp_path / "v.tif")
    assert (picture.kind, picture.name, picture.finest.shape) == ("image", "v.tif", VALUES.shape)


def test_what_is_no_image_is_an_input_error(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("nothing")
    for name in ("empty", "text.txt", "missing.zarr"):
        with pytest.raises(InputError, match=name):
            open_pictures(tmp_path / name)


def test_hostile_channels_are_harmless(tmp_path):
    volume = open_volume(np.zeros((2, 40, 40), np.uint8))
    path = tmp_path / "out" / "probabilities"
    write_image(path.with_suffix(".zarr"), volume)
    path.with_suffix(".zarr").rename(path)
    file = path / "zarr.json"
    document = json.loads(file.read_text())
    document["attributes"]["ome"]["omero"] = {"channels": [{"label": "\x1b[2J" * 99, "color": "zz"}]}
    file.write_text(json.dumps(document))
    (picture,) = open_pictures(path)
    (info,) = picture.classes
    assert info.name.isprintable()
    assert info.colour == (255, 255, 255)


def test_labels_have_levels(tmp_path):
    write_image(tmp_path / "v.ome.zarr", open_volume(np.ones((1, 300, 300), np.uint8)))
    assert open_labels(tmp_path / "v.ome.zarr", level=1).shape == (1, 150, 150)
    with pytest.raises(InputError, match="expected one numbered 9"):
        open_labels(tmp_path / "v.ome.zarr", level=9)
