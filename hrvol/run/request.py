"""What was asked for, made explicit: a region, a model's file, class names, an output's provenance."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import ModelError, UsageError
from hrvol.recipe import CrfSpec
from hrvol.run.block import keep_model
from hrvol.segment.cas import ClusterClassifier
from hrvol.segment.model import Model, current_versions, save_model
from hrvol.volume.location import Location
from hrvol.volume.store import Volume, class_info
from hrvol.volume.tiling import Box, whole

Region = Sequence[slice]
"""``(z, y, x)`` or, of a single plane, ``(y, x)`` slices in voxels; an open end is ``None``."""


def region_box(roi: Region | None, volume: Volume) -> Box:
    """Return a region as a box with explicit bounds; :class:`UsageError` where it is not inside."""
    if roi is None:
        return whole(volume.shape)
    spans = tuple(roi)
    if len(spans) == 2 and volume.shape[0] == 1:
        spans = (slice(None), *spans)
    if len(spans) != 3:
        raise UsageError(f"{volume.source}: region has {len(spans)} axes, expected 3 (z, y, x)")
    box = []
    for axis, span, length in zip("zyx", spans, volume.shape, strict=True):
        start = 0 if span.start is None else span.start
        stop = length if span.stop is None else span.stop
        if span.step not in (None, 1) or not 0 <= start < stop <= length:
            raise UsageError(
                f"{volume.source}: region {start}:{stop} along {axis}, expected a part of 0:{length}"
            )
        box.append(slice(start, stop))
    return box[0], box[1], box[2]


def keep_input(volume: Volume, out: str | Path | Location) -> None:
    """Refuse an output that would replace the volume it is made from, whatever the user wants replaced."""
    if volume.origin is None:
        return
    here, there = volume.origin[0].path, Location.of(out).path
    if here is not None and there is not None:
        here, there = here.resolve(), there.resolve()
    source, target = (
        PurePosixPath(place or str(name).rstrip("/")) for place, name in ((here, volume.source), (there, out))
    )
    if target == source or target in source.parents or source in target.parents:
        raise UsageError(
            f"{out}: is (or holds, or is inside) the input {volume.source}; choose another place"
        )


def model_file(model: str | Path | Model, stack: ExitStack) -> tuple[Path, str]:
    """Return a model's file and the file's SHA-256, written for the time of ``stack`` if it is none yet."""
    if not isinstance(model, Model):
        path = Path(model)
        if not path.is_file():
            raise ModelError(f"{path}: no such file; expected a model made by hrvol train")
        return path, _sha256(path)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hrvol-"))
    file = Path(folder) / "model.hrvol"
    save_model(model, file)
    digest = _sha256(file)
    keep_model(digest, model)
    return file, digest


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def name_classes(
    values: Sequence[int], names: Sequence[str] | None, strokes: Sequence[Any]
) -> tuple[ClassInfo, ...]:
    """Return the classes to train: named by the user, else by the strokes' metadata, else numbered."""
    infos = default_classes(values, names)
    if names is not None:
        return infos
    known = {info.value: info for source in reversed(strokes) for info in class_info(source) or ()}
    return tuple(known.get(info.value, info) for info in infos)


def provenance(
    model: Model, sha256: str, volume: Volume, region: Box, crf: CrfSpec | None = None
) -> dict[str, Any]:
    """Return what an output must say about how it was made, as JSON values."""
    said: dict[str, Any] = {
        "recipe": model.recipe.with_(crf=crf).to_dict(),
        "versions": current_versions(),
        "weights_sha256": model.weights_sha256,
        "model": {"source": model.source, "sha256": sha256, "versions": dict(model.versions)},
        "window": list(model.window),
        "input": volume.identity(),
        "region": [[span.start, span.stop] for span in region],
    }
    if isinstance(model.classifier, ClusterClassifier):
        said["clusters"] = describe_clusters(model.classifier)
    return said


def describe_clusters(clusters: ClusterClassifier) -> dict[str, Any]:
    """Return how classes were told apart without strokes, and which stand out, as JSON values."""
    tally, below = clusters.class_tally, clusters.semantic_distance
    shares = tally.pixels / tally.pixels.sum()
    return {
        "count": len(clusters.of_cluster),
        "semantic_distance": None if np.isnan(below) else below,
        "foreground": list(clusters.foreground),
        "share": {str(v): float(s) for v, s in zip(clusters.classes, shares, strict=True)},
        "attention_density": {
            str(v): None if np.isnan(d) else float(d)
            for v, d in zip(clusters.classes, tally.density, strict=True)
        },
    }


def text(path: str | Path | None) -> str | None:
    """Return a path as text, ``None`` as it is."""
    return None if path is None else str(path)
