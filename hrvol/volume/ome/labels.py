"""Write labels and their pyramid as OME-Zarr 0.5.

A label output is one OME-Zarr image group::

    OUT.ome.zarr/          multiscales -> labels/hrvol/0, 1, ...; attributes["hrvol"]
      labels/hrvol/0       uint8 (z, y, x), one shard per block, 0 = not processed (objects: uint32 or uint64)
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
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import zarr
from pydantic import Field
from zarr.storage import MemoryStore

from hrvol.arrays import Shape3
from hrvol.classes import ClassInfo
from hrvol.errors import InputError, first_line
from hrvol.reading.schema import Schema, validated
from hrvol.volume.grid.tiling import Box
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.documents import (
    Documents,
    as_found,
    create_documents,
    documents_in,
    fits,
    record_documents,
    restore_documents,
)
from hrvol.volume.ome.label_documents import (
    LABELS_ONLY,
    PROBABILITIES,
    UNCERTAINTY,
    LabelOutputs,
    declare_levels,
    image_paths,
    label_documents,
    plan_images,
)
from hrvol.volume.ome.metadata import DEFAULT_LABELS
from hrvol.volume.ome.output import clear_output, write_box
from hrvol.volume.ome.pyramid import ImagePlan, make_level, make_part, write_levels
from hrvol.volume.storage.location import MARK, Location, combined

if TYPE_CHECKING:
    from hrvol.volume.volume import Volume

_FILE = "c/0"
"""Key of the only chunk of an array of bytes, which is stored as it is."""

_FILE_BYTES = 2**31

_Side = Annotated[int, Field(ge=1, lt=2**31)]


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
        """Provenance of the output (``attributes["hrvol"]``), read from the store at each access.

        Raises
        ------
        InputError
            It is missing or damaged.
        """
        attributes = (self.location.attributes() or {}).get("hrvol")
        if not isinstance(attributes, dict):
            raise InputError(f"{self.location}: found no labels that hrvol wrote")
        return attributes

    @property
    def complete(self) -> bool:
        """Whether all blocks and coarser levels are done."""
        return self.attributes.get("complete") is True

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Classes of the labels."""
        group = self._root[f"labels/{self.name}"]
        return ome.read_classes(group.attrs.asdict(), str(self.location)) or ()

    @cached_property
    def block_shape(self) -> Shape3:
        """Voxels of a block, (z, y, x)."""
        return validated(_Blocks, self.attributes, str(self.location)).block_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the labels: unsigned integers."""
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
        return [combined(sums) for sums in self.object_checksums(indices)]

    def object_checksums(self, indices: Sequence[Shape3]) -> list[tuple[str, ...]]:
        """Return a checksum of each object of each block; ``-`` for one that does not exist."""
        return self.location.checksums_of_groups([self.keys(index) for index in indices])

    def erase(self, index: Shape3, which: Sequence[bool] | None = None) -> None:
        """Delete a block, or some of its objects: their voxels are 0 again."""
        keys = self.keys(index)
        self.location.erase(keys if which is None else compress(keys, which))

    def write_file(self, name: str, data: bytes) -> None:
        """Store a file in the output as an array of bytes, unless it is there."""
        store = MemoryStore()
        shape = (len(data),)
        zarr.create_array(
            store, shape=shape, chunks=shape, dtype="uint8", compressors=None, fill_value=0, zarr_format=3
        )
        document = documents_in(store)[""]
        if not fits(self.location.read_json(f"{name}/{MARK}"), document):
            self.location.write_json(f"{name}/{MARK}", document)
        if self.read_file(name) != data:
            self.location.write_bytes(f"{name}/{_FILE}", data)

    def read_file(self, name: str) -> bytes | None:
        """Return a file stored in the output; ``None`` without one, or if it is too large for one."""
        (size,) = self.location.sizes([f"{name}/{_FILE}"])
        if size is None or size > _FILE_BYTES:
            return None
        return self.location.read_bytes(f"{name}/{_FILE}")

    @cached_property
    def images(self) -> tuple[ImagePlan, ...]:
        """The images of the output, with the coarser levels to compute."""
        return plan_images(self._root, self.name, self.block_shape, str(self.location))

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
        declare_levels(root, self.name, self.images, self.classes)
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
        nodes = {key: self._root.get(f"{path}/0") for key, path in image_paths(self.name).items()}
        return {key: array for key, array in nodes.items() if isinstance(array, zarr.Array)}


class _Blocks(Schema):
    """Shape of the blocks of an output."""

    block_shape: tuple[_Side, _Side, _Side]


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
    written: Documents | None = None,
) -> LabelStore:
    """Create an empty label output.

    Parameters
    ----------
    path
        Path or URL of the OME-Zarr group to create.
    like
        Volume whose shape, voxel size, position and unit the labels share.
    classes
        Class names and colours; none of objects.
    block_shape
        Shape (z, y, x) of the blocks to be written, each by one writer.
    attributes
        Provenance, ready for JSON; stored as ``attributes["hrvol"]``, with ``complete: false`` until
        :meth:`LabelStore.finish`.
    outputs
        Name and type of the labels, and whether to create arrays of probabilities and uncertainty.
    overwrite
        Whether to replace an earlier output of hrvol.
    resume
        Whether to keep an output that was created with the same arguments, and restore its missing or changed
        metadata. Several processes may do so at once.
    written
        Record of the output's metadata, if it exists (:func:`recorded_documents`).

    Raises
    ------
    OutputExistsError
        The path is occupied: by anything without ``overwrite``, by anything but an output of hrvol with it.
    InputError
        The voxel size is not finite.
    """
    location = Location.of(path)
    documents = label_documents(
        like, classes=classes, block_shape=block_shape, attributes=attributes, outputs=outputs
    )
    if resume and location.occupied():
        kept = documents.kept_by(written)
        if kept is not written:
            kept = as_found(location, documents)
        restore_documents(location, kept)
        if kept is not written:
            record_documents(location, kept)
    else:
        if not resume:  # else another part may have created it meanwhile, with the same documents
            clear_output(location, overwrite)
        create_documents(location, documents)
    return LabelStore(location, outputs.name)


def open_label_store(path: str | Path | Location, name: str = DEFAULT_LABELS) -> LabelStore:
    """Open a label output for writing.

    Raises
    ------
    InputError
        There is no output that :func:`create_labels` wrote.
    """
    store = LabelStore(Location.of(path), name)
    try:
        valid = bool(store.block_shape) and store.dtype.kind == "u"
    except InputError:
        raise InputError(f"{path}: found no labels {name!r} that hrvol wrote") from None
    except (FileNotFoundError, KeyError):
        valid = False
    except (MemoryError, OSError):
        raise
    except Exception as error:  # Zarr raises many types for damaged metadata
        raise InputError(f"{path}: found damaged metadata of labels {name!r}: {first_line(error)}") from None
    if not valid:
        raise InputError(f"{path}: found no labels {name!r} that hrvol wrote")
    return store
