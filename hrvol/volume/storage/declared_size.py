"""Find the size that compressed data declare, which they never exceed when they are decompressed."""

from __future__ import annotations

from collections.abc import Callable

_ZSTD_BLOCK = 128 * 2**10  # bytes, at most, of a block of zstd


def check_size(name: str, data: memoryview, limit: int) -> None:
    """Raise a :class:`ValueError` if compressed data declare more than ``limit`` bytes."""
    declared = DECLARED[name](data)
    if declared > limit:
        raise ValueError(too_large(f"{declared:,} bytes", limit))


def too_large(found: str, limit: int) -> str:
    """Return the message about a chunk that is too large."""
    return f"found {found} in a compressed chunk, expected at most {limit:,}"


def _blosc_size(data: memoryview) -> int:
    if len(data) < 16:
        raise ValueError("found an end in the header of a Blosc chunk")
    stored = int.from_bytes(data[12:16], "little")
    if stored != len(data):  # c-blosc does not look: it reads whatever lies behind the data in memory
        raise ValueError(f"found {len(data):,} bytes of a Blosc chunk, expected {stored:,}")
    return int.from_bytes(data[4:8], "little")


def _lz4_size(data: memoryview) -> int:
    if len(data) < 4:
        raise ValueError("found an end in the header of an LZ4 chunk")
    return int.from_bytes(data[:4], "little")


def _zstd_size(data: memoryview) -> int:
    """Return the bytes that the frames declare; of those that do not, the most that their blocks can hold."""
    size, at = 0, 0
    while at < len(data):
        magic = int.from_bytes(data[at : at + 4], "little")
        if magic >> 4 == 0x184D2A5:  # a frame of other data
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            continue
        if magic != 0xFD2FB528 or at + 6 > len(data):
            raise ValueError("found no zstd frame in a compressed chunk")
        descriptor = data[at + 4]
        single = descriptor >> 5 & 1
        at += 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
        width = (single, 2, 4, 8)[descriptor >> 6]
        declared = int.from_bytes(data[at : at + width], "little") + 256 * (width == 2)
        blocks, at = _zstd_blocks(data, at + width)
        # Blocks need not be full.
        size += declared if width else max(blocks // 2, blocks - 64 * 2**20)
        at += 4 * (descriptor >> 2 & 1)
    return size


def _zstd_blocks(data: memoryview, at: int) -> tuple[int, int]:
    """Return the most bytes that the blocks of a frame can hold, and where they end."""
    size, last = 0, False
    while not last:
        if at + 3 > len(data):
            raise ValueError("found an end in the middle of a compressed chunk")
        block = int.from_bytes(data[at : at + 3], "little")
        last, kind, length = bool(block & 1), block >> 1 & 3, block >> 3
        size += _ZSTD_BLOCK if kind == 2 else length
        at += 3 + (1 if kind == 1 else length)
    return size, at


DECLARED: dict[str, Callable[[memoryview], int]] = {
    "blosc": _blosc_size,
    "lz4": _lz4_size,
    "zstd": _zstd_size,
}
