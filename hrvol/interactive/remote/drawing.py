"""Draw on strokes that a server keeps: a copy of them is in memory, and changes are sent.

All is drawn in the copy at once, also while the server cannot be reached. Undo is that of the copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3
from hrvol.errors import InputError, ServerError
from hrvol.interactive.remote.outbox import Outbox
from hrvol.interactive.remote.volume import RemoteVolume
from hrvol.volume.drawing_store.change import Change
from hrvol.volume.drawing_store.chunk_grid import ChunkGrid
from hrvol.volume.drawing_store.chunks import Chunks
from hrvol.volume.drawing_store.class_table import ClassTable
from hrvol.volume.drawing_store.drawer import Drawer
from hrvol.volume.drawing_store.piece import Piece
from hrvol.volume.grid.tiling import whole

if TYPE_CHECKING:
    from hrvol.volume.volume import Volume

_FLUSH_SECONDS = 20.0


class _Nothing:
    """Chunks that are not in memory: they are empty."""

    def __init__(self, grid: ChunkGrid) -> None:
        self._grid = grid

    def read(self, index: Shape3) -> NDArray[Any]:
        return np.zeros(self._grid.chunk, self._grid.dtype)


class RemoteDrawing(Drawer):
    """Strokes on a volume of a server; see :class:`hrvol.volume.drawing_store.drawer.Drawer`.

    Parameters
    ----------
    grid
        Shape, type and chunks on the server.
    volume
        What is drawn on.
    outbox
        Takes the changes.
    url
        Of the server, for messages.
    end
        Ends the connection.
    """

    def __init__(
        self, grid: ChunkGrid, volume: RemoteVolume, outbox: Outbox, url: str, end: Callable[[], None]
    ) -> None:
        super().__init__(grid, ClassTable(grid.source, grid.highest), _Nothing(grid))
        self._volume, self._outbox, self._url, self._close = volume, outbox, url, end
        self._offset = -outbox.last
        self.problem = ""
        """Why changes cannot be sent at present, one line; empty if they can."""

    @property
    def labels(self) -> Volume:
        """The labels as a volume, with voxel size, unit and position; this needs Zarr on this machine."""
        from hrvol.volume.volume import Volume

        like, axes = self._volume, tuple("zyx"[-self.ndim :])
        return Volume(
            self.source,
            self.array(),
            axes,
            like.voxel_size,
            like.unit,
            self.ndim,
            Path(self.source).name,
            like.translation,
        )

    @property
    def saved(self) -> bool:
        """Whether the server has all that is drawn on its disk."""
        return self._outbox.acked == self._outbox.last

    def version_of(self, number: int) -> int:
        """Return the version of the strokes after a change of a number."""
        return max(number + self._offset, 0)

    def load(self, table: ClassTable, pieces: Iterable[Piece]) -> None:
        """Take over the strokes of the server, on which the changes that wait are made again.

        Raises
        ------
        InputError
            They are damaged.
        """
        chunks = Chunks(self._grid, _Nothing(self._grid))
        for piece in pieces:
            if not self._grid.fits(piece):
                raise InputError(f"{self._url}: found strokes outside of the volume")
            chunks.apply(piece)
        with self._lock:
            for records in self._outbox.waiting()[1]:
                for record in self._checked(records):
                    table = record.table or table
                    if record.piece is not None:
                        chunks.apply(record.piece, record.back)
            self._chunks, self._table = chunks, table.with_values([*chunks.planes])
            self._version += 1
            self._offset = self._version - self._outbox.last
            change = Change("reload", self._version, (whole(self.shape),), 0, True)
            self._log.add(change)
        self._sent(change)

    def report(self, problem: str) -> None:
        """Say why changes cannot be sent at present; empty: they can again."""
        known, self.problem = self.problem == problem, problem
        if not known:
            self._listeners.call(Change("error", self._version, message=problem))

    def flush(self) -> None:
        """Wait until the server has all that is drawn on its disk.

        Raises
        ------
        ServerError
            It cannot be reached.
        """
        if not self._outbox.wait(_FLUSH_SECONDS):
            count = len(self._outbox.waiting()[1])
            raise ServerError(
                f"{self._url}: found {count:,} changes of strokes that the server has not received;"
                " they are kept and sent with the next connection"
            )

    def close(self) -> None:
        """Wait until the server has all that is drawn, and end the connection; errors as :meth:`flush`.

        What it has not received is kept on this machine, and sent by the next connection to these strokes.
        """
        if self._closed:
            return
        self._closed = True
        self._close()

    def _record(self, records: Sequence[bytes], table: ClassTable) -> None:
        self._outbox.add(records)
