"""Order the files of a series by the numbers in their names, and find gaps."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from hrvol.errors import InputError
from hrvol.text import listed, printable

_NUMBERS = re.compile(r"([0-9]{1,18})")

_SHOWN = 10  # gaps

_FEW = 11  # numbers that a short series may lack


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
        The names are of several series, no number differs in all of them, or numbers are missing.
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
    columns = [column for column in zip(*table, strict=True) if len(set(column)) == len(table)]
    if len(table) > 1 and not columns:
        _refuse_repeated(source, ordered, table)
    what = f"images from {printable(ordered[0].name, 60)} to {printable(ordered[-1].name, 60)}"
    check_gaps(source, columns, what)
    return ordered


def check_gaps(source: str, columns: Sequence[Sequence[int]], what: str) -> None:
    """Raise an :class:`InputError` if numbers of files are missing.

    Parameters
    ----------
    source, what
        What the user named, and what is numbered, for the message.
    columns
        Numbers of all files, once or several times. One that is no count, such as a time, tells nothing; of
        two counts one may have gaps.
    """
    gaps = [missing for column in columns if (missing := _missing(column)) is not None]
    if gaps and all(gaps):
        missing = min(gaps, key=len)
        more = " and more" if len(missing) > _SHOWN else ""
        raise InputError(
            f"{source}: found {len(columns[0]):,} {what}, expected no gaps:"
            f" {', '.join(missing[:_SHOWN])}{more} missing"
        )


def _refuse_repeated(source: str, ordered: Sequence[Path], table: Sequence[tuple[int, ...]]) -> None:
    """Raise an :class:`InputError` for files of which no number tells the plane."""
    twice = next((i for i in range(1, len(table)) if table[i] == table[i - 1]), None)
    names = [printable(path.name, 60) for path in ordered[(twice or 1) - 1 : (twice or 1) + 1]]
    if twice is not None:
        raise InputError(f"{source}: found {names[0]} and {names[1]}, expected each number once")
    raise InputError(
        f"{source}: found {names[0]} and {names[1]}, numbered in several ways (channels, or parts of a"
        " scan?), expected one number that differs in all files: name one series by a pattern, such as"
        " 'FOLDER/*_0.tif'"
    )


def _missing(column: Sequence[int]) -> list[str] | None:
    """Return the numbers and ranges that a series lacks; ``None`` if it is no count."""
    numbers = sorted(column)
    steps = [b - a for a, b in pairwise(numbers)]
    step = _step(steps)
    if step is None:
        return None
    missing = []
    for number, gap in zip(numbers, steps, strict=False):
        if gap > step:
            first, last = number + step, number + gap - step
            missing.append(str(first) if first == last else f"{first} to {last}")
    return missing


def _step(steps: Sequence[int]) -> int | None:
    """Return the step of a count; ``None`` for times and random numbers.

    Most steps of a count are equal, or it lacks no more numbers than it has.
    """
    if not steps:
        return 1
    step, often = min(Counter(steps).items(), key=lambda item: (-item[1], item[0]))
    if 2 * often >= len(steps) and not any(gap % step for gap in steps):
        return step
    step = math.gcd(*steps)
    return step if sum(steps) // step <= 2 * len(steps) + _FEW else None
