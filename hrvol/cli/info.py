"""The command info: describe a volume, labels or a model."""

from __future__ import annotations

from typing import Any

import click

from hrvol.cli.common.options import json_option, storage_option
from hrvol.cli.common.output import echo, echo_json
from hrvol.cli.common.reading import reads

TAUGHT = ("teacher", "volume", "agreement")
"""What of a student's training is shown; the rest is in the JSON values."""


@click.command()
@click.argument("path")
@click.option(
    "--mask",
    type=click.Choice(["auto"]),
    help="Read the volume coarsely, and show what --mask auto would skip of it.",
)
@storage_option
@json_option
@reads("path")
def info(path: str, mask: str | None, storage_options: dict[str, Any], as_json: bool) -> None:
    """Describe a volume, labels or a model; list the datasets of an HDF5 file.

    \b
    Examples:
        hrvol info volume.ome.zarr
        hrvol info labels.ome.zarr --json
        hrvol info scan.nxs
        hrvol info scan.nxs::/entry/data/data
        hrvol info phases.hrvol
        hrvol info volume.ome.zarr --mask auto
    """  # noqa: D301 (click needs the escape)
    from hrvol.info import describe

    values = describe(path, storage_options=storage_options, background=mask is not None)
    if as_json:
        echo_json(values)
        return
    apart = ("taught", "datasets", "notes")
    rows = {name.replace("_", " "): value for name, value in values.items() if name not in apart}
    rows |= {f"taught: {name}": values.get("taught", {}).get(name) for name in TAUGHT}
    shown = {name: value for name, value in rows.items() if value is not None}
    width = max(len(name) for name in shown)
    for name, value in shown.items():
        echo(f"{name:<{width}}  {_in_words(value)}")
    for note in values.get("notes", ()):
        echo(f"note: {note}")
    for dataset, found in values.get("datasets", {}).items():
        echo(f"dataset {dataset}: {found}")


def _in_words(value: Any) -> str:
    """Return a JSON value as a person would write it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(part)}" for name, part in value.items() if part is not None)
    if isinstance(value, list):
        if all(isinstance(part, int) for part in value):
            return " x ".join(str(part) for part in value)
        return ", ".join(_in_words(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
