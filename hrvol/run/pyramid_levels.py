"""Coarser levels of an output, made part by part on an engine; what is made already is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hrvol.engine.spec import Engine
from hrvol.engine.stop import Stop
from hrvol.engine.task import configuration
from hrvol.errors import BlockError
from hrvol.progress import ProgressCallback
from hrvol.run.ledger import Ledger
from hrvol.volume.grid.tiling import Box
from hrvol.volume.ome.pyramid import HasLevels
from hrvol.volume.ome.pyramid_parts import erase_part, part_box, part_checksums, parts_made_of

_CHECKED_AT_ONCE = 128


@dataclass(frozen=True)
class Part:
    """One part of a coarser level: the ``level``-th coarser one of the ``image``-th image of an output."""

    image: int
    level: int
    part: int


def build_levels(
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
    made_of = ledger.state.digest()
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
                if ledger.state.parts.get(_name(store, piece), ("",))[0] == made_of:
                    done += 1
                else:
                    todo.append(piece)
        for outcome in where.map_bounded(make_part, todo, stop=stop):
            if not outcome.ok:
                raise BlockError(
                    f"{store.location}: cannot make {_name(store, outcome.task)}: {outcome.error}"
                    " (the same command checks what is stored and goes on)"
                )
            ledger.mark_part(_name(store, outcome.task), made_of, str(outcome.value))
            done += 1
            if progress is not None:
                progress("coarser levels", done * voxels, total * voxels)
        if stop is not None and stop.requested:
            return False
    return True


def recheck_levels(
    store: HasLevels, ledger: Ledger, harmed: Sequence[Box] = (), *, warn: Callable[[], None] = lambda: None
) -> int:
    """Look whether the parts that are made are stored unharmed; what is not is deleted and left to make.

    What came of a harmed part, or a harmed block, is left to make again, too: nobody knows whether it was
    harmed before.

    Parameters
    ----------
    store, ledger
        Of the run.
    harmed
        Blocks that were found to be harmed, (z, y, x).
    warn
        Called before the first part is deleted.

    Returns
    -------
    int
        Number of parts that have to be made again.
    """
    again: dict[Part, None] = {}
    for number, image in enumerate(store.images):
        for box in harmed:
            again |= dict.fromkeys(Part(number, *place) for place in parts_made_of(image, box))
        for piece in _harmed_parts(store, ledger, number):
            again[piece] = None
            box = part_box(image, piece.level, piece.part)
            made_of_it = parts_made_of(image, box, piece.level)
            again |= dict.fromkeys(Part(number, *place) for place in made_of_it)
    known = [piece for piece in again if _name(store, piece) in ledger.state.parts]
    if known:
        warn()
    for piece in known:
        erase_part(store, piece.image, piece.level, piece.part)
        ledger.mark_part(_name(store, piece), "", "")
    return len(known)


def _harmed_parts(store: HasLevels, ledger: Ledger, image: int) -> Iterator[Part]:
    """Yield the parts of an image that are not stored as they were made."""
    for level, plan in enumerate(store.images[image].levels):
        pieces = (Part(image, level, part) for part in range(plan.parts))
        made = [piece for piece in pieces if ledger.state.parts.get(_name(store, piece), ("",))[0]]
        for start in range(0, len(made), _CHECKED_AT_ONCE):
            some = made[start : start + _CHECKED_AT_ONCE]
            found = part_checksums(store, image, level, [piece.part for piece in some])
            for piece, checksum in zip(some, found, strict=True):
                if checksum != ledger.state.parts[_name(store, piece)][1]:
                    yield piece


def make_part(piece: Part) -> str:
    """Make one part, and return the checksum of what was stored; the task that engines hand to workers."""
    store: HasLevels = configuration().store
    store.make_part(piece.image, piece.level, piece.part)
    return part_checksums(store, piece.image, piece.level, [piece.part])[0]


def _name(store: HasLevels, piece: Part) -> str:
    return f"{store.images[piece.image].path}/{piece.level + 1}/{piece.part}"
