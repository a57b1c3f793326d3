"""A session: strokes, features of what is seen, a classifier and previews of it, all in the background.

Four threads: one prepares features, one makes previews, one trains models and answers questions, one applies
class weights. The first and the third pause while a preview is made. No method waits for a result, except
those that return one (:meth:`Session.model`, :meth:`Session.quality`, :meth:`Session.next_places`), each of
which has a form that returns a :class:`Ticket` at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from hrvol.arrays import Shape3
from hrvol.device import choose_device, cpus
from hrvol.errors import InputError, UsageError, one_line
from hrvol.features.weights.source import WeightsSource
from hrvol.interactive.answers import Scope, find_places
from hrvol.interactive.drawing import Drawing, Drawn, DrawnStrokes
from hrvol.interactive.fetch import Fetcher
from hrvol.interactive.lane import Gate, Lane, Ticket
from hrvol.interactive.live import LivePreviews
from hrvol.interactive.parts import TileParts
from hrvol.interactive.places import Place
from hrvol.interactive.preview import Preview, RawPreview, check_weights, preview_of
from hrvol.interactive.quality import Quality, cross_validate
from hrvol.interactive.regions import Region
from hrvol.interactive.stages import ORDER, stages_of
from hrvol.interactive.students import open_student, student_preview
from hrvol.interactive.tile_cache import MOST_BYTES, TileCache, cache_dir
from hrvol.recipe.recipe import Recipe
from hrvol.segment.model.model import Model
from hrvol.volume.intensity import common_window
from hrvol.volume.volume import Volume, open_volume

IDLE = 1.5
"""Seconds without changes after which the exact preview is computed in live mode."""

MEMORY = 2**30
"""Bytes of features in memory."""

_POLL = 0.03  # seconds between two looks at the version of strokes in live mode

Unsubscribe = Callable[[], None]


@dataclass(frozen=True)
class SessionOptions:
    """How a session computes.

    Attributes
    ----------
    device
        ``cpu`` or ``cuda``.
    weights
        Where the network's weights are loaded from.
    cache
        Folder of tokens on disk; ``None``: nothing is kept there.
    disk
        Bytes of tokens on disk.
    memory
        Bytes of features in memory.
    threads
        Threads of fits and predictions of previews.
    """

    device: str = "cpu"
    weights: WeightsSource = WeightsSource()
    cache: Path | None = None
    disk: int = MOST_BYTES
    memory: int = MEMORY
    threads: int = 1


class Session:
    """Draw strokes, see what they give, and train a model of them; use :meth:`open`.

    Parameters
    ----------
    volume
        The volume.
    drawing
        The strokes on it.
    recipe
        All settings of the model.
    options
        How to compute.
    """

    def __init__(self, volume: Volume, drawing: Drawing, recipe: Recipe, options: SessionOptions) -> None:
        if tuple(drawing.shape) != volume.shape:
            raise InputError(f"strokes: found shape {tuple(drawing.shape)}, expected {volume.shape}")
        self.volume, self.recipe, self.options = volume, recipe, options
        self._strokes = DrawnStrokes(drawing)
        disk = None if options.cache is None else TileCache(options.cache, options.disk)
        self._parts = TileParts(
            volume,
            common_window([volume], recipe.intensity, recipe.seed),
            recipe.tiles,
            device=options.device,
            weights=options.weights,
            disk=disk,
            memory=options.memory,
        )
        self._live_previews = LivePreviews(self._parts, stages_of(recipe), recipe, options.threads)
        self._lock = threading.RLock()
        self._listeners: dict[str, list[Callable[..., None]]] = {"preview": [], "error": [], "progress": []}
        self._weights: Mapping[int, float] = MappingProxyType({})
        self._region: Region | None = None
        self._raw: RawPreview | None = None
        self._preview: Preview | None = None
        self._student: tuple[Model, int] | None = None
        self._live = self._wanted = False
        self._exact: Any = None
        self._publishing = Lane("publish", self._failed)
        self._previews = Lane("preview", self._failed)
        holds = (self._previews.busy,)
        self._slow = Lane("model", self._failed, holds)
        self._features = Lane("features", self._failed, holds)
        self._fetcher = Fetcher(
            self._parts,
            self._live_previews,
            self._strokes,
            on_new=self._features_arrived,
            on_progress=self._progress,
            idle=lambda: not self._slow.busy.is_set(),
        )
        self._closed = threading.Event()
        self._changed = threading.Event()
        subscribe = getattr(drawing, "subscribe", None)
        self._unsubscribe: Unsubscribe = lambda: None
        if subscribe is not None:
            self._unsubscribe = subscribe(lambda *_: self._changed.set())
        self._watch = threading.Thread(target=self._watching, name="hrvol-watch", daemon=True)
        self._watch.start()
        self._slow.submit("warm", self._warm)

    @classmethod
    def open(
        cls,
        volume: Any,
        drawing: Drawing,
        *,
        recipe: str | Path | Recipe | None = "fast",
        student: Model | str | Path | None = None,
        cache: str | Path | Literal[False] | None = None,
        disk: int = MOST_BYTES,
        memory: int = MEMORY,
        threads: int | None = None,
        device: str = "auto",
        weights_path: str | Path | None = None,
        offline: bool = False,
    ) -> Session:
        """Begin a session.

        Parameters
        ----------
        volume
            A volume, as for :func:`hrvol.open_volume`.
        drawing
            Strokes of the volume's shape, which may change at any time.
        recipe
            A recipe, its file, or a preset's name.
        student
            A model of :func:`hrvol.distil_model` that was taught by a model of the present strokes: the last
            stage of previews, until the strokes change.
        cache
            Folder of features on disk, which sessions share; ``None``: in the cache of this user; ``False``:
            nowhere.
        disk, memory
            Bytes of features on disk and in memory.
        threads
            Threads of fits and predictions of previews; ``None``: one per core.
        device
            Where features are computed, ``cpu``, ``cuda`` or ``auto``: a GPU if torch finds one.
        weights_path, offline
            As for :func:`hrvol.train_model`.

        Raises
        ------
        InputError
            The volume cannot be used, or the strokes have another shape.
        RecipeError
            The recipe is not valid.
        """
        opened = open_volume(volume)
        folder = None if cache is False else cache_dir() if cache is None else Path(cache)
        options = SessionOptions(
            choose_device(device).device,
            WeightsSource.of(weights_path, offline),
            folder,
            disk,
            memory,
            threads or cpus(),
        )
        session = cls(opened, drawing, Recipe.load(recipe), options)
        if student is not None:
            session.student = open_student(student)
        return session

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shape(self) -> Shape3:
        """Voxels (z, y, x) of the volume."""
        return self.volume.shape

    @property
    def live(self) -> bool:
        """Whether previews follow the strokes and the view; else :meth:`update` makes one."""
        return self._live

    @live.setter
    def live(self, value: bool) -> None:
        self._live = bool(value)
        if self._live:
            self._start()

    @property
    def student(self) -> Model | None:
        """A student that was taught by a model of the present strokes; ``None`` as soon as they change."""
        held = self._student
        return None if held is None or held[1] != self._strokes.read().version else held[0]

    @student.setter
    def student(self, model: Model | None) -> None:
        student = None if model is None else open_student(model)
        self._student = None if student is None else (student, self._strokes.read().version)

    @property
    def class_weights(self) -> Mapping[int, float]:
        """Factors of the classes' probabilities by class value; classes without one have 1.

        New ones act at once on the present preview. They are those of ``hrvol segment --class-weight``.
        """
        return self._weights

    @class_weights.setter
    def class_weights(self, weights: Mapping[int, float]) -> None:
        self._weights = MappingProxyType(check_weights(weights))
        self._publishing.submit("weights", lambda gate: self._weigh())

    def view(self, plane: int, rows: slice, columns: slice, level: int = 0) -> None:
        """Set what is seen: its features are prepared first, then those of neighbouring planes.

        Parameters
        ----------
        plane
            Number of the plane.
        rows, columns
            Visible pixels; what is outside of the volume is not used.
        level
            Resolution of previews: one value for ``2**level`` pixels.

        Raises
        ------
        UsageError
            Nothing of it is inside of the volume.
        """
        region = Region(plane, slice(*rows.indices(2**62)[:2]), slice(*columns.indices(2**62)[:2]), level)
        clipped = region.clipped(self.volume.shape)
        if clipped is None or level < 0:
            raise UsageError(
                f"view: found plane {plane}, rows {rows}, columns {columns}, expected some inside"
            )
        with self._lock:
            self._region = clipped
            self._wanted = False
        if self._fetcher.look(clipped):
            self._features.cancel()
        self._features.submit("fetch", self._fetcher.run, restart=False)
        if self._live:
            self._start()

    def update(self) -> Ticket[Preview]:
        """Make previews of the present strokes and view, the last of them exact, which the ticket returns.

        A newer update or view, and :meth:`cancel`, cancel the ticket.
        """
        with self._lock:
            self._wanted = True
        self._previews.submit("round", self._round)
        self._features.submit("fetch", self._fetcher.run, restart=False)
        return self._slow.submit("exact", lambda gate: self._exactly(gate, idle=0.0))

    def preview(self) -> Preview | None:
        """Return the present preview, or ``None`` if there is none yet."""
        return self._preview

    def on_preview(self, function: Callable[[Preview], None]) -> Unsubscribe:
        """Call a function with each new preview, in a thread of the session."""
        return self._listen("preview", function)

    def on_error(self, function: Callable[[str], None]) -> Unsubscribe:
        """Call a function with each error, one line of text, in a thread of the session."""
        return self._listen("error", function)

    def on_progress(self, function: Callable[[str, int, int], None]) -> Unsubscribe:
        """Call a function with a stage, how much of it is done and all of it, in a thread of the session."""
        return self._listen("progress", function)

    def request_places(self, count: int = 1, planes: Scope = "view") -> Ticket[tuple[Place, ...]]:
        """Begin to look for places to draw next, see :meth:`next_places`."""

        def find(gate: Gate) -> tuple[Place, ...]:
            drawn = self._strokes.read()
            return find_places(
                self._parts,
                self._live_previews,
                drawn,
                self._region,
                planes,
                count,
                gate,
                progress=self._progress,
                threads=self.options.threads,
            )

        return self._slow.submit("places", find)

    def next_places(self, count: int = 1, planes: Scope = "view") -> tuple[Place, ...]:
        """Return places where a stroke would teach most, the best first.

        They are uncertain, and differ from what is drawn and from each other.

        Parameters
        ----------
        count
            How many; there may be fewer.
        planes
            Where: in the ``view``, in tiles that were ``visited``, or in a sample of the ``volume``, whose
            features are computed first.

        Raises
        ------
        StrokesError
            Fewer than two classes are drawn.
        """
        return self.request_places(count, planes).result()

    def request_quality(self) -> Ticket[Quality]:
        """Begin a cross-validation, see :meth:`quality`."""

        def validate(gate: Gate) -> Quality:
            return cross_validate(
                self._parts,
                self._live_previews.rows_of_quality,
                self._live_previews.stages[-1],
                self.recipe,
                self._strokes.read(),
                gate,
                lambda done, total: self._progress("cross-validation", done, total),
            )

        return self._slow.submit("quality", validate)

    def quality(self) -> Quality:
        """Return the cross-validated IoU of each class on the strokes, whole strokes held out.

        Raises
        ------
        StrokesError
            Fewer than two classes are drawn.
        """
        return self.request_quality().result()

    def request_model(self) -> Ticket[Model]:
        """Begin to train, see :meth:`model`."""
        return self._slow.submit("model", lambda gate: self._train(gate)[1])

    def model(self) -> Model:
        """Return the model of the present strokes: bit for bit the one of :func:`hrvol.train_model`.

        Raises
        ------
        StrokesError
            Fewer than two classes are drawn.
        """
        return self.request_model().result()

    def cancel(self) -> None:
        """Cancel everything that is computed, and the tickets of it."""
        self._wanted = False
        for lane in (self._previews, self._slow, self._features):
            lane.cancel()

    def close(self) -> None:
        """End the session and its threads. The drawing stays open."""
        self._closed.set()
        self._changed.set()
        self._unsubscribe()
        for lane in (self._previews, self._slow, self._features, self._publishing):
            lane.close()
        self._parts.memory.clear()

    # In threads of the session

    def _listen(self, kind: str, function: Callable[..., None]) -> Unsubscribe:
        with self._lock:
            self._listeners[kind].append(function)

        def forget() -> None:
            with self._lock:
                if function in self._listeners[kind]:
                    self._listeners[kind].remove(function)

        return forget

    def _tell(self, kind: str, *values: Any) -> None:
        with self._lock:
            listeners = list(self._listeners[kind])
        for function in listeners:
            function(*values)

    def _failed(self, error: BaseException) -> None:
        self._tell("error", one_line(error))

    def _progress(self, stage: str, done: int, total: int) -> None:
        self._tell("progress", stage, done, total)

    def _warm(self, gate: Gate) -> None:
        """Import and load what the first preview needs."""
        for stage in self._live_previews.stages:
            gate.check()
            self._parts.load(stage.features)

    def _watching(self) -> None:
        """Follow the strokes in live mode."""
        while not self._closed.is_set():
            self._changed.wait(_POLL)
            self._changed.clear()
            if self._live and self._strokes.changed and self._region is not None:
                self._start()

    def _start(self) -> None:
        """Make previews of what has changed, and an exact one if nothing changes for a while."""
        if self._region is None or self._closed.is_set():
            return
        self._strokes.read()
        self._previews.submit("round", self._round)
        self._features.submit("fetch", self._fetcher.run, restart=False)
        self._slow.submit("exact", lambda gate: self._exactly(gate, idle=IDLE))

    def _features_arrived(self) -> None:
        if self._live or self._wanted:
            self._previews.submit("again", self._round, restart=False)

    def _round(self, gate: Gate) -> None:
        region, drawn = self._region, self._strokes.read()
        if region is not None and len(drawn.values) > 1:
            self._live_previews.make(region, drawn, gate, lambda raw: self._publish(raw))

    def _exact_models(self) -> Any:
        if self._exact is None:
            from hrvol.interactive.exact import ExactModels  # torch

            self._exact = ExactModels(self._parts, self.recipe)
        return self._exact

    def _train(self, gate: Gate) -> tuple[Drawn, Model]:
        drawn = self._strokes.read()
        drawn.check()
        model: Model = self._exact_models().train(drawn, gate, self._progress)
        return drawn, model

    def _exactly(self, gate: Gate, *, idle: float) -> Preview:
        """Return the exact preview of what is seen; wait until nothing changes first."""
        until = time.monotonic() + idle
        while time.monotonic() < until:
            gate.check()
            time.sleep(_POLL)
        region = self._region
        if region is None:
            raise UsageError("update: found no view, expected one to make a preview of")
        if idle and len(self._strokes.read().values) < 2:
            gate.cancel()  # nothing to learn from yet: no error while the first class is drawn
        gate.check()
        drawn, model = self._train(gate)
        threads = self.options.threads
        raw: RawPreview = self._exact_models().predict(region, drawn, model, gate, threads)
        found = self._publish(raw)
        student = self.student
        if student is not None:
            raw = student_preview(
                self.volume, region, student, self.options.device, drawn.version, gate, threads
            )
            found = self._publish(raw)
        self._wanted = False
        return found

    def _publish(self, raw: RawPreview) -> Preview:
        """Show a preview, unless there is a better one of the same strokes and region."""
        with self._lock:
            held = self._raw
            same = held is not None and (held.region, held.version) == (raw.region, raw.version)
            better = held is None or not same or _rank(raw) >= _rank(held)
            if better and self._region is not None and raw.region == self._region:
                self._raw = raw
            elif self._preview is not None:
                return preview_of(raw, self._weights)
        return self._weigh(raw)

    def _weigh(self, raw: RawPreview | None = None) -> Preview:
        raw = self._raw if raw is None else raw
        if raw is None:
            raise UsageError("class weights: found no preview")
        found = preview_of(raw, self._weights)
        with self._lock:
            if self._raw is raw:
                self._preview = found
        self._tell("preview", found)
        return found


def _rank(raw: RawPreview) -> tuple[bool, bool, bool, int, int]:
    """Return what makes a preview better than another one."""
    return raw.stage == "student", raw.exact, raw.complete, ORDER.index(raw.stage), -raw.step
