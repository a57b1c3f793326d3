"""Figures kept as JSON beside a document, an entry a line: what is measured is not lost with what is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def load(path: Path) -> dict[str, Any]:
    """Return the figures of a file; none if there is no file."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def save(path: Path, figures: Mapping[str, Any]) -> None:
    """Write all figures anew."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in figures.items())
    path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
