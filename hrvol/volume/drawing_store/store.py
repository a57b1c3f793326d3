"""Draw strokes on a volume of any size: sparse, saved while one draws, with undo.

What is drawn is recorded in a journal at once, and soon after in the chunks of OME-Zarr labels, which
``hrvol train`` and other programs read. Journal, lock and counts are in the folder ``.drawing`` of the array.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from hrvol.arrays import Shape3
from hrvol.classes import ClassInfo
from hrvol.errors import ResourceError, StrokesError
from hrvol.volume.drawing_store.change import Change, Kind, Listeners, few_boxes
from hrvol.volume.drawing_store.checks import Where, checked_box, checked_places, checked_values, fitting
from hrvol.volume.drawing_store.class_table import ClassTable, Colour
from hrvol.volume.drawing_store.count_file import write_counts
from hrvol.volume.drawing_store.edit import Edit, History
from hrvol.volume.drawing_store.keeper import Keeper
from hrvol.volume.drawing_store.layout import CHUNK, Layout, create_layout, open_layout
from hrvol.volume.drawing_store.lock import StoreLock
from hrvol.volume.drawing_store.paintable import PaintableArray
from hrvol.volume.drawing_store.piece import Patch, pieces
from hrvol.volume.drawing_store.reading import OpenStrokes
from hrvol.volume.drawing_store.recovery import replay
from hrvol.volume.grid.tiling import Box, box_shape
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import Volume


class DrawingStore(OpenStrokes):
    """Strokes that are drawn on a volume; opened by one process, in which any thread may call it.

    Use :meth:`create` and :meth:`open`; in a ``with`` statement, or call :meth:`close`. A process that is
    killed loses at most the last 2 s.
    """

    def __init__(self, layout: Layout, lock: StoreLock) -> None:
        super().__init__(layout)
        self._lock_file = lock
        self._history = History()
        self._strokes = threading.local()  # the stroke that each thread draws
        self._listeners = Listeners(layout.source)
        self._closed = False
        self._table, number, repeated = replay(layout, self._chunks, layout.table)
        self._keeper = Keeper(layout, self._files, self._chunks, number, self._lock, self._failed)
        atexit.register(self._end)
        if repeated or self._table != layout.table:
            self._keeper.record((), self._table)

    @classmethod
    def create(
        cls,
        location: str | Path | Location,
        like: Volume,
        classes: Sequence[ClassInfo] = (),
        *,
        dtype: Any = np.uint8,
        chunks: Shape3 = CHUNK,
    ) -> DrawingStore:
        """Create a store for strokes on a volume, and open it.

        Parameters
        ----------
        location
            ``*.ome.zarr``: a local folder that does not exist.
        like
            The volume: gives shape, voxel size, unit and position.
        classes
            First classes.
        dtype
            ``uint8``: values up to 255, or ``uint16``.
        chunks
            Voxels (z, y, x) of a chunk.

        Raises
        ------
        OutputExistsError
            Something is there.
        UsageError
            The location is no local path, or inside of the volume.
        StrokesError
            The type does not hold the classes, or two have one value or name.
        ResourceError
            It cannot be written.
        """
        create_layout(location, like, classes, dtype, chunks)
        return cls.open(location, like)

    @classmethod
    def open(cls, location: str | Path | Location, like: Volume | None = None) -> DrawingStore:
        """Open a store, with all that a killed process recorded.

        Parameters
        ----------
        location
            As :meth:`create` made it, or sparse labels that ``hrvol strokes`` wrote.
        like
            The volume, to compare the shape; ``None``: unknown.

        Raises
        ------
        BusyError
            Another process, or this one, has opened it.
        InputError
            There is no store, or it is damaged; :class:`StrokesError`: it has another shape.
        ResourceError
            It cannot be written.
        """
        layout = open_layout(location, like)
        lock = StoreLock(layout.own, layout.source)
        try:
            return cls(open_layout(location, like), lock)  # again: another process may have written just now
        except OSError as error:
            lock.release()
            raise ResourceError(f"{layout.source}: cannot be opened: {error.strerror or error}") from None
        except BaseException:
            lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except ResourceError:
            if kind is None:
                raise

    @property
    def saved(self) -> bool:
        """Whether all that is drawn is where other programs read it."""
        with self._lock:
            return self._keeper.saved

    @property
    def problem(self) -> str:
        """Why the strokes cannot be saved at present, one line; empty if they can."""
        return self._keeper.problem

    def paint(self, where: Where, values: ArrayLike) -> Change:
        """Set voxels; 0 erases. A value without a class makes one.

        Parameters
        ----------
        where
            Slices ``(z, y, x)`` with explicit bounds, or index arrays that are broadcast.
        values
            Class values that are broadcast to the box, or to the indices; of several of a voxel the last
            counts.

        Raises
        ------
        StrokesError
            A voxel is not in the volume, or a value is no class.
        """
        source = self.source
        new = checked_values(values, self._table.highest, source)
        if all(isinstance(span, slice) for span in where):
            box = checked_box(where, self.shape, source)
            if new.ndim:
                new = fitting(new, box_shape(box), source)
            return self._painted(lambda: self._chunks.box_patches(box, new))
        places = checked_places(where, self.shape, source)
        flat = fitting(new, places.shape[:-1], source).reshape(-1)
        return self._painted(lambda: self._chunks.place_patches(places.reshape(-1, 3), flat))

    @contextmanager
    def stroke(self) -> Iterator[None]:
        """Make all changes of this thread inside of the ``with`` statement one step of undo."""
        outer = self.present_stroke
        self._strokes.one = outer or object()
        try:
            yield
        finally:
            self._strokes.one = outer

    @property
    def present_stroke(self) -> object | None:
        """What is the same for all changes of the stroke of this thread; ``None`` outside of strokes."""
        return getattr(self._strokes, "one", None)

    @property
    def steps(self) -> tuple[int, int]:
        """Number of steps that can be undone, and redone."""
        return len(self._history.done), len(self._history.undone)

    def undo(self) -> Change | None:
        """Take back the last step, a stroke or an edit of classes; ``None`` if there are no steps."""
        return self._stepped("undo")

    def redo(self) -> Change | None:
        """Make the step again that was undone last; ``None`` if there are no steps."""
        return self._stepped("redo")

    def add_class(self, name: str, colour: Colour | None = None, value: int | None = None) -> int:
        """Add a class and return its value, which no class had before: the next one, or a higher one.

        Raises
        ------
        InputError
            The name is used, or too long; the colour is not valid; or the type has no more values.
        """
        with self._lock:
            change = self._edited(self._table.add(name, colour, value))
            added = self._table.next_value - 1
        self._sent(change)
        return added

    def rename_class(self, value: int, name: str) -> Change:
        """Give a class another name; errors as :meth:`add_class`."""
        return self._reclassed(lambda table: table.rename(value, name))

    def recolour_class(self, value: int, colour: Colour) -> Change:
        """Give a class another colour (red, green, blue in 0..255)."""
        return self._reclassed(lambda table: table.recolour(value, colour))

    def merge_classes(self, source: int, target: int) -> Change:
        """Draw all voxels of a class as another one, and remove it; :class:`StrokesError` without it."""
        with self._lock:
            if source == target:
                raise StrokesError(f"{self.source}: found class {source} twice, expected two classes")
            table = self._table.without(source)
            table.info(target)
            change = self._edited(table, self._chunks.class_patches(source, target))
        return self._sent(change)

    def delete_class(self, value: int) -> Change:
        """Erase all voxels of a class, and remove it; :class:`StrokesError` if it does not exist."""
        with self._lock:
            change = self._edited(self._table.without(value), self._chunks.class_patches(value, 0))
        return self._sent(change)

    def array(self) -> PaintableArray:
        """Return the strokes as an array that napari and others show and paint."""
        return PaintableArray(self)

    def subscribe(self, function: Callable[[Change], None]) -> Callable[[], None]:
        """Call a function with each change, and with errors of saving; the result ends that.

        It is called in the thread that changes, or in that which saves.
        """
        return self._listeners.add(function)

    def flush(self) -> None:
        """Save all that is drawn, where other programs read it, and wait until it is on the disk.

        Raises
        ------
        ResourceError
            It cannot be written; what was stored stays, and what is drawn stays in memory.
        """
        self._keeper.flush()

    def close(self) -> None:
        """Save all that is drawn, and let other processes open the store.

        Raises
        ------
        ResourceError
            It cannot be written; the store stays open.
        """
        self.flush()  # most of it, while others may draw
        with self._lock:
            if self._closed:
                return
            self._closed = True  # from now on nothing is drawn
        try:
            self.flush()  # what was drawn meanwhile
        except BaseException:
            self._closed = False
            raise
        atexit.unregister(self._end)
        self._keeper.close()
        with suppress(OSError), self._lock:
            write_counts(self._layout.own, self._files, self._chunks.counts)
        self._lock_file.release()

    def _end(self) -> None:
        with suppress(Exception):  # the journal is written already, and nobody is there to hear
            self.close()

    def _painted(self, patches: Callable[[], Iterator[Patch]]) -> Change:
        with self._lock:
            found: list[bytes] = []
            drawn: set[int] = set()
            for piece in pieces(patches()):
                drawn.update(np.flatnonzero(np.bincount(piece.after)).tolist())
                found.append(piece.encode())
            edit = Edit(tuple(found), self._table, self._table.with_values(drawn))
            change = self._made("paint", edit)
        return self._sent(change)

    def _reclassed(self, edit: Callable[[ClassTable], ClassTable]) -> Change:
        with self._lock:
            change = self._edited(edit(self._table))
        return self._sent(change)

    def _edited(self, table: ClassTable, patches: Iterable[Patch] = ()) -> Change:
        found = tuple(piece.encode() for piece in pieces(patches))
        return self._made("classes", Edit(found, self._table, table))

    def _made(self, kind: Kind, edit: Edit) -> Change:
        if edit.empty:
            return Change(kind, self._version)
        change = self._commit(kind, edit)
        self._history.add(edit, self.present_stroke)
        return change

    def _stepped(self, kind: Literal["undo", "redo"]) -> Change | None:
        with self._lock:
            back = kind == "undo"
            steps = self._history.done if back else self._history.undone
            if not steps:
                return None
            change = self._commit(kind, steps[-1], back)
            self._history.step(back)
        return self._sent(change)

    def _commit(self, kind: Kind, edit: Edit, back: bool = False) -> Change:
        """Record and make an edit, or undo it."""
        if self._closed:
            raise StrokesError(f"{self.source}: is closed, expected open strokes to draw")
        table = self._table.then(edit.before if back else edit.after)
        self._keeper.record(edit.records(back), table)
        boxes: list[Box] = []
        pixels = 0
        for piece in edit.decoded(back):
            boxes += self._chunks.apply(piece, back)
            pixels += len(piece.places)
        self._table = table
        self._version += 1
        change = Change(kind, self._version, few_boxes(boxes), pixels, edit.before != edit.after)
        self._log.add(change)
        return change

    def _sent(self, change: Change) -> Change:
        if change.boxes or change.classes:
            self._listeners.call(change)
        return change

    def _failed(self, problem: str) -> None:
        self._listeners.call(Change("error", self._version, message=problem))
