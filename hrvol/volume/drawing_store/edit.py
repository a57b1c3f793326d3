"""One step of drawing: changed voxels and classes, as records of the journal, and as what undo takes back."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hrvol.errors import InputError
from hrvol.reading.bounded import parse_mapping
from hrvol.volume.drawing_store.class_table import ClassTable
from hrvol.volume.drawing_store.piece import Piece, decode

MOST_HISTORY = 256 * 2**20
"""Bytes of steps that can be undone."""

_HEAD = struct.Struct("<I")

_JSON_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Edit:
    """A change of strokes that is made, undone and redone as a whole.

    Attributes
    ----------
    pieces
        Changed voxels as bytes (:mod:`hrvol.volume.drawing_store.piece`), in the order of drawing.
    before, after
        Tables of classes; the same object if they do not change.
    """

    pieces: tuple[bytes, ...]
    before: ClassTable
    after: ClassTable

    @property
    def empty(self) -> bool:
        """Whether nothing changes."""
        return not self.pieces and self.before == self.after

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return sum(map(len, self.pieces)) + 300

    def then(self, later: Edit) -> Edit:
        """Return this and a later edit as one."""
        return Edit(self.pieces + later.pieces, self.before, later.after)

    def decoded(self, back: bool = False) -> Iterator[Piece]:
        """Yield the pieces in the order in which they are made, or undone."""
        yield from map(decode, reversed(self.pieces) if back else self.pieces)

    def records(self, back: bool = False) -> list[bytes]:
        """Return the edit, or what undoes it, as records for the journal."""
        pieces: Sequence[bytes] = self.pieces[::-1] if back else self.pieces
        table = self.before if back else self.after
        found = []
        for number, piece in enumerate(pieces or (b"",), start=1):
            last = number >= len(pieces)
            head: dict[str, object] = {"more": not last, "back": back}
            if last and self.before != self.after:
                head["classes"] = table.to_json()
            text = json.dumps(head, separators=(",", ":")).encode()
            found.append(_HEAD.pack(len(text)) + text + piece)
        return found


@dataclass(frozen=True, eq=False)
class Record:
    """A record of the journal.

    Attributes
    ----------
    more
        Whether the next record belongs to the same edit.
    back
        Whether the values before are meant.
    piece
        Changed voxels, or ``None``.
    table
        Table of classes afterwards, or ``None``.
    """

    more: bool
    back: bool
    piece: Piece | None
    table: ClassTable | None

    def values(self) -> set[int]:
        """Return the values that are drawn."""
        if self.piece is None:
            return set()
        return set(np.flatnonzero(np.bincount(self.piece.before if self.back else self.piece.after)).tolist())

    @classmethod
    def of(cls, data: bytes, table: ClassTable) -> Record:
        """Return the record of bytes; :class:`ValueError` if they are damaged."""
        try:
            (size,) = _HEAD.unpack_from(data)
            head = parse_mapping(data[_HEAD.size : _HEAD.size + size], "journal", limit=_JSON_BYTES)
            found = head.get("classes")
            piece = data[_HEAD.size + size :]
            return cls(
                head.get("more") is True,
                head.get("back") is True,
                decode(piece) if piece else None,
                None if found is None else table.from_json(found),
            )
        except (struct.error, InputError) as error:
            raise ValueError(str(error)) from None


class History:
    """Steps that can be undone and redone; the oldest are forgotten when they take too many bytes.

    Parameters
    ----------
    limit
        Most bytes.

    Attributes
    ----------
    done, undone
        Steps that can be undone, and redone; the next one last.
    """

    def __init__(self, limit: int = MOST_HISTORY) -> None:
        self._limit = limit
        self.done: list[Edit] = []
        self.undone: list[Edit] = []
        self._stroke: object | None = None
        self._bytes = 0

    def add(self, edit: Edit, stroke: object | None = None) -> None:
        """Add a step; to the last one, if that belongs to the same stroke."""
        self._bytes += edit.nbytes - sum(step.nbytes for step in self.undone)
        self.undone.clear()
        if stroke is not None and stroke is self._stroke and self.done:
            self.done[-1] = self.done[-1].then(edit)
        else:
            self.done.append(edit)
        self._stroke = stroke
        while self.done and self._bytes > self._limit:
            self._bytes -= self.done.pop(0).nbytes

    def step(self, back: bool) -> None:
        """Count the last step as undone, or with ``back`` false the last undone one as done."""
        self._stroke = None
        if back:
            self.undone.append(self.done.pop())
        else:
            self.done.append(self.undone.pop())
