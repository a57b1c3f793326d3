"""Single files of results: a free place for them, and never half a file in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from hrvol.errors import OutputExistsError, UsageError

_BEGINNINGS = {".png": (b"\x89PNG\r\n\x1a\n",), ".tif": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")}


def check_file(path: str | Path, overwrite: bool) -> Path:
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
    if file.suffix not in _BEGINNINGS:
        raise UsageError(f"{file}: found a name in {file.suffix or 'no suffix'}, expected one in .png")
    if not file.parent.is_dir():
        raise UsageError(f"{file}: no such folder {file.parent}, expected one to write to")
    if not file.exists():
        return file
    if not overwrite:
        raise OutputExistsError(f"{file}: exists already, expected nothing there")
    if not file.is_file() or not _begins(file, _BEGINNINGS[file.suffix]):
        raise OutputExistsError(
            f"{file}: found no {file.suffix[1:].upper()} file, expected an earlier one; it is not overwritten"
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
        return stream.read(8).startswith(beginnings)
