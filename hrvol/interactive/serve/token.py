"""Make the token that a client has to know, and keep it in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from hrvol.errors import ResourceError
from hrvol.interactive.wire.token import read_token

_BYTES = 32


def new_token() -> str:
    """Return a random token."""
    return secrets.token_urlsafe(_BYTES)


def kept_token(path: str | Path) -> str:
    """Return the token of a file, which is written with a new one if it does not exist (mode 0600).

    A server that is started again with the same file is found by its clients.

    Raises
    ------
    InputError
        The file can be read by others, or holds no token.
    ResourceError
        It cannot be written.
    """
    file = Path(path)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return read_token(file)
    except OSError as error:
        raise ResourceError(f"{file}: cannot be written: {error.strerror or error}") from None
    token = new_token()
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        stream.write(f"{token}\n")
    return token
