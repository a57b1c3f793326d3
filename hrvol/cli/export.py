"""The command export: write labels in the formats of other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.common.options import bundle, classes_option, parse_names, roi_option, storage_option
from hrvol.cli.common.output import echo, suggest_fresh
from hrvol.cli.common.reading import reads

if TYPE_CHECKING:
    from hrvol.run.export.options import ExportFiles, ExportSelection

FORMATS = (
    *("tiff", "tiff-folder", "hdf5", "mha", "mhd", "nrrd", "raw", "precomputed"),
    *("stl", "ply", "neuroglancer"),
)
"""Names of formats, as in :mod:`hrvol.volume.exporters.formats`, which imports what writes them."""


def _selection(classes: tuple[str, ...] | None, **values: Any) -> ExportSelection:
    from hrvol.run.export.options import ExportSelection

    return ExportSelection(class_names=classes, **values)


def _files(memory: float | None, **values: Any) -> ExportFiles:
    from hrvol.run.export.options import ExportFiles

    return ExportFiles(memory=None if memory is None else round(memory * 2**30), **values)


selection_options = bundle(
    "selection",
    _selection,
    {
        "what": click.option(
            "--what",
            type=click.Choice(["labels", "image", "probabilities", "uncertainty"]),
            default="labels",
            show_default=True,
            help="What to export: image is the grey volume itself; probabilities are a file per class.",
        ),
        "name": click.option("--name", metavar="NAME", help="Name of the labels, where there are several."),
        "level": click.option(
            "--level",
            type=click.IntRange(0, 63),
            default=0,
            show_default=True,
            help="Resolution of the source, 0 the finest.",
        ),
        "roi": roi_option,
        "only": click.option(
            "--only",
            callback=parse_names,
            metavar="a,b,...",
            help="Names or values of the classes of which masks, meshes or probabilities are written [all].",
        ),
        "classes": classes_option,
        "unfinished": click.option(
            "--unfinished", is_flag=True, help="Export what a run that is not finished has labelled, too."
        ),
    },
)

file_options = bundle(
    "files",
    _files,
    {
        "format": click.option(
            "--format",
            type=click.Choice(FORMATS),
            help="Format of the output [by its suffix: see above].",
        ),
        "per_class": click.option(
            "--per-class", is_flag=True, help="Write a mask of 0 and 255 per class, OUT_1_pore.tif, ..."
        ),
        "mesh": click.option(
            "--mesh",
            type=click.Choice(["stl", "ply"], case_sensitive=False),
            help="Write a mesh per class, OUT_1_pore.stl, ..., in the unit of the voxel size.",
        ),
        "compress": click.option(
            "--compress/--no-compress",
            default=None,
            help="Compress TIFF, HDF5 and NRRD [labels and masks, not grey values].",
        ),
        "memory": click.option(
            "--memory",
            type=click.FloatRange(0, min_open=True),
            metavar="GIB",
            help="Memory for voxels; a plane has to fit four times [a quarter of what is free, at most 4].",
        ),
        "url": click.option(
            "--url",
            metavar="URL",
            help="Where LABELS is published, for the state of neuroglancer (OUT.json).",
        ),
        "overwrite": click.option("--fresh", "overwrite", is_flag=True, help="Replace an earlier export."),
    },
)


@click.command()
@click.argument("labels")
@click.option("-o", "--output", required=True, metavar="OUT", help="The file or folder to write.")
@selection_options
@file_options
@storage_option
@reads("labels")
def export(
    labels: str,
    output: str,
    selection: ExportSelection,
    files: ExportFiles,
    storage_options: dict[str, Any],
) -> None:
    """Write labels in the formats of other programs.

    \b
    The suffix of OUT is the format:
        none           a folder of TIFF planes
        .tif           one TIFF stack with colours and voxel size for ImageJ
        .h5            HDF5 with NXdata, for silx, h5web and others
        .mha .mhd      MetaImage (.mhd with .raw), for ITK, 3D Slicer and ParaView
        .nrrd          NRRD, for 3D Slicer and ParaView
        .raw           values as they are, with a header .nhdr
        .stl .ply      a closed mesh per class
        .precomputed   a folder for neuroglancer
        .json          a state of neuroglancer that shows the OME-Zarr where it is published (--url)

    Names and colours of classes, voxel size, unit and position are written wherever the format has a place
    for them. OUT appears when it is whole; nothing is left of an export that fails or is interrupted.

    \b
    Examples:
        hrvol export labels.ome.zarr -o labels.tif
        hrvol export labels.ome.zarr -o planes/ --roi 100:200,:,:
        hrvol export labels.ome.zarr -o masks.nrrd --per-class --only pore,crack
        hrvol export labels.ome.zarr -o surfaces --mesh ply --level 1
        hrvol export labels.ome.zarr -o probabilities.h5 --what probabilities
        hrvol export labels.ome.zarr -o view.json --url https://data.example.org/labels.ome.zarr
    """  # noqa: D301 (click needs the escape)
    from hrvol.cli.common.progress import display
    from hrvol.run.export.export_volume import export as export_labels

    with suggest_fresh(), display() as progress:
        report = export_labels(labels, output, selection, files, storage_options, progress)
    for name in report.empty:
        echo(f"{name}: no voxel, so no mesh")
    for file in report.files:
        echo(file)
