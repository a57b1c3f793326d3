"""Order the files of a series by the numbers in their names, and find gaps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from hrvol.errors import InputError
from hrvol.text import listed, printable

_NUMBERS = re.compile(r"([0-9]{1,18})")


def parts_of(name: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the texts between the numbers of a name, and the numbers."""
    pieces = _NUMBERS.split(name)
    return tuple(pieces[::2]), tuple(map(int, pieces[1::2]))


def natural_key(path: Path) -> tuple[tuple[str, ...], tuple[int, ...], str]:
    """Return a key that sorts ``z9`` before ``z10``."""
    texts, numbers = parts_of(path.name)
    return texts, numbers, path.name


def in_order(source: str, files: Sequence[Path]) -> list[Path]:
    """Return the files of one series in natural order.

    Parameters
    ----------
    source
        What the user named, for messages.
    files
        At least one.

    Raises
    ------
    InputError
        The names are of several series, two are equal but for leading zeros, or numbers are missing.
    """
    kinds: dict[tuple[str, ...], list[Path]] = {}
    for path in files:
        kinds.setdefault(parts_of(path.name)[0], []).append(path)
    if len(kinds) > 1:
        names = [f"{len(kind)} as {printable(kind[0].name, 60)}" for kind in kinds.values()]
        raise InputError(
            f"{source}: found files of {len(kinds)} series: {listed(names, 4)}; expected one:"
            " name it by a pattern, such as 'FOLDER/scan_*.tif'"
        )
    ordered = sorted(files, key=natural_key)
    table = [parts_of(path.name)[1] for path in ordered]
    # A number of which the others depend, such as a time, may have gaps.
    columns = [column for column in zip(*table, strict=True) if len(set(column)) == len(table)]
    if len(table) > 1 and not columns:
        _check_repeated(source, ordered, table)
    gaps = [_missing(column) for column in columns]
    if gaps and all(gaps) and (missing := min(gaps, key=len)):
        raise InputError(
            f"{source}: found {len(files):,} images from {printable(ordered[0].name, 60)} to"
            f" {printable(ordered[-1].name, 60)}, expected no gaps: {listed(missing)} missing"
        )
    return ordered


def _check_repeated(source: str, ordered: Sequence[Path], table: Sequence[tuple[int, ...]]) -> None:
    twice = next((i for i in range(1, len(table)) if table[i] == table[i - 1]), None)
    if twice is not None:
        names = [printable(path.name, 60) for path in ordered[twice - 1 : twice + 1]]
        raise InputError(f"{source}: found {names[0]} and {names[1]}, expected each number once")


def _missing(column: Sequence[int]) -> list[int]:
    """Return numbers that a series lacks; none if its step is constant, or it is no count."""
    numbers = sorted(column)
    steps = [b - a for a, b in pairwise(numbers)]
    if not steps or min(steps) == max(steps):
        return []
    step = min(steps)
    if any(gap % step for gap in steps):
        step = 1
    whole = (numbers[-1] - numbers[0]) // step + 1
    if whole > 2 * len(numbers) + 10:  # a time, or a random number
        return []
    present = set(numbers)
    return [n for n in range(numbers[0], numbers[-1], step) if n not in present]
