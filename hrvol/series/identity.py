"""Digests of what steps read: strokes, truths, labels, recipes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import class_names
from hrvol.recipe.recipe import Recipe
from hrvol.run.ledger import read_state
from hrvol.run.provenance import read_attributes, run_grid
from hrvol.series.records import SETTLED, Record
from hrvol.training.strokes import open_pairs
from hrvol.training.tuning.tune import AUTO
from hrvol.volume.grid.tiling import whole
from hrvol.volume.input_state import InputState, input_state
from hrvol.volume.storage.location import Location, located
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.strokes.strokes import Strokes
from hrvol.volume.volume import Volume, class_info, open_labels, open_volume

_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


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
    pairs: Sequence[tuple[Any, Any]],
    names: Sequence[str] | None,
    storage_options: Mapping[str, Any],
    known: Known,
) -> Inputs:
    """Return the digests of volumes and their strokes.

    A volume is identified as runs do, by its shape, type and three boxes; strokes by all that is drawn,
    whatever the form that they are stored in.
    """
    digests, states = {}, {}
    for number, pair in enumerate(open_pairs(pairs, storage_options, names), start=1):
        name = f"strokes {number}"
        digests[f"volume {number}"] = pair.volume.identity()["sha256"]
        digests[name], states[name] = _digest(pair.strokes, name, known)
        if pair.strokes.classes:
            digests[f"classes {number}"] = _sha256(repr([asdict(info) for info in pair.strokes.classes]))
    return Inputs(digests, states)


def truth_input(
    truth: Any, labels: str, names: Sequence[str] | None, storage_options: Mapping[str, Any], known: Known
) -> Inputs:
    """Return the digest of a ground truth: of all its voxels."""
    predicted = open_labels(located(labels, storage_options))
    opened = open_strokes(truth, predicted, names=names, storage_options=storage_options)
    digest, state = _digest(opened, "truth", known)
    return Inputs({"truth": digest}, {"truth": state})


def class_names_of(labels: str, storage_options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes of labels, for a truth that names its own; empty without any."""
    infos = class_info(located(labels, storage_options))
    return tuple(class_names(infos)) if infos else ()


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


def _digest(strokes: Strokes, name: str, known: Known) -> tuple[str, str]:
    """Return the digest of what is drawn and the state of its files; it is read only if that is not known."""
    array, state, newest = strokes.array, "", 0.0
    if array is not None and strokes.parts is None:  # of sparse arrays, few chunks are read anyway
        found = input_state(array, whole(array.shape))
        number = found.digest() if _all_files_known(array, found) else 0
        state = f"{number:016x}" if number else ""
        newest = max((when for _, when, _ in found.files.values()), default=0) / 1e9
    recorded = known.digest(name, state, newest)
    if recorded is not None:
        return recorded, state
    total = count = 0
    for (z, y, x), values in strokes.drawn():
        for number, plane in enumerate(values, start=z.start):
            places = np.flatnonzero(plane)
            rows, columns = np.divmod(places, plane.shape[1])
            rows += number * strokes.shape[1] + y.start
            keys = (rows * strokes.shape[2] + columns + x.start).astype(np.uint64) << np.uint64(16)
            keys ^= plane.reshape(-1)[places].astype(np.uint64)
            count, total = count + len(places), (total + _mixed(keys)) % 2**64
    return _sha256(f"{strokes.shape} {count} {total}"), state


def _mixed(keys: NDArray[np.uint64]) -> int:
    """Return the sum of hashes of voxels: the same for the same voxels, in whatever boxes they are read."""
    for shift, factor in _MIX:  # the finaliser of splitmix64
        keys ^= keys >> np.uint64(shift)
        keys *= np.uint64(factor)
    keys ^= keys >> np.uint64(31)
    return int(keys.sum(dtype=np.uint64))


def _all_files_known(labels: Volume, found: InputState) -> bool:
    """Whether the state is that of all files: of a folder in some formats it is that of its metadata."""
    if found.by_index or getattr(labels.array, "files", None):  # of chunks, of planes
        return True
    path = None if labels.origin is None else Location.of(labels.origin[0]).path
    return path is not None and path.is_file()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
