"""Bring what is drawn to the disk: the journal at once, the chunks soon after, in threads of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from hrvol.errors import ResourceError, one_line
from hrvol.volume.drawing_store.chunk_files import ChunkFiles
from hrvol.volume.drawing_store.chunks import Chunks
from hrvol.volume.drawing_store.class_table import ClassTable
from hrvol.volume.drawing_store.journal import Journal
from hrvol.volume.drawing_store.layout import Layout
from hrvol.volume.drawing_store.saver import SAVE, SYNC, Saver

LOG = logging.getLogger("hrvol.volume")


class Keeper:
    """Saves the strokes of a store.

    Parameters
    ----------
    layout
        Where they are stored.
    files, chunks
        Their chunks, on the disk and in memory.
    number
        Of the first file of the journal.
    lock
        That of the store: held by who changes the strokes.
    failed
        Called with one line when saving fails for a new reason; with an empty one when it works again.
    """

    def __init__(
        self,
        layout: Layout,
        files: ChunkFiles,
        chunks: Chunks,
        number: int,
        lock: threading.RLock,
        failed: Callable[[str], None],
    ) -> None:
        self._layout, self._files, self._chunks = layout, files, chunks
        self._lock, self._report_problem = lock, failed
        self._journal = Journal(layout.own, number)
        self._table = self._saved_table = layout.table
        self._marked = layout.drawn  # whether the metadata say that strokes were drawn
        self._saving = threading.Lock()  # one writer of chunks; taken before the lock of the store
        self._closed = False
        self.problem = ""
        self._savers = (
            Saver(SYNC, self._journal.sync, self._failed, self._journal.write),
            Saver(SAVE, self.save, self._failed),
        )

    @property
    def saved(self) -> bool:
        """Whether all that is drawn is where other programs read it; called with the lock held."""
        return not (self._chunks.unsaved or self._journal.unsynced or self._table != self._saved_table)

    def record(self, records: Sequence[bytes], table: ClassTable) -> None:
        """Take over the records of an edit and the classes after it; called with the lock held."""
        self._journal.append(records)
        self._table = table
        self.report()

    def report(self) -> None:
        """Have the threads save what there is."""
        for saver in self._savers:
            saver.report()

    def save(self) -> None:
        """Bring the chunks and the metadata up to date, then delete the journal of what is in them.

        Raises
        ------
        OSError
            The disk is full, for instance. What was stored stays, and nothing in memory is lost.
        """
        with self._saving:
            with self._lock:
                if self.saved:
                    return
                table = self._table
                number = self._journal.rotate()
                self._chunks.begin_save()
            saved = False
            try:
                self._journal.sync()
                self._files.write(self._chunks.to_save())
                if table != self._saved_table or not self._marked:
                    self._layout.write_classes(table)
                    self._marked = True
                self._journal.cut(number)
                saved = True
            finally:
                with self._lock:
                    self._chunks.end_save(saved=saved)
                    if saved:
                        self._saved_table = table
            solved, self.problem = bool(self.problem), ""
        if solved:  # after the lock: who hears of it may save or close
            self._report_problem("")

    def flush(self) -> None:
        """Save as :meth:`save`; raise :class:`ResourceError` if that is impossible."""
        try:
            self.save()
        except OSError as error:
            self._failed(error)
            raise ResourceError(self.problem) from None

    def sync(self) -> None:
        """Bring the journal to the disk; raise :class:`ResourceError` if that is impossible."""
        try:
            self._journal.sync()
        except OSError as error:
            self._failed(error)
            raise ResourceError(self.problem) from None

    def close(self) -> None:
        """End the threads; what is not saved by then is lost."""
        for saver in self._savers:
            saver.end()
        self._journal.close()

    def _failed(self, error: Exception) -> None:
        reason = (error.strerror if isinstance(error, OSError) else None) or one_line(error)
        problem = f"{self._layout.source}: cannot be written: {reason}; what is drawn is kept in memory"
        known, self.problem = self.problem == problem, problem
        if not known:
            LOG.warning("%s", problem)
            self._report_problem(problem)
