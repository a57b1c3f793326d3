"""Read the token of a server."""

from __future__ import annotations

import re
from pathlib import Path

from hrvol.errors import InputError
from hrvol.reading.bounded import read_file

_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,200}")

_FILE_BYTES = 4096


def read_token(path: str | Path) -> str:
    """Return the token of a file that only its owner can read.

    Raises
    ------
    InputError
        There is no such file, others can read it, or it holds no token.
    """
    data = read_file(path, _FILE_BYTES, "the token of a server", private=True)
    return checked_token(data.decode("ascii", "replace").strip(), str(path))


def checked_token(text: str, source: str) -> str:
    """Return a text that may be a token; :class:`InputError` for others. Messages do not quote it."""
    if _TOKEN.fullmatch(text) is None:
        raise InputError(f"{source}: found no token, expected 32 to 200 letters, digits, - and _")
    return text
