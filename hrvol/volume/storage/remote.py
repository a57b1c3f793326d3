"""Stores behind URLs: any file system of fsspec, with one kind of error and no memory of what was there.

File systems raise what their libraries do (botocore's errors are no ``OSError``), and tell neither where nor
what to do. Here all of it becomes an ``OSError`` that names the URL, and shows no value of an option.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import has_magic
from typing import Any

from fsspec.config import conf
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore

from hrvol.errors import MissingExtraError, UsageError

FIRST_LOOK = 30.0
"""Seconds that a file system has to answer when something is opened. Later requests have all the patience of
its library, which is minutes: they find out that a network is down, not that an address is wrong."""

_DEFAULTS: Mapping[str, Any] = {"use_listings_cache": False}  # others write there, too

_DEFAULTS_OF = {
    # With more, s3fs asks for the size of each object before it reads it: twice the requests.
    "s3": {"max_concurrency": 1},
    "s3a": {"max_concurrency": 1},
}


class RemoteStore(FsspecStore):
    """The Zarr store of a URL."""

    @classmethod
    def at(cls, url: str, options: Mapping[str, Any], *, read_only: bool) -> RemoteStore:
        """Return the store of a URL; nothing is asked of the file system yet.

        Parameters
        ----------
        url, options
            Where, and keywords of the file system. What fsspec's own configuration says counts less than
            these, and more than defaults.
        read_only
            Whether nothing will be written.

        Raises
        ------
        MissingExtraError
            The file system needs a package that is not installed.
        UsageError
            The URL is none, or an option does not fit the file system.
        OSError
            The file system cannot be had.
        """
        protocol = url.split("://")[0].split("::")[0]
        known = conf.get(protocol, {})
        defaults = {**_DEFAULTS, **_DEFAULTS_OF.get(protocol, {})}
        chosen = {name: value for name, value in defaults.items() if name not in known} | dict(options)
        try:
            store = cls.from_url(url, storage_options=chosen, read_only=read_only)
        except ImportError as error:
            raise MissingExtraError(f"{url}: {error} (for S3: pip install 'hrvol[io]')") from None
        except (ValueError, TypeError, KeyError) as error:  # each file system checks in its own way
            raise UsageError(f"{url}: {_hide(_text(error), options)}") from None
        except Exception as error:
            raise OSError(errno.EIO, _hide(_text(error), options), url) from error
        assert isinstance(store, RemoteStore)
        return store

    async def holds(self, key: str) -> bool:
        """Whether there is an object; the first thing to ask of a file system.

        Zarr asks for several objects at once. Where none is to be had, all but one of its requests are left
        over, and Python complains about each when it ends.

        Raises
        ------
        OSError
            There is no answer within :data:`FIRST_LOOK` seconds, or it is a refusal.
        """
        with self._in_words():
            try:
                async with asyncio.timeout(FIRST_LOOK):
                    await self.fs._cat_file(f"{self.path}/{key}")
            except self.allowed_exceptions as error:
                if _no_bucket(error):
                    raise OSError(errno.ENXIO, str(error)) from error
                return False
            except TimeoutError:
                raise OSError(errno.ETIMEDOUT, f"found no answer within {FIRST_LOOK:g} s") from None
        return True

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a value, or a part of it."""
        with self._in_words():
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of values."""
        with self._in_words():
            return await super().get_partial_values(prototype, key_ranges)

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """Write a value: whole or not at all."""
        with self._in_words():
            await super().set(key, value, byte_range)

    async def exists(self, key: str) -> bool:
        """Whether there is a value."""
        with self._in_words():
            return await super().exists(key)

    async def delete(self, key: str) -> None:
        """Delete a value, if there is one."""
        self._check_writable()
        with self._in_words(), suppress(*self.allowed_exceptions):
            await self.fs._rm_file(f"{self.path}/{key}")  # not _rm, for which [ and * are patterns

    async def delete_dir(self, prefix: str) -> None:
        """Delete all values below a prefix, or of that name."""
        self._check_writable()
        path = f"{self.path}/{prefix}".rstrip("/")
        with self._in_words():
            if not has_magic(path):
                await super().delete_dir(prefix)
                return
            for name in await self.fs._find(path):
                await self.fs._rm_file(name)

    async def getsize(self, key: str) -> int:
        """Return how many bytes a value has."""
        with self._in_words():
            return await super().getsize(key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names right below a prefix."""
        with self._in_words():
            async for name in super().list_dir(prefix):
                yield name

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn whatever is raised into an ``OSError`` of the same kind that names the URL."""
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise
            plain = getattr(self.fs, "sync_fs", self.fs)
            said = _hide(_text(error), plain.storage_options)
            number = getattr(error, "errno", None) or _NUMBERS.get(type(error), errno.EIO)
            raise OSError(number, said, plain.unstrip_protocol(self.path)) from error


# Python makes the kind of an OSError from its number, and file systems leave the number out.
_NUMBERS: dict[type[BaseException], int] = {
    FileNotFoundError: errno.ENOENT,
    FileExistsError: errno.EEXIST,
    PermissionError: errno.EACCES,
    TimeoutError: errno.ETIMEDOUT,
}


def _no_bucket(error: BaseException) -> bool:
    """Whether it is not the object that is missing but what should hold it; of S3 only that is known."""
    response = getattr(error.__cause__, "response", None)
    return isinstance(response, Mapping) and response.get("Error", {}).get("Code") == "NoSuchBucket"


def _text(error: BaseException) -> str:
    """Return an exception as one line."""
    said = getattr(error, "strerror", None) or (error.args[0] if len(error.args) == 1 else error)
    return " ".join(str(said).split()) or type(error).__name__


def _hide(text: str, options: Mapping[str, Any]) -> str:
    """Replace values of options by their names: they may be secrets."""
    for name, value in sorted(_leaves(options), key=lambda leaf: -len(leaf[1])):
        text = text.replace(value, f"<{name}>")
    return text


def _leaves(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        elif isinstance(value, str) and len(value) > 2:
            yield name, value
