"""Name how chunks are compressed, for Zarr 2 and 3."""

from __future__ import annotations

import re
from typing import Any

import numcodecs
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from hrvol.errors import UsageError
from hrvol.text import printable

DEFAULT = "zstd"
"""As labels are compressed."""

_LEVELS = {
    "none": (0, 0, 0),
    "zstd": (1, 22, 0),
    "gzip": (1, 9, 5),
    "blosc-zstd": (1, 9, 5),
    "blosc-lz4": (1, 9, 5),
}
"""By name: lowest and highest level, and the default; 0 is that of the library."""


def compression_of(text: str) -> str:
    """Return a checked name of a compression: ``none``, ``zstd``, ``blosc-lz4:7``, ...

    Raises
    ------
    UsageError
        It is not known, or has no such level.
    """
    name, level = _parsed(text)
    return f"{name}:{level}" if level else name


def compressor(text: str, zarr_format: int) -> Any:
    """Return the codec of Zarr 2 or 3 that a checked name stands for; ``None`` for ``none``.

    Codecs of Blosc shuffle the bytes of values: those of 16 bits and more are smaller then.
    """
    name, level = _parsed(text)
    if name == "none":
        return None
    level = level or _LEVELS[name][2]
    if zarr_format == 3:
        if name == "zstd":
            return ZstdCodec(level=level)
        return GzipCodec(level=level) if name == "gzip" else _blosc(name, level)
    if name == "zstd":
        return numcodecs.Zstd(level=level)
    if name == "gzip":
        return numcodecs.GZip(level=level)
    return numcodecs.Blosc(cname=name.removeprefix("blosc-"), clevel=level, shuffle=numcodecs.Blosc.SHUFFLE)


def _blosc(name: str, level: int) -> BloscCodec:
    cname: Any = name.removeprefix("blosc-")
    return BloscCodec(cname=cname, clevel=level, shuffle="shuffle")


def _parsed(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"([a-z0-9-]{1,20})(?::([0-9]{1,3}))?", text)
    name = "" if found is None else found[1]
    if found is None or name not in _LEVELS:
        shown = printable(text, 60)
        raise UsageError(f"compression: found {shown}, expected {', '.join(_LEVELS)}, such as zstd:5")
    low, high, _ = _LEVELS[name]
    level = int(found[2] or 0)
    if (found[2] is not None and not low <= level <= high) or (name == "none" and found[2] is not None):
        raise UsageError(f"compression: found level {level} of {name}, expected {low} to {high}")
    return name, level
