"""Folders of the plugin in the user's cache: logs of its processes, sample data, layers that were saved."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import platformdirs

_LOGS = 100
"""Number of logs that are kept."""

_MODELS = 100
"""Number of models without a chosen path that are kept."""


def plugin_folder(name: str) -> Path:
    """Return a folder below ``$HRVOL_CACHE_DIR`` or the user's cache; it is created."""
    root = os.environ.get("HRVOL_CACHE_DIR") or platformdirs.user_cache_dir("hrvol")
    folder = Path(root) / "napari" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def new_log(name: str) -> Path:
    """Create an empty log, and return its path; the oldest logs are deleted."""
    folder = plugin_folder("logs")
    logs = sorted(folder.glob("*.log"), key=lambda file: file.name)
    for old in logs[: max(0, len(logs) - _LOGS + 1)]:
        old.unlink(missing_ok=True)
        old.with_suffix(".out").unlink(missing_ok=True)
    number = 1 + max((int(file.name.split("-")[0]) for file in logs if file.name[:6].isdecimal()), default=0)
    while True:
        path = folder / f"{number:06d}-{os.getpid()}-{name}.log"
        try:
            path.touch(exist_ok=False)
        except FileExistsError:  # another thread took the number
            number += 1
        else:
            return path


def new_model(name: str) -> Path:
    """Return the path of a model that is written without a chosen path; the oldest ones are deleted."""
    folder = plugin_folder("models")
    ages: list[tuple[float, Path]] = []
    for file in folder.glob("*.hrvol"):
        with suppress(OSError):
            ages.append((file.stat().st_mtime, file))
    for _, old in sorted(ages)[: max(0, len(ages) - _MODELS + 1)]:
        old.unlink(missing_ok=True)
    return folder / f"{name}-{uuid4().hex[:12]}.hrvol"
