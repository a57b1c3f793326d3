"""Compose the metadata of a label output: its groups, arrays and levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from hrvol.arrays import Shape3
from hrvol.classes import ClassInfo
from hrvol.errors import InputError
from hrvol.volume.grid.tiling import shard_and_chunk
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.documents import Documents, check_scale, documents_in
from hrvol.volume.ome.metadata import DEFAULT_LABELS, Level
from hrvol.volume.ome.output import CHANNELS_PER_SHARD
from hrvol.volume.ome.pyramid import ImagePlan, Reduction, make_level, plan_levels

if TYPE_CHECKING:
    from hrvol.volume.volume import Volume

PROBABILITIES = "probabilities"

UNCERTAINTY = "uncertainty"


@dataclass(frozen=True)
class LabelOutputs:
    """The arrays of a label output: labels of a name, and optional arrays beside them.

    Attributes
    ----------
    name
        Of the labels.
    probabilities, uncertainty
        Whether to create these arrays.
    dtype
        Type of the labels; ``None``: uint8, or uint16 if a class value is above 255.
    """

    name: str = DEFAULT_LABELS
    probabilities: bool = False
    uncertainty: bool = False
    dtype: str | None = None


LABELS_ONLY = LabelOutputs()


def image_paths(name: str) -> dict[str, str]:
    """Return the paths of the images of an output with labels of a name; the labels' key is empty."""
    return {"": f"labels/{name}", PROBABILITIES: PROBABILITIES, UNCERTAINTY: UNCERTAINTY}


def label_documents(
    like: Volume,
    *,
    classes: Sequence[ClassInfo],
    block_shape: Shape3,
    attributes: Mapping[str, Any],
    outputs: LabelOutputs = LABELS_ONLY,
) -> Documents:
    """Return the metadata of a label output; the arguments are those of :func:`create_labels`.

    The output is created in memory, without any data.

    Raises
    ------
    InputError
        The voxel size is not finite.
    """
    check_scale(like.source, *like.voxel_size, *like.translation)
    axes = "zyx"[-like.ndim :]
    first = Level("0", like.voxel_size[-like.ndim :], like.translation[-like.ndim :])
    name = outputs.name
    provenance = {**attributes, "block_shape": list(block_shape), "complete": False}
    entry = _root_entry(name, axes, like.unit, (first,), classes)
    store = MemoryStore()
    root = zarr.create_group(store, zarr_format=3, attributes={"hrvol": provenance, "ome": entry})
    root.create_group("labels", attributes={"ome": {"version": ome.VERSION, "labels": [name]}})
    dtype = outputs.dtype or ("uint8" if max((c.value for c in classes), default=0) <= 255 else "uint16")
    image_label = {"image-label": ome.write_image_label(classes)}
    _create_image(root, f"labels/{name}", like, axes, first, block_shape, dtype, image_label)
    if outputs.uncertainty:
        _create_image(root, UNCERTAINTY, like, axes, first, block_shape, "uint8", {})
    if outputs.probabilities:
        by_class = Level("0", (1.0, *first.scale), (0.0, *first.translation))
        omero, count = {"omero": ome.write_omero(classes)}, len(classes)
        _create_image(root, PROBABILITIES, like, "c" + axes, by_class, block_shape, "uint8", omero, count)
    begun = documents_in(store)
    plans = plan_images(root, name, block_shape, like.source)
    for plan in plans:
        group = root[plan.path]
        assert isinstance(group, zarr.Group)
        for level in plan.levels:
            make_level(group, level)
    declare_levels(root, name, plans, classes)
    root.attrs["hrvol"] = {**provenance, "complete": True}
    return Documents(begun, documents_in(store))


def plan_images(root: zarr.Group, name: str, block_shape: Shape3, source: str) -> tuple[ImagePlan, ...]:
    """Return the images of an output, with the coarser levels to compute.

    Parameters
    ----------
    root
        Group of the output.
    name
        Name of the labels.
    block_shape
        Voxels of a block, (z, y, x).
    source
        Name of the output for messages.
    """
    plans = []
    for key, path in image_paths(name).items():
        array = root.get(f"{path}/0")
        if not isinstance(array, zarr.Array):
            continue
        multiscale = ome.read_multiscale(root[path].attrs.asdict(), source)
        if multiscale is None:
            raise InputError(f"{source}: found no 'multiscales' in {path}, expected them")
        axes, first = "".join(multiscale.axes), multiscale.levels[0]
        row = (array.shards or array.chunks)[0]
        reduction: Reduction = "mean" if key else "mode"
        levels = plan_levels(array.shape, axes, first, block_shape, row)
        plans.append(ImagePlan(path, axes, multiscale.units[-1], reduction, first, levels))
    return tuple(plans)


def declare_levels(
    root: zarr.Group, name: str, plans: Sequence[ImagePlan], classes: Sequence[ClassInfo]
) -> None:
    """Add the coarser levels to the metadata of an output, and of its root."""
    for plan in plans:
        group, levels = root[plan.path], plan.resolutions
        entry = ome.write_multiscale(Path(plan.path).name, plan.axes, plan.unit, levels, plan.reduction)
        group.attrs["ome"] = {**ome.ome_attributes(group.attrs.asdict()), "multiscales": [entry]}
        if plan.reduction == "mode":
            stored: Any = root.attrs.get("ome", {})
            root.attrs["ome"] = {**stored, **_root_entry(name, plan.axes, plan.unit, levels, classes)}


def _create_image(
    root: zarr.Group,
    path: str,
    like: Volume,
    axes: str,
    level: Level,
    block: Shape3,
    dtype: str,
    metadata: Mapping[str, Any],
    channels: int = 0,
) -> None:
    """Create a multiscale group with its finest level."""
    entry = ome.write_multiscale(Path(path).name, axes, like.unit, (level,))
    group = root.create_group(
        path, attributes={"ome": {"version": ome.VERSION, "multiscales": [entry], **metadata}}
    )
    spatial = len(axes) - bool(channels)
    shards, chunks = shard_and_chunk(like.shape[-spatial:], block[-spatial:])
    group.create_array(
        "0",
        shape=((channels,) if channels else ()) + like.shape[-spatial:],
        dtype=np.dtype(dtype),
        chunks=((1,) if channels else ()) + chunks,
        shards=((min(channels, CHANNELS_PER_SHARD),) if channels else ()) + shards,
        fill_value=0,
        dimension_names=list(axes),
    )


def _root_entry(
    name: str, axes: str, unit: str | None, levels: Sequence[Level], classes: Sequence[ClassInfo]
) -> dict[str, Any]:
    """Return the root's metadata: an image whose datasets are the arrays of the labels."""
    datasets = [replace(level, path=f"labels/{name}/{level.path}") for level in levels]
    entry = ome.write_multiscale(name, axes, unit, datasets)
    # By default viewers would show classes 1, 2, 3 on a scale to 255, which is black.
    omero = ome.write_grey("classes", max((c.value for c in classes), default=1))
    return {"version": ome.VERSION, "multiscales": [entry], "omero": omero}
