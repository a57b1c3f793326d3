"""Where a store is: a local path, or any fsspec URL (``s3://``, ``gs://``, ...) with its options.

Everything that opens a Zarr hierarchy does it through a :class:`Location`, so that a laptop's folder and a
bucket are the same to the rest. Local writes are durable: what ``set`` has returned from survives a power
cut.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore

from hrvol.errors import UsageError

PARTIAL = ".partial"
"""How files are named that a local write has not finished; left behind where its process was killed."""

_STAMPS_AT_ONCE = 16


class DurableStore(LocalStore):
    """A local store whose files are on the disk, not only in the system's memory, when ``set`` returns."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write a value: whole or not at all, and durably."""
        await super().set(key, value)
        await asyncio.to_thread(_settle, self.root / key)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write a value: whole or not at all, and durably."""
        super().set_sync(key, value)
        _settle(self.root / key)


@dataclass(frozen=True)
class Location:
    """A path or URL, and what its file system needs to be told; cheap to pickle.

    Attributes
    ----------
    url
        Path or URL, as the user wrote it.
    options
        Keywords of the URL's fsspec file system. They may hold secrets, and are never written down or shown.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, source: str | Path | Location, options: Mapping[str, Any] | None = None) -> Location:
        """Return the location that a path, a URL or a location means."""
        if isinstance(source, Location):
            return source
        text = str(source)
        text = text.removeprefix("file://") if text.startswith("file://") else text
        return cls(text, dict(options or {}) if is_url(text) else {})

    def __str__(self) -> str:
        return self.url

    @property
    def path(self) -> Path | None:
        """The local path; ``None`` for a URL."""
        return None if is_url(self.url) else Path(self.url)

    def store(self, *, read_only: bool = True) -> Store:
        """Return the Zarr store. A local folder that is not there is made unless ``read_only``."""
        if self.path is not None:
            return (LocalStore if read_only else DurableStore)(self.path, read_only=read_only)
        return FsspecStore.from_url(self.url, storage_options=dict(self.options), read_only=read_only)

    def open(self) -> zarr.Array[Any] | zarr.Group:
        """Open the array or group for reading; what Zarr and the file system raise is let through."""
        if self.path is not None and not self.path.exists():
            raise FileNotFoundError(self.url)
        return zarr.open(self.store(), mode="r")

    def open_group(self, mode: Any = "r", path: str = "") -> zarr.Group:
        """Open a group of the hierarchy: ``r`` to read, ``r+`` to write too."""
        return zarr.open_group(self.store(read_only=mode == "r"), path=path, mode=mode, zarr_format=3)

    def open_array(self, path: str = "", mode: Any = "r") -> zarr.Array[Any]:
        """Open an array of the hierarchy: ``r`` to read, ``r+`` to write too."""
        return zarr.open_array(self.store(read_only=mode == "r"), path=path, mode=mode)

    def attributes(self) -> dict[str, Any] | None:
        """Return the attributes of the array or group, ``None`` where there is neither."""
        try:
            return dict(self.open().attrs)
        except (FileNotFoundError, ValueError):
            return None

    def occupied(self) -> bool:
        """Whether anything is there, be it Zarr or not; an empty folder is nothing."""
        if self.path is not None:
            if not self.path.is_dir():
                return self.path.exists() or self.path.is_symlink()
            return any(PARTIAL not in entry.name for entry in self.path.iterdir())
        return sync(_any(self.store()))

    def remove(self) -> None:
        """Delete all that is there."""
        if self.path is not None:
            shutil.rmtree(self.path)
        else:
            sync(self.store(read_only=False).delete_dir(""))

    def read_bytes(self, key: str) -> bytes | None:
        """Return what is stored under a key, ``None`` where there is nothing."""
        found = sync(self.store().get(key, default_buffer_prototype()))
        return None if found is None else found.to_bytes()

    def sizes(self, keys: Iterable[str]) -> list[int | None]:
        """Return how many bytes each key holds, ``None`` where there is nothing."""
        store = self.store()

        def size(key: str) -> int | None:
            try:
                return int(sync(store.getsize(key)))
            except FileNotFoundError:
                return None

        return _side_by_side(size, keys)

    def stamps(self, keys: Iterable[str]) -> list[str | None]:
        """Return a checksum of what each key holds, ``None`` where there is nothing."""
        return _side_by_side(lambda key: stamp(self.read_bytes(key)), keys)

    def erase(self, keys: Iterable[str]) -> None:
        """Delete what some keys hold, if anything."""
        store = self.store(read_only=False)
        for key in keys:
            sync(store.delete(key))

    def tidy(self) -> None:
        """Delete what writers left half-written when they were killed. Nobody else may be writing."""
        if self.path is not None:
            for left in self.path.rglob(f"*{PARTIAL}"):
                left.unlink(missing_ok=True)


def stamp(data: bytes | None) -> str | None:
    """Return 16 hexadecimal digits that tell these bytes from others; ``None`` for none."""
    return None if data is None else hashlib.blake2b(data, digest_size=8).hexdigest()


def parse_options(pairs: Iterable[str]) -> dict[str, Any]:
    """Return options written as ``key=value``.

    Parameters
    ----------
    pairs
        A value that is JSON (``true``, ``3``, ``{"a": 1}``) is taken as such, else as text. Dots in a key
        make nested mappings: ``client_kwargs.region_name=eu-west-1``.

    Raises
    ------
    UsageError
        A pair has no ``=`` or no key.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        names = key.split(".")
        if not equals or not all(names):
            shown = f"{key}=..." if equals else "text without '='"  # a value may be a secret
            raise UsageError(f"option: found {shown}, expected key=value")
        inner = options
        for name in names[:-1]:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise UsageError(f"option {key}: found a value for {name} too, expected one of both")
        try:
            inner[names[-1]] = json.loads(value)
        except ValueError:
            inner[names[-1]] = value
    return options


def located(source: Any, options: Mapping[str, Any] | None) -> Any:
    """Return a path or URL with its options; anything else as it is."""
    return Location.of(source, options) if isinstance(source, str | Path) else source


def is_url(source: str) -> bool:
    """Whether a source is a URL and not a path."""
    return "://" in source


def _settle(path: Path) -> None:
    """Wait until a file and its name are on the disk."""
    for target in (path, path.parent):
        handle = os.open(target, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


async def _any(store: Store) -> bool:
    names: AsyncIterator[str] = store.list_dir("")
    async for _ in names:
        return True
    return False


def _side_by_side(function: Any, keys: Iterable[str]) -> list[Any]:
    with ThreadPoolExecutor(_STAMPS_AT_ONCE, "hrvol-look") as pool:
        return list(pool.map(function, keys))
