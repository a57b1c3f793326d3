"""Write tables and a summary to a folder: CSV, JSON, and Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hrvol.analysis.measuring.tables import Table
from hrvol.errors import MissingExtraError, OutputExistsError, UsageError
from hrvol.files import atomic_write, json_text
from hrvol.text import printable

SUMMARY = "summary.json"

NAMES = (
    *("classes", "planes", "contacts", "representative", "correlation", "components", "chords", "thickness"),
    *("tortuosity", "objects"),
)
"""Names of tables, without a suffix."""


def check_folder(path: str | Path, overwrite: bool) -> Path:
    """Check that results can be written to a folder, and return it.

    Raises
    ------
    UsageError
        It is a file, or its parent folder does not exist.
    OutputExistsError
        It holds other files; or results, without ``overwrite``.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: found a file, expected a folder for the tables")
    if not folder.exists():
        if not folder.parent.is_dir():
            raise UsageError(f"{folder.parent}: found no folder, expected one for the tables")
        return folder
    own = {SUMMARY} | {f"{name}.{kind}" for name in NAMES for kind in ("csv", "parquet")}
    found = sorted(entry.name for entry in folder.iterdir())
    others = [name for name in found if name not in own]
    if others:
        raise OutputExistsError(
            f"{folder}: found {printable(others[0], 100)}, expected an empty folder or an earlier measurement"
        )
    if found and not overwrite:
        raise OutputExistsError(f"{folder}: exists already, expected nothing there")
    return folder


def write_results(
    folder: Path, summary: Mapping[str, Any], tables: Mapping[str, Table], *, parquet: bool | None = None
) -> None:
    """Write the summary and the tables, each file whole or not at all; the summary last.

    Parameters
    ----------
    folder
        Created if it does not exist.
    summary
        JSON values.
    tables
        By name.
    parquet
        Whether to write Parquet, too; ``None``: if pyarrow is installed.

    Raises
    ------
    MissingExtraError
        Parquet is requested, and pyarrow is not installed.
    """
    installed = find_spec("pyarrow") is not None
    if parquet and not installed:
        raise MissingExtraError(f"{folder}: Parquet needs pyarrow: pip install 'hrvol[measure]'")
    folder.mkdir(exist_ok=True)
    for old in (SUMMARY, *(f"{name}.{kind}" for name in NAMES for kind in ("csv", "parquet"))):
        (folder / old).unlink(missing_ok=True)
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
        if installed if parquet is None else parquet:
            write_parquet(folder / f"{name}.parquet", table)
    with atomic_write(folder / SUMMARY) as partial:
        partial.write_text(json_text(dict(summary)) + "\n", encoding="utf-8")


def write_csv(path: Path, table: Table) -> None:
    """Write a table as CSV; what is unknown is empty."""
    with atomic_write(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(printable(header, 300) for header in table.columns)
        for row in table.rows():
            writer.writerow("" if _unknown(value) else value for value in row)


def write_parquet(path: Path, table: Table) -> None:
    """Write a table as Parquet."""
    import pyarrow
    import pyarrow.parquet

    columns = {
        header: pyarrow.array([None if _unknown(value) else value for value in values])
        for header, values in table.columns.items()
    }
    with atomic_write(path) as partial:
        pyarrow.parquet.write_table(pyarrow.table(columns), partial)


def _unknown(value: Any) -> bool:
    return value is None or value != value
