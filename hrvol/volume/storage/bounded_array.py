"""Check the size of an array before anything is computed, and open it so that reading stays within bounds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import zarr
from zarr.abc.codec import Codec
from zarr.codecs import ShardingCodec
from zarr.core.array import AsyncArray
from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata

from hrvol.errors import InputError
from hrvol.volume.storage.codecs import bounded_codecs, bounded_numcodec, encoded_limit
from hrvol.volume.storage.input_store import InputStore
from hrvol.volume.storage.zip_input import ZipInput

BYTES = 2**60
"""Most bytes of an array: a thousand times the largest volumes that exist."""

SIDE = 2**31
"""Most elements along an axis."""

AXES = 8
"""Most axes of an array."""

CHUNK_BYTES = 2**32
"""Most bytes of a decoded chunk: it is in memory as a whole."""

CHUNKS = 2**22
"""Most chunks along an axis: a list of them is in memory."""

SHARD_CHUNKS = 2**22
"""Most chunks in a shard, whose index is in memory as a whole."""

FILE_FACTOR = 2  # A file of a chunk may be larger than its values: compression fails on noise.


def check_shape(source: str, shape: Iterable[int], dtype: Any) -> None:
    """Raise an :class:`InputError` if an array is empty or absurdly large."""
    sides = tuple(int(side) for side in shape)
    if not 0 < len(sides) <= AXES:
        raise InputError(f"{source}: found {len(sides)} axes, expected 1 to {AXES}")
    if not all(sides):
        raise InputError(f"{source}: found an empty array of shape {sides}")
    if max(sides, default=1) > SIDE:
        raise InputError(f"{source}: found {max(sides):.3g} voxels along an axis, expected at most {SIDE:,}")
    size = math.prod(sides) * np.dtype(dtype).itemsize
    if size > BYTES:
        raise InputError(f"{source}: found shape {sides}, {size:.3g} bytes, expected at most {BYTES:.3g}")


def check_chunks(source: str, shape: Iterable[int], chunks: Iterable[int], dtype: Any) -> None:
    """Raise an :class:`InputError` if chunks are too large for memory, or too many."""
    sides, lengths = tuple(chunks), tuple(shape)
    size = math.prod(sides) * np.dtype(dtype).itemsize
    if not 0 < size <= CHUNK_BYTES:
        shown = f"{size:,}" if size < 10**15 else f"{size:.3g}"
        raise InputError(
            f"{source}: found chunks of shape {sides}, {shown} bytes, expected 1 to {CHUNK_BYTES:,} bytes"
        )
    most = max(-(-length // side) for length, side in zip(lengths, sides, strict=True))
    if most > CHUNKS:
        raise InputError(f"{source}: found {most:,} chunks along an axis, expected at most {CHUNKS:,}")


def bounded_array(array: zarr.Array[Any], source: str) -> zarr.Array[Any]:
    """Return an array, with the same values, of which no read allocates more than its chunks need.

    Parameters
    ----------
    array
        The array as Zarr opened it.
    source
        Name for error messages.

    Raises
    ------
    InputError
        The array or its chunks are too large, or a codec is not known.
    """
    metadata = array.metadata
    if array.dtype.kind not in "biuf":
        raise InputError(f"{source}: found type {array.dtype}, expected integers or floating-point numbers")
    check_shape(source, metadata.shape, array.dtype)
    try:
        chunks = array.chunks
    except NotImplementedError:
        raise InputError(f"{source}: found chunks of different shapes, expected one shape") from None
    check_chunks(source, metadata.shape, chunks, array.dtype)
    item = array.dtype.itemsize
    plain: ArrayV2Metadata | ArrayV3Metadata
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # codecs that are not in the specification
        if isinstance(metadata, ArrayV2Metadata):
            filters = metadata.filters or ()
            limit = encoded_limit(chunks, item, bool(filters))
            compressor = metadata.compressor
            plain = ArrayV2Metadata(
                shape=metadata.shape,
                dtype=metadata.dtype,
                chunks=metadata.chunks,
                fill_value=metadata.fill_value,
                order=metadata.order,
                dimension_separator=metadata.dimension_separator,
                compressor=None if compressor is None else bounded_numcodec(compressor, limit, source),
                filters=[bounded_numcodec(codec, limit, source) for codec in filters] or None,
                attributes=metadata.attributes,
            )
        else:
            stored = array.shards or chunks
            _check_shards(metadata.codecs, stored, source)
            limit = encoded_limit(stored, item, True) + 20 * math.prod(stored) // math.prod(chunks)
            plain = ArrayV3Metadata(
                shape=metadata.shape,
                data_type=metadata.data_type,
                chunk_grid=metadata.chunk_grid.to_dict(),
                chunk_key_encoding=metadata.chunk_key_encoding,
                fill_value=metadata.fill_value,
                codecs=bounded_codecs(metadata.codecs, source),
                attributes=metadata.attributes,
                dimension_names=metadata.dimension_names,
                storage_transformers=metadata.storage_transformers,
                extra_fields=metadata.extra_fields,
            )
    path = array.store_path
    if isinstance(path.store, InputStore):
        path = type(path)(InputStore(path.store.root, chunk_bytes=FILE_FACTOR * limit + 2**16), path.path)
    elif isinstance(path.store, ZipInput):
        path = type(path)(ZipInput(path.store.path, chunk_bytes=FILE_FACTOR * limit + 2**16), path.path)
    return zarr.Array(AsyncArray(metadata=plain, store_path=path))


def _check_shards(codecs: Iterable[Codec], shape: tuple[int, ...], source: str) -> None:
    """Raise an :class:`InputError` if a shard holds too many chunks: its index is in memory as a whole."""
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            count = math.prod(shape) // max(math.prod(codec.chunk_shape), 1)
            if count > SHARD_CHUNKS:
                raise InputError(
                    f"{source}: found {count:,} chunks in a shard, expected at most {SHARD_CHUNKS:,}"
                )
            _check_shards(codec.codecs, codec.chunk_shape, source)
