"""Writing labels, with their pyramid, as OME-Zarr 0.5.

A label output is one OME-Zarr image group::

    OUT.ome.zarr/          multiscales -> labels/hrvol/0, 1, ...; attributes["hrvol"]
      labels/hrvol/0       uint8 (z, y, x), one shard per block, 0 = not processed
      labels/hrvol/1 ...   coarser levels, made by finish()
      probabilities/0 ...  uint8 (c, z, y, x), optional
      uncertainty/0 ...    uint8 (z, y, x), optional
      ledger/              which blocks are done (hrvol.run.ledger)

OME-Zarr wants labels inside an image. Copying the source would double terabytes, so the image is the
labels themselves: the root's datasets point at the arrays under ``labels/``, and any viewer opens the
output by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.errors import ContainsGroupError

from hrvol.classes import ClassInfo
from hrvol.errors import InputError
from hrvol.volume.grid.tiling import Box, shard_and_chunk
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.metadata import DEFAULT_LABELS, Level
from hrvol.volume.ome.output import CHANNELS_PER_SHARD, clear_output, ensure_array, ensure_group, write_box
from hrvol.volume.ome.pyramid import ImagePlan, Reduction, make_level, make_part, plan_levels
from hrvol.volume.storage.location import Location, checksum

if TYPE_CHECKING:
    from hrvol.volume.volume import Volume


PROBABILITIES = "probabilities"

UNCERTAINTY = "uncertainty"


@dataclass(frozen=True)
class LabelStore:
    """A label output that is being written; cheap to pickle, opens where it arrives.

    Any number of processes may write at once as long as no two write into one block.

    Attributes
    ----------
    location
        Of the OME-Zarr group.
    name
        Of the labels in it.
    """

    location: Location
    name: str = DEFAULT_LABELS

    @property
    def attributes(self) -> dict[str, Any]:
        """What the output says about how it was made (``attributes["hrvol"]``), as it is on disk now."""
        said: Any = self.location.open_group().attrs.asdict()["hrvol"]
        return dict(said)

    @property
    def complete(self) -> bool:
        """Whether all blocks are done, and the coarser levels made."""
        return bool(self.attributes.get("complete"))

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Classes of the labels."""
        group = self._root[f"labels/{self.name}"]
        return ome.read_classes(group.attrs.asdict(), str(self.location)) or ()

    @cached_property
    def block_shape(self) -> tuple[int, int, int]:
        """Voxels of a block, (z, y, x)."""
        z, y, x = self.attributes["block_shape"]
        return z, y, x

    @property
    def has_probabilities(self) -> bool:
        """Whether probabilities are stored beside the labels."""
        return PROBABILITIES in self._arrays

    @property
    def has_uncertainty(self) -> bool:
        """Whether uncertainty is stored beside the labels."""
        return UNCERTAINTY in self._arrays

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the labels: uint8, or uint16 where a class value is above 255."""
        return np.dtype(self._arrays[""].dtype)

    def discard(self) -> None:
        """Delete the output, for instance because nothing came of it."""
        self.location.remove()

    def update(self, changes: Mapping[str, Any]) -> None:
        """Add to or change ``attributes["hrvol"]``; one process at a time."""
        root = self.location.open_group("r+")
        root.attrs["hrvol"] = {**self.attributes, **changes}

    def write(
        self,
        box: Box,
        labels: npt.NDArray[Any],
        probabilities: npt.NDArray[np.uint8] | None = None,
        uncertainty: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Write a block, or a part of one.

        Parameters
        ----------
        box
            Where, (z, y, x).
        labels
            Unsigned integers (z, y, x); 0 is not processed.
        probabilities
            Uint8 (K, z, y, x), 255 = certain, in order of classes; if the output has them.
        uncertainty
            Uint8 (z, y, x); if the output has it.

        Raises
        ------
        ValueError
            Shapes or types do not fit.
        """
        # Labels last: a block that has labels has everything.
        for name, values in ((PROBABILITIES, probabilities), (UNCERTAINTY, uncertainty), ("", labels)):
            if values is not None:
                array = self._arrays.get(name)
                if array is None:
                    raise ValueError(f"{self.location}: found no {name}, expected them to write to")
                write_box(array, box, values, str(self.location))

    def keys(self, index: tuple[int, int, int]) -> tuple[str, ...]:
        """Return the names of the objects that hold a block, by its place in the grid of blocks."""
        found = []
        for array in self._arrays.values():
            lead = int(array.metadata.dimension_names[0] == "c")  # type: ignore[union-attr, index]
            spatial = index[3 + lead - array.ndim :]
            rows = -(-array.shape[0] // (array.shards or array.chunks)[0]) if lead else 1
            for row in range(rows):
                place = (row,) * lead + spatial
                found.append(f"{array.path}/{array.metadata.encode_chunk_key(place)}")
        return tuple(found)

    def checksums(self, indices: Sequence[tuple[int, int, int]]) -> list[str]:
        """Return a checksum of what is stored of each block: of the objects' bytes, as they lie there."""
        names = [self.keys(index) for index in indices]
        found = iter(self.location.checksums(name for keys in names for name in keys))
        return [str(checksum("".join(next(found) or "-" for _ in keys).encode())) for keys in names]

    def erase(self, index: tuple[int, int, int]) -> None:
        """Delete what is stored of a block: its voxels are 0 again."""
        self.location.erase(self.keys(index))

    def write_file(self, name: str, data: bytes) -> None:
        """Keep a file in the output, as an array of bytes, unless it is there."""
        values = np.frombuffer(data, np.uint8)
        wanted = {"shape": values.shape, "chunks": values.shape, "shards": None, "dtype": values.dtype}
        array = ensure_array(self._root, name, **wanted, compressors=None, fill_value=0)
        array[:] = values

    def read_file(self, name: str) -> bytes | None:
        """Return a file that is kept in the output, ``None`` where there is none."""
        array = self._root.get(name)
        return np.asarray(array[:]).tobytes() if isinstance(array, zarr.Array) else None

    @cached_property
    def images(self) -> tuple[ImagePlan, ...]:
        """What the output holds, and the coarser levels that are to be made of it."""
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
                raise InputError(
                    f"{self.location}: found no 'multiscales' in {path}, expected what hrvol wrote"
                )
            axes, first = "".join(multiscale.axes), multiscale.levels[0]
            row = (array.shards or array.chunks)[0]
            levels = plan_levels(array.shape, axes, first, self.block_shape, row)
            plans.append(ImagePlan(path, axes, multiscale.units[-1], reduction, first, levels))
        return tuple(plans)

    def make_level(self, image: int, level: int) -> None:
        """Make the empty array of a coarser level: the ``level``-th of the ``image``-th of :attr:`images`."""
        plan = self.images[image]
        make_level(self._writable(plan.path), plan.levels[level])

    def make_part(self, image: int, level: int, part: int) -> None:
        """Make one part of a coarser level; any number of processes may make different ones."""
        plan = self.images[image]
        make_part(self._writable(plan.path), plan.levels[level], part, plan.reduction)

    def finish(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Make the coarser levels, one part after the other, and mark the output as complete.

        May be called again, also after it was interrupted.

        Parameters
        ----------
        progress
            Called with parts done and parts in all of each level.
        """
        for i, image in enumerate(self.images):
            for j, plan in enumerate(image.levels):
                self.make_level(i, j)
                for part in range(plan.parts):
                    self.make_part(i, j, part)
                    if progress is not None:
                        progress(part + 1, plan.parts)
        self.declare(complete=True)

    def declare(self, *, complete: bool) -> None:
        """Say in the metadata that the coarser levels are there, and whether all blocks are."""
        root = self.location.open_group("r+")
        for image in self.images:
            group = root[image.path]
            said = ome.ome_attributes(group.attrs.asdict())
            levels = (image.first, *(plan.level for plan in image.levels))
            entry = ome.write_multiscale(
                Path(image.path).name, image.axes, image.unit, levels, image.reduction
            )
            group.attrs["ome"] = {**said, "multiscales": [entry]}
            if image.reduction == "mode":
                root.attrs["ome"] = _root_entry(self.name, image.axes, image.unit, levels, self.classes)
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
        places = {"": f"labels/{self.name}", PROBABILITIES: PROBABILITIES, UNCERTAINTY: UNCERTAINTY}
        found = {name: self._root.get(f"{place}/0") for name, place in places.items()}
        return {name: array for name, array in found.items() if isinstance(array, zarr.Array)}


def create_labels(
    path: str | Path | Location,
    like: Volume,
    *,
    classes: Sequence[ClassInfo],
    block_shape: tuple[int, int, int],
    name: str = DEFAULT_LABELS,
    attributes: Mapping[str, Any],
    probabilities: bool = False,
    uncertainty: bool = False,
    overwrite: bool = False,
    go_on: bool = False,
) -> LabelStore:
    """Create an empty label output.

    Parameters
    ----------
    path
        Of the OME-Zarr group to make.
    like
        Volume whose shape, voxel size, position and unit the labels share.
    classes
        Class names and colours; labels are uint8, or uint16 if a value is above 255.
    block_shape
        Of the blocks (z, y, x) that will be written, each by one writer.
    name
        Of the labels.
    attributes
        What to say about how they are made, ready for JSON; stored as ``attributes["hrvol"]``, with
        ``complete: false`` until :meth:`LabelStore.finish`.
    probabilities, uncertainty
        Whether to make room for them.
    overwrite
        Whether to delete an output of hrvol's that is in the way.
    go_on
        Whether to keep an output that is there, which was begun with the same arguments, and make what it
        lacks. Several processes may do so at once.

    Raises
    ------
    OutputExistsError
        Something is in the way: anything without ``overwrite``, anything but a Zarr group with it.
    """
    location = Location.of(path)
    if not go_on:
        clear_output(location, overwrite)
    axes = "zyx"[-like.ndim :]
    first = Level("0", like.voxel_size[-like.ndim :], like.translation[-like.ndim :])
    dtype = "uint8" if max((c.value for c in classes), default=0) <= 255 else "uint16"
    said = {**attributes, "block_shape": list(block_shape), "complete": False}
    store = location.store(read_only=False)
    try:
        # Not an image before it has arrays; but ours from the first moment, so that it can be gone on with.
        root = zarr.create_group(store, zarr_format=3, attributes={"hrvol": {**said, "begun": True}})
    except ContainsGroupError:
        root = zarr.open_group(store, mode="r+", zarr_format=3)
    ensure_group(root, "labels", {"ome": {"version": ome.VERSION, "labels": [name]}})
    about_labels = {"image-label": ome.write_image_label(classes)}
    _create_image(root, f"labels/{name}", like, axes, first, block_shape, dtype, about_labels)
    if uncertainty:
        _create_image(root, UNCERTAINTY, like, axes, first, block_shape, "uint8", {})
    if probabilities:
        by_class = Level("0", (1.0, *first.scale), (0.0, *first.translation))
        about = {"omero": ome.write_omero(classes)}
        count = len(classes)
        _create_image(root, PROBABILITIES, like, "c" + axes, by_class, block_shape, "uint8", about, count)
    if "ome" not in root.attrs:
        entry = _root_entry(name, axes, like.unit, (first,), classes)
        root.update_attributes({"ome": entry, "hrvol": said})
    return LabelStore(location, name)


def open_label_store(path: str | Path | Location, name: str = DEFAULT_LABELS) -> LabelStore:
    """Open a label output to go on writing to it.

    Raises
    ------
    InputError
        There is nothing, or something that :func:`create_labels` did not write.
    """
    store = LabelStore(Location.of(path), name)
    try:
        known = "block_shape" in store.attributes and store.dtype.kind == "u"
    except (FileNotFoundError, KeyError, ValueError):
        known = False
    if not known:
        raise InputError(f"{path}: found no labels {name!r} that hrvol wrote")
    return store


def _create_image(
    root: zarr.Group,
    path: str,
    like: Volume,
    axes: str,
    level: Level,
    block: tuple[int, int, int],
    dtype: str,
    about: Mapping[str, Any],
    channels: int = 0,
) -> None:
    """Create a multiscale group with its finest level, unless they are there."""
    entry = ome.write_multiscale(Path(path).name, axes, like.unit, (level,))
    said = {"version": ome.VERSION, "multiscales": [entry], **about}
    group = ensure_group(root, path, {"ome": said})
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
    """Return the root's metadata: an image whose datasets are the labels' arrays."""
    there = [Level(f"labels/{name}/{level.path}", level.scale, level.translation) for level in levels]
    entry = ome.write_multiscale(name, axes, unit, there)
    # Without a window viewers show classes 1, 2, 3 of 255, which is black.
    window = ome.write_grey("classes", max((c.value for c in classes), default=1))
    return {"version": ome.VERSION, "multiscales": [entry], "omero": window}
