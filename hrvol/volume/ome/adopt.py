"""Make the labels of a finished output labels of an image: moved for Zarr 3, copied to Zarr 2.

Every step can be repeated, so an interrupted adoption is continued by the next one. The labels appear in the
image by one renaming, whole.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr

from hrvol.errors import InputError
from hrvol.volume.grid.tiling import grid
from hrvol.volume.ome import metadata as ome
from hrvol.volume.ome.image_labels import LABELS, ImageGroup
from hrvol.volume.ome.label_documents import PROBABILITIES, UNCERTAINTY, image_paths
from hrvol.volume.ome.output import ensure_array
from hrvol.volume.storage.location import MARK, Location

COPY = "copy"
"""Folder inside an output in which its copy in Zarr 2 is made."""

_COPIED = "copied"
"""Key with the number of boxes copied."""


def adopt(
    output: Path,
    image: ImageGroup,
    name: str,
    provenance: Mapping[str, Any],
    progress: Callable[[int, int], bool] | None = None,
) -> bool:
    """Make the labels of an output labels of an image, and delete the rest of the output.

    Parameters
    ----------
    output
        A complete output, beside the place of the labels.
    image
        The image; its labels of this name do not exist.
    name
        Of the labels.
    provenance
        Attributes that the labels get, as ``attributes["hrvol"]``.
    progress
        Called with the number of voxels copied and of all; returns whether to go on.

    Returns
    -------
    bool
        Whether it is done; ``False`` if ``progress`` stopped it.
    """
    target = image.path / LABELS / name
    if not target.exists():
        if image.zarr_format == 3:
            made = _moved(output, name, provenance)
        else:
            copied = _copied(output, name, provenance, progress)
            if copied is None:
                return False
            made = copied
        os.rename(made, target)
    image.list_labels(name)
    shutil.rmtree(output, ignore_errors=True)
    return True


def _moved(output: Path, name: str, provenance: Mapping[str, Any]) -> Path:
    """Gather all images of an output in the group of its labels."""
    group = output / LABELS / name
    for other in (PROBABILITIES, UNCERTAINTY):
        if (output / other).exists():
            os.rename(output / other, group / other)
    location = Location.of(group)
    document = location.read_json(MARK)
    if document is None:
        raise InputError(f"{group}: found damaged metadata, expected those of labels")
    attributes = {**document.get("attributes", {}), "hrvol": dict(provenance)}
    location.write_json(MARK, {**document, "attributes": attributes})
    return group


def _copied(
    output: Path,
    name: str,
    provenance: Mapping[str, Any],
    progress: Callable[[int, int], bool] | None,
) -> Path | None:
    """Copy all images of an output to Zarr 2 with the metadata of OME-Zarr 0.4; ``None`` if stopped."""
    source = Location.of(output).open_group()
    location = Location.of(output / COPY)
    root = zarr.open_group(location.store(read_only=False), mode="a", zarr_format=2)
    arrays: list[tuple[Any, Any]] = []
    for key, path in image_paths(name).items():
        group = source.get(path)
        if not isinstance(group, zarr.Group):
            continue
        attributes = _older(group.attrs.asdict(), key or name)
        inside = root.require_group(key) if key else root
        inside.attrs.update({**attributes, **({} if key else {"hrvol": dict(provenance)})})
        levels = attributes["multiscales"][0]["datasets"]
        arrays += [
            (group[level["path"]], _like(inside, level["path"], group[level["path"]])) for level in levels
        ]
    return output / COPY if _copy_arrays(location, arrays, progress) else None


def _like(group: zarr.Group, path: str, array: Any) -> zarr.Array[Any]:
    """Create an array of Zarr 2 like one of Zarr 3, unless it exists."""
    return ensure_array(
        group,
        path,
        shape=array.shape,
        dtype=array.dtype,
        chunks=array.chunks,
        shards=None,
        fill_value=0,
        compressors=numcodecs.Blosc(cname="zstd", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE),
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )


def _copy_arrays(
    location: Location, arrays: list[tuple[Any, Any]], progress: Callable[[int, int], bool] | None
) -> bool:
    """Copy arrays box by box, a shard each; return whether all is copied."""
    boxes = [
        (source, target, (slice(None),) * (source.ndim - len(box)) + box)
        for source, target in arrays
        for box in _shards(source)
    ]
    total = sum(math.prod(source.shape) for source, _ in arrays)
    record = location.read_json(_COPIED) or {}
    before, done = int(record.get("boxes", 0)), 0
    for number, (source, target, box) in enumerate(boxes):
        if number >= before:
            target[box] = np.asarray(source[box])
            if number + 1 < len(boxes):
                location.write_json(_COPIED, {"boxes": number + 1})
        done += math.prod(len(range(*span.indices(n))) for span, n in zip(box, source.shape, strict=True))
        if progress is not None and not progress(done, total):
            return False
    location.erase([_COPIED])
    return True


def _shards(array: Any) -> list[tuple[slice, ...]]:
    """Return the boxes of an array's shards, along its spatial axes."""
    lead = int("c" in (array.metadata.dimension_names or ()))
    shape = array.shape[lead:]
    flat = 3 - len(shape)
    sides = (1,) * flat + tuple((array.shards or array.chunks)[lead:])
    z, y, x = (1,) * flat + tuple(shape)
    return [block.core[flat:] for block in grid((z, y, x), (sides[0], sides[1], sides[2]))]


def _older(attributes: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return metadata of OME-Zarr 0.5 as those of 0.4."""
    inner = json.loads(json.dumps(ome.ome_attributes(attributes)))
    older: dict[str, Any] = {
        "multiscales": [{"version": "0.4", **entry, "name": name} for entry in inner["multiscales"]]
    }
    if "image-label" in inner:
        older["image-label"] = {"version": "0.4", **inner["image-label"]}
    if "omero" in inner:
        older["omero"] = inner["omero"]
    return older
