"""Open stores at local paths or any fsspec URL (``s3://``, ``gs://``, ...).

All code opens Zarr hierarchies through a :class:`Location`, so local folders and buckets are treated alike.
Local writes are durable: a value survives a power cut once ``set`` has returned.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import zarr
from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from hrvol.errors import InputError
from hrvol.reading.bounded import JSON_BYTES, parse_mapping, read_file
from hrvol.volume.read_options import ReadOptions
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

# What file systems without hard links answer.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}

_LOCK_SECONDS = 5.0
"""A lock that is older was left behind: it is held for as long as one renaming takes."""


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
            await asyncio.to_thread(_put, self.root, self.root / key, value, publish_new)


@dataclass(frozen=True)
class Location:
    """A path or URL and the options of its file system; cheap to pickle.

    Attributes
    ----------
    url
        Path or URL, as the user wrote it.
    options
        Keywords of the URL's fsspec file system. They may hold secrets, and are never stored or shown.
    reading
        Options of reading an input; ``None``: none.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    reading: ReadOptions | None = field(default=None, repr=False)

    @classmethod
    def of(cls, source: str | Path | Location, options: Mapping[str, Any] | None = None) -> Location:
        """Return the location of a path or URL; a location keeps the options that it has."""
        if isinstance(source, Location):
            given = bool(options) and not source.options and is_url(source.url)
            return replace(source, options=dict(options or {})) if given else source
        text = str(source)
        text = text.removeprefix("file://") if text.startswith("file://") else text
        return cls(text, dict(options or {}) if is_url(text) else {})

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    @property
    def path(self) -> Path | None:
        """The local path, without that of a dataset inside of a file; ``None`` for a URL."""
        return None if is_url(self.url) else Path(split_inside(self.url)[0])

    @property
    def inside(self) -> str:
        """Path of a dataset inside of a file, as in ``FILE::/PATH``; empty without one."""
        return split_inside(self.url)[1]

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
        """Return the attributes of the array or group; ``None`` if there is neither, or damaged metadata."""
        if self.path is None:
            store = self.store()
            assert isinstance(store, RemoteStore)
            current = sync(store.holds(MARK))  # the first request fails fast
        else:
            current = os.path.lexists(self.path / MARK)
        if current:
            values = self.read_json(MARK)
            if values is None or values.get("node_type") not in ("array", "group"):
                return None
            found = values.get("attributes", {})
        elif any(self.read_json(name) is not None for name in (".zgroup", ".zarray")):  # Zarr 2
            found = self.read_json(".zattrs") or {}
        else:
            return None
        return found if isinstance(found, dict) else None

    def read_json(self, key: str) -> dict[str, Any] | None:
        """Return the mapping that a small object holds; ``None`` if it is missing or damaged."""
        try:
            data = self.read_small(key)
            return None if data is None else parse_mapping(data, f"{self}/{key}")
        except InputError:
            return None

    def read_documents(self, keys: Iterable[str]) -> list[dict[str, Any] | None]:
        """Return the mappings that small objects hold, as :meth:`read_json` does."""
        return self._each(self.read_json, keys)

    def read_small(self, key: str, limit: int = JSON_BYTES) -> bytes | None:
        """Return the value of a key, ``None`` if it does not exist; :class:`InputError` if it is no document.

        Local files may be pipes or devices, and of any size.
        """
        if self.path is None:
            return self.read_bytes(key)
        if not os.path.lexists(self.path / key):
            return None
        return read_file(self.path / key, limit, "a JSON document")

    def write_json(self, key: str, values: Mapping[str, Any]) -> None:
        """Write a mapping as JSON, as Zarr writes metadata."""
        self.write_bytes(key, json.dumps(values, indent=2, allow_nan=False).encode())

    def write_bytes(self, key: str, data: bytes) -> None:
        """Write the value of a key."""
        if self.path is not None and (self.path / key).is_dir():  # no file takes the name of a folder
            self.erase([key])
        store, value = self.store(read_only=False), default_buffer_prototype().buffer.from_bytes(data)
        if isinstance(store, DurableStore):
            store.set_sync(key, value)  # without Zarr's threads, which end before the interpreter does
        else:
            sync(store.set(key, value))

    def occupied(self) -> bool:
        """Return whether anything exists here, Zarr or not; an empty folder does not count."""
        if self.path is not None:
            if not self.path.is_dir():
                return self.path.exists() or self.path.is_symlink()
            return any(PARTIAL not in entry.name for entry in self.path.iterdir())
        return bool(sync(_names(self.store())))

    def children(self, inside: str = "") -> list[str]:
        """Return the sorted names directly below a path; none if it does not exist."""
        try:
            return sorted(sync(_names(self.store(), inside)))
        except (FileNotFoundError, NotADirectoryError):
            return []

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
        return [combined(sums) for sums in self.checksums_of_groups(groups)]

    def checksums_of_groups(self, groups: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
        """Return the checksums of the values of each group of keys; ``-`` for what does not exist."""
        sums = iter(self.checksums(key for keys in groups for key in keys))
        return [tuple(next(sums) or "-" for _ in keys) for keys in groups]

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


def combined(checksums: Iterable[str]) -> str:
    """Return one checksum of several."""
    return str(checksum("".join(checksums).encode()))


def located(source: Any, options: Mapping[str, Any] | None) -> Any:
    """Return a path or URL with its options; any other source is returned unchanged."""
    return Location.of(source, options) if isinstance(source, str | Path | Location) else source


def split_inside(url: str) -> tuple[str, str]:
    """Return a path or URL without the path of a dataset inside of its file, and that path.

    It follows the last ``::`` and begins with ``/``. A local file whose name has that itself is taken as it
    is.
    """
    outer, colons, inside = url.rpartition("::")
    if not colons or not inside.startswith("/") or not outer:
        return url, ""
    return (url, "") if not is_url(url) and os.path.lexists(url) else (outer, inside)


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
        sync_folder(folder)
        if folder == root.parent:
            break


def publish_new(partial: Path, path: Path) -> None:
    """Give a finished file its name, unless the name is taken: then raise :class:`FileExistsError`.

    Hard links do both at once. File systems without them (exFAT, some network shares) get a lock, beside the
    name, for the moment between the look and the renaming.
    """
    try:
        os.link(partial, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return
    lock = path.with_name(f"{path.name}.lock{PARTIAL}")
    looked = time.monotonic()
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            if os.path.lexists(path):
                raise
            if time.monotonic() > looked + _LOCK_SECONDS:
                if _age(lock) > _LOCK_SECONDS:  # its owner was killed
                    lock.unlink(missing_ok=True)
                looked = time.monotonic()
            time.sleep(0.01)
    try:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.replace(partial, path)
    finally:
        lock.unlink(missing_ok=True)


def _age(lock: Path) -> float:
    """Return for how long a lock exists, in seconds of its file system's clock; 0 if it does not."""
    probe = lock.with_name(f"{lock.name}.{uuid4().hex}{PARTIAL}")
    with suppress(FileNotFoundError):
        created = lock.stat().st_mtime
        try:
            probe.touch()
            return probe.stat().st_mtime - created
        finally:
            probe.unlink(missing_ok=True)
    return 0.0


def sync_folder(folder: Path) -> None:
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


async def _names(store: Store, inside: str = "") -> list[str]:
    return [name async for name in store.list_dir(inside)]
