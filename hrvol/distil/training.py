"""Train a student to the end: progress, checkpoints, and the best of its states on kept-back tiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hrvol.device import cpus
from hrvol.distil.cache import DistilCache
from hrvol.distil.examples import LabelledTile, Source, class_weights
from hrvol.distil.fit import Fit, FitSettings
from hrvol.distil.label import stopped
from hrvol.engine.stop import Stop
from hrvol.progress import ProgressCallback
from hrvol.segment.student.lattice import Lattice
from hrvol.segment.student.network import folded, network_arrays
from hrvol.segment.student.runner import StudentRunner
from hrvol.segment.student.spec import StudentSpec
from hrvol.segment.student.student import StudentClassifier
from hrvol.volume.intensity import Window, to_unit
from hrvol.volume.volume import Volume

TRAINING = 3
"""Version of the training: raised when the same tiles and settings come to give another student."""

LOOKS = 4
"""How often a student is compared with its teacher on kept-back tiles during training."""

LOOKED_AT = 8
"""Most tiles of such a comparison: a student of volumes predicts a thick slab for each of them."""

CHECKPOINT = 15.0
"""Seconds between two checkpoints."""

THREADS = 8
"""Most threads of a training; ``OMP_NUM_THREADS`` sets fewer. More are no faster with crops of this size."""

_SHARES = tuple((number + 1) / LOOKS for number in range(LOOKS))


@contextmanager
def few_threads() -> Iterator[None]:
    """Limit torch to :data:`THREADS` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, THREADS, cpus()))  # torch does not know quotas of containers
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, eq=False)
class KeptBack:
    """Tiles that are not trained on, with what a student predicts them from.

    Attributes
    ----------
    volume, window
        The volume, and the grey values that become 0 and 1.
    tiles
        The tiles.
    """

    volume: Volume
    window: Window
    tiles: tuple[LabelledTile, ...]

    def some(self, count: int) -> KeptBack:
        """Return at most so many of the tiles, spread over all of them."""
        count = min(count, len(self.tiles))
        numbers = np.linspace(0, len(self.tiles) - 1, count).round().astype(int)
        return replace(self, tiles=tuple(self.tiles[number] for number in numbers))

    def predict(self, student: StudentClassifier, device: str = "cpu") -> list[NDArray[np.float32]]:
        """Return a student's probabilities ``(K, rows, columns)`` of the tiles' cores."""
        runner = StudentRunner(student, device)
        return [self._predict(runner, tile) for tile in self.tiles]

    def _predict(self, runner: StudentRunner, tile: LabelledTile) -> NDArray[np.float32]:
        core = tile.where.core
        spec = runner.spec
        # One cell that holds the core, aligned as those of a lattice are.
        starts = [span.start // step * step for span, step in zip(core, spec.alignment, strict=True)]
        sides = [
            -(-(span.stop - start) // step) * step
            for span, start, step in zip(core, starts, spec.alignment, strict=True)
        ]
        lattice = Lattice(self.volume.shape, (sides[0], sides[1], sides[2]), spec.halo)
        z, y, x = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
        window = lattice.window((z, y, x))
        reads = lattice.reads_of(window)
        raw = self.volume.read(reads)
        origin = (reads[0].start, reads[1].start, reads[2].start)
        grey = to_unit(lattice.cut(window, raw, origin), self.window, source=self.volume.source)
        proba = np.asarray(runner.probabilities(grey))
        inside = tuple(
            slice(span.start - start, span.stop - start) for span, start in zip(core, starts, strict=True)
        )
        values: NDArray[np.float32] = proba[(slice(None), *inside)].squeeze(tile.where.axis + 1)
        return values


@dataclass
class Trainer:
    """Trains students of several architectures on the same tiles.

    Attributes
    ----------
    values
        Class values in order.
    kept_back
        Tiles to compare on.
    cache, key
        Where unfinished trainings are kept, and what identifies the tiles.
    stop, progress
        As in :func:`hrvol.distil_model`.
    device
        Name of torch's device.
    """

    values: tuple[int, ...]
    kept_back: KeptBack
    cache: DistilCache
    key: Mapping[str, Any]
    stop: Stop
    progress: ProgressCallback | None = None
    device: str = "cpu"

    def train(
        self, name: str, spec: StudentSpec, source: Callable[[], Source], settings: FitSettings
    ) -> StudentClassifier:
        """Train one student, unless one was trained with the same settings on the same tiles.

        Its temperature is not fitted yet.

        Parameters
        ----------
        name
            Of its size, for messages.
        spec
            Its architecture.
        source
            Returns what to train on; called only if there is something to train.
        settings
            How it is trained.

        Raises
        ------
        StoppedError
            A stop was requested; the next call resumes the training.
        ModelError
            The training diverged.
        """
        key = {
            **self.key,
            "student": name,  # not all are trained on the same crops
            "spec": spec.to_dict(),
            "settings": asdict(settings),
            "threads": torch.get_num_threads(),
            "training": TRAINING,
        }
        trained = {**key, "trained": True}
        fit = Fit(spec, len(self.values), settings, self.device)
        if (arrays := self._finished(fit, trained)) is not None:
            return StudentClassifier(spec, self.values, arrays)
        fit, best = self._resume(fit, key)
        looks = sorted({max(1, round(share * settings.steps)) for share in _SHARES})
        examples = source()
        weights = class_weights(examples.shares, settings.rare) if settings.rare else None
        saved = time.monotonic()
        while fit.step < settings.steps:
            fit.run_step(examples, weights)
            if fit.step in looks:
                best = self._look(fit, best, weights)
            if self.progress is not None:
                self.progress(f"train {name}", fit.step * fit.voxels, settings.steps * fit.voxels)
            late = time.monotonic() - saved > CHECKPOINT
            if self.stop.requested or late:
                self.cache.write_state(key, fit.state() | best.tensors())
                saved = time.monotonic()
            if self.stop.requested and fit.step < settings.steps:
                raise stopped(self.stop, f"while {name} was trained")
        self.cache.write_state(trained, best.tensors())
        self.cache.forget_state(key)
        return StudentClassifier(spec, self.values, best.arrays)

    def _look(self, fit: Fit, best: _Best, class_weights: NDArray[np.float32] | None) -> _Best:
        """Compare the averaged weights on kept-back tiles; return these or the best before.

        By the loss of the training: where that gives rare classes more weight, the plain cross-entropy
        with the teacher grows with each step, and the first state would be the best.
        """
        arrays = network_arrays(folded(fit.average))
        student = StudentClassifier(fit.spec, self.values, arrays)
        some = self.kept_back.some(LOOKED_AT)
        predicted = some.predict(student, self.device)
        loss = fit.loss_on([tile.probabilities for tile in some.tiles], predicted, class_weights)
        return _Best(arrays, loss) if loss <= best.loss else best

    def _finished(self, fit: Fit, key: Mapping[str, Any]) -> dict[str, NDArray[np.float32]] | None:
        """Return the arrays of a student that an earlier call trained, or ``None``."""
        tensors = self.cache.read_state(key)
        if tensors is None:
            return None
        expected = network_arrays(folded(fit.average))
        arrays = _best_arrays(tensors)
        if {n: (v.shape, v.dtype) for n, v in arrays.items()} != {
            n: (v.shape, v.dtype) for n, v in expected.items()
        }:
            return None  # damaged: train again
        return arrays

    def _resume(self, fit: Fit, key: Mapping[str, Any]) -> tuple[Fit, _Best]:
        """Return the training as it was left, or as it begins if nothing whole was kept."""
        tensors = self.cache.read_state(key)
        if tensors is None:
            return fit, _Best({}, float("inf"))
        try:
            fit.restore(tensors)
        except (KeyError, RuntimeError, ValueError):  # damaged: begin again
            again = Fit(fit.spec, len(self.values), fit.settings, self.device)
            return again, _Best({}, float("inf"))
        return fit, _Best(_best_arrays(tensors), float(tensors["loss"]))


def _best_arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[np.float32]]:
    prefix = "best."
    return {n.removeprefix(prefix): v.numpy() for n, v in tensors.items() if n.startswith(prefix)}


@dataclass(frozen=True, eq=False)
class _Best:
    """The weights that agreed best so far, and their loss."""

    arrays: dict[str, NDArray[np.float32]]
    loss: float

    def tensors(self) -> dict[str, torch.Tensor]:
        tensors = {f"best.{name}": torch.from_numpy(values.copy("C")) for name, values in self.arrays.items()}
        return tensors | {"loss": torch.tensor(self.loss, dtype=torch.float64)}
