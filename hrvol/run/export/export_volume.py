"""Export labels, masks, meshes and grey values in the formats of other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import UsageError
from hrvol.progress import ProgressCallback, Tally
from hrvol.run.export.finished import check_finished
from hrvol.run.export.meshes import write_meshes
from hrvol.run.export.options import ExportFiles, ExportSelection
from hrvol.run.export.plan_export import (
    MOST_CLASSES,
    Passage,
    content_of,
    format_of,
    named,
    plan_passages,
    products_of,
)
from hrvol.run.export.slabs import label_values, write_planes
from hrvol.volume.exporters import link_state
from hrvol.volume.exporters.mesh_files import MeshFormat
from hrvol.volume.exporters.publish import Product, published
from hrvol.volume.exporters.sources import LABELS, Exported, open_exported
from hrvol.volume.grid.tiling import box_shape
from hrvol.volume.guard import keep_inputs, keep_opened
from hrvol.volume.region import Region, region_box
from hrvol.volume.storage.location import Location, is_url, located


@dataclass(frozen=True)
class ExportReport:
    """Result of an export.

    Attributes
    ----------
    files
        Files and folders written.
    voxels
        Voxels read.
    empty
        Names of classes without a voxel, of which no mesh was written.
    """

    files: tuple[Path, ...]
    voxels: int
    empty: tuple[str, ...] = ()


def export_volume(
    source: Any,
    out: str | Path,
    *,
    format: str | None = None,
    what: str = LABELS,
    per_class: bool = False,
    mesh: str | None = None,
    only: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    roi: Region | None = None,
    level: int = 0,
    compress: bool | None = None,
    memory: int | None = None,
    url: str | None = None,
    unfinished: bool = False,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> ExportReport:
    """Export labels for other programs: TIFF, HDF5, MetaImage, NRRD, RAW, masks, meshes, neuroglancer.

    The volume is read slab by slab, and a mesh is computed block by block. Files are written beside their
    place and moved there when they are whole; nothing is left of an export that fails or is interrupted.

    Parameters
    ----------
    source
        An output of :func:`hrvol.segment_volume`, or any labels or volume that hrvol opens: path, URL or
        array.
    out
        File or folder to write. Its suffix is that of a format: ``.tif`` (a stack; a BigTIFF from 4 GiB on),
        ``.h5``, ``.mha``, ``.mhd`` (with ``.raw``), ``.nrrd``, ``.raw`` (with ``.nhdr``), ``.precomputed``
        (neuroglancer), ``.stl`` and ``.ply`` (a mesh per class), ``.json`` (a state of neuroglancer); none: a
        folder of TIFF planes.
    format
        Name of the format, one of :data:`hrvol.volume.exporters.formats.NAMES`; ``None``: by the suffix.
    what
        ``labels``, ``image`` (grey values), ``probabilities`` (a file per class) or ``uncertainty``.
    per_class
        Write a mask per class instead, ``OUT_<value>_<name>.*``: uint8, 255 inside.
    mesh
        ``stl`` or ``ply``: write the surface of each class instead, closed also where it meets the border,
        with vertices (x, y, z) in the unit of the voxel size.
    only
        Names or values of the classes of which masks, meshes or probabilities are written; ``None``: all.
    classes
        Names of classes 1, 2, ...; ``None``: those in the metadata.
    name
        Name of the labels, where there are several.
    roi
        ``(z, y, x)`` slices in voxels; ``None``: everything.
    level
        Resolution of the source, 0 the finest.
    compress
        Whether to compress, where the format offers it; ``None``: labels and masks are compressed.
    memory
        Bytes for voxels; ``None``: a quarter of the free memory, at least 256 MiB and at most 4 GiB. A plane
        has to fit four times. Planes are read once if as many as the source's chunks are deep fit.
    url
        Where the source is published, for the state of neuroglancer.
    unfinished
        Export the labels of a run that is not complete, too: 0 is what it has not labelled.
    overwrite
        Replace earlier exports.
    storage_options
        Keywords of the fsspec file system of a URL.
    progress
        Called with the stage, voxels done and the total.

    Returns
    -------
    ExportReport

    Raises
    ------
    UsageError
        The format is unknown, or does not fit the other options.
    MissingExtraError
        The format needs a package that is not installed.
    InputError
        The source has no such labels, is not finished, or has a type that the format lacks.
    OutputExistsError
        The output exists, or (with ``overwrite``) was not written by hrvol.
    ResourceError
        Not even four planes fit into the memory.
    """
    selection = ExportSelection(what, name, level, roi, only, classes, unfinished)
    files = ExportFiles(format, per_class, mesh, compress, memory, url, overwrite)
    return export(source, out, selection, files, storage_options, progress)


def export(
    source: Any,
    out: str | Path,
    selection: ExportSelection,
    files: ExportFiles,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> ExportReport:
    """Export as :func:`export_volume` does, with its keywords as objects."""
    if is_url(str(out)):
        raise UsageError(f"{out}: found a URL, expected a local file or folder")
    target = Path(out)
    form = format_of(target, files)
    memory = files.memory_bytes
    exported = open_exported(
        located(source, storage_options), selection.what, name=selection.name, level=selection.level
    )
    if not selection.unfinished:
        check_finished(exported[0].group)
    keep_inputs(target, *(one.volume for one in exported))
    if form is None:
        return _export_state(exported[0], source, target, selection, files)
    needs_values = files.per_class or isinstance(form, MeshFormat)
    classes = _classes(exported[0], selection, memory, progress, needed=needs_values)
    passages = plan_passages(exported, classes, target, form, selection, files)
    products = products_of(passages)
    for product in products:
        keep_inputs(product.path, *(one.volume for one in exported))
    keep_opened((file for product in products for file in product.files), (one.volume for one in exported))
    compress = selection.what == LABELS if files.compress is None else files.compress
    voxels = sum(math.prod(box_shape(passage.box)) for passage in passages)
    empty: list[str] = []
    with published(products, files.overwrite) as place:
        tally = Tally(progress, "export", voxels)
        for passage in passages:
            empty += _write(passage, place, memory, compress, tally)
    written = tuple(product.path for product in products if product.path.exists())
    return ExportReport(written, voxels, tuple(empty))


def _write(passage: Passage, place: Any, memory: int, compress: bool, tally: Tally) -> list[str]:
    """Write what is made of one reading; return the names of classes without a voxel."""
    if not passage.meshes:
        if passage.targets:
            write_planes(
                passage.volume,
                passage.box,
                passage.targets,
                place,
                memory=memory,
                compress=compress,
                tally=tally,
            )
        return []
    empty = write_meshes(passage.volume, passage.box, passage.meshes, place, memory=memory, tally=tally)
    return [target.content.classes[0].name for target in empty]


def _classes(
    exported: Exported,
    selection: ExportSelection,
    memory: int,
    progress: ProgressCallback | None,
    *,
    needed: bool,
) -> tuple[ClassInfo, ...]:
    """Return the classes of labels: of their metadata, or where they are needed, of the values that occur."""
    if selection.what != LABELS:
        return ()
    volume = exported.volume
    if exported.classes is not None:
        classes = named(exported.classes, selection.class_names)
    elif needed:
        box = region_box(selection.roi, volume)
        tally = Tally(progress, "find classes", math.prod(box_shape(box)))
        values = label_values(volume, box, MOST_CLASSES, memory=memory, tally=tally)
        classes = default_classes(values, selection.class_names)
    elif selection.class_names is not None:
        classes = default_classes(range(1, len(selection.class_names) + 1), selection.class_names)
    else:
        classes = ()
    if needed and len(classes) > MOST_CLASSES and selection.only is None:
        raise UsageError(f"{volume.source}: found {len(classes)} classes, expected at most {MOST_CLASSES}")
    return classes


def _export_state(
    exported: Exported, source: Any, target: Path, selection: ExportSelection, files: ExportFiles
) -> ExportReport:
    """Write a state of neuroglancer."""
    group = exported.group
    if group is None:
        raise UsageError(f"{exported.volume.source}: found no OME-Zarr, expected one to link to")
    if selection.level or selection.roi is not None:
        raise UsageError("roi, level: a state of neuroglancer shows all of an image, at all levels")
    root = Location.of(source).url.rstrip("/") if isinstance(source, str | Path | Location) else group.url
    published_at = files.url or (root if is_url(root) else None)
    if published_at is None:
        raise UsageError(
            f"{target}: neuroglancer reads over HTTP, expected the address at which {root} is published"
            " (--url)"
        )
    inside = group.url.rstrip("/").removeprefix(root).strip("/")
    labels_at = link_state.zarr_source(
        "/".join(filter(None, (published_at.rstrip("/"), inside))), exported.zarr_format
    )
    image = None
    if selection.what == LABELS and inside and _is_image(Location.of(root, group.options)):
        image = link_state.zarr_source(published_at, exported.zarr_format)
    box = region_box(None, exported.volume)
    content = content_of(exported, box, selection.what, exported.classes or ())
    product = Product(target, (target,), link_state.is_ours)
    with published((product,), files.overwrite) as place:
        state = link_state.link_state(content, labels_at, image)
        place(target).write_text(json.dumps(state, indent=2), encoding="utf-8")
    return ExportReport((target,), 0)


def _is_image(root: Location) -> bool:
    """Whether a group is an image, and not the root of an output, which shows its own labels."""
    attributes = root.attributes() or {}
    inner = attributes.get("ome")
    multiscales = (inner if isinstance(inner, Mapping) else attributes).get("multiscales")
    return bool(multiscales) and "hrvol" not in attributes
