"""The cache of network weights: a safetensors file per network, and beside it a JSON file with its digest."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from hrvol.errors import InputError, WeightsError, first_line
from hrvol.features.weights.digest import content_sha256
from hrvol.reading.bounded import parse_mapping, read_file
from hrvol.text import printable

if TYPE_CHECKING:
    from hrvol.features.weights.digest import StateDict

_NOTE_BYTES = 100_000

_CONVERTED = re.compile("-[0-9a-f]{16}$")  # name of a user's file that was converted


def cache_dir() -> Path:
    """Return the folder of cached weights (it may not exist yet)."""
    root = os.environ.get("HRVOL_CACHE_DIR") or platformdirs.user_cache_dir("hrvol")
    return Path(root) / "weights"


def cache_file(name: str) -> Path:
    """Return the file of a network, or of a user's file that was converted, in the cache."""
    return cache_dir() / f"{name}.safetensors"


def cached_files() -> list[Path]:
    """Return all weights in the cache, those converted from users' files included.

    Unfinished files of other processes, whose names start with a dot, are left out.
    """
    files = [file for file in cache_dir().glob("*.safetensors") if not file.name.startswith(".")]
    return sorted(files, key=lambda file: file.stem)


def with_digest(file: Path) -> tuple[StateDict, str]:
    """Return the weights in a safetensors file and their digest; raise :class:`WeightsError` if damaged."""
    from safetensors.torch import load_file

    try:
        state = dict(load_file(file))
    except Exception as error:
        raise WeightsError(
            f"{file}: not a whole safetensors file ({first_line(error)}); {_remedy(file)}"
        ) from None
    return state, content_sha256(state)


def verified(file: Path) -> tuple[StateDict, str]:
    """Return the weights in a file of the cache and their digest, which is that of the record beside it."""
    state, digest = with_digest(file)
    note = file.with_suffix(".json")
    try:
        values = parse_mapping(read_file(note, _NOTE_BYTES, "a digest"), str(note))
        expected = values.get("content_sha256")
    except InputError:
        expected = None
    if not isinstance(expected, str):
        raise WeightsError(f"{note}: found no digest, expected that of {file.name}; {_remedy(file)}")
    if digest != expected:
        raise WeightsError(
            f"{file}: content SHA-256 is {digest}, expected {printable(expected, 100)}; {_remedy(file)}"
        )
    return state, digest


def _remedy(file: Path) -> str:
    if _CONVERTED.search(file.stem):
        return "remove it; the file that it was made from is converted again"
    return f"run: hrvol weights fetch {file.stem}"


def verify_file(file: Path) -> str:
    """Compare a file of the cache with the digest recorded when it was written; return its SHA-256.

    Raises
    ------
    WeightsError
        The file is damaged or has been changed, or its digest was not recorded.
    """
    return verified(file)[1]
