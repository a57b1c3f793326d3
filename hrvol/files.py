"""Single files of results: a free place for them, and never half a file in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from hrvol.errors import OutputExistsError, UsageError


@dataclass(frozen=True)
class FileKind:
    """What files of a kind are told by.

    Attributes
    ----------
    name
        For messages.
    beginnings
        The bytes that one of them starts with.
    suffix
        A name that is proof enough: a damaged file of that name may be replaced, too.
    """

    name: str
    beginnings: tuple[bytes, ...]
    suffix: str | None = None


MODEL = FileKind("model", (b"PK\3\4",), ".hrvol")

BOXES = FileKind("table of boxes", (b"class,name,superbox,size,",))

_BY_SUFFIX = {
    ".png": FileKind("PNG file", (b"\x89PNG\r\n\x1a\n",)),
    ".tif": FileKind("TIFF file", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
}


def check_picture(path: str | Path, overwrite: bool) -> Path:
    """Make sure that a picture or a mask may be written to a place, before the work it takes.

    Parameters
    ----------
    path
        File to write: ``*.png`` or ``*.tif``.
    overwrite
        Whether an earlier one may be replaced; a file of another kind never is.

    Raises
    ------
    UsageError
        The name ends otherwise, or its folder is not there.
    OutputExistsError
        Something is in the way.
    """
    file = Path(path)
    if file.suffix not in _BY_SUFFIX:
        raise UsageError(f"{file}: found a name in {file.suffix or 'no suffix'}, expected one in .png")
    return check_file(file, _BY_SUFFIX[file.suffix], overwrite)


def check_file(path: str | Path, kind: FileKind, overwrite: bool) -> Path:
    """Make sure that a file may be written to a place, before the work it takes.

    Parameters
    ----------
    path
        File to write.
    kind
        What it will be.
    overwrite
        Whether an earlier one may be replaced; a file of another kind never is.

    Raises
    ------
    UsageError
        Its folder is not there.
    OutputExistsError
        Something is in the way.
    """
    file = Path(path)
    if not file.parent.is_dir():
        raise UsageError(f"{file}: no such folder {file.parent}, expected one to write to")
    if not file.exists():
        return file
    if not overwrite:
        raise OutputExistsError(f"{file}: exists already, expected nothing there")
    if file.is_dir() or not (file.suffix == kind.suffix or _begins(file, kind.beginnings)):
        raise OutputExistsError(
            f"{file}: found no {kind.name}, expected an earlier one; it is not overwritten"
        )
    return file


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name to write to; what is there in the end takes its place at once, if there was no error."""
    partial = path.with_name(f".{path.stem}.{uuid4().hex[:8]}{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _begins(file: Path, beginnings: tuple[bytes, ...]) -> bool:
    with file.open("rb") as stream:
        return stream.read(32).startswith(beginnings)


def text(path: str | Path | None) -> str | None:
    """Return a path as text, ``None`` as it is."""
    return None if path is None else str(path)
