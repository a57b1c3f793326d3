"""Read files, JSON, arrays and zip archives with bounds that are checked before anything is allocated.

Files may come from anybody: an archive member can claim terabytes, a path can be a device that never ends.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import HrvolError, InputError, first_line
from hrvol.text import printable

JSON_BYTES = 64 * 2**20
"""Most bytes of a JSON document."""

_DIGITS = 40  # of an integer

_HEADER_BYTES = 10_000  # of an array's header

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_file(
    path: str | Path,
    limit: int,
    expected: str,
    error: type[HrvolError] = InputError,
    *,
    private: bool = False,
) -> bytes:
    """Return the bytes of a regular file; pipes and devices, which might never end, are refused.

    Parameters
    ----------
    path
        The file.
    limit
        Most bytes that such a file may have.
    expected
        What is expected there, for messages: ``"a *.hrvol file"``.
    error
        Type of the error to raise.
    private
        Whether to refuse a file of another account, or one that other accounts may read or change.

    Raises
    ------
    HrvolError
        Of the type ``error``: there is no such file, it is no regular file, too large, not private, or cannot
        be read.
    """
    name = printable(str(path), 1000)
    try:
        # Opening a named pipe would wait for its writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise error(f"{name}: found no such file, expected {expected}") from None
    except ValueError as problem:  # a zero character in the path
        raise error(f"{name}: found {first_line(problem)}, expected the path of {expected}") from None
    except OSError as problem:
        raise error(f"{name}: cannot be read: {problem.strerror or problem}") from None
    status = os.fstat(handle)
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        os.close(handle)
        raise error(f"{name}: found {file_kind(kind)}, expected {expected}")
    with os.fdopen(handle, "rb") as stream:
        if private and status.st_uid != os.geteuid():
            raise error(f"{name}: found a file of account {status.st_uid}, expected your own")
        if private and status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise error(f"{name}: found mode {mode:04o}, expected 0600: only you can read it (chmod 600)")
        if status.st_size > limit:
            _too_large(name, status.st_size, limit, error)
        try:
            data = stream.read(limit + 1)  # the file may grow meanwhile
        except OSError as problem:
            raise error(f"{name}: cannot be read: {problem.strerror or problem}") from None
    if len(data) > limit:
        _too_large(name, len(data), limit, error)
    return data


def file_kind(mode: int) -> str:
    """Return what a file of this mode is, if it is no regular file, for messages: ``"a folder"``."""
    return _KINDS.get(stat.S_IFMT(mode), "no regular file")


def parse_json(
    data: bytes | str, source: str, error: type[HrvolError] = InputError, limit: int = JSON_BYTES
) -> Any:
    """Return the values of a JSON document.

    Parameters
    ----------
    data
        The document, UTF-8.
    source
        Its name, for messages.
    error
        Type of the error to raise.
    limit
        Most bytes.

    Raises
    ------
    HrvolError
        Of the type ``error``: the document is too long, nested too deeply, not JSON, or has NaN, infinity or
        integers of more than 40 digits.
    """
    if len(data) > limit:
        _too_large(source, len(data), limit, error)
    try:
        return json.loads(data, parse_constant=_refuse_constant, parse_int=_integer)
    except RecursionError:
        raise error(f"{source}: found JSON that is nested too deeply, expected less") from None
    except ValueError as problem:
        raise error(f"{source}: found {first_line(problem)}, expected JSON") from None


def parse_mapping(
    data: bytes | str, source: str, error: type[HrvolError] = InputError, limit: int = JSON_BYTES
) -> dict[str, Any]:
    """Return the mapping that a JSON document holds; otherwise as :func:`parse_json`."""
    values = parse_json(data, source, error, limit)
    if not isinstance(values, dict):
        raise error(f"{source}: found a {type(values).__name__}, expected a mapping")
    return values


def parse_array(
    data: bytes, source: str, shape: tuple[int, ...] | None = None, error: type[HrvolError] = InputError
) -> NDArray[Any]:
    """Return the array of a ``.npy`` file, of numbers or of records of numbers.

    The size in the header is compared with the bytes that are there before the array is made.

    Parameters
    ----------
    data
        The bytes of the file.
    source
        Its name, for messages.
    shape
        Expected shape; ``None`` accepts any.
    error
        Type of the error to raise.

    Raises
    ------
    HrvolError
        Of the type ``error``: the data are damaged, hold Python objects, or have another shape.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"version {version} of the format")
        actual, _, dtype = read(stream, max_header_size=_HEADER_BYTES)
    except Exception as problem:  # damaged headers are parsed as Python literals, which may raise anything
        raise error(f"{source}: found {first_line(problem)}, expected an array") from None
    if dtype.hasobject:
        raise error(f"{source}: found Python objects, expected numbers")
    if shape is not None and actual != shape:
        raise error(f"{source}: found {dtype} {_short(actual)}, expected numbers of shape {shape}")
    expected, stored = math.prod(actual) * dtype.itemsize, len(data) - stream.tell()
    if min(actual, default=0) < 0 or expected != stored:
        raise error(
            f"{source}: found {stored} bytes for {_short(dtype)} {_short(actual)}, expected {expected}"
        )
    stream.seek(0)
    try:
        values: NDArray[Any] = np.load(stream, allow_pickle=False)
    except (ValueError, TypeError, EOFError, OSError) as problem:
        raise error(f"{source}: found {first_line(problem)}, expected an array") from None
    return values


def check_archive(
    archive: zipfile.ZipFile,
    source: str,
    members: int,
    limits: Mapping[str, int],
    error: type[HrvolError] = InputError,
) -> None:
    """Check the directory of a zip archive: counts, names and sizes that it declares for its members.

    A member may expand to more bytes than the directory declares: :func:`hrvol.reading.archive.read_member`
    reads no more than these.

    Parameters
    ----------
    archive
        The archive.
    source
        Its name, for messages.
    members
        Most members.
    limits
        Most uncompressed bytes of a member by its suffix (``".json"``); ``"total"``: of all together.
    error
        Type of the error to raise.

    Raises
    ------
    HrvolError
        Of the type ``error``: a bound is exceeded, a name occurs twice or has another suffix, or a member is
        encrypted or compressed by another method than deflate.
    """
    entries = archive.infolist()
    if len(entries) > members:
        raise error(f"{source}: found {len(entries)} members, expected at most {members}")
    names: set[str] = set()
    for entry in entries:
        name = printable(entry.filename, 100)
        limit = limits.get(os.path.splitext(entry.filename)[1])
        if limit is None:
            kinds = ", ".join(suffix for suffix in limits if suffix != "total")
            raise error(f"{source}: found the member {name}, expected only {kinds}")
        if entry.filename in names:
            raise error(f"{source}: found the member {name} twice, expected it once")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            kind = "encrypted" if entry.flag_bits & 1 else f"compressed by method {entry.compress_type}"
            raise error(f"{source}: found the member {name} {kind}, expected it stored or deflated")
        if entry.file_size > limit:
            _too_large(f"{source}: {name}", entry.file_size, limit, error)
        names.add(entry.filename)
    total = sum(entry.file_size for entry in entries)
    if total > limits["total"]:
        _too_large(source, total, limits["total"], error)


def _too_large(source: str, found: int, limit: int, error: type[HrvolError]) -> NoReturn:
    raise error(f"{source}: found {found:,} bytes, expected at most {limit:,}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"the number {name}")


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _short(value: Any) -> str:
    return printable(str(value), 100)
