"""Build the coarser levels of an output part by part on an engine; finished parts are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hrvol.engine.spec import Engine
from hrvol.engine.stop import Stop
from hrvol.engine.task import configuration
from hrvol.errors import BlockError
from hrvol.progress import ProgressCallback
from hrvol.run.block_job import forget_input
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
    engine: Engine,
    store: HasLevels,
    ledger: Ledger,
    *,
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> bool:
    """Build the coarser levels of a store whose finest level is complete.

    Parameters
    ----------
    engine
        Its configuration has the output as ``store``.
    store, ledger
        The images. Parts that were built from the same blocks are not built again.
    stop
        When requested, no other part is started.
    progress
        Called with the stage, voxels done and the total, counting parts of full size.

    Returns
    -------
    bool
        Whether all levels are built; ``False`` if stopped.

    Raises
    ------
    BlockError
        A part cannot be built.
    """
    built_from = ledger.state.digest()
    depth = max((len(image.levels) for image in store.images), default=0)
    total = sum(plan.parts for image in store.images for plan in image.levels)
    done, voxels = 0, math.prod(store.block_shape)
    for level in range(depth):  # each is built from the previous one
        pending = []
        for number, image in enumerate(store.images):
            if level >= len(image.levels):
                continue
            store.make_level(number, level)
            for part in range(image.levels[level].parts):
                piece = Part(number, level, part)
                if ledger.state.parts.get(_name(store, piece), ("",))[0] == built_from:
                    done += 1
                else:
                    pending.append(piece)
        for outcome in engine.map_bounded(make_part, pending, stop=stop):
            if not outcome.ok:
                raise BlockError(
                    f"{store.location}: cannot build {_name(store, outcome.task)}: {outcome.error}"
                    " (run the same command to check what is stored and resume)"
                )
            ledger.mark_part(_name(store, outcome.task), built_from, str(outcome.value))
            done += 1
            if progress is not None:
                progress("coarser levels", done * voxels, total * voxels)
        if stop is not None and stop.requested:
            return False
    return True


def recheck_levels(
    store: HasLevels, ledger: Ledger, damaged: Sequence[Box] = (), *, warn: Callable[[], None] = lambda: None
) -> int:
    """Check that finished parts are stored undamaged; damaged ones are deleted and marked pending.

    Parts built from a damaged part or block are built again too: the damage may have preceded them.

    Parameters
    ----------
    store, ledger
        Of the run.
    damaged
        Damaged blocks, (z, y, x).
    warn
        Called before the first part is deleted.

    Returns
    -------
    int
        Number of parts that have to be built again.
    """
    again: dict[Part, None] = {}
    for number, image in enumerate(store.images):
        for box in damaged:
            again |= dict.fromkeys(Part(number, *indices) for indices in parts_made_of(image, box))
        for piece in _damaged_parts(store, ledger, number):
            again[piece] = None
            box = part_box(image, piece.level, piece.part)
            coarser = parts_made_of(image, box, piece.level)
            again |= dict.fromkeys(Part(number, *indices) for indices in coarser)
    recorded = [piece for piece in again if _name(store, piece) in ledger.state.parts]
    if recorded:
        warn()
    for piece in recorded:
        erase_part(store, piece.image, piece.level, piece.part)
        ledger.mark_part(_name(store, piece), "", "")
    return len(recorded)


def levels_built(store: HasLevels, ledger: Ledger) -> bool:
    """Whether all parts of all levels are recorded as built from the present blocks."""
    built_from = ledger.state.digest()
    pieces = (
        Part(number, level, part)
        for number, image in enumerate(store.images)
        for level, plan in enumerate(image.levels)
        for part in range(plan.parts)
    )
    return all(ledger.state.parts.get(_name(store, piece), ("",))[0] == built_from for piece in pieces)


def _damaged_parts(store: HasLevels, ledger: Ledger, image: int) -> Iterator[Part]:
    """Yield the parts of an image whose stored bytes do not match their checksum."""
    for level, plan in enumerate(store.images[image].levels):
        pieces = (Part(image, level, part) for part in range(plan.parts))
        finished = [piece for piece in pieces if ledger.state.parts.get(_name(store, piece), ("",))[0]]
        if finished:
            store.make_level(image, level)  # its metadata may be lost
        for start in range(0, len(finished), _CHECKED_AT_ONCE):
            some = finished[start : start + _CHECKED_AT_ONCE]
            checksums = part_checksums(store, image, level, [piece.part for piece in some])
            for piece, checksum in zip(some, checksums, strict=True):
                if checksum != ledger.state.parts[_name(store, piece)][1]:
                    yield piece


def make_part(piece: Part) -> str:
    """Build one part and return the checksum of its stored bytes; the task that engines hand to workers."""
    forget_input()  # all blocks are done: the memory is for the levels
    store: HasLevels = configuration().store
    store.make_part(piece.image, piece.level, piece.part)
    return part_checksums(store, piece.image, piece.level, [piece.part])[0]


def _name(store: HasLevels, piece: Part) -> str:
    return f"{store.images[piece.image].path}/{piece.level + 1}/{piece.part}"
