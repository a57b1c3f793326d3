"""Compressed data of a few MB that become gigabytes, made in a moment."""

from __future__ import annotations

import struct
import zlib

from damage import zip_members


def deflated(prefix: bytes, size: int, fill: bytes = b" ") -> tuple[bytes, int, int]:
    """Return raw deflate data of a prefix and many equal bytes, the checksum, and the number of bytes."""
    block = fill * 2**24
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(prefix) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    count = size // len(block)
    checksum = zlib.crc32(prefix)
    for _ in range(count):
        checksum = zlib.crc32(block, checksum)
    return head + body * count + b"\x03\x00", checksum, len(prefix) + count * len(block)


def with_bomb(data: bytes, name: str, prefix: bytes, size: int) -> bytes:
    """Return a zip file one of whose members becomes gigabytes."""
    packed, checksum, length = deflated(prefix, size)
    members = {key: value for key, value in zip_members(data).items() if key != name}
    body, directory, count = b"", b"", 0
    for key, method, stored, crc, whole in [
        *((key, 0, value, zlib.crc32(value), len(value)) for key, value in members.items()),
        (name, 8, packed, checksum, length),
    ]:
        fields = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, crc, len(stored), whole, len(key), 0)
        directory += (
            b"PK\x01\x02"
            + struct.pack("<H", 20)
            + fields
            + struct.pack("<HHHII", 0, 0, 0, 0, len(body))
            + key.encode()
        )
        body += b"PK\x03\x04" + fields + key.encode() + stored
        count += 1
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + end


def gzipped(size: int) -> bytes:
    packed, checksum, length = deflated(b"", size, b"\1")
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + packed + struct.pack("<II", checksum, length % 2**32)


def zlibbed(size: int) -> bytes:
    packed, _, _ = deflated(b"", size, b"\1")
    return b"\x78\x9c" + packed + bytes(4)
