"""Draw strokes: voxels and classes, with undo, wherever they are kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from hrvol.errors import StrokesError
from hrvol.volume.drawing_store.change import Change, Kind, Listeners, few_boxes
from hrvol.volume.drawing_store.checks import Where, checked_box, checked_places, checked_values, fitting
from hrvol.volume.drawing_store.chunk_grid import ChunkGrid, ChunkReader
from hrvol.volume.drawing_store.class_table import ClassTable, Colour
from hrvol.volume.drawing_store.edit import Edit, History, Record
from hrvol.volume.drawing_store.paintable import PaintableArray
from hrvol.volume.drawing_store.piece import Patch, pieces
from hrvol.volume.drawing_store.reading import OpenStrokes
from hrvol.volume.grid.tiling import Box, box_shape

if TYPE_CHECKING:  # imports Zarr
    from hrvol.volume.volume import Volume


class Drawer(OpenStrokes):
    """Strokes that are drawn; any thread may call it. Where a change is recorded is up to :meth:`_record`.

    Parameters
    ----------
    grid, table, reader
        As for :class:`~hrvol.volume.drawing_store.reading.OpenStrokes`.
    """

    def __init__(self, grid: ChunkGrid, table: ClassTable, reader: ChunkReader) -> None:
        super().__init__(grid, table, reader)
        self._history = History()
        self._strokes = threading.local()  # the stroke that each thread draws
        self._listeners = Listeners(grid.source)
        self._closed = False

    @property
    def labels(self) -> Volume:
        """The labels as a volume, with voxel size, unit and position."""
        raise NotImplementedError

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

    def repeat(self, records: Sequence[bytes]) -> Change:
        """Make a change that another drawer of the same volume recorded; it is no step of undo here.

        Records have the values after the change, not the difference: a change that is repeated, with all
        that followed it, gives the same strokes.

        Raises
        ------
        StrokesError
            The records are damaged, or of another volume.
        """
        with self._lock:
            found = self._checked(records)
            table = next((record.table for record in reversed(found) if record.table), self._table)
            drawn = {v for record in found for v in record.values()}
            change = self._repeated(found, records, table.with_values(drawn))
        return self._sent(change)

    def array(self) -> PaintableArray:
        """Return the strokes as an array that napari and others show and paint."""
        return PaintableArray(self)

    def subscribe(self, function: Callable[[Change], None]) -> Callable[[], None]:
        """Call a function with each change, and with errors of saving; the result ends that.

        It is called in the thread that changes, or in that which saves.
        """
        return self._listeners.add(function)

    def _record(self, records: Sequence[bytes], table: ClassTable) -> None:
        """Take over the records of an edit and the classes after it, before it is made; with the lock held.

        What it raises prevents the edit.
        """
        raise NotImplementedError

    def _checked(self, records: Sequence[bytes]) -> list[Record]:
        try:
            found = [Record.of(data, self._table) for data in records]
        except ValueError as error:
            raise StrokesError(f"{self.source}: found a damaged change: {error}") from None
        whole = bool(found) and [record.more for record in found] == [True] * (len(found) - 1) + [False]
        if not whole or any(record.piece and not self._grid.fits(record.piece) for record in found):
            raise StrokesError(
                f"{self.source}: found a change of other strokes, expected one of {self.shape}"
            )
        return found

    def _repeated(self, found: Sequence[Record], records: Sequence[bytes], table: ClassTable) -> Change:
        self._check_open()
        self._record(records, table)
        boxes: list[Box] = []
        pixels = 0
        for record in found:
            if record.piece is not None:
                boxes += self._chunks.apply(record.piece, record.back)
                pixels += len(record.piece.places)
        changed, self._table = table != self._table, table
        self._version += 1
        change = Change("paint", self._version, few_boxes(boxes), pixels, changed)
        self._log.add(change)
        return change

    def _check_open(self) -> None:
        if self._closed:
            raise StrokesError(f"{self.source}: is closed, expected open strokes to draw")

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
        self._check_open()
        table = self._table.then(edit.before if back else edit.after)
        self._record(edit.records(back), table)
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
