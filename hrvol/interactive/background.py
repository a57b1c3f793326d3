"""The work of a session in the background.

Four threads: one prepares features, one makes previews, one trains models and answers questions, one applies
class weights. The first and the third pause while a preview is made.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from hrvol.errors import HrvolError, UsageError, one_line
from hrvol.interactive.answers import Search, find_places
from hrvol.interactive.drawing import Drawing, Drawn, DrawnStrokes
from hrvol.interactive.fetch import Fetcher
from hrvol.interactive.lane import Cancelled, Gate, Lane, Ticket
from hrvol.interactive.listeners import Listeners
from hrvol.interactive.live import LivePreviews
from hrvol.interactive.options import SessionOptions
from hrvol.interactive.parts import TileParts
from hrvol.interactive.quality import cross_validate
from hrvol.interactive.region import Region
from hrvol.interactive.regions import count_tiles
from hrvol.interactive.results import Place, Preview, Quality
from hrvol.interactive.shown import Shown
from hrvol.interactive.stages import stages_of
from hrvol.interactive.students import student_preview
from hrvol.interactive.tile_cache import TileCache
from hrvol.recipe.recipe import Recipe
from hrvol.segment.model.model import Model, model_bytes
from hrvol.volume.intensity import common_window
from hrvol.volume.volume import Volume

IDLE = 1.5
"""Seconds without changes after which the exact preview is computed in live mode."""

LIVE_TILES = 64
"""Tiles of a view above which no exact preview is computed in live mode, only by an update."""

_POLL = 0.03


class Background:
    """Features, previews and models of the strokes on a volume.

    Parameters
    ----------
    volume, drawing, recipe, options
        As for :class:`hrvol.interactive.session.Session`.

    Attributes
    ----------
    strokes
        What is drawn.
    listeners
        Functions that are called with events.
    shown
        The present preview and what is seen.
    live
        Whether previews follow the strokes and the view.
    started
        Version of the strokes that :meth:`start` was called for last.
    """

    def __init__(self, volume: Volume, drawing: Drawing, recipe: Recipe, options: SessionOptions) -> None:
        self.volume, self.recipe, self.options = volume, recipe, options
        self.strokes = DrawnStrokes(drawing)
        self.listeners = Listeners()
        self.shown = Shown(self.listeners)
        self.live = self._wanted = False
        self.started: int | None = None
        self._told: set[str] = set()  # errors of work that is repeated with each stroke
        self._student: tuple[Model, int] | None = None
        self._exact: Any = None
        self._parts = TileParts(
            volume,
            common_window([volume], recipe.intensity, recipe.seed),
            recipe.tiles,
            device=options.device,
            weights=options.weights,
            disk=None if options.cache is None else TileCache(options.cache, options.disk),
            memory=options.memory,
        )
        self._quick = LivePreviews(self._parts, stages_of(recipe), recipe, options.threads)
        self._publishing = Lane("publish", self.failed)
        self._previews = Lane("preview", self._failed_again)
        holds = (self._previews.busy,)
        self._slow = Lane("model", self.failed, holds, yields=True)  # fits cannot be held
        self._features = Lane("features", self._failed_again, holds)
        self._fetcher = Fetcher(
            self._parts,
            self._quick,
            self.strokes,
            on_new=self._features_arrived,
            on_progress=self._progress,
            on_error=self._failed_again,
            idle=lambda: not self._slow.busy.is_set(),
            threads=options.threads,
        )
        self._slow.submit("warm", self._warm)

    @property
    def unread(self) -> bool:
        """Whether a thread could not read the strokes since :meth:`start` was called last."""
        return self._failures != self.strokes.failures

    @property
    def student(self) -> Model | None:
        """A student of the present strokes; ``None`` as soon as they change."""
        held = self._student
        return None if held is None or held[1] != self.strokes.version else held[0]

    @student.setter
    def student(self, model: Model | None) -> None:
        self._student = None if model is None else (model, self.strokes.version)

    def failed(self, error: BaseException) -> None:
        """Report an error as one line."""
        self.listeners.tell("error", one_line(error))

    def forget_errors(self) -> None:
        """Report again, if they occur again, errors that were reported once."""
        self._told.clear()

    def look(self, region: Region) -> None:
        """Set what is seen, and prepare its features."""
        self.shown.region, self._wanted = region, False
        if self._fetcher.look(region):
            self._features.cancel()
        self._fetch()
        if self.live:
            self.start()

    def start(self) -> None:
        """Make previews of what has changed, and an exact one if nothing changes for a while."""
        self.started = self.strokes.version  # before they are read: what is drawn meanwhile counts as new
        self._failures = self.strokes.failures
        if self.shown.region is None:
            return
        self._previews.submit("round", self._round)
        self._fetch()
        self._slow.submit("exact", self._follow)

    def update(self) -> Ticket[Preview]:
        """Make previews of the present strokes, the last of them exact."""
        self._wanted = True
        self.forget_errors()
        self._previews.submit("round", self._round)
        self._fetch()
        return self._slow.submit("exact", lambda gate: self._exactly(gate, idle=0.0))

    def weigh(self) -> None:
        """Show the present preview with the present class weights."""
        self._publishing.submit("weights", lambda gate: self.shown.weigh())

    def places(self, search: Search) -> Ticket[tuple[Place, ...]]:
        """Find places to draw next."""

        def find(gate: Gate) -> tuple[Place, ...]:
            return find_places(
                self._parts,
                self._quick,
                self.strokes.read(),
                self.shown.region,
                search,
                gate,
                progress=self._progress,
                threads=self.options.threads,
            )

        return self._slow.submit("places", find)

    def quality(self) -> Ticket[Quality]:
        """Cross-validate."""

        def validate(gate: Gate) -> Quality:
            return cross_validate(
                self._parts,
                self._quick.rows_of_quality,
                self._quick.stages[-1],
                self.recipe,
                self.strokes.read(),
                gate,
                lambda done, total: self._progress("cross-validation", done, total),
            )

        return self._slow.submit("quality", validate)

    def model(self) -> Ticket[Model]:
        """Train."""
        return self._slow.submit("model", lambda gate: self._train(gate)[1])

    def model_bytes(self) -> Ticket[bytes]:
        """Train, and return the bytes of the model's file."""
        return self._slow.submit("model", lambda gate: model_bytes(self._train(gate)[1]))

    def cancel(self) -> None:
        """Cancel everything."""
        self._wanted = False
        for lane in (self._previews, self._slow, self._features):
            lane.cancel()

    def close(self) -> None:
        """End all threads."""
        for lane in (self._previews, self._slow, self._features, self._publishing):
            lane.close()
        self._parts.memory.clear()

    def _failed_again(self, error: BaseException) -> None:
        """Report an error of work that is repeated with each stroke: once."""
        line = one_line(error)
        if line not in self._told:
            self._told.add(line)
            self.failed(error)

    def _progress(self, stage: str, done: int, total: int) -> None:
        self.listeners.tell("progress", stage, done, total)

    def _warm(self, gate: Gate) -> None:
        """Import and load what the first preview needs."""
        for stage in self._quick.stages:
            gate.check()
            featuriser = self._parts.load(stage.features)
            if featuriser.backbone is not None:  # the first pass compiles the network
                shape = (featuriser.backbone.patch,) * 2 + (3,) * self.volume.colour
                featuriser(np.zeros(shape, np.float32))

    def _fetch(self) -> None:
        self._features.submit("fetch", self._fetcher.run, restart=False)

    def _features_arrived(self) -> None:
        if self.live or self._wanted:
            self._previews.submit("again", self._round, restart=False)

    def _round(self, gate: Gate) -> None:
        """Make previews from what is at hand."""
        region, drawn = self.shown.region, self.strokes.read()
        if len(drawn.values) < 2:
            self.shown.clear(drawn.version)
        elif region is not None:
            self._quick.make(region, drawn, gate, self.shown.publish)

    def _exact_models(self) -> Any:
        if self._exact is None:
            from hrvol.interactive.exact import ExactModels  # torch

            self._exact = ExactModels(self._parts, self.recipe)
        return self._exact

    def _train(self, gate: Gate) -> tuple[Drawn, Model]:
        drawn = self.strokes.read()
        drawn.check()
        model: Model = self._exact_models().train(drawn, gate, self._progress)
        return drawn, model

    def _wait(self, gate: Gate, idle: float) -> None:
        """Wait until nothing else has been computed for some seconds."""
        quiet = 0.0  # counted in steps: on a busy machine they are longer
        while quiet < idle:
            began = time.monotonic()
            gate.check()
            held = time.monotonic() - began > _POLL
            busy = held or self._previews.busy.is_set() or self._features.busy.is_set()
            quiet = 0.0 if busy else quiet + _POLL
            time.sleep(_POLL)

    def _follow(self, gate: Gate) -> Preview:
        """Return the exact preview when nothing has changed for a while; an error is reported once."""
        try:
            return self._exactly(gate, idle=IDLE)
        except HrvolError as error:
            if (line := one_line(error)) in self._told:
                raise Cancelled from None
            self._told.add(line)
            raise

    def _follows(self, region: Region) -> bool:
        """Whether the exact preview follows the strokes: two classes are drawn, and the view is not large."""
        few = count_tiles(self.volume.shape, self.recipe.tiles, region) <= LIVE_TILES
        return few and len(self.strokes.read().values) > 1

    def _exactly(self, gate: Gate, *, idle: float) -> Preview:
        """Return the exact preview of what is seen, computed when nothing has changed for some seconds."""
        if idle:
            self._wait(gate, idle)
        region = self.shown.region
        if region is None:
            raise UsageError("update: found no view, expected one to make a preview of")
        if idle and not self._follows(region):
            gate.cancel()
        gate.check()
        drawn, model = self._train(gate)
        threads = self.options.threads
        found = self.shown.publish(self._exact_models().predict(region, drawn, model, gate, threads))
        student = self.student
        if student is not None:
            found = self.shown.publish(
                student_preview(
                    self.volume, region, student, self.options.device, drawn.version, gate, threads
                )
            )
        self._wanted = False
        self._fetch()  # neighbours have waited
        return found
