"""Standard streams that never fail: closed, full or broken ones lose text, and a run continues."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TextIO

_GONE = (errno.EPIPE, errno.EBADF, errno.EIO)
"""Errors after which nothing can be written any more: nobody reads the pipe, or the terminal is closed."""


class SafeStream:
    r"""A text stream whose ``write`` and ``flush`` raise no error of the system.

    Letters that the encoding lacks are written as Python writes them (``\xb5``). It has no ``buffer``, so
    that click does not write past it.

    Parameters
    ----------
    stream
        Stream to write to.

    Attributes
    ----------
    error
        The first error, or ``None``.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        """Write a text, or lose it."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # the stream is not ours to change
            encoding = self._stream.encoding or "ascii"
            self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:  # ValueError: it was closed by the program
            self._lost(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts, or lose them."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is buffered, or keep it for later."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._lost(error)

    def end(self) -> None:
        """Write what is buffered, or drop it, because Python would fail when it exits."""
        self.flush()
        if self.error is not None:
            self._drop()

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self._stream, name)

    def _lost(self, error: OSError | ValueError) -> None:
        self.error = self.error or error
        if getattr(error, "errno", None) in _GONE:
            self._drop()

    def _drop(self) -> None:
        """Connect the stream to nothing, with what it has buffered."""
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
            self._stream.flush()


@contextmanager
def safe_streams() -> Iterator[None]:
    """Make standard output and error safe while the ``with`` statement lasts; a missing one loses all text.

    At its end, one line on standard error reports if standard output could not be written, unless nobody
    reads it (``hrvol info volume.zarr | head -1``).
    """
    before = sys.stdin, sys.stdout, sys.stderr
    with ExitStack() as stack:
        null: Any = stack.enter_context(open(os.devnull, "r+", encoding="utf-8"))
        output, errors = SafeStream(sys.stdout or null), SafeStream(sys.stderr or null)
        sys.stdin, sys.stdout, sys.stderr = sys.stdin or null, output, errors
        try:
            yield
        finally:
            output.flush()
            if output.error is not None and getattr(output.error, "errno", None) not in _GONE:
                reason = getattr(output.error, "strerror", None) or output.error
                errors.write(f"hrvol: standard output cannot be written: {reason}\n")
            output.end()
            errors.end()
            sys.stdin, sys.stdout, sys.stderr = before
