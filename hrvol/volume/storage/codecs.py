"""Decode chunks that others compressed: by known codecs only, and to no more bytes than a chunk has.

A gzip file of 3 MB can hold 3 GB. Decoders that can stop are stopped; for the others the size that the data
declare, which they never exceed, is compared first.
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
import math
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numcodecs
import numcodecs.abc
from zarr.abc.codec import BytesBytesCodec, Codec
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer

from hrvol.errors import InputError
from hrvol.text import printable
from hrvol.volume.storage.declared_size import DECLARED, check_size, too_large

COMPRESSORS = ("blosc", "zstd", "lz4", "gzip", "zlib", "bz2", "lzma")
"""Codecs whose result may be any times larger than what is stored."""

FILTERS = (
    "adler32",
    "astype",
    "bitround",
    "crc32",
    "crc32c",
    "delta",
    "fixedscaleoffset",
    "fletcher32",
    "jenkins_lookup3",
    "packbits",
    "quantize",
    "shuffle",
)
"""Other codecs that are accepted. Those that make Python objects are not: ``pickle`` runs any code."""

_ZARR = {GzipCodec: "gzip", ZstdCodec: "zstd", BloscCodec: "blosc"}

_SLACK = 1024  # bytes of checksums behind the values of a chunk

_ENCODED_BYTES = 16  # of a voxel, at most, where filters change its type

_MEMBERS = 2**17  # of a chunk; block-wise gzip has one per 64 KiB

# Bytes given to a decoder at once. What it does not use is copied: members may have no more than 20 bytes.
_FIRST_STEP, _LAST_STEP = 2**10, 2**22


def bounded_codecs(codecs: Iterable[Codec], source: str) -> tuple[Codec, ...]:
    """Return the codecs of an array of Zarr 3, those that decompress with bounds.

    Raises
    ------
    InputError
        A codec is not known here.
    """
    return tuple(_bounded(codec, source) for codec in codecs)


def bounded_numcodec(codec: Any, limit: int, source: str) -> Any:
    """Return a codec of an array of Zarr 2; decompressed data have at most ``limit`` bytes.

    Raises
    ------
    InputError
        The codec is not known here.
    """
    if isinstance(codec, _BoundedNumcodec):
        return codec
    name = str(getattr(codec, "codec_id", type(codec).__name__))
    if name in COMPRESSORS:
        return _BoundedNumcodec(name, codec, limit)
    if name in FILTERS:
        return codec
    raise _unknown(name, source)


def encoded_limit(shape: Iterable[int], itemsize: int, filtered: bool) -> int:
    """Return the most bytes of a chunk before it is compressed."""
    return math.prod(shape) * (max(itemsize, _ENCODED_BYTES) if filtered else itemsize) + _SLACK


class _BoundedNumcodec(numcodecs.abc.Codec):  # type: ignore[misc]
    """A codec of numcodecs whose ``decode`` is bounded."""

    codec_id = "bounded"  # of the class, as Zarr's protocol requires

    def __init__(self, name: str, inner: Any, limit: int) -> None:
        self.codec_id, self._inner, self._limit = name, inner, limit

    def encode(self, buf: Any) -> Any:
        return self._inner.encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        data = memoryview(buf).cast("B")
        if self.codec_id in _STREAMED:
            return _STREAMED[self.codec_id](self._inner)(data, self._limit)
        check_size(self.codec_id, data, self._limit)
        return self._inner.decode(buf)

    def get_config(self) -> Any:
        return self._inner.get_config()


@dataclass(frozen=True)
class _BoundedCodec(BytesBytesCodec):
    """A codec of Zarr 3 whose ``decode`` is bounded."""

    name: str
    inner: Any
    is_fixed_size = False

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> Buffer:
        limit = encoded_limit(chunk_spec.shape, chunk_spec.dtype.to_native_dtype().itemsize, False)
        data = memoryview(chunk_data.to_bytes())
        if self.name in _STREAMED:
            values = await asyncio.to_thread(_STREAMED[self.name](self.inner), data, limit)
            return chunk_spec.prototype.buffer.from_bytes(values)
        check_size(self.name, data, limit)
        decoded: Buffer = await self.inner._decode_single(chunk_data, chunk_spec)
        return decoded

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        encoded: dict[str, Any] = self.inner.to_dict()
        return encoded


def _bounded(codec: Codec, source: str) -> Codec:
    if isinstance(codec, ShardingCodec):
        return ShardingCodec(
            chunk_shape=codec.chunk_shape,
            codecs=bounded_codecs(codec.codecs, source),
            index_codecs=_index_codecs(codec.index_codecs, source),
            index_location=codec.index_location,
        )
    if isinstance(codec, BytesCodec | TransposeCodec | Crc32cCodec | _BoundedCodec):
        return codec
    name = _ZARR.get(type(codec)) or str(getattr(codec, "codec_name", type(codec).__name__))
    plain = name.removeprefix("numcodecs.")
    if plain in COMPRESSORS and isinstance(codec, BytesBytesCodec):
        return _BoundedCodec(plain, codec)
    if name != plain and plain in FILTERS:
        return codec
    raise _unknown(name, source)


def _index_codecs(codecs: Iterable[Codec], source: str) -> tuple[Codec, ...]:
    """Return the codecs of the index of shards, whose size has to be known."""
    kept = tuple(codecs)
    for codec in kept:
        if not isinstance(codec, BytesCodec | Crc32cCodec):
            raise InputError(
                f"{source}: found the codec {type(codec).__name__} for the index of shards, expected bytes,"
                " crc32c"
            )
    return kept


def _unknown(name: str, source: str) -> InputError:
    known = ", ".join(sorted({*COMPRESSORS, *FILTERS}))
    return InputError(f"{source}: found the codec {printable(name, 60)}, expected one of {known}")


def _stream_of(start: Callable[[], Any], padding: bytes = b"") -> Callable[[memoryview, int], bytes]:
    """Return a function that decompresses data of one or several members, each by a decoder of its own."""
    skipped = re.compile(rb"(?:%s)*" % re.escape(padding))

    def decompress(data: memoryview, limit: int) -> bytes:
        parts: list[bytes] = []
        size, at, members = 0, 0, 0
        while at < len(data):
            members += 1
            if members > _MEMBERS:
                raise ValueError(f"found more than {_MEMBERS:,} members in a compressed chunk")
            stream, step = start(), _FIRST_STEP
            while not stream.eof:
                if at >= len(data):
                    raise ValueError("found an end in the middle of a compressed chunk")
                piece = data[at : at + step]
                part: bytes = stream.decompress(piece, limit - size + 1)
                size += len(part)
                if size > limit:
                    raise ValueError(too_large("more bytes", limit))
                parts.append(part)
                at += len(piece)
                step = min(2 * step, _LAST_STEP)
            at -= len(stream.unused_data)
            if padding:
                found = skipped.match(data, at)
                at = found.end() if found else at
        return parts[0] if len(parts) == 1 else b"".join(parts)

    return decompress


_DICTIONARY = 256 * 2**20  # bytes of memory of an LZMA decoder, whose data name up to 4 GB


def _lzma_decoder(codec: Any) -> Callable[[], Any]:
    """Return a function that makes decoders with the settings of a codec."""
    settings = getattr(codec, "_codec", codec)  # of Zarr 3, of Zarr 2
    if settings.format == lzma.FORMAT_RAW:
        if any(int(chosen.get("dict_size", 0)) > _DICTIONARY // 2 for chosen in settings.filters or ()):
            raise ValueError(f"found an LZMA dictionary above {_DICTIONARY // 2:,} bytes")
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=settings.filters)
    return lambda: lzma.LZMADecompressor(settings.format, memlimit=_DICTIONARY)


_STREAMED: dict[str, Callable[[Any], Callable[[memoryview, int], bytes]]] = {
    # gzip files may be padded.
    "gzip": lambda _: _stream_of(lambda: zlib.decompressobj(31), b"\0"),
    "zlib": lambda _: _stream_of(lambda: zlib.decompressobj(15), b"\0"),
    "bz2": lambda _: _stream_of(bz2.BZ2Decompressor),
    "lzma": lambda codec: _stream_of(_lzma_decoder(codec)),
}


assert set(_STREAMED) | set(DECLARED) == set(COMPRESSORS)
