"""Check the OME-XML of a TIFF file before tifffile follows it: counts, and the files of its set."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hrvol.errors import InputError, first_line
from hrvol.text import printable
from hrvol.volume.importers.tiff_directory import Directories, Page, check_stack, read_directories

PLANES = 2**20
"""Most planes of an image."""

FILES = 2**16
"""Most files of a set."""

_DEPTH = 64  # of nested elements

_AXIS_VALUES = 2**20


def is_ome(description: str) -> bool:
    """Return whether the description of the first page is OME-XML."""
    return "<OME" in description[:1000] or description.rstrip().endswith("OME>")


def parse_ome(path: Path, description: str) -> ElementTree.Element:
    """Return the root of an OME-XML document.

    Raises
    ------
    InputError
        It is damaged, has entities or other definitions, or is nested too deeply.
    """
    # No version of OME-XML has definitions; of entities, a few lines can name gigabytes.
    if re.search(r"<!(DOCTYPE|ENTITY|ELEMENT|ATTLIST)", description):
        raise InputError(f"{path}: OME-XML: found definitions (<!...), expected none")
    parser: Any = ElementTree.XMLPullParser(events=("start", "end"))
    depth = 0
    try:
        for start in range(0, len(description), 2**16):
            parser.feed(description[start : start + 2**16])
            for event, _ in parser.read_events():
                depth += 1 if event == "start" else -1
                if depth > _DEPTH:
                    raise InputError(f"{path}: OME-XML: found more than {_DEPTH} nested elements")
        return ElementTree.fromstring(description)
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{path}: OME-XML: {first_line(error)}") from None


def check_ome(path: Path, directories: Directories, root: ElementTree.Element) -> int:
    """Check the description of the first image in OME-XML.

    Returns
    -------
    int
        Number of planes of the image; in all files of the set.

    Raises
    ------
    InputError
        A number is absurd, or planes or files are missing.
    """
    binary_only = root.find("{*}BinaryOnly")
    if binary_only is not None:
        name = _shown(binary_only.get("MetadataFile"))
        state = "exists" if _exists(path, binary_only.get("MetadataFile")) else "is missing"
        raise InputError(
            f"{path}: found one file of an OME set without its metadata, which are in {name} (it {state}),"
            " expected a file with its own metadata"
        )
    for element in root.iter():
        if element.tag.endswith(("AlongZ", "AlongT", "AlongC")):
            first, last = _number(path, element, "Start", 0.0), _number(path, element, "End", 0.0)
            step = _number(path, element, "Step", 1.0)
            if step == 0 or not abs((last - first) / step) < _AXIS_VALUES:
                raise InputError(f"{path}: OME-XML: found an axis of too many values, expected fewer")
    images = list(root.iterfind("{*}Image/{*}Pixels"))
    if not images:
        raise InputError(f"{path}: OME-XML: found no Image with Pixels, expected one")
    for image in images:
        planes = _check_pixels(path, image)
    pixels = images[0]
    planes = _planes(path, pixels)
    own = _own_uuid(root, pixels, path, len(directories.pages) >= planes)
    several = len(images) > 1
    stack = _pages_of(path, pixels, own, directories.pages, planes) if several else directories.pages
    count = check_stack(path, stack) if stack else 0
    files = _check_files(path, pixels, stack, own, planes, several)
    if files == 1 and len(images) == 1 and planes != count:
        raise InputError(f"{path}: found {count:,} pages, expected {planes:,} as in its OME-XML")
    return planes


def _pages_of(
    path: Path, pixels: ElementTree.Element, uuid: str | None, pages: Sequence[Page], planes: int
) -> Sequence[Page]:
    """Return the pages of one file that belong to an image; others may be of other types."""
    numbers: set[int] = set()
    for data in pixels.iterfind("{*}TiffData"):
        element = data.find("{*}UUID")
        if element is not None and (element.text or "").strip() != uuid:
            continue
        first = _integer(path, data, "IFD", 0)
        default = planes if data.get("IFD") is None else 1
        count = _integer(path, data, "PlaneCount", _integer(path, data, "NumPlanes", default))
        numbers.update(range(first, min(first + count, len(pages))))
    return [pages[i] for i in sorted(numbers)]


def _planes(path: Path, pixels: ElementTree.Element) -> int:
    sizes = [_integer(path, pixels, f"Size{axis}") for axis in "ZCT"]
    samples = max(
        (int(channel.get("SamplesPerPixel", 1)) for channel in pixels.iterfind("{*}Channel")), default=1
    )
    return sizes[0] * max(sizes[1] // max(samples, 1), 1) * sizes[2]


def _check_pixels(path: Path, pixels: ElementTree.Element) -> int:
    planes = 1
    for axis in "XYZCT":
        size = _integer(path, pixels, f"Size{axis}")
        planes *= size if axis in "ZCT" else 1
        if not 0 < size < 2**31:
            raise InputError(f"{path}: OME-XML: found Size{axis} {size}, expected 1 or more")
    for channel in pixels.iterfind("{*}Channel"):
        _integer(path, channel, "SamplesPerPixel", 1)
    for data in pixels.iterfind("{*}TiffData"):
        for name in ("IFD", "NumPlanes", "PlaneCount", "FirstZ", "FirstC", "FirstT"):
            if not 0 <= _integer(path, data, name, 0) <= PLANES:
                raise InputError(
                    f"{path}: OME-XML: TiffData: found {name} {_shown(data.get(name))},"
                    f" expected 0 to {PLANES:,}"
                )
    if planes > PLANES:
        raise InputError(f"{path}: OME-XML: found {planes:,} planes, expected at most {PLANES:,}")
    return planes


def _check_files(
    path: Path,
    pixels: ElementTree.Element,
    stack: Sequence[Page],
    own: str | None,
    planes: int,
    several: bool,
) -> int:
    """Check that the other files of a set are there, and belong to it; return how many files there are."""
    others = dict(_others(pixels, own))
    if len(others) > FILES:
        raise InputError(f"{path}: OME-XML: found {len(others):,} files, expected at most {FILES:,}")
    for uuid, name in others.items():
        other = path.parent / name
        if not _exists(path, name):
            raise InputError(f"{path}: found no file {_shown(name)}, which its OME-XML names")
        found = read_directories(other)
        pages = _pages_of(path, pixels, uuid, found.pages, planes) if several else found.pages
        if stack or pages:
            check_stack(other, [*stack[:1], *pages])
        if is_ome(found.description):
            actual = parse_ome(other, found.description).get("UUID")
            if actual is not None and actual.lower() != uuid.lower():
                raise InputError(
                    f"{path}: found {_shown(name)} of another set ({_shown(actual)}), expected {_shown(uuid)}"
                )
    return 1 + len(others)


def _own_uuid(root: ElementTree.Element, pixels: ElementTree.Element, path: Path, whole: bool) -> str | None:
    """Return the identifier of the file itself; ``whole`` tells that it has all planes of the image."""
    own = root.get("UUID")
    if own is not None:
        return own
    names = [
        ((element.text or "").strip(), element.get("FileName") or "")
        for element in pixels.iterfind("{*}TiffData/{*}UUID")
    ]
    named = next((uuid for uuid, name in names if name.lower() == path.name.lower()), None)
    if named is None and whole and len({uuid for uuid, _ in names}) == 1:
        _exists(path, names[0][1])  # refuses names that lead elsewhere
        return names[0][0]  # the file was renamed
    return named


def _others(pixels: ElementTree.Element, own: str | None) -> Iterator[tuple[str, str]]:
    """Yield identifier and name of the other files of a set."""
    for element in pixels.iterfind("{*}TiffData/{*}UUID"):
        uuid, name = (element.text or "").strip(), element.get("FileName") or ""
        if uuid != own:
            yield uuid, name


def _exists(path: Path, name: str | None) -> bool:
    """Return whether a file of a set is there; a name that leads out of its folder is refused."""
    if not name:
        return False
    if "\0" in name or ".." in Path(name).parts or Path(name).is_absolute():
        raise InputError(f"{path}: OME-XML: found the file {_shown(name)}, expected one in the same folder")
    return (path.parent / name).is_file()


def _integer(path: Path, element: ElementTree.Element, name: str, default: int | None = None) -> int:
    text = element.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text):
        raise InputError(f"{path}: OME-XML: found {name} {_shown(text)}, expected an integer")
    return int(text)


def _number(path: Path, element: ElementTree.Element, name: str, default: float) -> float:
    try:
        return float(element.get(name, default))
    except ValueError:
        raise InputError(
            f"{path}: OME-XML: found {name} {_shown(element.get(name))}, expected a number"
        ) from None


def _shown(text: str | None) -> str:
    return "nothing" if text is None else printable(text, 100)
