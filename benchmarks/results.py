"""Figures kept as JSON beside a result page, one entry per line: an interrupted benchmark loses none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def load(path: Path) -> dict[str, Any]:
    """Return the figures of a file; empty if there is no file."""
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return figures


def save(path: Path, figures: Mapping[str, Any]) -> None:
    """Write all figures, an entry per line."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in figures.items())
    path.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def save_parts(path: Path, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the parts of a benchmark, each with its ``rows`` last, a row per line."""
    text = []
    for name, part in parts.items():
        head = json.dumps({key: value for key, value in part.items() if key != "rows"}, ensure_ascii=False)
        rows = ",\n".join("    " + json.dumps(row) for row in part["rows"])
        text.append(f'"{name}": {head[:-1]}, "rows": [\n{rows}\n]}}')
    path.write_text("{\n" + ",\n".join(text) + "\n}\n", encoding="utf-8")
