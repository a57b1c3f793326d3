"""Where a store is: a local path, or any fsspec URL (``s3://``, ``gs://``, ...) with its options.

Everything that opens a Zarr hierarchy does it through a :class:`Location`, so that a laptop's folder and a
bucket are the same to the rest. Local writes are durable: what ``set`` has returned from survives a power
cut.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
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

from hrvol.errors import UsageError
from hrvol.volume.storage.remote import RemoteStore

PARTIAL = ".partial"
"""How files are named that a local write has not finished; left behind where its process was killed."""

MARK = "zarr.json"
"""What tells what a hierarchy is, and whose."""

_STAMPS_AT_ONCE = 16

_NO_WAY = {errno.EINVAL, errno.ENOTSUP, errno.EACCES}  # folders of some network disks, and of other people


class DurableStore(LocalStore):
    """A local store whose files are on the disk, not only in the system's memory, when ``set`` returns."""

    async def set(self, key: str, value: Buffer) -> None:
        """Write a value: whole or not at all, and durably."""
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write a value: whole or not at all, and durably."""
        self._check_writable()
        _put(self.root, self.root / key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write a value likewise, unless there is one."""
        self._check_writable()
        with suppress(FileExistsError):
            await asyncio.to_thread(_put, self.root, self.root / key, value, os.link)


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
        return RemoteStore.at(self.url, self.options, read_only=read_only)

    def open(self) -> zarr.Array[Any] | zarr.Group:
        """Open the array or group for reading; what Zarr and the file system raise is let through."""
        store = self.store()
        if isinstance(store, RemoteStore):
            return zarr.open(store, mode="r", zarr_format=3 if sync(store.holds(MARK)) else 2)
        if not Path(self.url).exists():
            raise FileNotFoundError(self.url)
        return zarr.open(store, mode="r")

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
        return bool(sync(_names(self.store())))

    def remove(self, inside: str = "") -> None:
        """Delete all that is there, or what is below one name in it.

        What tells whose it is goes last, so that one who is killed before can delete the rest. A bucket
        stays, whatever was in it.
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

    def checksums(self, keys: Iterable[str]) -> list[str | None]:
        """Return a checksum of what each key holds, ``None`` where there is nothing."""
        return _side_by_side(lambda key: checksum(self.read_bytes(key)), keys)

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


def checksum(data: bytes | None) -> str | None:
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


def _put(root: Path, path: Path, value: Buffer, place: Callable[..., None] = os.replace) -> None:
    """Write a file, give it its name, and return when both are on the disk.

    Its contents go first: a name may not come to be, in a power cut, before what it stands for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(value.as_buffer_like())
            file.flush()
            os.fsync(file.fileno())
        place(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    for folder in path.parents:  # new folders are names, too
        _settle(folder)
        if folder == root.parent:
            break


def _settle(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where there is a way."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_WAY:
            raise


async def _names(store: Store) -> list[str]:
    return [name async for name in store.list_dir("")]


def _side_by_side(function: Any, keys: Iterable[str]) -> list[Any]:
    with ThreadPoolExecutor(_STAMPS_AT_ONCE, "hrvol-look") as pool:
        return list(pool.map(function, keys))
