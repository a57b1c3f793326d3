"""A session: strokes, features of what is seen, a classifier and previews of it, all in the background.

No method waits for a result, except those that return one (:meth:`Session.model`, :meth:`Session.quality`,
:meth:`Session.next_places`), each of which has a form that returns a ticket at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from hrvol.arrays import Shape3
from hrvol.device import choose_device, cpus
from hrvol.errors import InputError
from hrvol.features.weights.source import WeightsSource
from hrvol.interactive.answers import SAMPLE, Search
from hrvol.interactive.background import Background
from hrvol.interactive.drawing import Drawing
from hrvol.interactive.lane import Ticket
from hrvol.interactive.listeners import Unsubscribe
from hrvol.interactive.options import MEMORY, SessionOptions
from hrvol.interactive.region import visible_region
from hrvol.interactive.results import Place, Preview, Quality, Scope
from hrvol.interactive.students import open_student
from hrvol.interactive.tile_cache import MOST_BYTES, cache_dir
from hrvol.recipe.recipe import Recipe
from hrvol.segment.model.model import Model
from hrvol.training.colour import STUDENTS, recipe_for
from hrvol.volume.volume import Volume, expect_grey, open_volume

_POLL = 0.03  # seconds between two looks at the version of strokes in live mode

_LATER = 2.0  # seconds until strokes that could not be read are read again


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
        self._work = Background(volume, drawing, recipe, options)
        self._closed = threading.Event()
        self._changed = threading.Event()
        subscribe = getattr(drawing, "subscribe", None)
        self._unsubscribe: Unsubscribe = lambda: None
        if subscribe is not None:
            self._unsubscribe = subscribe(lambda *_: self._changed.set())
        self._watch = threading.Thread(target=self._watching, name="hrvol-watch", daemon=True)
        self._watch.start()

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
        session = cls(opened, drawing, recipe_for(Recipe.load(recipe), [opened]), options)
        if student is not None:
            session.student = student
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
        """Whether previews follow the strokes and the view; else :meth:`update` makes one.

        The exact preview follows only in views of at most 64 tiles: further out :meth:`update` computes it.
        """
        return self._work.live

    @live.setter
    def live(self, value: bool) -> None:
        self._work.live = bool(value)
        if self._work.live:
            self._work.forget_errors()
            self._work.start()

    @property
    def student(self) -> Model | None:
        """A student that was taught by a model of the present strokes; ``None`` as soon as they change."""
        return self._work.student

    @student.setter
    def student(self, model: Model | str | Path | None) -> None:
        if model is not None:
            expect_grey(self.volume, STUDENTS)
        self._work.student = None if model is None else open_student(model)

    @property
    def class_weights(self) -> Mapping[int, float]:
        """Factors of the classes' probabilities by class value; classes without one have 1.

        New ones act at once on the present preview. They are those of ``hrvol segment --class-weight``.
        """
        return self._work.shown.weights

    @class_weights.setter
    def class_weights(self, weights: Mapping[int, float]) -> None:
        self._work.shown.weights = weights
        self._work.weigh()

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
        self._work.look(visible_region(self.shape, plane, rows, columns, level))

    def update(self) -> Ticket[Preview]:
        """Make previews of the present strokes and view, the last of them exact, which the ticket returns.

        A newer update and :meth:`cancel` cancel the ticket.
        """
        return self._work.update()

    def preview(self) -> Preview | None:
        """Return the present preview, or ``None`` before the first one and while strokes give none."""
        return self._work.shown.preview

    def on_preview(self, function: Callable[[Preview], None]) -> Unsubscribe:
        """Call a function with each new preview, in a thread of the session.

        It may not wait for what the session computes.
        """
        return self._work.listeners.add("preview", function)

    def on_nothing(self, function: Callable[[], None]) -> Unsubscribe:
        """Call a function, without arguments, when the preview is gone: fewer than two classes are drawn.

        It is called in order with those of :meth:`on_preview`, in a thread of the session.
        """
        return self._work.listeners.add("nothing", function)

    def on_error(self, function: Callable[[str], None]) -> Unsubscribe:
        """Call a function with each error, one line of text, in a thread of the session."""
        return self._work.listeners.add("error", function)

    def on_progress(self, function: Callable[[str, int, int], None]) -> Unsubscribe:
        """Call a function with a stage, how much of it is done and all of it, in a thread of the session."""
        return self._work.listeners.add("progress", function)

    def request_places(
        self, count: int = 1, planes: Scope = "view", sample: int = SAMPLE
    ) -> Ticket[tuple[Place, ...]]:
        """Begin to look for places to draw next, see :meth:`next_places`."""
        return self._work.places(Search(planes, count, sample))

    def next_places(self, count: int = 1, planes: Scope = "view", sample: int = SAMPLE) -> tuple[Place, ...]:
        """Return places where a stroke would teach most, the best first.

        They stand for many uncertain pixels that are unlike what is drawn, and differ from each other.

        Parameters
        ----------
        count
            How many; there may be fewer.
        planes
            Where: in the ``view``, in tiles that were ``visited``, or in a sample of the ``volume``, whose
            features are computed first.
        sample
            Tiles of the volume's sample.

        Raises
        ------
        StrokesError
            Fewer than two classes are drawn.
        """
        return self.request_places(count, planes).result()

    def request_quality(self) -> Ticket[Quality]:
        """Begin a cross-validation, see :meth:`quality`."""
        return self._work.quality()

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
        return self._work.model()

    def model(self) -> Model:
        """Return the model of the present strokes: bit for bit the one of :func:`hrvol.train_model`.

        Raises
        ------
        StrokesError
            Fewer than two classes are drawn.
        """
        return self.request_model().result()

    def request_model_bytes(self) -> Ticket[bytes]:
        """Begin to train, see :meth:`model_bytes`."""
        return self._work.model_bytes()

    def model_bytes(self) -> bytes:
        """Return the bytes of the ``*.hrvol`` file of :meth:`model`."""
        return self.request_model_bytes().result()

    def cancel(self) -> None:
        """Cancel everything that is computed, and the tickets of it."""
        self._work.cancel()

    def close(self) -> None:
        """End the session and its threads. The drawing stays open."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._changed.set()
        self._unsubscribe()
        self._work.close()

    def _watching(self) -> None:
        """Follow the strokes in live mode."""
        while not self._closed.is_set():
            self._changed.wait(_POLL)
            self._changed.clear()
            work = self._work
            try:
                if work.live and work.unread:  # they may be readable later
                    self._closed.wait(_LATER)
                if work.live and (work.unread or work.started != work.strokes.version):
                    work.start()
            except Exception as error:  # of a drawing that cannot name its version
                work.failed(error)
                self._closed.wait(_LATER)
