"""Open zip archives that may come from anybody, and read their members within the sizes that are declared."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

from hrvol.errors import HrvolError, InputError, first_line
from hrvol.reading.bounded import check_archive
from hrvol.text import printable

ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""Exceptions that zipfile raises on damaged archives."""

_ENTRIES = 200_000  # of directories in a file: zipfile needs a microsecond and a kilobyte for each

_ENTRY = b"PK\1\2"

_RATIO = 100

_FLOOR = 48 * 2**20


def open_archive(
    data: bytes,
    source: str,
    kind: str,
    members: int,
    limits: Mapping[str, int],
    error: type[HrvolError] = InputError,
) -> zipfile.ZipFile:
    """Return a zip archive whose directory is checked.

    Besides the limits, all members together have at most 100 times the bytes of the file, or 48 MiB: data
    compress by a factor of 5 to 20, bombs by 1000.

    Parameters
    ----------
    data
        Bytes of the archive.
    source
        Its name, for messages.
    kind
        What it should be, for messages: ``"model"``.
    members, limits
        See :func:`hrvol.reading.bounded.check_archive`.
    error
        Type of the error to raise.

    Raises
    ------
    HrvolError
        Of the type ``error``: the data are no archive, damaged, or exceed a limit.
    """
    count = data.count(_ENTRY)
    if count > _ENTRIES:
        raise error(f"{source}: found an archive of {count} entries, expected a {kind} file")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except ARCHIVE_ERRORS as problem:
        raise error(
            f"{source}: found a damaged file or no {kind} ({first_line(problem)}), expected a {kind} file"
        ) from None
    total = min(limits["total"], max(_FLOOR, _RATIO * len(data)))
    check_archive(archive, source, members, {**limits, "total": total}, error)
    return archive


def read_member(
    archive: zipfile.ZipFile,
    name: str,
    source: str,
    limit: int | None = None,
    error: type[HrvolError] = InputError,
) -> bytes:
    """Return the bytes of a member; no more are decompressed than the directory declares.

    Parameters
    ----------
    archive
        From :func:`open_archive`.
    name
        Name of the member.
    source
        Name of the archive, for messages.
    limit
        Most bytes of this member, where fewer are expected than of others of its kind.
    error
        Type of the error to raise.

    Raises
    ------
    HrvolError
        Of the type ``error``: there is no such member, it is too large or damaged.
    """
    shown = printable(name, 100)
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise error(f"{source}: found no {shown}, expected one in the file") from None
    if limit is not None and entry.file_size > limit:
        raise error(f"{source}: {shown}: found {entry.file_size:,} bytes, expected at most {limit:,}")
    try:
        with archive.open(entry) as stream:
            data = stream.read(entry.file_size)  # without a size, all that the stream expands to is held
    except ARCHIVE_ERRORS as problem:
        raise error(
            f"{source}: {shown}: found damaged data ({first_line(problem)}), expected a whole file"
        ) from None
    if len(data) != entry.file_size:
        raise error(f"{source}: {shown}: found {len(data):,} bytes, expected {entry.file_size:,}")
    return data
