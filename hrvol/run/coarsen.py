"""Coarser levels of an output, made part by part on an engine; what is made already is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hrvol.errors import BlockError
from hrvol.run.engine import Engine
from hrvol.run.ledger import Ledger
from hrvol.run.progress import ProgressCallback
from hrvol.run.stop import Stop
from hrvol.run.task import configuration
from hrvol.volume.pyramid import HasLevels


@dataclass(frozen=True)
class Part:
    """One part of a coarser level: the ``level``-th coarser one of the ``image``-th image of an output."""

    image: int
    level: int
    part: int


def coarsen(
    where: Engine,
    store: HasLevels,
    ledger: Ledger,
    *,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> bool:
    """Make the coarser levels of a store whose finest ones are there.

    Parameters
    ----------
    where
        Engine whose configuration has the output as ``store``.
    store, ledger
        The images. Parts that were made of the same blocks are not made again.
    stop
        Once requested no other part is begun.
    progress
        Called with stage, voxels done, all voxels: as many as parts of full size have.

    Returns
    -------
    bool
        Whether all is made; ``False`` if it was stopped.

    Raises
    ------
    BlockError
        A part cannot be made.
    """
    made_of = ledger.book.digest()
    depth = max((len(image.levels) for image in store.images), default=0)
    total = sum(plan.parts for image in store.images for plan in image.levels)
    done, voxels = 0, math.prod(store.block_shape)
    for level in range(depth):  # each is made of the one before
        todo = []
        for number, image in enumerate(store.images):
            if level >= len(image.levels):
                continue
            store.make_level(number, level)
            for part in range(image.levels[level].parts):
                piece = Part(number, level, part)
                if ledger.book.parts.get(_name(store, piece)) == made_of:
                    done += 1
                else:
                    todo.append(piece)
        for outcome in where.map_bounded(make_part, todo, stop=stop):
            if not outcome.ok:
                raise BlockError(
                    f"{store.location}: cannot make {_name(store, outcome.task)}: {outcome.error}"
                    " (the same command checks what is stored and goes on)"
                )
            ledger.part(_name(store, outcome.task), made_of)
            done += 1
            if progress is not None:
                progress("coarser levels", done * voxels, total * voxels)
        if stop is not None and stop.requested:
            return False
    return True


def make_part(piece: Part) -> None:
    """Make one part; the task that engines hand to workers."""
    configuration().store.make_part(piece.image, piece.level, piece.part)


def _name(store: HasLevels, piece: Part) -> str:
    return f"{store.images[piece.image].path}/{piece.level + 1}/{piece.part}"
