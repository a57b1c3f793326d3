"""The command measure: fractions with intervals, surfaces, components, chords, thickness, tortuosity."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.common.options import ENGINE, bundle, engine_of, fresh_option, json_option, storage_option
from hrvol.cli.common.output import echo, echo_json, echo_table, suggest_fresh
from hrvol.cli.common.reading import reads

if TYPE_CHECKING:
    from hrvol.analysis.measuring.measure_labels import Measurements
    from hrvol.analysis.measuring.measure_options import MeasureOptions


def _measure_options(
    engine: str,
    scheduler_file: str | None,
    engine_options: dict[str, Any],
    workers: int | None,
    **values: Any,
) -> MeasureOptions:
    """Return the request of the command; its values by the names of the options."""
    from hrvol.analysis.measuring.measure_options import MeasureOptions

    return MeasureOptions(engine=engine_of(engine, scheduler_file, engine_options, workers), **values)


_MEASURE = {
    "objects": click.option(
        "--objects/--classes",
        default=None,
        help="Values are objects, or classes [objects of hrvol instances; else classes].",
    ),
    "background": click.option(
        "--background", is_flag=True, help="0 is a class, the background [0 is what was not labelled]."
    ),
    "name": click.option("--name", metavar="NAME", help="Name of the labels, if the image has several."),
    "components": click.option(
        "--components/--no-components", default=True, help="Label connected components."
    ),
    "chords": click.option("--chords/--no-chords", default=True, help="Count chords along the axes."),
    "correlation": click.option(
        "--correlation/--no-correlation", default=True, help="Compute the two-point correlation."
    ),
    "min_size": click.option(
        "--min-size",
        type=click.IntRange(1),
        help="Voxels of the smallest component in the table [8, of objects 1].",
    ),
    "cell": click.option(
        "--cell",
        type=click.IntRange(1, 2**20),
        metavar="VOXELS",
        help="Side, along x, of the cells that intervals are made of [the largest of which there are 30].",
    ),
    "seed": click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws of intervals."
    ),
    "thickness": click.option(
        "--thickness", is_flag=True, help="Measure the local thickness of classes (extra measure)."
    ),
    "max_thickness": click.option(
        "--max-thickness",
        metavar="LENGTH",
        help="Largest thickness that is tested, 40um or voxels: limits what is read around blocks"
        " [64 voxels].",
    ),
    "thickness_map": click.option(
        "--thickness-map",
        metavar="OUT.ome.zarr",
        help="Write the thickness of each voxel as an image, computed in this process.",
    ),
    "tortuosity": click.option(
        "--tortuosity",
        type=click.Choice(["z", "y", "x", "all"]),
        help="Compute the tortuosity of classes along an axis, in memory (extra measure).",
    ),
    "tortuosity_size": click.option(
        "--tortuosity-size",
        type=click.IntRange(2),
        metavar="VOXELS",
        help="Side of the central part of which tortuosity is computed [all if it fits in memory, else 256].",
    ),
    "classes": click.option(
        "--class",
        "classes",
        multiple=True,
        metavar="NAME",
        help="Class of which thickness and tortuosity are measured, by name or number; may be repeated"
        " [all].",
    ),
    "device": click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where tortuosity is computed; auto: a GPU if there is one.",
    ),
}

measure_options = bundle("options", _measure_options, _MEASURE | ENGINE)


@click.command()
@click.argument("labels", metavar="LABELS")
@click.option("-o", "--output", metavar="FOLDER", help="Write tables (CSV) and summary.json to this folder.")
@measure_options
@fresh_option
@storage_option
@json_option
@reads("labels")
def measure(
    labels: str,
    output: str | None,
    options: MeasureOptions,
    fresh: bool,
    storage_options: dict[str, Any],
    as_json: bool,
) -> None:
    """Measure labels: volume fractions with intervals, surfaces, contacts, components, chords.

    Lengths, areas and volumes are in the unit of the voxel size; in voxels where it is unknown. Labels of any
    size are read block by block. The 95 % intervals say how much fractions depend on where the sample was
    taken, if the cells (--cell) are larger than its structure. Of volumes of objects (hrvol instances) each
    object is measured instead.

    \b
    Tables in FOLDER, with units in their headers (also as Parquet with the extra measure):
        classes         voxels, fraction, surface, Euler number, components, percolation of each class
        planes          fractions in each plane
        contacts        areas between classes
        representative  deviation of fractions among cells, by their side
        correlation     two-point correlation along the axes
        components      size, diameter, surface, sphericity, centre and box of each component
        chords          number of chords by axis and length
        thickness       volume of each class by its local thickness (--thickness)
        tortuosity      tortuosity factor and relative diffusivity of classes along axes (--tortuosity)
        objects         of volumes of objects: size, diameter, surface, sphericity, centre, length, axes,
                        direction, touching objects and box of each object

    \b
    Examples:
        hrvol measure labels.ome.zarr
        hrvol measure labels.ome.zarr -o measures --workers 8
        hrvol measure labels.ome.zarr -o measures --class pore --thickness --tortuosity all
        hrvol measure particles.ome.zarr -o particles
        hrvol measure mask.tif -o measures --background --voxel-size 0.5 --unit um --no-chords
    """  # noqa: D301 (click needs the escape)
    from hrvol.analysis.measuring.measure_labels import measure as run_measure
    from hrvol.analysis.measuring.write_tables import check_folder, write_results
    from hrvol.cli.common.progress import display
    from hrvol.volume.guard import keep_inputs

    folder = None
    if output is not None:
        keep_inputs(output, labels)
        with suggest_fresh():
            folder = check_folder(output, fresh)
    with suggest_fresh(), display() as progress:
        result = run_measure(labels, replace(options, overwrite=fresh), storage_options, progress)
    if folder is not None:
        write_results(folder, result.summary, result.tables)
    if as_json:
        echo_json(result.summary)
        return
    _echo(result)
    if folder is not None:
        echo(f"{folder}: {len(result.tables)} tables")


def _echo(result: Measurements) -> None:
    """Print the fractions and surfaces of the classes, or the sizes of objects."""
    summary = result.summary
    if "objects" in summary:
        _echo_objects(summary)
        return
    rows = []
    for row in summary["classes"]:
        ends = row["fraction_95"]
        interval = "-" if ends is None else f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f} %"
        share = "-" if row["fraction"] is None else f"{100 * row['fraction']:.2f} %"
        size, surface = (
            next(value for name, value in row.items() if name.startswith(kinds))
            for kinds in (("volume [", "area ["), ("surface [", "boundary ["))
        )
        rows.append([row["name"], share, interval, f"{size:.4g}", f"{surface:.4g}"])
    names = list(summary["classes"][0])
    heads = [
        next(name for name in names if name.startswith(kinds))
        for kinds in (("volume [", "area ["), ("surface [", "boundary ["))
    ]
    echo_table(["class", "fraction", "95 % interval", *heads], rows)
    cells = summary["intervals"]
    echo(f"intervals: {cells['cells']} cells of {cells['cell_side [voxel]']} voxels a side")
    _echo_structure(summary)
    for note in summary["notes"]:
        echo(note)
    if summary["empty_classes"]:
        echo(f"classes without voxels: {', '.join(summary['empty_classes'])}")


def _echo_structure(summary: dict[str, Any]) -> None:
    """Print the local thickness and the tortuosity of classes, if they were measured."""
    if "thickness" in summary:
        rows = summary["thickness"]["classes"]
        keys = [name for name in rows[0] if name.endswith("]")] if rows else []
        heads = [key.partition(" [")[0] for key in keys]
        echo_table(
            [f"thickness [{summary['unit']}]", *heads],
            [[row["name"], *(f"{row[key]:.4g}" for key in keys)] for row in rows],
        )
    if "tortuosity" in summary:
        heads = ["tortuosity factor", "relative diffusivity", "fraction"]
        echo_table(
            ["tortuosity", "axis", *heads, "status"],
            [
                [row["class"], row["axis"], *(_number(row[head]) for head in heads), row["status"]]
                for row in summary["tortuosity"]["results"]
            ],
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _echo_objects(summary: dict[str, Any]) -> None:
    """Print the number of objects, and the distributions of their sizes."""
    found = {name: values for name, values in summary["distributions"].items() if values}
    rows = [[name, *(f"{value:.4g}" for value in values.values())] for name, values in found.items()]
    if rows:
        echo_table(["", *next(iter(found.values()))], rows)
    echo(
        f"{summary['objects']:,} objects, {summary['objects_at_border']:,} at the border;"
        f" {summary['touching_pairs']:,} pairs touch"
    )
    for note in summary["notes"]:
        echo(note)
