"""Protect inputs: an output must not be one of them, hold one, or be inside of one."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import zarr

from hrvol.errors import UsageError
from hrvol.volume.storage.location import Location, is_url, split_inside
from hrvol.volume.volume import Volume

_LOCAL = ("file", "local")

_SAME = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs", "adl": "abfs"}
"""Protocols by other names."""


def keep_inputs(out: str | Path | Location, *inputs: Any, role: str = "input") -> None:
    """Raise :class:`UsageError` if an output would replace, hold or be inside one of its command's inputs.

    Parameters
    ----------
    out
        Path or URL of the output.
    inputs
        Paths, URLs, volumes or Zarr nodes. Anything else (arrays in memory, ``None``, names of presets that
        are no files) is no place, and ignored.
    role
        What they are, for the message.
    """
    targets = list(_places(out))
    for value in inputs:
        for source in _places(value):
            for target in targets:
                if _overlap(source, target):
                    raise UsageError(
                        f"{out}: is (or holds, or is inside) the {role} {_name(value)}, expected another path"
                    )


def keep_opened(outs: Iterable[Path], volumes: Iterable[Volume]) -> None:
    """Raise :class:`UsageError` if a file to write is one from which a volume is read, by whatever name.

    Of an input of several files, such as a header and its values, :func:`keep_inputs` knows only the one that
    the user named.
    """
    opened = {_chain(Path(path))[0]: path for volume in volumes for path, _ in volume.opened}
    for out in outs:
        if (path := opened.get(_chain(out)[0])) is not None:
            raise UsageError(f"{out}: is a file of the input ({path}), expected another path")


def file_or_none(value: Any) -> Path | None:
    """Return an argument that names a file, as a recipe's may, or ``None`` if there is no such file."""
    with suppress(OSError, ValueError):
        if isinstance(value, str | Path) and Path(value).is_file():
            return Path(value)
    return None


def _places(value: Any) -> Iterator[Path | str]:
    """Yield the local paths and normalised URLs that an argument names: several for chained URLs."""
    if isinstance(value, Volume):
        yield from _places(value.origin[0] if value.origin is not None else value.array)
    elif isinstance(value, zarr.Array | zarr.Group):
        yield from _places(str(value.store_path))
    elif isinstance(value, str | Path | Location):
        text = split_inside(str(value))[0]
        for link in text.split("::") if is_url(text) else (text,):
            protocol, mark, rest = link.partition("://")
            protocol = _SAME.get(protocol.lower(), protocol.lower())
            if not mark and is_url(text) and "/" not in link:
                continue  # of a chain: a protocol without a path
            if not mark or protocol in _LOCAL:
                yield Path(rest if mark else link)
            else:
                host, _, path = rest.partition("/")  # of object stores: the bucket
                yield f"{protocol}://{host.lower()}{posixpath.normpath('/' + path.lstrip('/'))}".rstrip("/")


def _overlap(one: Path | str, other: Path | str) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        first, second = _chain(one), _chain(other)
        return first[0] in second or second[0] in first
    if isinstance(one, str) and isinstance(other, str):
        return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
    return False


def _chain(path: Path) -> list[Any]:
    """Return what identifies a path and the folders around it: numbers of files, names where nothing exists.

    The numbers are the same for hard links, bind mounts, and other cases of letters.
    """
    try:
        whole = Path(os.path.realpath(path))
    except ValueError:  # a zero character
        return [str(path)]
    chain: list[Any] = []
    for place in (whole, *whole.parents):
        try:
            status = place.stat()
        except (OSError, ValueError):
            chain.append(str(place))
        else:
            chain.append((status.st_dev, status.st_ino))
    return chain


def _name(value: Any) -> str:
    return value.source if isinstance(value, Volume) else str(value)
