"""Folders of the plugin in the user's cache: logs of its processes, sample data, layers that were saved."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_LOGS = 100
"""Number of logs that are kept."""


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
