"""TIFF files: header, directories, tags and data."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from damage import flipped, ifd_bytes, ifd_entries, ifd_offsets, spliced

from benchmarks.runs.hostile.case import EITHER, REFUSE, SAME, Case, changed, written
from benchmarks.runs.hostile.sound import BARE_TAGS, SHAPE, bare_tiff

GROUP = "TIFF structure"

Change = Callable[[bytes], bytes]

_TAGS = {
    **{256: "width", 257: "length", 258: "bits", 259: "compression", 273: "strip offsets", 277: "samples"},
    **{278: "rows per strip", 279: "strip byte counts", 322: "tile width", 323: "tile length"},
    **{324: "tile offsets", 325: "tile byte counts"},
}


def cases() -> Iterator[Case]:
    yield from _headers()
    yield from _tags()
    yield from _chains()
    yield from _whole()
    yield from _drawn()


def read(name: str) -> tuple[str, ...]:
    """Return the command that compares every voxel of a file with the sound ones."""
    return ("evaluate", name, "noise.zarr", "--json")


def case(
    file: str, name: str, change: Change, expect: str = REFUSE, group: str = GROUP, **more: bool
) -> Case:
    """Return a case of a file of which every voxel is read."""
    return Case(group, f"{file}: {name}", read(file), changed(file, change), expect, (file,), **more)


def _headers() -> Iterator[Case]:
    for name, change in {
        "empty": lambda data: b"",
        "one byte": lambda data: b"I",
        "header only": lambda data: data[:8],
        "no directory": lambda data: data[:4] + b"\0\0\0\0" + data[8:],
        "directory in the header": lambda data: data[:4] + struct.pack("<I", 2) + data[8:],
        "directory past the end": lambda data: data[:4] + struct.pack("<I", len(data) + 100) + data[8:],
        "directory at the end": lambda data: data[:4] + struct.pack("<I", len(data) - 1) + data[8:],
        "directory at 4 GB": lambda data: data[:4] + b"\xff\xff\xff\xff" + data[8:],
        "other byte order": lambda data: b"MM" + data[2:],
        "BigTIFF": lambda data: data[:2] + b"\x2b\0" + data[4:],
        "other magic": lambda data: data[:2] + b"\xff\xff" + data[4:],
        "a JPEG": lambda data: b"\xff\xd8\xff\xe0" + data[4:],
        "text": lambda data: b"not a picture\n",
        "zeros": lambda data: b"\0" * len(data),
        "garbage after": lambda data: data + b"x" * 10_000,
        "garbage before": lambda data: b"x" * 100 + data,
    }.items():
        yield case("pages.tif", name, change, SAME if name == "garbage after" else REFUSE)
    for percent in (10, 30, 50, 70, 90, 99):
        for file in ("noise.tif", "pages.tif", "deflate.tif", "tiled.tif", "imagej.tif", "noise.ome.tif"):
            # What is cut of tiled and paged files is the last directory, and data.
            yield case(
                file, f"the first {percent} %", lambda data, p=percent: data[: len(data) * p // 100], SAME
            )


def _entry(place: int, tag: int, **values: int) -> Change:
    """Return a change of type, count or value of an entry in one of the directories."""

    def change(data: bytes) -> bytes:
        raw = bytearray(data)
        at = ifd_entries(data, ifd_offsets(data)[place])[tag]
        for field, offset, code in (("kind", 2, "<H"), ("count", 4, "<I"), ("value", 8, "<I")):
            if field in values:
                struct.pack_into(code, raw, at + offset, values[field])
        return bytes(raw)

    return change


def _tags() -> Iterator[Case]:
    tags = {
        "pages.tif": (256, 257, 258, 259, 273, 277, 278, 279),
        "tiled.tif": (256, 257, 258, 259, 322, 323, 324, 325),
        "noise.tif": (256, 257, 273, 279),
    }
    edits = {
        **{
            "0": {"value": 0},
            "1": {"value": 1},
            "7": {"value": 7},
            "65535": {"value": 65535},
            "4 GB": {"value": 2**32 - 1},
        },
        **{
            "type 99": {"kind": 99},
            "type rational": {"kind": 5},
            "no values": {"count": 0},
            "4 G values": {"count": 2**32 - 1},
        },
    }
    for file, numbers in tags.items():
        for tag in numbers:
            for page in (0, 2) if file != "noise.tif" else (0,):
                for name, edit in edits.items():
                    yield case(file, f"page {page}: {_TAGS[tag]} {name}", _entry(page, tag, **edit), SAME)


def _next(place: int, target: Callable[[bytes], int]) -> Change:
    """Return a change of the place of the directory after another one."""

    def change(data: bytes) -> bytes:
        offset = ifd_offsets(data)[place]
        raw = bytearray(data)
        struct.pack_into("<I", raw, offset + 2 + 12 * len(ifd_entries(data, offset)), target(data))
        return bytes(raw)

    return change


def _chains() -> Iterator[Case]:
    for file in ("pages.tif", "deflate.tif", "tiled.tif"):
        for place in (0, 1, 2):
            yield case(file, f"chain ends after page {place}", _next(place, lambda data: 0))
            yield case(
                file, f"chain leaves the file after page {place}", _next(place, lambda data: len(data) + 99)
            )
            yield case(file, f"chain is cut after page {place}", _next(place, lambda data: len(data) - 3))
            yield case(
                file, f"chain returns after page {place}", _next(place, lambda data: ifd_offsets(data)[0])
            )
            yield case(
                file, f"chain stays on page {place}", _next(place, lambda data, p=place: ifd_offsets(data)[p])
            )
        yield case(file, "a page is left out", _next(0, lambda data: ifd_offsets(data)[2]))
        yield case(file, "chain into data", _next(1, lambda data: 9))


def _pages(planes: list[np.ndarray], **options: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with tifffile.TiffWriter(folder / "new.tif") as writer:
            for number, plane in enumerate(planes):
                text = json.dumps({"shape": list(SHAPE)}) if number == 0 else None
                writer.write(plane, description=text, metadata=None, photometric="minisblack", **options)

    return damage


def _whole() -> Iterator[Case]:
    """Files that are whole, but whose pages differ, or that are no stack of planes."""
    planes = list(np.random.default_rng(0).integers(1, 4, SHAPE).astype(np.uint8))
    for name, changed_planes in {
        "a page smaller": [planes[0], planes[1][:70], *planes[2:]],
        "a page larger": [planes[0], np.ones((90, 90), np.uint8), *planes[2:]],
        "a page of another type": [planes[0], planes[1].astype(np.uint16), *planes[2:]],
        "a page of floats": [planes[0], planes[1].astype(np.float32), *planes[2:]],
        "a page more": [*planes, planes[0]],
        "a page less": planes[:3],
        "the first page smaller": [planes[0][:40], *planes[1:]],
        "the last page smaller": [*planes[:3], planes[3][:40]],
    }.items():
        for kind, options in (("plain", {}), ("deflate", {"compression": "zlib"})):
            yield Case(
                GROUP,
                f"new.tif: {name}, {kind}",
                read("new.tif"),
                _pages(changed_planes, **options),
                REFUSE,
                ("new.tif",),
                files=("noise.zarr",),
            )
    rgb = np.zeros((40, 30, 3), np.uint8)
    for name, values in {
        "colour": rgb,
        "complex": rgb[..., 0] * 1j,
        "floats": rgb[..., 0] / 3,
        "half": rgb[..., 0].astype("f2"),
    }.items():
        data = values

        def damage(folder: Path, data: np.ndarray = data) -> None:
            tifffile.imwrite(folder / "new.tif", data, photometric="rgb" if data.ndim == 3 else "minisblack")

        yield Case(GROUP, f"new.tif: {name}", read("new.tif"), damage, REFUSE, ("new.tif", "noise.zarr"))
    for name, edit in {
        "width 0": {256: (4, 1, 0)},
        "length 0": {257: (4, 1, 0)},
        "width 2^32 - 1": {256: (4, 1, 2**32 - 1)},
        "4 G x 4 G": {256: (4, 1, 2**32 - 1), 257: (4, 1, 2**32 - 1)},
        "bits 0": {258: (3, 1, 0)},
        "bits 3": {258: (3, 1, 3)},
        "bits 65535": {258: (3, 1, 65535)},
        "samples 0": {277: (3, 1, 0)},
        "samples 65535": {277: (3, 1, 65535)},
        "compression 0": {259: (3, 1, 0)},
        "compression 65000": {259: (3, 1, 65000)},
        "JPEG": {259: (3, 1, 7)},
        "rows per strip 0": {278: (4, 1, 0)},
        "no strips": {273: (4, 0, 0), 279: (4, 0, 0)},
        "a million strips": {273: (4, 10**6, 200), 279: (4, 10**6, 200)},
        "itself as directory": {330: (4, 1, 8)},
    }.items():
        yield Case(
            GROUP,
            f"bare.tif: {name}",
            read("bare.tif"),
            written("bare.tif", bare_tiff(BARE_TAGS | edit, bytes(2000))),
            REFUSE,
            ("bare.tif",),
            files=("noise.zarr",),
        )
    for number in (0, 1, 100, 65535):
        head = b"II*\0" + struct.pack("<IH", 8, number)
        yield Case(
            GROUP,
            f"bare.tif: {number} entries of nothing",
            read("bare.tif"),
            written("bare.tif", head + bytes(40)),
            REFUSE,
            ("bare.tif",),
        )


def _drawn() -> Iterator[Case]:
    rng = random.Random(6)
    for number in range(60):
        file = rng.choice(("pages.tif", "tiled.tif", "deflate.tif"))
        draws = [rng.random() for _ in range(rng.choice((1, 1, 2, 4)))]

        def flips(data: bytes, draws: list[float] = draws) -> bytes:
            places = _telling(data)
            return flipped(data, [places[int(draw * len(places))] for draw in draws])

        yield case(file, f"drawn flips {number}", flips, SAME, generated=True)
    for number in range(30):
        file, start, to = rng.choice(("pages.tif", "tiled.tif")), rng.random(), rng.random()

        def splice(data: bytes, start: float = start, to: float = to) -> bytes:
            places = ifd_bytes(data)
            begin = places[int(start * len(places))]
            return spliced(data, begin, begin + 12, places[int(to * len(places))])

        yield case(file, f"drawn splice {number}", splice, EITHER, generated=True)
    for number in range(20):
        file, share = rng.choice(("pages.tif", "deflate.tif", "imagej.tif")), rng.random()
        yield case(
            file,
            f"drawn cut {number}",
            lambda data, s=share: data[: int(s * len(data))],
            SAME,
            generated=True,
        )


def _telling(data: bytes) -> list[int]:
    """Return the places in directories whose change can be told: neither tags for people nor colours."""
    places = set(range(2, 8))
    for place in ifd_offsets(data):
        for tag, at in ifd_entries(data, place).items():
            if tag in _TAGS:
                places |= set(range(at + 2, at + 12))
    return sorted(places)
