"""Read and write stores at URLs through fsspec, with one kind of error and no cached listings.

File systems raise the errors of their libraries (botocore's are not ``OSError``), often without the URL. They
are converted to ``OSError`` with the URL and without values of options, which may be secrets.
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

FIRST_TIMEOUT = 30.0
"""Timeout of the first request to a file system, in seconds: a wrong address should fail fast. Later requests
have the timeout of its library, which is minutes: they may meet a network that is down for a while."""

_DEFAULTS: Mapping[str, Any] = {"use_listings_cache": False}  # other processes write, too

_DEFAULTS_OF = {
    # With more, s3fs requests the size of each object before reading it: twice the requests.
    "s3": {"max_concurrency": 1},
    "s3a": {"max_concurrency": 1},
}


class RemoteStore(FsspecStore):
    """The Zarr store of a URL."""

    @classmethod
    def at(cls, url: str, options: Mapping[str, Any], *, read_only: bool) -> RemoteStore:
        """Return the store of a URL, without a request to the file system.

        Parameters
        ----------
        url, options
            URL, and keywords of its file system. Options override fsspec's own configuration, which overrides
            defaults.
        read_only
            Whether to open the store for reading only.

        Raises
        ------
        MissingExtraError
            The file system requires a package that is not installed.
        UsageError
            The URL is invalid, or an option does not fit the file system.
        OSError
            The file system cannot be created.
        """
        protocol = url.split("://")[0].split("::")[0]
        configured = conf.get(protocol, {})
        defaults = {**_DEFAULTS, **_DEFAULTS_OF.get(protocol, {})}
        keywords = {name: value for name, value in defaults.items() if name not in configured}
        try:
            store = cls.from_url(url, storage_options=keywords | dict(options), read_only=read_only)
        except ImportError as error:
            raise MissingExtraError(f"{url}: {error} (for S3: pip install 'hrvol[io]')") from None
        except (ValueError, TypeError, KeyError) as error:  # each file system checks in its own way
            raise UsageError(f"{url}: {_hide(_text(error), options)}") from None
        except Exception as error:
            raise OSError(errno.EIO, _hide(_text(error), options), url) from error
        assert isinstance(store, RemoteStore)
        return store

    async def holds(self, key: str) -> bool:
        """Return whether an object exists; to be the first request to a file system.

        Zarr requests several objects at once. If the file system is unreachable, all but one of its requests
        are never awaited, and Python warns about each at exit.

        Raises
        ------
        OSError
            The request failed, or got no answer within :data:`FIRST_TIMEOUT` seconds.
        """
        with self._translated():
            try:
                async with asyncio.timeout(FIRST_TIMEOUT):
                    await self.fs._cat_file(f"{self.path}/{key}")
            except self.allowed_exceptions as error:
                if _no_bucket(error):
                    raise OSError(errno.ENXIO, str(error)) from error
                return False
            except TimeoutError:
                raise OSError(errno.ETIMEDOUT, f"found no answer within {FIRST_TIMEOUT:g} s") from None
        return True

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a value, or a range of its bytes."""
        with self._translated():
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return ranges of values."""
        with self._translated():
            return await super().get_partial_values(prototype, key_ranges)

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """Write a value atomically."""
        with self._translated():
            await super().set(key, value, byte_range)

    async def exists(self, key: str) -> bool:
        """Return whether a value exists."""
        with self._translated():
            return await super().exists(key)

    async def delete(self, key: str) -> None:
        """Delete a value, if it exists."""
        self._check_writable()
        with self._translated(), suppress(*self.allowed_exceptions):
            await self.fs._rm_file(f"{self.path}/{key}")  # not _rm, for which [ and * are patterns

    async def delete_dir(self, prefix: str) -> None:
        """Delete a value and all values below it."""
        self._check_writable()
        path = f"{self.path}/{prefix}".rstrip("/")
        with self._translated():
            if not has_magic(path):
                await super().delete_dir(prefix)
                return
            for name in await self.fs._find(path):
                await self.fs._rm_file(name)

    async def getsize(self, key: str) -> int:
        """Return the size of a value in bytes."""
        with self._translated():
            return await super().getsize(key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below a prefix."""
        with self._translated():
            async for name in super().list_dir(prefix):
                yield name

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Convert any error to an ``OSError`` of the same kind that names the URL."""
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise
            plain = getattr(self.fs, "sync_fs", self.fs)
            reason = _hide(_text(error), plain.storage_options)
            number = getattr(error, "errno", None) or _NUMBERS.get(type(error), errno.EIO)
            raise OSError(number, reason, plain.unstrip_protocol(self.path)) from error


# The number determines the subclass of an OSError, and file systems leave it out.
_NUMBERS: dict[type[BaseException], int] = {
    FileNotFoundError: errno.ENOENT,
    FileExistsError: errno.EEXIST,
    PermissionError: errno.EACCES,
    TimeoutError: errno.ETIMEDOUT,
}


def _no_bucket(error: BaseException) -> bool:
    """Return whether the bucket is missing and not only the object; known for S3 only."""
    response = getattr(error.__cause__, "response", None)
    return isinstance(response, Mapping) and response.get("Error", {}).get("Code") == "NoSuchBucket"


def _text(error: BaseException) -> str:
    """Return an exception as one line."""
    text = getattr(error, "strerror", None) or (error.args[0] if len(error.args) == 1 else error)
    return " ".join(str(text).split()) or type(error).__name__


def _hide(text: str, options: Mapping[str, Any]) -> str:
    """Replace values of options, which may be secrets, by their names."""
    for name, value in sorted(_leaves(options), key=lambda leaf: -len(leaf[1])):
        text = text.replace(value, f"<{name}>")
    return text


def _leaves(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        elif isinstance(value, str) and len(value) > 2:
            yield name, value
