"""Encode and decode chunks without Zarr's machinery, which takes some milliseconds for each of them.

Only what Zarr compresses by default, plain bytes with Zstandard; other chunks are left to Zarr.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, ZstdCodec
from zarr.core.metadata import ArrayV3Metadata

from hrvol.volume.storage.declared_size import check_size


@dataclass(frozen=True)
class ChunkCodec:
    """How the chunks of an array are encoded.

    Attributes
    ----------
    shape
        Elements of a chunk, per stored axis.
    dtype
        Type with byte order.
    level, checksum
        Of Zstandard.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    level: int
    checksum: bool

    @classmethod
    def of(cls, metadata: ArrayV3Metadata) -> ChunkCodec | None:
        """Return the codec of an array; ``None`` if only Zarr can encode it."""
        codecs = metadata.codecs
        if len(codecs) != 2 or type(codecs[0]) is not BytesCodec or type(codecs[1]) is not ZstdCodec:
            return None
        endian = getattr(codecs[0].endian, "value", codecs[0].endian) or "little"
        dtype = metadata.data_type.to_native_dtype().newbyteorder("<" if endian == "little" else ">")
        shape = tuple(metadata.chunks)
        return cls(shape, dtype, codecs[1].level, codecs[1].checksum)

    def encode(self, values: NDArray[Any]) -> bytes:
        """Return the bytes of a chunk of the full shape."""
        data: bytes = zstd.compress(
            values.astype(self.dtype, copy=False).tobytes(), self.level, self.checksum
        )
        return data

    def decode(self, data: bytes) -> NDArray[Any]:
        """Return the chunk of bytes; :class:`ValueError` if they are damaged."""
        size = math.prod(self.shape) * self.dtype.itemsize
        check_size("zstd", memoryview(data), size)
        try:
            plain: bytes = zstd.decompress(data)
        except RuntimeError as error:
            raise ValueError(str(error)) from None
        if len(plain) != size:
            raise ValueError(f"found {len(plain):,} bytes in a chunk, expected {size:,}")
        return np.frombuffer(plain, self.dtype).reshape(self.shape)
