"""The options that weigh classes at prediction, and their parsers."""

from __future__ import annotations

import click


def _number(text: str, value: str, expected: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"found {text.strip()!r} in {value!r}, expected {expected}") from None


def parse_factors(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[tuple[str, float], ...]:
    """Return the pairs of ``NAME=FACTOR`` options; a name may hold ``=``."""
    pairs = []
    for text in value:
        name, _, factor = text.rpartition("=")
        if not name:
            raise click.BadParameter(f"found {text!r}, expected NAME=FACTOR, such as pore=0.5")
        pairs.append((name.strip(), _number(factor, text, "a number after the name, such as pore=0.5")))
    return tuple(pairs)


def parse_fractions(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...] | dict[str, float] | None:
    """Return the numbers of ``a,b,c``, or those of ``NAME=a,NAME=b`` by name."""
    if value is None:
        return None
    entries = value.split(",")
    expected = "numbers separated by commas, or NAME=NUMBER for each class"
    if not any("=" in entry for entry in entries):
        return tuple(_number(entry, value, expected) for entry in entries)
    named: dict[str, float] = {}
    for entry in entries:
        name, _, number = (part.strip() for part in entry.rpartition("="))
        if not name or name in named:
            raise click.BadParameter(f"found {entry.strip()!r} in {value!r}, expected {expected}, each once")
        named[name] = _number(number, value, expected)
    return named


CLASS_WEIGHTS = {
    "class_weight": click.option(
        "--class-weight",
        "class_weight",
        multiple=True,
        callback=parse_factors,
        metavar="NAME=FACTOR",
        help="Multiply the probability of a class (name or number) by a factor before labels are made, after"
        " --crf: below 1 the class becomes rarer. May be repeated; others have 1.",
    ),
    "fractions": click.option(
        "--fractions",
        callback=parse_fractions,
        metavar="a,b,c",
        help="Measured volume fractions of the classes in order (or NAME=a,...): factors as of --class-weight"
        " are chosen with which the labels of a sample of the volume have these fractions.",
    ),
}
"""By the names of their values."""
