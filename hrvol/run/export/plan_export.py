"""Decide which files an export writes, and what each of them holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import InputError, UsageError
from hrvol.run.export.meshes import MeshTarget
from hrvol.run.export.options import ExportFiles, ExportSelection
from hrvol.run.export.slabs import Target
from hrvol.text import listed
from hrvol.volume.exporters.content import Content, Format
from hrvol.volume.exporters.formats import MESHES, find_format
from hrvol.volume.exporters.mesh_files import MeshFormat
from hrvol.volume.exporters.publish import Product
from hrvol.volume.exporters.sources import IMAGE, LABELS, Exported, open_exported
from hrvol.volume.grid.tiling import Box, box_shape
from hrvol.volume.ome.label_documents import PROBABILITIES
from hrvol.volume.region import region_box
from hrvol.volume.volume import Volume

MOST_CLASSES = 255
"""Most classes of an export with a file per class: all files are written at once."""


@dataclass(frozen=True)
class Passage:
    """One reading of a volume, and what is written from it."""

    volume: Volume
    box: Box
    targets: tuple[Target, ...] = ()
    meshes: tuple[MeshTarget, ...] = ()


def content_of(exported: Exported, box: Box, what: str, classes: Sequence[ClassInfo]) -> Content:
    """Return what a file of a box of a volume holds."""
    volume = exported.volume
    translation = tuple(
        first + span.start * step
        for first, span, step in zip(volume.translation, box, volume.voxel_size, strict=True)
    )
    z, y, x = translation
    return Content(
        volume.source,
        what,
        box_shape(box),
        volume.ndim,
        volume.dtype,
        volume.voxel_size,
        (z, y, x),
        volume.unit,
        tuple(classes),
    )


def format_of(out: Path, files: ExportFiles) -> Format | MeshFormat | None:
    """Return the format of an export; ``None`` for the state of neuroglancer.

    Raises
    ------
    UsageError
        The format and other options exclude each other.
    """
    if files.mesh is not None and files.mesh not in (entry.name for entry in MESHES):
        raise UsageError(f"mesh: found {files.mesh!r}, expected {' or '.join(m.name for m in MESHES)}")
    found = find_format(out, files.mesh or files.format)
    if files.mesh is not None and files.format not in (None, files.mesh):
        raise UsageError(f"format: found {files.format!r} beside mesh {files.mesh!r}, expected one of them")
    if files.per_class and not isinstance(found, Format):
        raise UsageError("per class: found a format that has no masks, expected a format of volumes")
    if files.url is not None and found is not None:
        raise UsageError("url: expected it with the state of neuroglancer only (OUT.json)")
    return found


def select_classes(classes: Sequence[ClassInfo], only: Sequence[str] | None) -> tuple[ClassInfo, ...]:
    """Return the classes with these names or values.

    Raises
    ------
    UsageError
        There is no such class.
    """
    if only is None:
        return tuple(classes)
    chosen = []
    for wanted in only:
        fitting = [info for info in classes if wanted in (info.name, str(info.value))]
        if not fitting:
            known = listed(f"{info.value} {info.name}" for info in classes)
            raise UsageError(f"only: found {wanted!r}, expected one of the classes {known}")
        chosen += fitting
    return tuple(dict.fromkeys(chosen))


def named(classes: Sequence[ClassInfo], names: Sequence[str] | None) -> tuple[ClassInfo, ...]:
    """Return classes with other names, those of the values in order."""
    if names is None:
        return tuple(classes)
    again = default_classes([info.value for info in classes], names)
    return tuple(replace(info, name=new.name) for info, new in zip(classes, again, strict=True))


def class_path(out: Path, info: ClassInfo, suffix: str) -> Path:
    """Return the path of the file of one class: ``OUT_2_pore.tif``."""
    stem = out.name.removesuffix(out.suffix)
    slug = re.sub(r"[^A-Za-z0-9.-]+", "_", info.name)[:60].strip("_") or "class"
    return out.with_name(f"{stem}_{info.value}_{slug}{suffix}")


def plan_passages(
    exported: Sequence[Exported],
    classes: Sequence[ClassInfo],
    out: Path,
    form: Format | MeshFormat,
    selection: ExportSelection,
    files: ExportFiles,
) -> tuple[Passage, ...]:
    """Return what is read and what is written from it.

    Parameters
    ----------
    exported
        The volumes.
    classes
        Classes of the labels.
    out
        Path of the output.
    form
        Its format.
    selection, files
        The request.

    Raises
    ------
    UsageError, InputError
        The format cannot hold it.
    """
    volume = exported[0].volume
    box = region_box(selection.roi, volume)
    suffix = out.suffix or form.suffixes[0]
    if isinstance(form, MeshFormat):
        if selection.what != LABELS or volume.ndim != 3:
            raise UsageError(f"{volume.source}: found no labels of a volume, expected some for a mesh")
        meshes = tuple(
            MeshTarget(
                class_path(out, info, form.suffixes[0]),
                form,
                content_of(exported[0], box, "mesh", [info]),
                info.value,
            )
            for info in select_classes(classes, selection.only)
        )
        return (Passage(volume, box, meshes=meshes),)
    if files.per_class:
        if selection.what != LABELS:
            raise UsageError(f"{selection.what}: found no labels, expected some for a mask per class")
        content = replace(content_of(exported[0], box, "mask", ()), dtype=np.dtype(np.uint8))
        targets = tuple(
            Target(class_path(out, info, suffix), form, replace(content, classes=(info,)), info.value)
            for info in select_classes(classes, selection.only)
        )
        form.check(content)
        return (Passage(volume, box, targets),)
    if selection.what == PROBABILITIES:
        kept = select_classes([info for one in exported for info in one.classes or ()], selection.only)
        exported = [one for one in exported if (one.classes or ())[0] in kept]
        passages = []
        for one in exported:
            infos = one.classes or ()
            content = content_of(one, box, selection.what, infos)
            form.check(content)
            target = Target(class_path(out, infos[0], suffix), form, content)
            passages.append(Passage(one.volume, box, (target,)))
        return tuple(passages)
    if selection.only is not None:
        raise UsageError(
            "only: expected it with masks, meshes or probabilities: values are exported as they are"
        )
    content = content_of(exported[0], box, selection.what, classes)
    form.check(content)
    first = Passage(volume, box, (Target(out, form, content),))
    partial = selection.roi is not None or selection.level or volume.voxel_size_from == "the user"
    if form.name != "precomputed" or partial or selection.what != LABELS:
        return (first,)
    return (first, *_coarser(exported[0], out, form, classes))


def _coarser(exported: Exported, out: Path, form: Format, classes: Sequence[ClassInfo]) -> list[Passage]:
    """Return the coarser levels of labels."""
    passages: list[Passage] = []
    while exported.group is not None:
        try:
            (level,) = open_exported(exported.group, IMAGE, level=len(passages) + 1)
        except InputError:  # no such level
            break
        box = region_box(None, level.volume)
        content = content_of(level, box, LABELS, classes)
        passages.append(Passage(level.volume, box, (Target(out, form, content),)))
    return passages


def products_of(passages: Sequence[Passage]) -> tuple[Product, ...]:
    """Return the files and folders that passages make."""
    products = {}
    for passage in passages:
        for target in passage.targets:
            form = target.format
            products[target.path] = Product(target.path, form.files(target.path), form.is_ours)
        for mesh in passage.meshes:
            products[mesh.path] = Product(mesh.path, (mesh.path,), mesh.format.is_ours)
    return tuple(products.values())
