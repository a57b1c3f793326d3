"""Descriptions in TIFF files: those of OME, ImageJ and tifffile."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

from damage import ifd_entries, ifd_offsets

from benchmarks.runs.hostile.case import EITHER, REFUSE, SAME, Case, changed
from benchmarks.runs.hostile.tiffs import Change, read

TEXTS = "TIFF descriptions"


def cases() -> Iterator[Case]:
    yield from _ome()
    yield from _imagej()
    yield from _shaped()


def _described(file: str, edit: Callable[[str], str]) -> Change:
    """Return a change of the description of the first page, which is moved to the end of the file."""

    def change(data: bytes) -> bytes:
        at = ifd_entries(data, ifd_offsets(data)[0])[270]
        order = "<" if data[:2] == b"II" else ">"
        _, count, place = struct.unpack_from(f"{order}HII", data, at + 2)
        text = (
            edit(data[place : place + count].rstrip(b"\0").decode("utf-8", "replace")).encode(
                "utf-8", "surrogateescape"
            )
            + b"\0"
        )
        raw = bytearray(data + b"\0" * (len(data) % 2))
        struct.pack_into(f"{order}II", raw, at + 4, max(len(text), 5), len(raw))
        return bytes(raw) + text + bytes(5)

    return change


def _texts(
    file: str, edits: dict[str, Callable[[str], str]], expects: dict[str, str], default: str
) -> Iterator[Case]:
    for name, edit in edits.items():
        for command in (read(file), ("info", file, "--json")):
            expect = expects.get(name, default)
            title = f"{file}: {name}, {command[0]}"
            yield Case(TEXTS, title, command, changed(file, _described(file, edit)), expect, (file,))


def _ome() -> Iterator[Case]:
    def put(pattern: str, new: str) -> Callable[[str], str]:
        return lambda text: re.sub(pattern, new, text, count=1)

    head = '<?xml version="1.0"?><!DOCTYPE OME [{}]>'
    laughs = '<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
    )
    edits: dict[str, Callable[[str], str]] = {
        "SizeZ 40": put('SizeZ="4"', 'SizeZ="40"'),
        "SizeZ 3": put('SizeZ="4"', 'SizeZ="3"'),
        "SizeZ -1": put('SizeZ="4"', 'SizeZ="-1"'),
        "SizeZ 0": put('SizeZ="4"', 'SizeZ="0"'),
        "SizeZ text": put('SizeZ="4"', 'SizeZ="x"'),
        "SizeZ 10^9": put('SizeZ="4"', 'SizeZ="1000000000"'),
        "SizeX 71": put('SizeX="72"', 'SizeX="71"'),
        "SizeC 4": put('SizeC="1"', 'SizeC="4"'),
        "no SizeZ": put('SizeZ="4"', ""),
        "Type float": put('Type="uint8"', 'Type="float"'),
        "Type bogus": put('Type="uint8"', 'Type="bogus"'),
        "order bogus": put('DimensionOrder="[A-Z]+"', 'DimensionOrder="QQQQQ"'),
        "no order": put('DimensionOrder="[A-Z]+"', ""),
        "no Pixels": lambda text: re.sub(r"<Pixels.*</Pixels>", "", text, flags=re.DOTALL),
        "no TiffData": lambda text: re.sub(r"<TiffData[^>]*/>", "", text),
        "IFD 99": put(r"<TiffData [^>]*>", '<TiffData IFD="99" PlaneCount="1"/>'),
        "IFD -1": put(r"<TiffData [^>]*>", '<TiffData IFD="-1" PlaneCount="-1"/>'),
        "PlaneCount 10^9": put('PlaneCount="4"', 'PlaneCount="1000000000"'),
        "a missing companion": put(
            r"<TiffData [^>]*/>",
            '<TiffData IFD="0" PlaneCount="4"><UUID FileName="gone.ome.tif">urn:uuid:0</UUID></TiffData>',
        ),
        "half in a companion": put(
            r"<TiffData [^>]*/>",
            '<TiffData IFD="0" FirstZ="0" PlaneCount="2"/>'
            '<TiffData IFD="0" FirstZ="2" PlaneCount="2"><UUID FileName="gone.ome.tif">urn:uuid:0</UUID>'
            "</TiffData>",
        ),
        "a companion outside": put(
            r"<TiffData [^>]*/>",
            '<TiffData IFD="0" PlaneCount="4"><UUID FileName="../../../etc/passwd">urn:uuid:0</UUID>'
            "</TiffData>",
        ),
        "binary only": lambda text: (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
            '<BinaryOnly MetadataFile="gone.companion.ome" UUID="urn:uuid:0"/></OME>'
        ),
        "cut": lambda text: text[: len(text) // 2],
        "no XML": lambda text: "<OME " + "x" * 500,
        "empty OME": lambda text: (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"/>'
        ),
        "billion laughs": lambda text: (
            head.format(laughs) + text[text.index("<OME") :].replace('Name="', 'Name="&j;', 1)
        ),
        "external entity": lambda text: (
            head.format('<!ENTITY x SYSTEM "file:///etc/passwd">')
            + text[text.index("<OME") :].replace('Name="', 'Name="&x;', 1)
        ),
        "nested": lambda text: "<OME>" + "<a>" * 100_000,
        "two images": lambda text: re.sub(r"(<Image .*</Image>)", r"\1\1", text, flags=re.DOTALL),
        "size NaN": put('PhysicalSizeX="0.5"', 'PhysicalSizeX="NaN"'),
        "size infinite": put('PhysicalSizeX="0.5"', 'PhysicalSizeX="INF"'),
        "size 0": put('PhysicalSizeX="0.5"', 'PhysicalSizeX="0"'),
        "size -1": put('PhysicalSizeX="0.5"', 'PhysicalSizeX="-1"'),
        "size text": put('PhysicalSizeX="0.5"', 'PhysicalSizeX="x"'),
        "size 1e400": put('PhysicalSizeX="0.5"', 'PhysicalSizeX="1e400"'),
        "unit bogus": put('PhysicalSizeXUnit="[^"]+"', 'PhysicalSizeXUnit="furlong"'),
        "unit escapes": put('PhysicalSizeXUnit="[^"]+"', 'PhysicalSizeXUnit="&#x9b;31m"'),
        "namespace bogus": lambda text: text.replace("openmicroscopy", "elsewhere"),
    }
    either = (
        "no SizeZ",
        "no order",
        "order bogus",
        "two images",
        "unit bogus",
        "unit escapes",
        "namespace bogus",
        "empty OME",
        "no XML",
        "cut",
        "nested",
        "no Pixels",
        "binary only",
    )
    expects = dict.fromkeys(either, EITHER) | dict.fromkeys(
        ("size NaN", "size infinite", "size 0", "size -1", "size text", "size 1e400"), REFUSE
    )
    for found in _texts("noise.ome.tif", edits, expects, SAME):
        if "size " in found.name and found.command[0] == "evaluate":
            continue  # sizes are no matter of voxels
        yield found


def _imagej() -> Iterator[Case]:
    def put(old: str, new: str) -> Callable[[str], str]:
        return lambda text: re.sub(old, new, text, count=1)

    edits = {
        "images 40": put(r"images=\d+", "images=40"),
        "images 10^9": put(r"images=\d+", "images=1000000000"),
        "images -1": put(r"images=\d+", "images=-1"),
        "images text": put(r"images=\d+", "images=x"),
        "images NaN": put(r"images=\d+", "images=nan"),
        "no images": put(r"images=\d+\n", ""),
        "slices 3": put(r"slices=\d+", "slices=3"),
        "slices 0": put(r"slices=\d+", "slices=0"),
        "slices 40": put(r"slices=\d+", "slices=40"),
        "channels 4": put(r"slices=\d+", "channels=4"),
        "frames 10^30": put(r"slices=\d+", f"frames={10**30}"),
        "spacing NaN": put(r"spacing=[\d.]+", "spacing=nan"),
        "spacing 0": put(r"spacing=[\d.]+", "spacing=0"),
        "spacing -1": put(r"spacing=[\d.]+", "spacing=-1"),
        "spacing inf": put(r"spacing=[\d.]+", "spacing=inf"),
        "spacing text": put(r"spacing=[\d.]+", "spacing=x"),
        "unit escapes": put(r"unit=\w+", "unit=\x1b[31mred"),
        "unit bogus": put(r"unit=\w+", "unit=furlong"),
        "only the name": lambda text: "ImageJ=",
        "nothing": lambda text: "",
    }
    either = dict.fromkeys(
        (
            "no images",
            "channels 4",
            "unit escapes",
            "unit bogus",
            "only the name",
            "nothing",
            "slices 0",
            "images 10^9",
        ),
        EITHER,
    )
    spacing = {name: REFUSE for name in edits if name.startswith("spacing")} | {"spacing text": EITHER}
    for file in ("imagej.tif", "pages.tif"):
        some = {
            name: edit
            for name, edit in edits.items()
            if file == "imagej.tif" or name.startswith(("images", "slices"))
        }
        for found in _texts(file, some, either | spacing, SAME):
            if "spacing" in found.name and found.command[0] == "evaluate":
                continue
            yield found


def _shaped() -> Iterator[Case]:
    edits = {
        f"shape {text[:20]}": (lambda _, t=text: f'{{"shape": {t}}}')
        for text in (
            "[40, 80, 72]",
            "[3, 80, 72]",
            "[4, 80, 71]",
            "[-4, 80, 72]",
            "[0, 80, 72]",
            "[4, 5760]",
            "[]",
            "null",
            '"x"',
            "[1e9, 80, 72]",
            f"[{10**30}, 80, 72]",
            "[NaN]",
            "[[4], 80, 72]",
            "{}",
        )
    }
    edits |= {
        "no JSON": lambda text: '{"shape": [4, 80, 72',
        "nested": lambda text: '{"shape": ' + "[" * 5000,
        "binary": lambda text: "\x1b[31m\x00\x01",
    }
    either = dict.fromkeys(
        (
            "no JSON",
            "nested",
            "binary",
            "shape []",
            "shape null",
            'shape "x"',
            "shape {}",
            "shape [NaN]",
            "shape [4, 5760]",
        ),
        EITHER,
    )
    yield from _texts("noise.tif", edits, either, SAME)
