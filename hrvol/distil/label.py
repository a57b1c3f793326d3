"""Let a teacher label tiles on any engine, and keep what it predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import to_host
from hrvol.distil.cache import DistilCache
from hrvol.distil.planes import PlaneTile
from hrvol.engine.engine import open_engine
from hrvol.engine.spec import Engine, EngineSpec
from hrvol.engine.stop import Stop
from hrvol.engine.task import computing, configuration
from hrvol.errors import BlockError, StoppedError
from hrvol.features.featuriser import Featuriser
from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.specs import BATCH
from hrvol.run.classify import classify
from hrvol.run.job import ModelSource
from hrvol.run.options import PredictOptions
from hrvol.volume.intensity import Window
from hrvol.volume.volume import Volume


@dataclass(frozen=True)
class LabelJob:
    """What a worker needs to label any tile.

    Attributes
    ----------
    volume
        The volume.
    window
        Grey values that become 0 and 1.
    teacher
        The model and its weights.
    threads
        Threads of the classifier.
    """

    volume: Volume
    window: Window
    teacher: ModelSource
    threads: int = 1


def label_tile(tile: PlaneTile) -> NDArray[np.float16]:
    """Return the teacher's probabilities ``(K, rows, columns)`` float16 of a tile's core."""
    job: LabelJob = configuration()
    with computing():  # loaded once per process
        model, featuriser = job.teacher.load()
    image = tile.image(job.volume, job.window)
    with computing():
        assert isinstance(featuriser, Featuriser)
        options = PredictOptions(threads=job.threads, batch_size=BATCH)
        proba = to_host(classify(image, tile.tile.core_in_window, model, featuriser, options))
    rounded: NDArray[np.float16] = np.ascontiguousarray(np.moveaxis(proba, -1, 0), np.float16)
    return rounded


@dataclass
class Labeller:
    """Labels tiles that are not in the cache yet.

    Attributes
    ----------
    job
        What workers need.
    engine
        Where tiles are labelled.
    cache
        Where labels are kept.
    classes
        Number of classes.
    stop, progress
        As in :func:`hrvol.distil_model`.
    computed
        Tiles that were labelled and not found in the cache, so far.
    """

    job: LabelJob
    engine: EngineSpec
    cache: DistilCache
    classes: int
    stop: Stop
    progress: ProgressCallback | None = None
    computed: int = 0
    _digests: dict[PlaneTile, str] = field(default_factory=dict, repr=False)

    def label(
        self, tiles: Sequence[PlaneTile], on_tile: Callable[[PlaneTile, NDArray[np.float16]], None]
    ) -> None:
        """Label tiles and pass each to a function, in any order.

        Raises
        ------
        StoppedError
            A stop was requested; tiles labelled so far are kept.
        BlockError
            A tile cannot be labelled.
        """
        missing = []
        tally = Tally(self.progress, "label tiles", sum(prod(tile.tile.window_shape) for tile in tiles))
        for tile in tiles:
            self._digests[tile] = tile.digest(self.job.volume)
            known = self.cache.read_tile(tile, self._digests[tile], self.classes)
            if known is None:
                missing.append(tile)
            else:
                on_tile(tile, known)
                tally.finish(tile, prod(tile.tile.window_shape))
        if not missing:
            return
        with open_engine(self.engine.limited(len(missing)), self.job) as engine:
            self._compute(engine, missing, on_tile, tally)

    def _compute(
        self,
        engine: Engine,
        missing: Sequence[PlaneTile],
        on_tile: Callable[[PlaneTile, NDArray[np.float16]], None],
        tally: Tally,
    ) -> None:
        self.stop.working = True
        for outcome in engine.map_bounded(label_tile, missing, stop=self.stop):
            if outcome.value is None:
                where = outcome.task.describe()
                raise BlockError(
                    f"{self.job.volume.source}: tile {where['core']} of {where['axis']} ="
                    f" {where['position']}: {outcome.error}"
                )
            self.cache.write_tile(outcome.task, self._digests[outcome.task], outcome.value)
            self.computed += 1
            on_tile(outcome.task, outcome.value)
            tally.finish(outcome.task, prod(outcome.task.tile.window_shape))
        if self.stop.requested:
            raise stopped(self.stop, "while tiles were labelled")


def stopped(stop: Stop, when: str) -> StoppedError:
    """Return the error of a distillation that was stopped."""
    by = "" if stop.signal is None else f" by {stop.signal.name}"
    interrupted = stop.signal is not None and stop.signal.name == "SIGINT"
    return StoppedError(f"stopped{by} {when}; run the same command to resume", 130 if interrupted else 75)
