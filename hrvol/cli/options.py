"""What several commands share: options, values in their own notation, tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from hrvol.errors import OutputExistsError

F = TypeVar("F", bound=Callable[..., Any])

Roi = tuple[slice, ...]
"""``(y, x)`` or ``(z, y, x)`` slices; an open end is ``None``."""


def parse_roi(ctx: click.Context, param: click.Parameter, value: str | None) -> Roi | None:
    """Return the slices of ``z0:z1,y0:y1,x0:x1``; ``:`` or an empty end means all of an axis."""
    if value is None:
        return None
    parts = value.split(",")
    if len(parts) not in (2, 3):
        raise click.BadParameter(f"found {value!r}, expected z0:z1,y0:y1,x0:x1 (or y0:y1,x0:x1 for an image)")
    slices = []
    for part in parts:
        start, colon, stop = (end.strip() for end in part.partition(":"))
        if not colon or not all(end.isdecimal() for end in (start, stop) if end):
            raise click.BadParameter(f"found {part!r} in {value!r}, expected start:stop in voxels")
        low, high = int(start or 0), int(stop) if stop else None
        if high is not None and high <= low:
            raise click.BadParameter(f"found {part!r} in {value!r}, expected start < stop")
        slices.append(slice(low, high))
    return tuple(slices)


def parse_names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Return names that have commas between."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"found an empty name in {value!r}, expected names with commas between")
    return names


@contextmanager
def suggest_fresh() -> Iterator[None]:
    """Say how to replace an output that is in the way."""
    try:
        yield
    except OutputExistsError as error:
        raise OutputExistsError(f"{error} (--fresh replaces an earlier output)") from None


def weights_options(command: F) -> F:
    """Add ``--weights`` and ``--offline``."""
    command = click.option("--offline", is_flag=True, help="Look for network weights on this machine only.")(
        command
    )
    return click.option(
        "--weights",
        "weights_path",
        metavar="PATH",
        help="Take the network's weights from this file instead of the cache.",
    )(command)


recipe_option = click.option(
    "--recipe",
    metavar="FILE|PRESET",
    help="A recipe file (YAML), or fast, balanced (default), best, paper, classical, deep.",
)
roi_option = click.option(
    "--roi",
    callback=parse_roi,
    metavar="z0:z1,y0:y1,x0:x1",
    help="Work on this region only, in voxels; ':' is a whole axis. E.g. 0:64,:,100:500.",
)
classes_option = click.option(
    "--classes", callback=parse_names, metavar="a,b,c", help="Names of classes 1, 2, ... in order."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def echo_json(values: Any) -> None:
    """Print values as JSON; NaN becomes null."""
    click.echo(json.dumps(_plain(values), indent=2))


def _plain(values: Any) -> Any:
    """Return plain JSON values of nested mappings, sequences, arrays and numbers."""
    if isinstance(values, dict):
        return {str(key): _plain(value) for key, value in values.items()}
    if hasattr(values, "tolist"):
        return _plain(values.tolist())
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    if isinstance(values, float) and values != values:
        return None
    return values


def echo_table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print a table: drawn on a terminal, else plain columns that scripts can split.

    The first column is text, the others are numbers and stand to the right.
    """
    if sys.stdout.isatty():
        table = Table(title=title)
        for position, header in enumerate(headers):
            table.add_column(header, justify="right" if position else "left")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    if title:
        click.echo(title)
    widths = [max(len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    for row in (headers, *rows):
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        click.echo("  ".join(cells).rstrip())


def score(value: float | None) -> str:
    """Return a score with three digits; a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.3f}"
