"""Check paths of output files before the work starts, and write files atomically."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from hrvol.errors import OutputExistsError, UsageError
from hrvol.version import VERSION

SOFTWARE = f"hrvol {VERSION}"
"""What pictures and masks name as the software that wrote them."""

_INFO_BYTES = 16 * 2**20


@dataclass(frozen=True)
class FileKind:
    """A kind of output file, recognised by its content or its suffix.

    Attributes
    ----------
    name
        Name of the kind, for messages.
    beginnings
        Possible first bytes of such a file.
    suffix
        A suffix that identifies the kind if the first bytes fit, so that a damaged file may be overwritten
        too.
    written_by_us
        Returns whether hrvol wrote a file with such first bytes; called with its path.
    """

    name: str
    beginnings: tuple[bytes, ...]
    suffix: str | None = None
    written_by_us: Callable[[Path], bool] = lambda file: True


def _is_model(file: Path) -> bool:
    """Whether a zip archive holds a model: office documents are zip archives, too."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open("info.json") as stream:
            info = json.loads(stream.read(_INFO_BYTES))
    except Exception:  # of a damaged archive
        return False
    return isinstance(info, dict) and info.get("format") == "hrvol model"  # model.FORMAT


def _is_picture(file: Path) -> bool:
    """Whether a PNG or TIFF file names hrvol as the software that wrote it."""
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG", "TIFF")) as picture:  # reads no pixels
            software = picture.info.get("Software") or picture.getexif().get(_SOFTWARE_TAG)
    except Exception:  # of a damaged file
        return False
    return isinstance(software, str) and software.startswith("hrvol ")


_SOFTWARE_TAG = 305

MODEL = FileKind("model", (b"PK\3\4",), ".hrvol", _is_model)

BOXES = FileKind("table of boxes", (b"class,name,superbox,size,",))

_BY_SUFFIX = {
    ".png": FileKind("picture of hrvol", (b"\x89PNG\r\n\x1a\n",), written_by_us=_is_picture),
    ".tif": FileKind("mask of hrvol", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), written_by_us=_is_picture),
}


def check_picture(path: str | Path, overwrite: bool) -> Path:
    """Check that a picture or a mask can be written to a path.

    Parameters
    ----------
    path
        File to write: ``*.png`` or ``*.tif``.
    overwrite
        Whether an existing file of the same kind may be replaced; a file of another kind never is.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        The suffix is another one, or the folder does not exist.
    OutputExistsError
        The file exists and must not be replaced.
    """
    file = Path(path)
    if file.suffix not in _BY_SUFFIX:
        raise UsageError(f"{file}: found {file.suffix or 'no suffix'}, expected .png")
    return check_file(file, _BY_SUFFIX[file.suffix], overwrite)


def check_file(path: str | Path, kind: FileKind, overwrite: bool) -> Path:
    """Check that a file can be written to a path.

    Parameters
    ----------
    path
        File to write.
    kind
        Kind of the file.
    overwrite
        Whether an existing file of this kind may be replaced; a file of another kind never is.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        The folder does not exist.
    OutputExistsError
        The file exists and must not be replaced.
    """
    file = Path(path)
    if not file.parent.is_dir():
        raise UsageError(f"{file}: no such folder {file.parent}, expected one to write to")
    if not os.path.lexists(file):
        return file
    if not overwrite:
        raise OutputExistsError(f"{file}: exists already, expected nothing there")
    if not file.is_file() or not _is_ours(file, kind):
        raise OutputExistsError(
            f"{file}: found no {kind.name}, expected an earlier one; it is not overwritten"
            " (delete it first if it is not needed)"
        )
    return file


@contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Write a file under a temporary name and rename it, so that readers see the old file or the new one.

    Parameters
    ----------
    path
        File to write. It stays as it was if the body raises.
    durable
        Whether the file and its name are flushed to the disk, so that they survive a power cut.

    Yields
    ------
    Path
        Temporary file in the same folder, with the same suffix: write to it, and close it.
    """
    partial = path.parent / f".{path.stem}.{uuid4().hex[:8]}{path.suffix}"  # also of "." and "/"
    try:
        yield partial
        if durable:
            flush(partial)
        os.replace(partial, path)
        if durable:
            with suppress(OSError):  # the new file is there already; not every file system has this
                flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_ours(file: Path, kind: FileKind) -> bool:
    return _begins(file, kind.beginnings) and (file.suffix == kind.suffix or kind.written_by_us(file))


def _begins(file: Path, beginnings: tuple[bytes, ...]) -> bool:
    if not file.is_file():  # opening a pipe would wait
        return False
    with file.open("rb") as stream:
        return stream.read(32).startswith(beginnings)


def json_text(values: Any) -> str:
    """Return values as JSON; NaN and infinity become null."""
    return json.dumps(_plain(values), indent=2)


def _plain(values: Any) -> Any:
    """Return plain JSON values of nested mappings, sequences, arrays and numbers."""
    if isinstance(values, dict):
        return {str(key): _plain(value) for key, value in values.items()}
    if hasattr(values, "tolist"):
        return _plain(values.tolist())
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values


def text(path: str | Path | None) -> str | None:
    """Return a path as text, and ``None`` unchanged."""
    return None if path is None else str(path)
