"""Decompress strips and tiles of TIFF files to no more bytes than they have.

imagecodecs knows the size of the result; what tifffile uses without it does not.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tifffile

from hrvol.errors import MissingExtraError
from hrvol.text import printable

_SLACK = 2**16  # bytes: some strips are padded

_LZMA = 34925

_MEMORY = 256 * 2**20  # bytes of an LZMA decoder


def bound_decoders(pages: Iterable[Any]) -> None:
    """Have pages of tifffile decode deflate, LZMA and zstd data within bounds."""
    decoders = tifffile.TIFF.DECOMPRESSORS
    for page in {id(page): page for page in pages}.values():
        key = int(page.compression)
        bounded = _DECODERS.get(key)
        # imagecodecs decodes no more than the pixels have; of LZMA it drops what there is more.
        if bounded is None or (key != _LZMA and decoders[key].__module__.startswith("imagecodecs")):
            continue
        kept = decoders[key]
        decoders._codecs[key] = bounded
        try:
            page.decode  # noqa: B018 - the function, which is cached, keeps its decoder
        finally:
            decoders._codecs[key] = kept


def check_decoders(path: Path, pages: Iterable[Any]) -> None:
    """Raise a :class:`MissingExtraError` if pages are compressed in a way that needs imagecodecs."""
    for compression in {page.compression for page in pages}:
        try:
            tifffile.TIFF.DECOMPRESSORS[int(compression)]
        except KeyError:
            raise MissingExtraError(
                f"{path}: found a TIFF image compressed with {printable(str(compression.name), 40)}, which is"
                " read with imagecodecs: pip install 'hrvol[io]'"
            ) from None


def _inflate(data: bytes, /, *, out: Any = None) -> bytes:
    return _bounded(zlib.decompressobj(), data, out)


def _unpack_lzma(data: bytes, /, *, out: Any = None) -> bytes:
    return _bounded(lzma.LZMADecompressor(memlimit=_MEMORY), data, out)


def _unpack_zstd(data: bytes, /, *, out: Any = None) -> bytes:
    return _bounded(import_module("compression.zstd").ZstdDecompressor(), data, out)


def _bounded(stream: Any, data: bytes, out: Any) -> bytes:
    """Decompress data whose pixels have ``out`` bytes."""
    if not isinstance(out, int):
        out = getattr(out, "nbytes", 2**30)
    limit = 2 * out + _SLACK
    values: bytes = stream.decompress(data, limit + 1)
    if len(values) > limit:
        raise ValueError(f"found more than {limit:,} bytes in a compressed strip or tile, expected {out:,}")
    if not stream.eof:
        raise ValueError("found an end in the middle of a compressed strip or tile")
    return values


_DECODERS: dict[int, Callable[..., bytes]] = {
    8: _inflate,
    32946: _inflate,
    50013: _inflate,
    _LZMA: _unpack_lzma,
}
if find_spec("_zstd") is not None:  # the module behind it, from Python 3.14 on
    _DECODERS |= {50000: _unpack_zstd, 34926: _unpack_zstd}
