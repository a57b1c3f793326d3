"""Digests of what steps read: strokes, truths, labels, recipes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.recipe.recipe import Recipe
from hrvol.run.ledger import read_state
from hrvol.run.provenance import read_attributes, run_grid
from hrvol.series.records import SETTLED, Record
from hrvol.training.strokes import SCAN, open_pairs, stroke_blocks
from hrvol.training.tuning.tune import AUTO
from hrvol.volume.grid.tiling import grid, whole
from hrvol.volume.input_state import InputState, input_state
from hrvol.volume.storage.location import Location, located
from hrvol.volume.volume import Volume, class_info, open_labels, open_volume

Piece = tuple[tuple[int, int, int], NDArray[Any]]
"""First voxel (z, y, x) of a box of labels, and its values."""


@dataclass(frozen=True)
class Known:
    """The record of an earlier run, with the digests that it has.

    Attributes
    ----------
    record
        The record, or ``None``.
    """

    record: Record | None

    def digest(self, name: str, state: str, newest: float) -> str | None:
        """Return a recorded digest if the files are in the recorded state, and were so for a while.

        Parameters
        ----------
        name
            Of the input.
        state
            State of its files now.
        newest
            Time of the last change of a file, in seconds since the epoch.
        """
        record = self.record
        if record is None or not state or record.at < newest + SETTLED:
            return None
        if record.states.get(name) != state:
            return None
        inputs = record.request.get("inputs")
        value = inputs.get(name) if isinstance(inputs, Mapping) else None
        return value if isinstance(value, str) else None


@dataclass(frozen=True)
class Inputs:
    """Digests of inputs by name, and the states of the files that they are from."""

    digests: dict[str, str]
    states: dict[str, str]


def training_inputs(
    pairs: Sequence[tuple[Any, Any]], storage_options: Mapping[str, Any], known: Known
) -> Inputs:
    """Return the digests of volumes and their strokes.

    A volume is identified as runs do, by its shape, type and three boxes; strokes by all that is drawn.
    """
    digests, states = {}, {}
    opened = open_pairs(pairs, storage_options)
    for number, (pair, (_, path)) in enumerate(zip(opened, pairs, strict=True), start=1):
        name = f"strokes {number}"
        digests[f"volume {number}"] = pair.volume.identity()["sha256"]
        blocks = ((block.origin, block.labels) for block in stroke_blocks([pair]))
        digests[name], states[name] = _digest(pair.strokes, name, blocks, known)
        classes = class_info(located(path, storage_options)) or ()
        if classes:
            digests[f"classes {number}"] = _sha256(repr([asdict(info) for info in classes]))
    return Inputs(digests, states)


def truth_input(path: Any, storage_options: Mapping[str, Any], known: Known) -> Inputs:
    """Return the digest of a ground truth: of all its voxels."""
    truth = open_labels(located(path, storage_options))
    digest, state = _digest(truth, "truth", _pieces(truth), known)
    return Inputs({"truth": digest}, {"truth": state})


def labels_digest(path: str, storage_options: Mapping[str, Any]) -> str:
    """Return the digest of an output of a run, from the checksums in its ledger and its classes."""
    location = Location.of(path, storage_options)
    grid_of_blocks, _ = run_grid(read_attributes(location), location)
    state = read_state(location, len(grid_of_blocks))
    classes = class_info(location) or ()
    return _sha256(state.digest() + repr([asdict(info) for info in classes]))


def volume_digest(path: Any, storage_options: Mapping[str, Any]) -> str:
    """Return the digest by which runs identify a volume."""
    return str(open_volume(located(path, storage_options)).identity()["sha256"])


def recipe_values(recipe: str | None) -> dict[str, Any] | str:
    """Return all settings of a recipe, or ``auto``."""
    return AUTO if recipe == AUTO else Recipe.load(recipe).to_dict()


def _digest(labels: Volume, name: str, pieces: Iterable[Piece], known: Known) -> tuple[str, str]:
    """Return the digest of labels and the state of their files; pieces are read only if it is not known."""
    found = input_state(labels, whole(labels.shape))
    number = found.digest() if _all_files_known(labels, found) else 0
    state = f"{number:016x}" if number else ""
    newest = max((when for _, when, _ in found.files.values()), default=0) / 1e9
    recorded = known.digest(name, state, newest)
    if recorded is not None:
        return recorded, state
    digest = hashlib.sha256(repr(labels.shape).encode())
    for corner, values in pieces:
        if values.any():
            digest.update(repr(corner).encode())
            digest.update(np.ascontiguousarray(values, "<u4").data)
    return digest.hexdigest(), state


def _all_files_known(labels: Volume, found: InputState) -> bool:
    """Whether the state is that of all files: of a folder in some formats it is that of its metadata."""
    if found.by_index or getattr(labels.array, "files", None):  # of chunks, of planes
        return True
    path = None if labels.origin is None else Location.of(labels.origin[0]).path
    return path is not None and path.is_file()


def _pieces(labels: Volume) -> Iterator[Piece]:
    for piece in grid(labels.shape, SCAN):
        z, y, x = (span.start for span in piece.core)
        yield (z, y, x), labels.read(piece.core)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
