"""Options of commands that read strokes: pairs of a volume and its strokes, and where crops lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hrvol.reading.region_text import whole_number

if TYPE_CHECKING:
    from hrvol.volume.strokes.source import StrokesSource


def parse_offset(text: str) -> tuple[int, int, int]:
    """Return the numbers of ``z,y,x`` or, in an image, ``y,x``."""
    numbers = [whole_number(part.strip()) for part in text.split(",")]
    if len(numbers) not in (2, 3) or None in numbers:
        raise click.BadParameter(f"found {text!r}, expected z,y,x in voxels, such as 120,0,512")
    z, y, x = (0, *numbers)[-3:]
    assert z is not None
    assert y is not None
    assert x is not None
    return z, y, x


def _parse_offsets(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[tuple[int, int, int], ...]:
    return tuple(parse_offset(text) for text in value)


def _parse_one_offset(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int, int] | None:
    return None if value is None else parse_offset(value)


_OFFSET = "First voxel of strokes drawn on a crop, unless it is in their file (OME-Zarr, ImageJ)."

offset_option = click.option("--offset", "offset", callback=_parse_one_offset, metavar="z,y,x", help=_OFFSET)
offsets_option = click.option(
    "--offset",
    "offsets",
    multiple=True,
    callback=_parse_offsets,
    metavar="z,y,x",
    help=f"{_OFFSET} With several pairs, once for each.",
)


def pairs_of(
    data: tuple[str, ...], offsets: tuple[tuple[int, int, int], ...] = ()
) -> list[tuple[str, StrokesSource]]:
    """Return pairs of a volume and its strokes; refuse an odd number of paths, and offsets of some pairs."""
    from hrvol.volume.strokes.source import StrokesSource

    if len(data) % 2:
        raise click.UsageError(
            f"found {len(data)} paths, expected pairs: VOLUME STROKES [VOLUME STROKES ...]"
        )
    if offsets and len(offsets) != len(data) // 2:
        raise click.UsageError(
            f"found {len(offsets)} --offset, expected one for each of {len(data) // 2} pairs"
        )
    starts = offsets or (None,) * len(data[::2])
    drawn = [StrokesSource(path, offset) for path, offset in zip(data[1::2], starts, strict=True)]
    return list(zip(data[::2], drawn, strict=True))


def paths_of(pairs: list[tuple[str, StrokesSource]]) -> list[str]:
    """Return the paths of volumes and strokes, for checks that no output replaces them."""
    from hrvol.volume.strokes.source import place_of

    return [str(path) for volume, strokes in pairs for path in (volume, place_of(strokes))]
