"""Recognise files that hrvol does not read, for messages."""

from __future__ import annotations

from pathlib import Path

from hrvol.errors import InputError, first_line
from hrvol.text import printable

_STARTS = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x93NUMPY": "a NumPy file",
    b"NRRD": "an NRRD file",
    b"\xd0\xcf\x11\xe0": "an OLE file (of an X-ray microscope? Rename it to *.txrm or *.xrm)",
    b"II*\0": "a TIFF file",
    b"MM\0*": "a TIFF file",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\x1f\x8b": "a gzip file: unpack it",
    b"BZh": "a bzip2 file: unpack it",
    b"BM": "a BMP image: write it as PNG or TIFF",
    b"%PDF": "a PDF document",
}


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
    """Return what a file is by its first bytes, as a part of a message; empty if unknown."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return ""
    return next((known for start, known in _STARTS.items() if head.startswith(start)), "")
