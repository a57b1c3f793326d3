"""Class weights as a line of text, NAME=FACTOR, NAME=FACTOR."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hrvol.classes import ClassInfo
from hrvol.errors import UsageError
from hrvol.text import printable

Pairs = tuple[tuple[str, float], ...]

# A name may hold commas and "="; a factor ends its entry.
_ENTRY = re.compile(r"\s*(?P<name>\S.*?)\s*=\s*(?P<factor>[0-9][0-9.]*(?:[eE][+-]?[0-9]+)?)\s*(?:,|$)")


def parse_weights(text: str) -> Pairs:
    """Return names or numbers of classes, and their factors.

    Raises
    ------
    UsageError
        The text is another one.
    """
    pairs, at = [], 0
    while text[at:].strip():
        found = _ENTRY.match(text, at)
        if found is None:
            raise UsageError(
                f"class weights: found {printable(text[at:].strip(), 100)!r}, expected NAME=FACTOR, such as"
                " pore=0.5, binder=2"
            )
        try:
            pairs.append((found["name"], float(found["factor"])))
        except ValueError:
            raise UsageError(
                f"class weights: found {found['factor']!r}, expected a number such as 0.5"
            ) from None
        at = found.end()
    return tuple(pairs)


def weights_text(pairs: Iterable[tuple[str, float]]) -> str:
    """Return pairs as a line that :func:`parse_weights` reads."""
    return ", ".join(f"{name}={factor:g}" for name, factor in pairs)


def named_weights(weights: Mapping[int, float], classes: Iterable[ClassInfo]) -> Pairs:
    """Return the weights other than 1 by the names of their classes, by number where a name holds ``=``."""
    return tuple(
        (str(info.value) if "=" in info.name else info.name, weights[info.value])
        for info in classes
        if weights.get(info.value, 1.0) != 1
    )
