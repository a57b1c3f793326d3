"""Recognise files that are no Zarr and no TIFF, to say what they are and how to convert them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from hrvol.errors import InputError, first_line
from hrvol.text import printable

_HEAD = 352  # bytes that tell the format

# Format -> what it is, and the package that reads it.
_FORMATS = {
    "hdf5": ("an HDF5 file", "h5py"),
    "mrc": ("an MRC file", "mrcfile"),
    "nifti": ("a NIfTI file", "nibabel"),
    "dicom": ("a DICOM file", "pydicom"),
    "png": ("a PNG image", "imageio"),
    "jpeg": ("a JPEG image", "imageio"),
    "npy": ("a NumPy file", "numpy"),
    "nrrd": ("an NRRD file", "pynrrd"),
    "ole": ("an OLE file (TXM or TXRM?)", "dxchange"),
    "tiff": ("a TIFF file with another ending", ""),
    "zip": ("a zip archive", ""),
    "gzip": ("a gzip file", ""),
}

_STARTS = {
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"\x93NUMPY": "npy",
    b"NRRD": "nrrd",
    b"\xd0\xcf\x11\xe0": "ole",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"PK\x03\x04": "zip",
}

_SUFFIXES = {
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".bmp": "BMP",
    ".dcm": "DICOM",
    ".ima": "DICOM",
}

_LOOKED_AT = 10_000  # entries of a folder


def check_exists(path: Path) -> None:
    """Raise an :class:`InputError` if there is no such file or folder."""
    try:
        path.stat()
    except FileNotFoundError:
        raise InputError(f"{printable(str(path), 1000)}: no such file or folder") from None
    except (OSError, ValueError) as error:  # a name that is too long, or has a zero character
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{printable(str(path), 1000)}: cannot be opened: {reason}") from None


def hint(path: Path) -> str:
    """Return what a file or folder is, and what to do with it, as a part of a message; empty if unknown."""
    try:
        if path.is_dir():
            return _folder(path)
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            known = _format(file.read(_HEAD), path.name.lower())
    except OSError:
        return ""
    if known is None:
        return ""
    kind, package = _FORMATS[known]
    if known == "tiff":
        return f"{kind}: rename it to *.tif"
    if known in ("zip", "gzip"):
        return f"{kind}: unpack it"
    return f"{kind}: read it in Python with {package}, and pass the array or write it as TIFF or Zarr"


def _format(head: bytes, name: str) -> str | None:
    """Return the format of a file with these first bytes."""
    for start, known in _STARTS.items():
        if head.startswith(start):
            return known
    if head[:2] == b"\x1f\x8b":
        return "nifti" if name.endswith(".nii.gz") else "gzip"
    if head[208:212] == b"MAP ":
        return "mrc"
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] == b"n+2\0":
        return "nifti"
    return "dicom" if head[128:132] == b"DICM" else None


def _folder(path: Path) -> str:
    counts: Counter[str] = Counter()
    dicom = None
    with os.scandir(path) as entries:
        for _, entry in zip(range(_LOOKED_AT), entries, strict=False):
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in _SUFFIXES:
                counts[_SUFFIXES[suffix]] += 1
            elif dicom is None and entry.is_file():
                with open(entry.path, "rb") as file:
                    dicom = _format(file.read(_HEAD), entry.name.lower()) == "dicom"
    if not counts:
        return "a folder of DICOM files: read it in Python with pydicom, and pass the array" if dicom else ""
    kind, count = counts.most_common(1)[0]
    way = {"TIFF": "tifffile.imread('FOLDER/*.tif')", "DICOM": "pydicom"}.get(kind, "imageio")
    files = ("file" if kind == "DICOM" else "image") + ("s" if count != 1 else "")
    return (
        f"a folder of {count:,} {kind} {files}: read them in Python with {way}, and pass the array or write"
        " it as one TIFF stack or Zarr"
    )
