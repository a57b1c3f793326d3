"""Open stores at local paths or any fsspec URL (``s3://``, ``gs://``, ...).

All code opens Zarr hierarchies through a :class:`Location`, so local folders and buckets are treated alike.
Local writes are durable: a value survives a power cut once ``set`` has returned.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from hrvol.volume.storage.remote import RemoteStore

PARTIAL = ".partial"
"""Suffix of files of unfinished local writes; a process that is killed leaves them behind."""

MARK = "zarr.json"
"""Object with the metadata of a hierarchy, which identify its kind and owner."""

_AT_ONCE = 16

_FEW = 4
"""Local files that are read before threads have started."""

# Folders on some network file systems, and folders of other users, cannot be synchronised.
_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EACCES}


class DurableStore(LocalStore):
    """A local store whose ``set`` returns when the value is on the disk.

    Zarr's own atomic write does not synchronise the contents of a file before renaming it.
    """

    async def set(self, key: str, value: Buffer) -> None:
        """Write a value atomically and durably."""
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write a value atomically and durably."""
        self._check_writable()
        _put(self.root, self.root / key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a value atomically and durably, unless the key exists."""
        self._check_writable()
        with suppress(FileExistsError):
            await asyncio.to_thread(_put, self.root, self.root / key, value, os.link)


@dataclass(frozen=True)
class Location:
    """A path or URL and the options of its file system; cheap to pickle.

    Attributes
    ----------
    url
        Path or URL, as the user wrote it.
    options
        Keywords of the URL's fsspec file system. They may hold secrets, and are never stored or shown.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, source: str | Path | Location, options: Mapping[str, Any] | None = None) -> Location:
        """Return the location of a path or URL; a location is returned unchanged."""
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
        """Return the Zarr store. A missing local folder is created unless ``read_only``."""
        if self.path is not None:
            return (LocalStore if read_only else DurableStore)(self.path, read_only=read_only)
        return RemoteStore.at(self.url, self.options, read_only=read_only)

    def open(self) -> zarr.Array[Any] | zarr.Group:
        """Open the array or group for reading; errors of Zarr and the file system propagate."""
        store = self.store()
        if isinstance(store, RemoteStore):
            return zarr.open(store, mode="r", zarr_format=3 if sync(store.holds(MARK)) else 2)
        if not Path(self.url).exists():
            raise FileNotFoundError(self.url)
        return zarr.open(store, mode="r")

    def open_group(self, mode: Any = "r", path: str = "") -> zarr.Group:
        """Open a group of the hierarchy: ``r`` to read, ``r+`` to read and write."""
        return zarr.open_group(self.store(read_only=mode == "r"), path=path, mode=mode, zarr_format=3)

    def open_array(self, path: str = "", mode: Any = "r") -> zarr.Array[Any]:
        """Open an array of the hierarchy: ``r`` to read, ``r+`` to read and write."""
        return zarr.open_array(self.store(read_only=mode == "r"), path=path, mode=mode)

    def attributes(self) -> dict[str, Any] | None:
        """Return the attributes of the array or group; ``None`` if there is neither."""
        try:
            return dict(self.open().attrs)
        except (FileNotFoundError, ValueError):
            return None

    def occupied(self) -> bool:
        """Return whether anything exists here, Zarr or not; an empty folder does not count."""
        if self.path is not None:
            if not self.path.is_dir():
                return self.path.exists() or self.path.is_symlink()
            return any(PARTIAL not in entry.name for entry in self.path.iterdir())
        return bool(sync(_names(self.store())))

    def remove(self, inside: str = "") -> None:
        """Delete everything here, or everything below the name ``inside``.

        Metadata are deleted last: an interrupted deletion leaves an output that can still be identified and
        deleted. A bucket itself is kept.
        """
        store = self.store(read_only=False)
        names = [inside] if inside else sorted(sync(_names(store)), key=lambda name: name == MARK)
        for name in names:
            local = None if self.path is None else self.path / name
            if local is not None and (local.is_symlink() or not local.is_dir()):
                local.unlink(missing_ok=True)
            else:
                sync(store.delete_dir(name))
        if self.path is not None and not (inside or self.path.is_symlink()):
            self.path.rmdir()

    def read_bytes(self, key: str) -> bytes | None:
        """Return the value of a key; ``None`` if it does not exist."""
        value = sync(self.store().get(key, default_buffer_prototype()))
        return None if value is None else value.to_bytes()

    def sizes(self, keys: Iterable[str]) -> list[int | None]:
        """Return the size of each key's value in bytes; ``None`` if it does not exist."""
        store = self.store()

        def size(key: str) -> int | None:
            try:
                return int(sync(store.getsize(key)))
            except FileNotFoundError:
                return None

        return self._each(size, keys)

    def checksums(self, keys: Iterable[str]) -> list[str | None]:
        """Return a checksum of each key's value; ``None`` if it does not exist."""
        return self._each(lambda key: checksum(self.read_bytes(key)), keys)

    def group_checksums(self, groups: Sequence[Sequence[str]]) -> list[str]:
        """Return one checksum per group of keys, of the checksums of their values."""
        sums = iter(self.checksums(key for keys in groups for key in keys))
        return [str(checksum("".join(next(sums) or "-" for _ in keys).encode())) for keys in groups]

    def _each(self, function: Callable[[str], Any], keys: Iterable[str]) -> list[Any]:
        """Call a function with each key, in threads where that is quicker than starting them."""
        names = list(keys)
        if self.path is not None and len(names) <= _FEW:
            return [function(name) for name in names]
        with ThreadPoolExecutor(_AT_ONCE, "hrvol-storage") as pool:
            return list(pool.map(function, names))

    def erase(self, keys: Iterable[str]) -> None:
        """Delete the values of keys, if they exist."""
        store = self.store(read_only=False)
        for key in keys:
            sync(store.delete(key))

    def tidy(self) -> None:
        """Delete unfinished files of killed writers. No other process may be writing."""
        if self.path is not None:
            for partial in self.path.rglob(f"*{PARTIAL}"):
                partial.unlink(missing_ok=True)


def checksum(data: bytes | None) -> str | None:
    """Return a checksum of bytes as 16 hexadecimal digits; ``None`` for ``None``."""
    return None if data is None else hashlib.blake2b(data, digest_size=8).hexdigest()


def located(source: Any, options: Mapping[str, Any] | None) -> Any:
    """Return a path or URL with its options; any other source is returned unchanged."""
    return Location.of(source, options) if isinstance(source, str | Path) else source


def is_url(source: str) -> bool:
    """Return whether a source is a URL and not a path."""
    return "://" in source


def _put(root: Path, path: Path, value: Buffer, publish: Callable[..., None] = os.replace) -> None:
    """Write a file atomically, and return when its contents and its name are on the disk.

    Contents are synchronised first: after a power cut no name may refer to incomplete contents.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(value.as_buffer_like())
            file.flush()
            os.fsync(file.fileno())
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    for folder in path.parents:  # folders may be new, too
        _sync_folder(folder)
        if folder == root.parent:
            break


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, if its file system supports that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


async def _names(store: Store) -> list[str]:
    return [name async for name in store.list_dir("")]
