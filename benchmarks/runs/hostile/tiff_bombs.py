"""TIFF files that claim, or become, gigabytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from benchmarks.runs.hostile.bomb_data import zlibbed
from benchmarks.runs.hostile.case import EITHER, REFUSE, Case, written, written_by
from benchmarks.runs.hostile.sound import BARE_TAGS, bare_tiff

GROUP = "bombs"


def cases() -> Iterator[Case]:
    most = 2**32 - 1
    for name, edit in {
        "4 G x 4 G": {256: (4, 1, most), 257: (4, 1, most), 278: (4, 1, most)},
        "300,000 x 300,000": {256: (4, 1, 300_000), 257: (4, 1, 300_000), 278: (4, 1, 300_000)},
        "4 G strips": {273: (4, most, 200), 279: (4, most, 200)},
        "a description of 4 GB": {270: (2, most, 200)},
        "strips of 4 GB": {279: (4, 1, most)},
    }.items():
        for command in (("info", "new.tif"), ("evaluate", "new.tif", "noise.zarr")):
            yield Case(
                GROUP,
                f"a TIFF of {name}, {command[0]}",
                command,
                written("new.tif", bare_tiff(BARE_TAGS | edit, bytes(2000))),
                REFUSE,
                ("new.tif", "noise.zarr"),
            )

    def strip() -> bytes:
        packed = zlibbed(2 * 2**30)
        size = 32_768
        tags = BARE_TAGS | {
            256: (4, 1, size),
            257: (4, 1, 65_535),
            259: (3, 1, 8),
            278: (4, 1, 65_535),
            279: (4, 1, len(packed)),
        }
        return bare_tiff(tags, bytes(200) + packed)

    def small() -> bytes:
        packed = zlibbed(2 * 2**30)
        return bare_tiff(BARE_TAGS | {259: (3, 1, 8), 279: (4, 1, len(packed))}, bytes(200) + packed)

    yield Case(
        GROUP,
        "a TIFF strip of 2 GB",
        ("evaluate", "new.tif", "noise.zarr"),
        written_by("new.tif", strip),
        REFUSE,
        ("new.tif", "noise.zarr"),
    )
    yield Case(
        GROUP,
        "a TIFF strip of 2 GB for 64 bytes",
        ("evaluate", "new.tif", "new.tif"),
        written_by("new.tif", small),
        REFUSE,
        ("new.tif",),
    )

    def pages() -> bytes:
        page = bare_tiff(BARE_TAGS)[8:-4]
        data = bytearray(b"II*\0" + struct.pack("<I", 8))
        for _ in range(100_000):
            data += page + struct.pack("<I", len(data) + len(page) + 4)
        data[-4:] = bytes(4)
        return bytes(data) + bytes(300)

    yield Case(
        GROUP,
        "a TIFF of 100,000 pages",
        ("info", "new.tif"),
        written_by("new.tif", pages),
        EITHER,
        ("new.tif",),
    )
    for count in (10**9, 10**15):
        text = f"ImageJ=1.11a\nimages={count}\nslices={count}\n".encode() + b"\0"
        tags = BARE_TAGS | {270: (2, len(text), 300)}
        yield Case(
            GROUP,
            f"an ImageJ stack of {count}",
            ("info", "new.tif"),
            written("new.tif", bare_tiff(tags, bytes(300 - 8 - 6 - 12 * len(tags)) + text + bytes(200))),
            REFUSE,
            ("new.tif",),
        )
