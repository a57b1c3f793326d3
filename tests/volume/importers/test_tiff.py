"""TIFF images and stacks stand wherever a volume or strokes do."""

import pickle

import numpy as np
import pytest
import tifffile

from hrvol.errors import InputError, MissingExtraError
from hrvol.volume.volume import open_labels, open_volume

VALUES = np.random.default_rng(0).integers(0, 60_000, (9, 40, 37)).astype(np.uint16)
BOX = (slice(1, 4), slice(2, 36), slice(0, 13))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"compression": "zlib", "tile": (16, 16)},
        {"byteorder": ">"},
        {"imagej": True},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"metadata": None},
        {"compression": "zlib", "predictor": True},
    ],
    ids=str,
)
def test_stacks(tmp_path, options):
    tifffile.imwrite(tmp_path / "v.tif", VALUES, **options)
    volume = open_volume(tmp_path / "v.tif")
    assert (volume.shape, volume.ndim, volume.dtype) == (VALUES.shape, 3, np.uint16)
    np.testing.assert_array_equal(volume.read(BOX), VALUES[BOX])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(BOX), VALUES[BOX])
    np.testing.assert_array_equal(open_labels(tmp_path / "v.tif").read(), VALUES)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_nothing_is_read_on_opening(tmp_path, compression):
    tifffile.imwrite(tmp_path / "v.tif", VALUES, compression=compression)
    volume = open_volume(tmp_path / "v.tif")
    assert not isinstance(volume.array, np.ndarray) or isinstance(volume.array, np.memmap)
    assert volume.chunks[1:] == VALUES.shape[1:]


def test_images(tmp_path):
    tifffile.imwrite(tmp_path / "v.TIFF", VALUES[0].astype(np.float32))
    volume = open_volume(tmp_path / "v.TIFF")
    assert (volume.shape, volume.ndim, volume.dtype) == ((1, 40, 37), 2, np.float32)
    np.testing.assert_array_equal(volume.read(), VALUES[:1])


def test_imagej_voxel_size(tmp_path):
    tifffile.imwrite(
        tmp_path / "v.tif",
        VALUES,
        imagej=True,
        resolution=(1 / 0.5, 1 / 0.25),
        metadata={"spacing": 2.0, "unit": "um", "axes": "ZYX"},
    )
    volume = open_volume(tmp_path / "v.tif")
    assert volume.voxel_size == pytest.approx((2.0, 0.25, 0.5))
    assert volume.unit == "micrometer"


def test_ome_voxel_size(tmp_path):
    metadata = {
        "axes": "ZYX",
        "PhysicalSizeX": 4.6,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 4.6,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 0.05,
    }
    tifffile.imwrite(tmp_path / "v.ome.tif", VALUES, metadata=metadata)
    volume = open_volume(tmp_path / "v.ome.tif")
    assert volume.voxel_size == pytest.approx((50.0, 4.6, 4.6))
    assert volume.unit == "nanometer"


def test_dots_per_inch_are_no_voxel_size(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", VALUES, resolution=(72, 72), resolutionunit="INCH")
    assert open_volume(tmp_path / "v.tif").voxel_size == (1.0, 1.0, 1.0)


def test_stack_that_was_taken_for_planar_rgb(tmp_path):
    four = VALUES[:4].astype(np.uint8)
    tifffile.imwrite(tmp_path / "v.tif", four, photometric="rgb", planarconfig="separate", extrasamples=[0])
    np.testing.assert_array_equal(open_volume(tmp_path / "v.tif").read(), four)


def test_colour(tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((40, 50, 3), np.uint8), photometric="rgb")
    assert open_volume(tmp_path / "rgb.tif").colour
    deeper = np.zeros((40, 50, 5), np.uint8)
    tifffile.imwrite(tmp_path / "s.tif", deeper, photometric="rgb", extrasamples=[0, 0])
    with pytest.raises(InputError, match=r"s\.tif: found 5 samples per pixel .*\(40, 50, 5\)"):
        open_volume(tmp_path / "s.tif")
    tifffile.imwrite(
        tmp_path / "c.tif", np.zeros((2, 40, 50), np.uint8), imagej=True, metadata={"axes": "CYX"}
    )
    with pytest.raises(InputError, match=r"c\.tif: found 2 channels"):
        open_volume(tmp_path / "c.tif")


def test_damage(tmp_path):
    (tmp_path / "v.tif").write_bytes(b"no TIFF at all")
    with pytest.raises(InputError, match=r"v\.tif: cannot be read as a TIFF image"):
        open_volume(tmp_path / "v.tif")
    tifffile.imwrite(tmp_path / "w.tif", VALUES)
    with open(tmp_path / "w.tif", "r+b") as file:
        file.truncate(5000)
    with pytest.raises(InputError, match=r"w\.tif"):
        open_volume(tmp_path / "w.tif").read()


@pytest.mark.data
def test_shared_micrographs(data_dir):
    assert open_volume(data_dir / "vnc" / "stack1_z00-11_images.tif").shape == (12, 1024, 1024)
    assert open_volume(data_dir / "super1" / "test_images.tif").shape == (4, 512, 512)
    labels = open_labels(data_dir / "super1" / "test_labels.tif").read()
    assert set(np.unique(labels)) == {1, 2, 3}


def test_a_compression_that_is_not_installed_is_named(tmp_path, monkeypatch):
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "v.tif", VALUES.astype(np.uint8), compression="zstd")
    np.testing.assert_array_equal(open_volume(tmp_path / "v.tif").read(), VALUES.astype(np.uint8))

    class Without:
        def __getitem__(self, key):
            raise KeyError(key)

    monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", Without(), raising=False)
    with pytest.raises(MissingExtraError, match=r"v\.tif: .* ZSTD, .* pip install 'hrvol\[io\]'"):
        open_volume(tmp_path / "v.tif")


@pytest.mark.parametrize("compression", ["lzw", "packbits", "zlib", "zstd", "jpeg", "lzma"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_compressions(tmp_path, compression, bigtiff):
    pytest.importorskip("imagecodecs")
    values = (VALUES // 256).astype(np.uint8)
    tifffile.imwrite(tmp_path / "v.tif", values, compression=compression, bigtiff=bigtiff, rowsperstrip=8)
    volume = open_volume(tmp_path / "v.tif")
    expected = tifffile.imread(tmp_path / "v.tif")
    np.testing.assert_array_equal(volume.read(), expected)
    np.testing.assert_array_equal(volume.read(BOX), expected[BOX])
    assert volume.chunks == (1, 8, 37)
