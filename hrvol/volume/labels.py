"""Writing labels, with their pyramid, as OME-Zarr 0.5.

A label output is one OME-Zarr image group::

    OUT.ome.zarr/          multiscales -> labels/hrvol/0, 1, ...; attributes["hrvol"]
      labels/hrvol/0       uint8 (z, y, x), one shard per block, 0 = not processed
      labels/hrvol/1 ...   coarser levels, made by finish()
      probabilities/0 ...  uint8 (c, z, y, x), optional
      uncertainty/0 ...    uint8 (z, y, x), optional

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

from hrvol.classes import ClassInfo
from hrvol.errors import InputError
from hrvol.volume import ome
from hrvol.volume.ome import DEFAULT_LABELS, Level
from hrvol.volume.output import CHANNELS_PER_SHARD, make_way, remove, write_box
from hrvol.volume.pyramid import Reduction, build_levels
from hrvol.volume.tiling import Box, shard_and_chunk

if TYPE_CHECKING:
    from hrvol.volume.store import Volume

PROBABILITIES = "probabilities"
UNCERTAINTY = "uncertainty"


@dataclass(frozen=True)
class LabelStore:
    """A label output that is being written; cheap to pickle, opens where it arrives.

    Any number of processes may write at once as long as no two write into one block.

    Attributes
    ----------
    path
        Of the OME-Zarr group.
    name
        Of the labels in it.
    """

    path: str
    name: str = DEFAULT_LABELS

    @property
    def attributes(self) -> dict[str, Any]:
        """What the output says about how it was made (``attributes["hrvol"]``), as it is on disk now."""
        said: Any = self._open("r").attrs.asdict()["hrvol"]
        return dict(said)

    @property
    def complete(self) -> bool:
        """Whether :meth:`finish` was reached."""
        return bool(self.attributes.get("complete"))

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Classes of the labels."""
        group = self._group[f"labels/{self.name}"]
        return ome.read_classes(group.attrs.asdict(), self.path) or ()

    @property
    def block_shape(self) -> tuple[int, int, int]:
        """Voxels of a block, (z, y, x)."""
        z, y, x = self.attributes["block_shape"]
        return z, y, x

    @property
    def has_probabilities(self) -> bool:
        """Whether probabilities are stored beside the labels."""
        return PROBABILITIES in self._group

    @property
    def has_uncertainty(self) -> bool:
        """Whether uncertainty is stored beside the labels."""
        return UNCERTAINTY in self._group

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the labels: uint8, or uint16 where a class value is above 255."""
        return np.dtype(self._arrays[""].dtype)

    def discard(self) -> None:
        """Delete the output, for instance because nothing came of it."""
        remove(self.path)

    def update(self, changes: Mapping[str, Any]) -> None:
        """Add to or change ``attributes["hrvol"]``; one process at a time."""
        root = self._open("r+")
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
                    raise ValueError(f"{self.path}: found no {name}, expected them to write to")
                write_box(array, box, values, self.path)

    def finish(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Build the coarser levels and mark the output as complete.

        May be called again, also after it was interrupted.

        Parameters
        ----------
        progress
            Called with shards done and shards in all of each level.
        """
        root = self._open("r+")
        block = self.block_shape
        kinds: dict[str, Reduction] = {
            f"labels/{self.name}": "mode",
            PROBABILITIES: "mean",
            UNCERTAINTY: "mean",
        }
        for path, reduction in kinds.items():
            group = root.get(path)
            if not isinstance(group, zarr.Group):
                continue
            said = group.attrs.asdict()
            multiscale = ome.read_multiscale(said, self.path)
            if multiscale is None:
                raise InputError(f"{self.path}: found no 'multiscales' in {path}, expected what hrvol wrote")
            axes, unit = "".join(multiscale.axes), multiscale.units[-1]
            levels = build_levels(group, axes, multiscale.levels[0], block, reduction, progress)
            entry = ome.write_multiscale(Path(path).name, axes, unit, levels, reduction)
            group.attrs["ome"] = {**ome.ome_attributes(said), "multiscales": [entry]}
            if reduction == "mode":
                root.attrs["ome"] = _root_entry(self.name, axes, unit, levels)
        self.update({"complete": True})

    def __reduce__(self) -> tuple[Any, ...]:
        return LabelStore, (self.path, self.name)

    @cached_property
    def _group(self) -> zarr.Group:
        return self._open("r")

    @cached_property
    def _arrays(self) -> dict[str, zarr.Array[Any]]:
        root = self._open("r+")
        places = {"": f"labels/{self.name}", PROBABILITIES: PROBABILITIES, UNCERTAINTY: UNCERTAINTY}
        found = {name: root.get(f"{place}/0") for name, place in places.items()}
        return {name: array for name, array in found.items() if isinstance(array, zarr.Array)}

    def _open(self, mode: Any) -> zarr.Group:
        return zarr.open_group(self.path, mode=mode, zarr_format=3)


def create_labels(
    path: str | Path,
    like: Volume,
    *,
    classes: Sequence[ClassInfo],
    block_shape: tuple[int, int, int],
    name: str = DEFAULT_LABELS,
    attributes: Mapping[str, Any],
    probabilities: bool = False,
    uncertainty: bool = False,
    overwrite: bool = False,
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
        Whether to delete a Zarr group that is in the way.

    Raises
    ------
    OutputExistsError
        Something is in the way: anything without ``overwrite``, anything but a Zarr group with it.
    """
    target = str(path)
    make_way(target, overwrite)
    axes = "zyx"[-like.ndim :]
    first = Level("0", like.voxel_size[-like.ndim :], like.translation[-like.ndim :])
    dtype = "uint8" if max((c.value for c in classes), default=0) <= 255 else "uint16"
    said = {**attributes, "block_shape": list(block_shape), "complete": False}
    root = zarr.create_group(
        target, zarr_format=3, attributes={"ome": _root_entry(name, axes, like.unit, (first,)), "hrvol": said}
    )
    root.create_group("labels", attributes={"ome": {"version": ome.VERSION, "labels": [name]}})
    about_labels = {"image-label": ome.write_image_label(classes)}
    _create_image(root, f"labels/{name}", like, axes, first, block_shape, dtype, about_labels)
    if uncertainty:
        _create_image(root, UNCERTAINTY, like, axes, first, block_shape, "uint8", {})
    if probabilities:
        by_class = Level("0", (1.0, *first.scale), (0.0, *first.translation))
        about = {"omero": ome.write_omero(classes)}
        count = len(classes)
        _create_image(root, PROBABILITIES, like, "c" + axes, by_class, block_shape, "uint8", about, count)
    return LabelStore(target, name)


def open_label_store(path: str | Path, name: str = DEFAULT_LABELS) -> LabelStore:
    """Open a label output to go on writing to it.

    Raises
    ------
    InputError
        There is nothing, or something that :func:`create_labels` did not write.
    """
    store = LabelStore(str(path), name)
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
    """Create a multiscale group with its finest level."""
    entry = ome.write_multiscale(Path(path).name, axes, like.unit, (level,))
    said = {"version": ome.VERSION, "multiscales": [entry], **about}
    group = root.create_group(path, attributes={"ome": said})
    spatial = len(axes) - bool(channels)
    shards, chunks = shard_and_chunk(like.shape[-spatial:], block[-spatial:])
    group.create_array(
        "0",
        shape=((channels,) if channels else ()) + like.shape[-spatial:],
        dtype=dtype,
        chunks=((1,) if channels else ()) + chunks,
        shards=((min(channels, CHANNELS_PER_SHARD),) if channels else ()) + shards,
        fill_value=0,
        dimension_names=list(axes),
    )


def _root_entry(name: str, axes: str, unit: str | None, levels: Sequence[Level]) -> dict[str, Any]:
    """Return the root's metadata: an image whose datasets are the labels' arrays."""
    there = [Level(f"labels/{name}/{level.path}", level.scale, level.translation) for level in levels]
    return {"version": ome.VERSION, "multiscales": [ome.write_multiscale(name, axes, unit, there)]}
