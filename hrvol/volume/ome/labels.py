"""Write labels and their pyramid as OME-Zarr 0.5.

A label output is one OME-Zarr image group::

    OUT.ome.zarr/          multiscales -> labels/hrvol/0, 1, ...; attributes["hrvol"]
      labels/hrvol/0       uint8 (z, y, x), one shard per block, 0 = not processed
      labels/hrvol/1 ...   coarser levels, computed by finish()
      probabilities/0 ...  uint8 (c, z, y, x), optional
      uncertainty/0 ...    uint8 (z, y, x), optional
      ledger/              state of the blocks (hrvol.run.ledger)

OME-Zarr requires labels to be inside an image. A copy of the source would double terabytes, so the image is
the labels themselves: the root's datasets refer to the arrays under ``labels/``, and any viewer opens the
output on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.errors import ContainsGroupError

from hrvol.arrays import Shape3
from hrvol.classes import ClassInfo
from hrvol.errors import InputError
from hrvol.volume.grid.tiling import Box, shard_and_chunk
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.metadata import DEFAULT_LABELS, Level
from hrvol.volume.ome.output import CHANNELS_PER_SHARD, clear_output, ensure_array, ensure_group, write_box
from hrvol.volume.ome.pyramid import ImagePlan, Reduction, make_level, make_part, plan_levels, write_levels
from hrvol.volume.storage.location import Location

if TYPE_CHECKING:
    from hrvol.volume.volume import Volume

PROBABILITIES = "probabilities"

UNCERTAINTY = "uncertainty"


@dataclass(frozen=True)
class LabelOutputs:
    """The arrays of a label output: labels of a name, and optional arrays beside them."""

    name: str = DEFAULT_LABELS
    probabilities: bool = False
    uncertainty: bool = False


LABELS_ONLY = LabelOutputs()


@dataclass(frozen=True)
class LabelStore:
    """A label output to write to; cheap to pickle, and opened on first use.

    Any number of processes may write at once if no two write to the same block.

    Attributes
    ----------
    location
        Location of the OME-Zarr group.
    name
        Name of the labels in it.
    """

    location: Location
    name: str = DEFAULT_LABELS

    @property
    def attributes(self) -> dict[str, Any]:
        """Provenance of the output (``attributes["hrvol"]``), read from the store at each access."""
        attributes: Any = self.location.open_group().attrs.asdict()["hrvol"]
        return dict(attributes)

    @property
    def complete(self) -> bool:
        """Whether all blocks and coarser levels are done."""
        return bool(self.attributes.get("complete"))

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Classes of the labels."""
        group = self._root[f"labels/{self.name}"]
        return ome.read_classes(group.attrs.asdict(), str(self.location)) or ()

    @cached_property
    def block_shape(self) -> Shape3:
        """Voxels of a block, (z, y, x)."""
        z, y, x = self.attributes["block_shape"]
        return z, y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the labels: uint8, or uint16 if a class value is above 255."""
        return np.dtype(self._arrays[""].dtype)

    def discard(self) -> None:
        """Delete the output."""
        self.location.remove()

    def update(self, changes: Mapping[str, Any]) -> None:
        """Change or add items of ``attributes["hrvol"]``; one process at a time."""
        root = self.location.open_group("r+")
        root.attrs["hrvol"] = {**self.attributes, **changes}

    def write(
        self,
        box: Box,
        labels: npt.NDArray[Any],
        probabilities: npt.NDArray[np.uint8] | None = None,
        uncertainty: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Write a box of a block.

        Parameters
        ----------
        box
            Position (z, y, x) in the volume.
        labels
            Unsigned integers (z, y, x); 0 is not processed.
        probabilities
            Uint8 (K, z, y, x), 255 = certain, in order of classes; if the output has them.
        uncertainty
            Uint8 (z, y, x); if the output has it.

        Raises
        ------
        ValueError
            A shape or type does not fit, or the output has no such array.
        """
        # Labels last: a block with labels is complete.
        for name, values in ((PROBABILITIES, probabilities), (UNCERTAINTY, uncertainty), ("", labels)):
            if values is not None:
                array = self._arrays.get(name)
                if array is None:
                    raise ValueError(f"{self.location}: found no {name} in the output, expected an array")
                write_box(array, box, values, str(self.location))

    def keys(self, index: Shape3) -> tuple[str, ...]:
        """Return the keys of the objects of a block, given its index in the grid of blocks."""
        keys = []
        for array in self._arrays.values():
            lead = int(array.metadata.dimension_names[0] == "c")  # type: ignore[union-attr, index]
            spatial = index[3 + lead - array.ndim :]
            rows = -(-array.shape[0] // (array.shards or array.chunks)[0]) if lead else 1
            for row in range(rows):
                key = array.metadata.encode_chunk_key((row,) * lead + spatial)
                keys.append(f"{array.path}/{key}")
        return tuple(keys)

    def checksums(self, indices: Sequence[Shape3]) -> list[str]:
        """Return a checksum of the stored bytes of each block."""
        return self.location.group_checksums([self.keys(index) for index in indices])

    def erase(self, index: Shape3) -> None:
        """Delete a block: its voxels are 0 again."""
        self.location.erase(self.keys(index))

    def write_file(self, name: str, data: bytes) -> None:
        """Store a file in the output as an array of bytes; an existing one must have the same size."""
        values = np.frombuffer(data, np.uint8)
        array = ensure_array(
            self._root,
            name,
            shape=values.shape,
            chunks=values.shape,
            shards=None,
            dtype=values.dtype,
            compressors=None,
            fill_value=0,
        )
        array[:] = values

    def read_file(self, name: str) -> bytes | None:
        """Return a file stored in the output; ``None`` without one."""
        array = self._root.get(name)
        return np.asarray(array[:]).tobytes() if isinstance(array, zarr.Array) else None

    @cached_property
    def images(self) -> tuple[ImagePlan, ...]:
        """The images of the output, with the coarser levels to compute."""
        kinds: dict[str, Reduction] = {
            f"labels/{self.name}": "mode",
            PROBABILITIES: "mean",
            UNCERTAINTY: "mean",
        }
        plans = []
        for (path, reduction), key in zip(kinds.items(), ("", PROBABILITIES, UNCERTAINTY), strict=True):
            array = self._arrays.get(key)
            if array is None:
                continue
            multiscale = ome.read_multiscale(self._root[path].attrs.asdict(), str(self.location))
            if multiscale is None:
                raise InputError(f"{self.location}: found no 'multiscales' in {path}, expected them")
            axes, first = "".join(multiscale.axes), multiscale.levels[0]
            row = (array.shards or array.chunks)[0]
            levels = plan_levels(array.shape, axes, first, self.block_shape, row)
            plans.append(ImagePlan(path, axes, multiscale.units[-1], reduction, first, levels))
        return tuple(plans)

    def make_level(self, image: int, level: int) -> None:
        """Create the empty array of the ``level``-th coarser level of the ``image``-th image."""
        plan = self.images[image]
        make_level(self._writable(plan.path), plan.levels[level])

    def make_part(self, image: int, level: int, part: int) -> None:
        """Compute one part of a coarser level; several processes may compute different parts."""
        plan = self.images[image]
        make_part(self._writable(plan.path), plan.levels[level], part, plan.reduction)

    def finish(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Compute the coarser levels part by part, and mark the output as complete.

        May be called again, also after an interruption.

        Parameters
        ----------
        progress
            Called with the number of parts done and the total number of parts of a level.
        """
        for plan in self.images:
            write_levels(self._writable(plan.path), plan, progress)
        self.declare(complete=True)

    def declare(self, *, complete: bool) -> None:
        """Add the coarser levels to the metadata, and whether all blocks are done."""
        root = self.location.open_group("r+")
        for plan in self.images:
            group = root[plan.path]
            attributes = ome.ome_attributes(group.attrs.asdict())
            name, levels = Path(plan.path).name, plan.resolutions
            entry = ome.write_multiscale(name, plan.axes, plan.unit, levels, plan.reduction)
            group.attrs["ome"] = {**attributes, "multiscales": [entry]}
            if plan.reduction == "mode":
                root.attrs["ome"] = _root_entry(self.name, plan.axes, plan.unit, levels, self.classes)
        self.update({"complete": complete})

    def __reduce__(self) -> tuple[Any, ...]:
        return LabelStore, (self.location, self.name)

    @cached_property
    def _root(self) -> zarr.Group:
        return self.location.open_group("r+")

    def _writable(self, path: str) -> zarr.Group:
        group = self._root[path]
        assert isinstance(group, zarr.Group)
        return group

    @cached_property
    def _arrays(self) -> dict[str, zarr.Array[Any]]:
        paths = {"": f"labels/{self.name}", PROBABILITIES: PROBABILITIES, UNCERTAINTY: UNCERTAINTY}
        nodes = {name: self._root.get(f"{path}/0") for name, path in paths.items()}
        return {name: array for name, array in nodes.items() if isinstance(array, zarr.Array)}


def create_labels(
    path: str | Path | Location,
    like: Volume,
    *,
    classes: Sequence[ClassInfo],
    block_shape: Shape3,
    attributes: Mapping[str, Any],
    outputs: LabelOutputs = LABELS_ONLY,
    overwrite: bool = False,
    resume: bool = False,
) -> LabelStore:
    """Create an empty label output.

    Parameters
    ----------
    path
        Path or URL of the OME-Zarr group to create.
    like
        Volume whose shape, voxel size, position and unit the labels share.
    classes
        Class names and colours; labels are uint8, or uint16 if a value is above 255.
    block_shape
        Shape (z, y, x) of the blocks to be written, each by one writer.
    attributes
        Provenance, ready for JSON; stored as ``attributes["hrvol"]``, with ``complete: false`` until
        :meth:`LabelStore.finish`.
    outputs
        Name of the labels, and whether to create arrays of probabilities and uncertainty.
    overwrite
        Whether to replace an earlier output of hrvol.
    resume
        Whether to keep an output that was created with the same arguments, and create its missing arrays.
        Several processes may do so at once.

    Raises
    ------
    OutputExistsError
        The path is occupied: by anything without ``overwrite``, by anything but an output of hrvol with it.
    """
    location = Location.of(path)
    if not resume:
        clear_output(location, overwrite)
    axes = "zyx"[-like.ndim :]
    first = Level("0", like.voxel_size[-like.ndim :], like.translation[-like.ndim :])
    dtype = "uint8" if max((c.value for c in classes), default=0) <= 255 else "uint16"
    provenance = {**attributes, "block_shape": list(block_shape), "complete": False}
    store = location.store(read_only=False)
    try:
        # Not an image until it has arrays, but marked as an output from the start, so that it can be resumed.
        root = zarr.create_group(store, zarr_format=3, attributes={"hrvol": {**provenance, "begun": True}})
    except ContainsGroupError:
        root = zarr.open_group(store, mode="r+", zarr_format=3)
    name = outputs.name
    ensure_group(root, "labels", {"ome": {"version": ome.VERSION, "labels": [name]}})
    image_label = {"image-label": ome.write_image_label(classes)}
    _create_image(root, f"labels/{name}", like, axes, first, block_shape, dtype, image_label)
    if outputs.uncertainty:
        _create_image(root, UNCERTAINTY, like, axes, first, block_shape, "uint8", {})
    if outputs.probabilities:
        by_class = Level("0", (1.0, *first.scale), (0.0, *first.translation))
        omero, count = {"omero": ome.write_omero(classes)}, len(classes)
        _create_image(root, PROBABILITIES, like, "c" + axes, by_class, block_shape, "uint8", omero, count)
    if "ome" not in root.attrs:
        entry = _root_entry(name, axes, like.unit, (first,), classes)
        root.update_attributes({"ome": entry, "hrvol": provenance})
    return LabelStore(location, name)


def open_label_store(path: str | Path | Location, name: str = DEFAULT_LABELS) -> LabelStore:
    """Open a label output for writing.

    Raises
    ------
    InputError
        There is no output that :func:`create_labels` wrote.
    """
    store = LabelStore(Location.of(path), name)
    try:
        valid = "block_shape" in store.attributes and store.dtype.kind == "u"
    except (FileNotFoundError, KeyError, ValueError):
        valid = False
    if not valid:
        raise InputError(f"{path}: found no labels {name!r} that hrvol wrote")
    return store


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
    """Create a multiscale group with its finest level, unless they exist."""
    entry = ome.write_multiscale(Path(path).name, axes, like.unit, (level,))
    group = ensure_group(root, path, {"ome": {"version": ome.VERSION, "multiscales": [entry], **metadata}})
    spatial = len(axes) - bool(channels)
    shards, chunks = shard_and_chunk(like.shape[-spatial:], block[-spatial:])
    ensure_array(
        group,
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
