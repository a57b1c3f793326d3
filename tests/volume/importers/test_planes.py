"""Folders and patterns of images: order, gaps, planes that differ, and what is read of them."""

import gc
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from hrvol.errors import InputError, UnreadableError
from hrvol.volume.input_state import changed_files, input_state
from hrvol.volume.volume import open_labels, open_volume

VALUES = np.random.default_rng(0).integers(0, 255, (12, 20, 30)).astype(np.uint8)


def write(folder, name="scan_{}.tif", numbers=None, values=VALUES, **options):
    folder.mkdir(exist_ok=True)
    for number, plane in zip(numbers or range(len(values)), values, strict=False):
        path = folder / name.format(number)
        if path.suffix == ".tif":
            tifffile.imwrite(path, plane, **options)
        else:
            Image.fromarray(plane).save(path, **options)
    return folder


@pytest.mark.parametrize("name", ["scan_{}.tif", "{:04}.tif", "2024-05-01_run7_{:03}_a.tif", "{}.png"])
def test_natural_order(tmp_path, name):
    folder = write(tmp_path / "v", name)
    (folder / "notes.txt").write_text("notes")
    (folder / "._hidden.tif").write_bytes(b"of another system")
    (folder / "more").mkdir()
    volume = open_volume(folder)
    np.testing.assert_array_equal(volume.read(), VALUES)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(), VALUES)
    np.testing.assert_array_equal(open_labels(folder).read(), VALUES)
    assert len(volume.opened) == len(VALUES)


def test_patterns(tmp_path):
    folder = write(tmp_path / "v")
    write(folder, "flat_{}.tif")
    with pytest.raises(InputError, match=r"found files of 2 series: .*expected one: name it by a pattern"):
        open_volume(folder)
    np.testing.assert_array_equal(open_volume(folder / "scan_*.tif").read(), VALUES)
    np.testing.assert_array_equal(open_volume(folder / "scan_?.tif").read(), VALUES[:10])
    write(folder, "{}.png")
    with pytest.raises(InputError, match="found 24 TIFF and 12 PNG images, expected one format"):
        open_volume(folder)


@pytest.mark.parametrize("other", ["scan.h5", "scan.raw", "scan.dm3", "IM0001"])
def test_a_preview_is_no_volume(tmp_path, other):
    folder = write(tmp_path / "v", "preview{}.png", [0])
    (folder / other).write_bytes(bytes(128) + b"DICM")
    with pytest.raises(InputError, match=rf"found images \(preview0\.png\) and at .*\({other}\)"):
        open_volume(folder)
    np.testing.assert_array_equal(open_volume(folder / "*.png").read(), VALUES[:1])
    write(folder, "preview{}.png")  # a stack, and one file beside it
    np.testing.assert_array_equal(open_volume(folder).read(), VALUES)


def test_gaps(tmp_path):
    folder = write(tmp_path / "v")
    (folder / "scan_4.tif").unlink()
    (folder / "scan_7.tif").unlink()
    with pytest.raises(InputError, match=r"v: found 10 images .* expected no gaps: 4, 7 missing"):
        open_volume(folder)
    np.testing.assert_array_equal(  # every fifth plane is no gap
        open_volume(write(tmp_path / "steps", numbers=range(0, 60, 5))).read(), VALUES
    )
    np.testing.assert_array_equal(  # a time beside the number has gaps
        open_volume(write(tmp_path / "times", "{}.tif", [f"{n}_{n * n * 7919}" for n in range(12)])).read(),
        VALUES,
    )


@pytest.mark.parametrize(
    ("name", "numbers", "missing"),
    [
        ("{:04}.tif", [*range(6), *range(900, 906)], "6 to 899 missing"),  # more are missing than there are
        ("{}.tif", [f"{n}_{1000 + n * n * 7919}" for n in (*range(5), *range(6, 13))], "5 missing"),
        ("z{}.tif", [n for n in range(0, 80, 5) if n not in (20, 30, 35)], "20, 30 to 35 missing"),
        ("{}.tif", [0, 1, 10**17], "2 to 99999999999999999 missing"),  # and no list of them in memory
    ],
)
def test_gaps_beside_a_time_and_large_ones(tmp_path, name, numbers, missing):
    folder = write(tmp_path / "v", name, numbers, VALUES[[0] * len(numbers)])
    with pytest.raises(InputError, match=f"expected no gaps: {missing}"):
        open_volume(folder)


@pytest.mark.parametrize("name", ["z{:03}_c{}.tif", "z{:03}_channel_{:02}.tif"])
def test_channels_in_files_of_their_own_are_no_planes(tmp_path, name):
    folder = write(tmp_path / "v", "{}.tif", [name.format(z, c)[:-4] for z in range(6) for c in range(2)])
    with pytest.raises(InputError, match=r"z000_c.* numbered in several ways .*channels"):
        open_volume(folder)
    np.testing.assert_array_equal(open_volume(folder / "z*1.tif").read(), VALUES[1::2])


@pytest.mark.parametrize(
    ("plane", "found"),
    [
        (np.zeros((20, 31), np.uint8), "31 x 20 pixels of 8 bits"),
        (np.zeros((20, 30), np.uint16), "30 x 20 pixels of 16 bits"),
        (np.zeros((20, 30), np.int8), r"8 bits \(signed integer\)"),
        (np.zeros((2, 20, 30), np.uint8), "found 2 planes"),
    ],
)
def test_planes_that_differ(tmp_path, plane, found):
    folder = write(tmp_path / "v")
    tifffile.imwrite(folder / "scan_5.tif", plane, photometric="minisblack")
    with pytest.raises(InputError, match=rf"scan_5\.tif.*{found}|{found}"):
        open_volume(folder)


def test_a_plane_that_is_replaced_later(tmp_path):
    folder = write(tmp_path / "v", compression="zlib")
    volume = open_volume(folder)
    tifffile.imwrite(folder / "scan_5.tif", np.zeros((20, 31), np.uint8))
    with pytest.raises(UnreadableError, match=r"cannot read z 0:12.*scan_5\.tif: found shape \(20, 31\)"):
        volume.read()
    (folder / "scan_6.tif").write_bytes(b"II*\0")
    with pytest.raises(UnreadableError, match="cannot read z 6:7"):
        volume.read((slice(6, 7), slice(0, 20), slice(0, 30)))


def test_state_is_that_of_the_planes_of_a_box(tmp_path):
    folder = write(tmp_path / "v")
    volume = open_volume(folder)
    first, later = ((slice(z, z + 3), slice(0, 20), slice(0, 30)) for z in (0, 3))
    before = [input_state(volume, box) for box in (first, later)]
    tifffile.imwrite(folder / "scan_4.tif", VALUES[0])
    after = [input_state(volume, box) for box in (first, later)]
    assert changed_files(volume, before[0], after[0]) == []
    assert changed_files(volume, before[1], after[1])[0].endswith("scan_4.tif")


def test_chunks_are_what_is_decoded(tmp_path):
    assert open_volume(write(tmp_path / "a")).chunks == (1, 1, 30)
    rows = write(tmp_path / "b", compression="zlib", rowsperstrip=5)
    assert open_volume(rows).chunks == (1, 5, 30)
    assert open_volume(write(tmp_path / "c", "{}.png")).chunks == (1, 20, 30)


@pytest.mark.parametrize("kind", ["tif", "png", "jpg"])
def test_colours(tmp_path, kind):
    colours = np.repeat(VALUES[..., None], 3, axis=-1)
    colours[..., 1] //= 2
    folder = write(tmp_path / "v", f"{{}}.{kind}", values=colours)
    found = open_volume(folder)
    assert found.colour
    if kind == "jpg":
        return
    np.testing.assert_array_equal(found.read(), colours)
    np.testing.assert_array_equal(open_volume(folder, channel=1).read(), VALUES // 2)
    mean = open_volume(folder, channel="mean")
    np.testing.assert_array_equal(mean.read(), np.rint(colours.mean(-1)).astype(np.uint8))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(mean)).read(), mean.read())
    with pytest.raises(InputError, match="found 3 channels, expected one numbered 3"):
        open_volume(folder, channel=3)


def test_single_images(tmp_path):
    Image.fromarray(VALUES[0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    Image.fromarray(VALUES[0]).save(tmp_path / "v.jpg", quality=100)
    volume = open_volume(tmp_path / "deep.png")
    assert (volume.ndim, volume.dtype) == (2, np.uint16)
    np.testing.assert_array_equal(volume.read()[0], VALUES[0].astype(np.uint16) * 200)
    decoded = open_volume(tmp_path / "v.jpg").read()[0]
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(tmp_path / "v.jpg")))


def test_many_planes_open_quickly(tmp_path):
    folder = write(tmp_path / "v", numbers=range(1500), values=[VALUES[0]] * 1500)
    volume = open_volume(folder)
    stored = pickle.dumps(volume)
    began = time.process_time()
    again = pickle.loads(stored)
    again.read((slice(700, 703), slice(0, 5), slice(0, 5)))
    assert time.process_time() - began < 0.5  # headers are not read again


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_few_files_stay_open(tmp_path, compression):
    """Without a walk over all objects, which Python makes seldom in a large process."""
    folder = write(tmp_path / "v", values=VALUES[[0] * 100], compression=compression)
    volume = open_volume(folder)

    def opened():
        links = Path("/proc/self/fd").iterdir()
        return sum(os.readlink(link).endswith(".tif") for link in links if os.path.lexists(link))

    before, most = opened(), 0
    gc.disable()
    try:
        for z in range(0, 100, 10):
            box = (slice(z, z + 10), slice(0, 20), slice(0, 30))
            np.testing.assert_array_equal(volume.read(box), VALUES[[0] * 10])
            most = max(most, opened())
        with ThreadPoolExecutor(4) as pool:
            for values in pool.map(lambda z: volume.read((slice(z % 9, z % 9 + 1), *box[1:])), range(99)):
                np.testing.assert_array_equal(values, VALUES[:1])
        most = max(most, opened())
    finally:
        gc.enable()
    assert most - before <= 24
