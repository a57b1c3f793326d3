"""Draw strokes on a volume of any size: sparse, saved while one draws, with undo.

What is drawn is recorded in a journal at once, and soon after in the chunks of OME-Zarr labels, which
``hrvol train`` and other programs read. Journal, lock and counts are in the folder ``.drawing`` of the array.
"""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np

from hrvol.arrays import Shape3
from hrvol.classes import ClassInfo
from hrvol.errors import ResourceError
from hrvol.volume.drawing_store.change import Change
from hrvol.volume.drawing_store.chunk_files import ChunkFiles
from hrvol.volume.drawing_store.class_table import ClassTable
from hrvol.volume.drawing_store.count_file import write_counts
from hrvol.volume.drawing_store.drawer import Drawer
from hrvol.volume.drawing_store.keeper import Keeper
from hrvol.volume.drawing_store.layout import CHUNK, Layout, create_layout, open_layout
from hrvol.volume.drawing_store.lock import StoreLock
from hrvol.volume.drawing_store.recovery import load_chunks, replay
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import Volume


class DrawingStore(Drawer):
    """Strokes that are drawn on a volume; opened by one process, in which any thread may call it.

    Use :meth:`create` and :meth:`open`; in a ``with`` statement, or call :meth:`close`. A process that is
    killed loses at most the last 2 s.
    """

    def __init__(self, layout: Layout, lock: StoreLock) -> None:
        files = ChunkFiles(layout)
        super().__init__(layout.grid, layout.table, files)
        self._layout, self._files, self._lock_file = layout, files, lock
        load_chunks(layout, files, self._chunks)
        self._table, number, repeated = replay(layout, self._chunks, layout.table)
        self._keeper = Keeper(layout, files, self._chunks, number, self._lock, self._failed)
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
    def labels(self) -> Volume:
        """The labels as other programs read them: what is saved, and voxel size, unit and position."""
        return self._layout.labels

    @property
    def saved(self) -> bool:
        """Whether all that is drawn is where other programs read it."""
        with self._lock:
            return self._keeper.saved

    @property
    def problem(self) -> str:
        """Why the strokes cannot be saved at present, one line; empty if they can."""
        return self._keeper.problem

    def flush(self) -> None:
        """Save all that is drawn, where other programs read it, and wait until it is on the disk.

        Raises
        ------
        ResourceError
            It cannot be written; what was stored stays, and what is drawn stays in memory.
        """
        self._keeper.flush()

    def sync(self) -> None:
        """Wait until the journal of all that is drawn is on the disk: quicker than :meth:`flush`.

        Raises
        ------
        ResourceError
            It cannot be written; what is drawn stays in memory.
        """
        self._keeper.sync()

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

    def _record(self, records: Sequence[bytes], table: ClassTable) -> None:
        self._keeper.record(records, table)

    def _failed(self, problem: str) -> None:
        self._listeners.call(Change("error", self._version, message=problem))
