"""Markdown tables of the result pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def line(cells: Iterable[object]) -> str:
    """Return one row of a table, without a line break."""
    return f"| {' | '.join(map(str, cells))} |"


def table(head: Sequence[object], rows: Iterable[Iterable[object]], *, spaced: bool = False) -> str:
    """Return a table whose lines, the last one too, end in a line break.

    Parameters
    ----------
    head
        Titles of the columns.
    rows
        Cells, in as many columns.
    spaced
        Write the rule below the head as ``| --- |``, not ``|---|``.
    """
    rule = line(["---"] * len(head)) if spaced else f"{'|---' * len(head)}|"
    return "".join(f"{text}\n" for text in (line(head), rule, *map(line, rows)))
