"""The commands strokes: list, merge and convert strokes of any origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.common.of_strokes import offset_option, offsets_option
from hrvol.cli.common.options import classes_option, fresh_option, json_option, storage_option
from hrvol.cli.common.output import echo, echo_json, echo_table, suggest_fresh

if TYPE_CHECKING:
    from hrvol.volume.strokes.strokes import Strokes
    from hrvol.volume.volume import Volume

Offset = tuple[int, int, int]

volume_option = click.option(
    "--volume", metavar="VOLUME", help="What is drawn on: gives the shape, checks the places, places crops."
)


@click.group(no_args_is_help=False)
def strokes() -> None:
    """List, merge and convert strokes.

    STROKES: integer images and volumes (Zarr, OME-Zarr, TIFF), crops of them, points and shapes (CSV, also
    of napari; GeoJSON), ROIs of ImageJ (*.roi, RoiSet.zip), ilastik projects (*.ilp, *.ilp::LANE). Of Zarr
    only stored chunks are read. Where a file names no class: FILE::CLASS.

    \b
    Examples:
        hrvol strokes list project.ilp
        hrvol strokes merge a.csv::pore b.csv::solid -o strokes.ome.zarr --classes pore,solid
        hrvol strokes convert RoiSet.zip strokes.ome.zarr --volume volume.zarr
    """  # noqa: D301 (click needs the escape)


@strokes.command("list")
@click.argument("sources", nargs=-1, required=True, metavar="STROKES ...")
@volume_option
@classes_option
@offsets_option
@click.option("--planes", is_flag=True, help="Also list the pixels of each plane.")
@storage_option
@json_option
def strokes_list(
    sources: tuple[str, ...],
    volume: str | None,
    classes: tuple[str, ...] | None,
    offsets: tuple[Offset, ...],
    planes: bool,
    storage_options: dict[str, Any],
    as_json: bool,
) -> None:
    """List the drawn pixels of each class, its name, colour and planes."""
    from hrvol.volume.strokes.merge import count_strokes

    opened, _ = _open(sources, volume, classes, offsets, storage_options)
    counted = [(one, count_strokes(one)) for one in opened]
    if as_json:
        echo_json([{"source": s.source, "shape": list(s.shape), "classes": c.to_dict()} for s, c in counted])
        return
    for number, (one, counts) in enumerate(counted):
        if number:
            echo()
        echo(f"{one.source}: on {' x '.join(map(str, one.shape))} voxels")
        rows = []
        for info in counts.classes:
            of_class = counts.planes[info.value]
            colour = "#{:02x}{:02x}{:02x}".format(*info.colour)
            rows.append([info.name, str(info.value), colour, str(sum(of_class.values())), str(len(of_class))])
        echo_table(["class", "value", "colour", "pixels", "planes"], rows)
        if planes:
            every = sorted({z for of_class in counts.planes.values() for z in of_class})
            rows = [[str(z), *(str(of.get(z, 0)) for of in counts.planes.values())] for z in every]
            echo_table(["plane", *(info.name for info in counts.classes)], rows)


@strokes.command("merge")
@click.argument("sources", nargs=-1, required=True, metavar="STROKES ...")
@click.option("-o", "--output", required=True, metavar="OUT", help="*.ome.zarr, *.tif or *.csv to write.")
@volume_option
@classes_option
@offsets_option
@click.option(
    "--conflicts",
    type=click.Choice(["error", "first", "last"]),
    default="error",
    show_default=True,
    help="Which source counts where two draw different classes on a pixel; error: name the pixels.",
)
@fresh_option
@storage_option
def strokes_merge(
    sources: tuple[str, ...],
    output: str,
    volume: str | None,
    classes: tuple[str, ...] | None,
    offsets: tuple[Offset, ...],
    conflicts: str,
    fresh: bool,
    **values: Any,
) -> None:
    """Merge the strokes of several sources on one volume."""
    from hrvol.volume.strokes.merge import merge_strokes

    storage_options: dict[str, Any] = values["storage_options"]
    _check(output, sources, volume, fresh, storage_options)
    opened, like = _open(sources, volume, classes, offsets, storage_options)
    merged = merge_strokes(opened, conflicts)  # type: ignore[arg-type]
    _write(merged, output, like, fresh, storage_options)


@strokes.command("convert")
@click.argument("source", metavar="STROKES")
@click.argument("output", metavar="OUT")
@volume_option
@classes_option
@offset_option
@fresh_option
@storage_option
def strokes_convert(
    source: str,
    output: str,
    volume: str | None,
    classes: tuple[str, ...] | None,
    offset: Offset | None,
    fresh: bool,
    storage_options: dict[str, Any],
) -> None:
    """Convert strokes to labels of the volume's shape (OUT.ome.zarr, sparse; OUT.tif) or points (OUT.csv)."""
    _check(output, (source,), volume, fresh, storage_options)
    offsets = () if offset is None else (offset,)
    (opened,), like = _open((source,), volume, classes, offsets, storage_options)
    _write(opened, output, like, fresh, storage_options)


def _open(
    sources: tuple[str, ...],
    volume: str | None,
    classes: tuple[str, ...] | None,
    offsets: tuple[Offset, ...],
    storage_options: dict[str, Any],
) -> tuple[list[Strokes], Volume | None]:
    """Return the strokes and the volume, opened."""
    from hrvol.volume.storage.location import located
    from hrvol.volume.strokes.open_strokes import open_strokes
    from hrvol.volume.strokes.source import StrokesSource
    from hrvol.volume.volume import open_volume

    if offsets and len(offsets) != len(sources):
        raise click.UsageError(
            f"found {len(offsets)} --offset, expected one for each of {len(sources)} sources"
        )
    like = None if volume is None else open_volume(located(volume, storage_options))
    starts = offsets or (None,) * len(sources)
    opened = [
        open_strokes(StrokesSource(path, offset), like, names=classes, storage_options=storage_options)
        for path, offset in zip(sources, starts, strict=True)
    ]
    for one in opened:
        one.check_size()
    return opened, like


def _check(
    output: str, sources: tuple[str, ...], volume: str | None, fresh: bool, storage_options: dict[str, Any]
) -> None:
    from hrvol.volume.guard import keep_inputs
    from hrvol.volume.storage.location import Location
    from hrvol.volume.strokes.source import place_of
    from hrvol.volume.strokes.write import check_target

    keep_inputs(output, volume, *map(place_of, sources))
    with suggest_fresh():  # before the work, not after it
        check_target(Location.of(output, storage_options), fresh)


def _write(
    merged: Strokes, output: str, like: Volume | None, fresh: bool, storage_options: dict[str, Any]
) -> None:
    from hrvol.volume.storage.location import Location
    from hrvol.volume.strokes.merge import count_strokes
    from hrvol.volume.strokes.write import write_strokes

    write_strokes(merged, Location.of(output, storage_options), like, overwrite=fresh)
    counts = count_strokes(merged).planes
    pixels = sum(sum(of_class.values()) for of_class in counts.values())
    echo(f"{output}: {pixels} pixels of {len(counts)} classes")
