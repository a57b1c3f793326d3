"""Give a session the student of the model that was saved of its strokes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hrvol.errors import HrvolError
from hrvol.napari.painting.board import Board


@dataclass(frozen=True, eq=False)
class SavedModel:
    """The model of some strokes.

    Attributes
    ----------
    board
        The strokes.
    version
        Theirs when the model was requested.
    sha256
        Of its file.
    """

    board: Board
    version: int
    sha256: str

    @classmethod
    def of(cls, board: Board, version: int, data: bytes) -> SavedModel:
        """Return what is known of a model's bytes."""
        return cls(board, version, hashlib.sha256(data).hexdigest())

    @property
    def present(self) -> bool:
        """Whether the strokes are the same still."""
        return bool(self.board.store.version == self.version)


def give_student(session: Any, saved: SavedModel, path: str) -> bool:
    """Have previews end with a student, if a model of the present strokes taught it; return whether it did.

    To be called in a thread: it reads the file.
    """
    from hrvol.interactive.students import open_student  # imports torch, as the session has

    if not saved.present:
        return False
    try:
        model = open_student(path)
    except HrvolError:  # a model of another kind, or of another program
        return False
    taught = getattr(model.classifier, "taught", {})
    teacher = taught.get("teacher")
    if not isinstance(teacher, Mapping) or teacher.get("sha256") != saved.sha256 or not saved.present:
        return False
    session.student = model
    return True
