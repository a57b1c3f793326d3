"""Read what a server answers to a client that begins to draw: layout, classes, what is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hrvol.errors import InputError
from hrvol.interactive.remote.link import Link
from hrvol.interactive.remote.volume import RemoteVolume
from hrvol.interactive.wire.frame import TYPES
from hrvol.interactive.wire.messages import classes_from_json
from hrvol.volume.drawing_store.chunk_grid import ChunkGrid
from hrvol.volume.drawing_store.class_table import ClassTable
from hrvol.volume.drawing_store.piece import Piece, decode

Reply = Mapping[str, Any]

_MOST_CHUNK_VOXELS = 2**24


def attach(link: Link, acked: int, last: int) -> dict[str, Any]:
    """Begin to draw, or continue.

    Parameters
    ----------
    link
        The server.
    acked, last
        Numbers of the last change that it has, as far as known, and of the last one.

    Returns
    -------
    dict
        With ``lineage`` and ``received``, see :class:`hrvol.interactive.serve.pen.Pen`, and what the other
        functions here read.

    Raises
    ------
    BusyError
        Another client draws.
    InputError
        The server has other changes.
    """
    reply = link.json("POST", "/v1/attach", values={"received": acked})
    received = reply.get("received")
    if type(received) is not int or received > last or not isinstance(reply.get("lineage"), str):
        raise InputError(f"{link.url}: found other changes of strokes than those of this client")
    return reply


def grid_of(reply: Reply, volume: RemoteVolume, source: str) -> ChunkGrid:
    """Return shape, type and chunks of the strokes; :class:`InputError` if they are damaged."""
    try:
        dtype = next(kind for kind in TYPES[:2] if kind.str == reply["dtype"])
        z, y, x = (int(side) for side in reply["chunk"])
        name = str(reply["source"])
    except (KeyError, TypeError, ValueError, StopIteration):
        raise InputError(f"{source}: found a damaged description of strokes") from None
    if min(z, y, x) < 1 or z * y * x > _MOST_CHUNK_VOXELS:
        raise InputError(f"{source}: found chunks of {z} x {y} x {x} voxels, expected fewer voxels")
    return ChunkGrid(name, volume.shape, (z, y, x), dtype, volume.ndim)


def table_of(reply: Reply, grid: ChunkGrid, source: str) -> ClassTable:
    """Return the classes of the strokes; :class:`InputError` if they are damaged."""
    try:
        following = int(reply["next"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{source}: found a damaged table of classes") from None
    return ClassTable.of(grid.source, grid.highest, classes_from_json(reply.get("classes")), following)


def pieces_of(link: Link, lineage: str) -> Iterator[Piece]:
    """Yield what is drawn, inside of the volume or not; :class:`InputError` if it is damaged."""
    after = ""
    while True:
        frame = link.frame("GET", "/v1/drawn", params={"after": after}, lineage=lineage)
        if "piece" not in frame.arrays:
            return
        try:
            piece = decode(frame.arrays["piece"].tobytes())
        except ValueError as error:
            raise InputError(f"{link.url}: found damaged strokes: {error}") from None
        last = ",".join(map(str, piece.chunks[-1].tolist())) if len(piece.chunks) else ""
        if not last or last == after:
            raise InputError(f"{link.url}: found damaged strokes")
        yield piece
        after = last
