"""What is no image of a known format is refused by name, in one line."""

import os

import numpy as np
import pytest
import tifffile

from hrvol.errors import InputError
from hrvol.volume.volume import open_volume

HEADS = {
    "v.h5": (b"\x89HDF\r\n\x1a\n", "cannot be read as an HDF5 file"),
    "v.png": (b"\x89PNG\r\n\x1a\n", "cannot be read as a PNG image"),
    "v.jpg": (b"\xff\xd8\xff\xe0", "cannot be read as a JPEG image"),
    "v.mrc": (bytes(208) + b"MAP ", "cannot be read as an MRC file"),
    "v.nii": (bytes(344) + b"n+1\0", "NIfTI file"),
    "v.nii.gz": (b"\x1f\x8b\x08", "cannot be read as a NIfTI file"),
    "v.gz": (b"\x1f\x8b\x08", "found a gzip file: unpack it"),
    "v.dcm": (bytes(128) + b"DICM", "found a DICOM file without an image"),
    "v.npy": (b"\x93NUMPY\x01\0", "found a damaged NumPy header"),
    "v.nrrd": (b"NRRD0004", "cannot be read as an NRRD file"),
    "v.txrm": (b"\xd0\xcf\x11\xe0", "cannot be read as an X-ray microscope's file"),
    "v.ole": (b"\xd0\xcf\x11\xe0", "found an OLE file"),
    "v.zip": (b"PK\x03\x04", "found a zip archive: unpack it"),
    "v.lsm": (b"II*\0", r"page 0|no pages|without pages|TIFF"),
    "v.raw": (b"\0" * 400, "found a file of 500 bytes without a header, expected --raw-shape"),
    "v.dm3": (b"\0\0\0\x03", "cannot be read as an electron microscope's file"),
    "v.mhd": (b"ObjectType = Image\n", "found no ElementDataFile"),
    "v.vgi": (b"{volume1}\n", "found no Size or Name"),
    "v.info": (b"NUM_X = 3\n", "found no NUM_Y"),
    "hdf5.tif": (b"\x89HDF\r\n\x1a\n", "cannot be read as an HDF5 file"),
    "png.tif": (b"\x89PNG\r\n\x1a\n", "cannot be read as a PNG image"),
    "notes.txt": (b"notes", "found neither a Zarr array or group nor a file of another format"),
}


@pytest.mark.parametrize("name", HEADS)
def test_files(tmp_path, name):
    head, expected = HEADS[name]
    (tmp_path / name).write_bytes(head + bytes(100))
    with pytest.raises(InputError, match=rf"{name}: .*({expected})") as caught:
        open_volume(tmp_path / name)
    assert str(caught.value).isprintable()


def test_a_suffix_is_not_needed(tmp_path):
    values = np.arange(120, dtype=np.uint8).reshape(3, 5, 8)
    tifffile.imwrite(tmp_path / "stack", values)
    np.save(tmp_path / "v.npy", values)
    (tmp_path / "v.npy").rename(tmp_path / "array.data")
    for name in ("stack", "array.data"):
        np.testing.assert_array_equal(open_volume(tmp_path / name).read(), values)


@pytest.mark.parametrize("name", ["v\0.zarr", "v" * 300, "v" * 5000, "../v\x1b[31m.zarr"])
def test_paths_that_are_none(tmp_path, name):
    with pytest.raises(InputError):
        open_volume(str(tmp_path / name))


@pytest.mark.parametrize("name", ["pipe.tif", "pipe", "pipe.zarr", "pipe.h5"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="found neither"):
        open_volume(tmp_path / name)
    with pytest.raises(InputError, match="found neither"):
        open_volume("/dev/zero")


def test_a_folder_of_nothing_that_is_known(tmp_path):
    (tmp_path / "notes.txt").write_text("notes")
    os.mkfifo(tmp_path / "z1.tif")  # is no image either
    with pytest.raises(InputError, match="found neither"):
        open_volume(tmp_path)
    with pytest.raises(InputError, match="found no file of this pattern"):
        open_volume(tmp_path / "*.png")
    with pytest.raises(InputError, match="found 1 files, expected TIFF"):
        open_volume(tmp_path / "*.txt")
