"""A volume of a server, read tile by tile when it is shown."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3, Spacing3
from hrvol.errors import InputError, ServerError, UnreadableError
from hrvol.interactive.remote.link import Link
from hrvol.interactive.wire.frame import TYPES
from hrvol.volume.grid.tiling import Box, box_shape, intersection, whole

TILE = (1, 1024, 1024)
"""Voxels (z, y, x) that are read at once."""

_THREADS = 4

_TRIES_SECONDS = 10.0

_PAUSE = 0.2

Tile = tuple[int, int, int, int]
"""Level, and index of a tile along z, y and x."""


class TileCache:
    """The tiles of a server that were read last; any thread may call it.

    Parameters
    ----------
    link
        The server.
    limit
        Most bytes.
    """

    def __init__(self, link: Link, limit: int = 256 * 2**20) -> None:
        self._link, self._limit = link, limit
        self._tiles: OrderedDict[Tile, NDArray[Any]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._closed = False
        self._pool = ThreadPoolExecutor(_THREADS, "hrvol-tiles")

    def close(self) -> None:
        """Read nothing more."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def get(self, tiles: Mapping[Tile, Box], dtype: np.dtype[Any]) -> list[NDArray[Any]]:
        """Return tiles, those that are not in memory from the server."""
        with self._lock:
            found = {tile: self._tiles[tile] for tile in tiles if tile in self._tiles}
            for tile in found:
                self._tiles.move_to_end(tile)
        missing = [tile for tile in tiles if tile not in found]
        read: Callable[[Tile], NDArray[Any]] = lambda tile: self._read(tile, tiles[tile], dtype)  # noqa: E731
        pooled = len(missing) > 1 and not self._closed
        new = self._pool.map(read, missing) if pooled else map(read, missing)
        for tile, values in zip(missing, new, strict=True):
            found[tile] = values
            self._keep(tile, values)
        return [found[tile] for tile in tiles]

    def _keep(self, tile: Tile, values: NDArray[Any]) -> None:
        with self._lock:
            if tile not in self._tiles:
                self._tiles[tile] = values
                self._bytes += values.nbytes
            while self._bytes > self._limit and len(self._tiles) > 1:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes

    def _read(self, tile: Tile, box: Box, dtype: np.dtype[Any]) -> NDArray[Any]:
        bounds = ",".join(f"{span.start},{span.stop}" for span in box)
        params = {"level": str(tile[0]), "box": bounds}
        end = time.monotonic() + _TRIES_SECONDS
        while True:
            try:
                values = self._link.frame("GET", "/v1/voxels", params=params).arrays.get("voxels")
                break
            except ServerError as error:  # a connection that was cut
                if self._closed or time.monotonic() > end:
                    raise UnreadableError(str(error)) from None
                time.sleep(_PAUSE)
        if values is None or values.shape != box_shape(box) or values.dtype != dtype:
            raise InputError(f"{self._link.url}: found other voxels than those of the request")
        return values


@dataclass(frozen=True, eq=False)
class RemoteVolume:
    """A grey volume of a server; attributes as those of :class:`hrvol.Volume`.

    Attributes
    ----------
    source
        Path or URL on the server.
    name
        Short name.
    shape
        Voxels (z, y, x).
    dtype
        Type of the voxels.
    ndim
        2 for an image, else 3.
    voxel_size, unit, translation
        Where it is.
    level
        Number of its resolution, 0 the finest.
    """

    source: str
    name: str
    shape: Shape3
    dtype: np.dtype[Any]
    ndim: int
    voxel_size: Spacing3
    unit: str | None
    translation: Spacing3
    level: int
    _tiles: TileCache = field(repr=False)

    @property
    def colour(self) -> bool:
        """Whether a voxel has three values: never, servers refuse volumes of colour."""
        return False

    @property
    def chunks(self) -> Shape3:
        """Voxels that are read at once."""
        z, y, x = (min(side, n) for side, n in zip(TILE, self.shape, strict=True))
        return z, y, x

    def read(self, box: Box | None = None, reader: Any = None) -> NDArray[Any]:
        """Read a box, or all of it.

        Parameters
        ----------
        box
            Slices (z, y, x) with explicit bounds inside the volume.
        reader
            Not used: tiles that were read are kept anyway.

        Raises
        ------
        UnreadableError
            The server cannot be reached.
        IndexError
            The box is empty or not inside the volume.
        """
        box = whole(self.shape) if box is None else box
        for name, span, length in zip("zyx", box, self.shape, strict=True):
            if not 0 <= span.start < span.stop <= length or span.step not in (None, 1):
                raise IndexError(f"{self.name}: {name} {span.start}:{span.stop} is not inside 0:{length}")
        ranges = [range(s.start // n, -(-s.stop // n)) for s, n in zip(box, TILE, strict=True)]
        tiles = {(self.level, z, y, x): self._box_of((z, y, x)) for z, y, x in product(*ranges)}
        values = np.empty(box_shape(box), self.dtype)
        for own, tile in zip(tiles.values(), self._tiles.get(tiles, self.dtype), strict=True):
            shared = intersection(own, box)
            assert shared is not None
            values[_within(shared, box)] = tile[_within(shared, own)]
        return values

    def _box_of(self, index: Shape3) -> Box:
        z, y, x = (
            slice(i * side, min((i + 1) * side, n))
            for i, side, n in zip(index, TILE, self.shape, strict=True)
        )
        return z, y, x


def _within(box: Box, outer: Box) -> Box:
    z, y, x = (slice(s.start - o.start, s.stop - o.start) for s, o in zip(box, outer, strict=True))
    return z, y, x


def open_levels(link: Link) -> tuple[tuple[RemoteVolume, ...], TileCache]:
    """Return the volume of a server at all its resolutions, the finest first, and the cache of its tiles.

    Raises
    ------
    InputError
        The server describes no volume.
    """
    about = link.json("GET", "/v1/volume")
    cache = TileCache(link)
    try:
        dtype = next(kind for kind in TYPES if kind.str == about["dtype"])
        ndim, unit = int(about["ndim"]), about["unit"]
        levels = tuple(
            RemoteVolume(
                str(about["source"]),
                str(about["name"]),
                _three(level["shape"], int),
                dtype,
                ndim,
                _three(level["voxel_size"], float),
                None if unit is None else str(unit),
                _three(level["translation"], float),
                number,
                cache,
            )
            for number, level in enumerate(about["levels"])
        )
    except (KeyError, TypeError, ValueError, StopIteration):
        raise InputError(f"{link.url}: found a damaged description of a volume") from None
    if not levels or ndim not in (2, 3) or any(min(level.shape) < 1 for level in levels):
        raise InputError(f"{link.url}: found a damaged description of a volume")
    return levels, cache


def _three(values: Any, kind: Callable[[Any], Any]) -> tuple[Any, Any, Any]:
    z, y, x = map(kind, values)
    return z, y, x
