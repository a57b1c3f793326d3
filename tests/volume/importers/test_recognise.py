"""A format that hrvol does not read is named, with a way to convert it."""

import os

import numpy as np
import pytest
import tifffile

from hrvol.errors import InputError
from hrvol.volume.volume import open_volume

HEADS = {
    "v.h5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file: read it in Python with h5py"),
    "v.png": (b"\x89PNG\r\n\x1a\n", "a PNG image: .* imageio"),
    "v.jpg": (b"\xff\xd8\xff\xe0", "a JPEG image"),
    "v.mrc": (bytes(208) + b"MAP ", "an MRC file: .* mrcfile"),
    "v.nii": (bytes(344) + b"n+1\0", "a NIfTI file: .* nibabel"),
    "v.nii.gz": (b"\x1f\x8b\x08", "a NIfTI file"),
    "v.gz": (b"\x1f\x8b\x08", "a gzip file: unpack it"),
    "v.dcm": (bytes(128) + b"DICM", "a DICOM file: .* pydicom"),
    "v.npy": (b"\x93NUMPY\x01\0", "a NumPy file"),
    "v.nrrd": (b"NRRD0004", "an NRRD file"),
    "v.txrm": (b"\xd0\xcf\x11\xe0", "an OLE file"),
    "v.zip": (b"PK\x03\x04", "a zip archive: unpack it"),
    "v.lsm": (b"II*\0", r"a TIFF file with another ending: rename it to \*\.tif"),
    "v.raw": (b"\0" * 400, "found neither a Zarr array or group nor a TIFF image"),
    "hdf5.tif": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "png.tif": (b"\x89PNG\r\n\x1a\n", "a PNG image"),
}


@pytest.mark.parametrize("name", HEADS)
def test_files(tmp_path, name):
    head, expected = HEADS[name]
    (tmp_path / name).write_bytes(head + bytes(100))
    with pytest.raises(InputError, match=rf"{name}: .*{expected}") as caught:
        open_volume(tmp_path / name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["TIFF images", "DICOM files", "PNG images"])
def test_folders(tmp_path, kind):
    suffix = {"TIFF images": ".tif", "DICOM files": ".dcm", "PNG images": ".png"}[kind]
    for z in range(12):
        if suffix == ".tif":
            tifffile.imwrite(tmp_path / f"z{z}.tif", np.zeros((4, 5), np.uint8))
        else:
            (tmp_path / f"z{z}{suffix}").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(InputError, match=rf"found a folder of 12 {kind}: read them in Python with"):
        open_volume(tmp_path)


def test_a_folder_of_dicom_files_without_endings(tmp_path):
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(InputError, match="a folder of DICOM files"):
        open_volume(tmp_path)


@pytest.mark.parametrize("name", ["v\0.zarr", "v" * 300, "v" * 5000, "../v\x1b[31m.zarr"])
def test_paths_that_are_none(tmp_path, name):
    with pytest.raises(InputError):
        open_volume(str(tmp_path / name))


@pytest.mark.parametrize("name", ["pipe.tif", "pipe", "pipe.zarr"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="found neither"):
        open_volume(tmp_path / name)
    with pytest.raises(InputError, match="found neither"):
        open_volume("/dev/zero")
