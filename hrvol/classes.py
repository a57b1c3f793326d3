"""Describe label values: names and colours of classes."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

from hrvol.errors import InputError, UsageError
from hrvol.text import is_name, listed, printable

# Okabe and Ito's palette ("Color Universal Design", 2008), which colour-blind readers can distinguish,
# without black and yellow: these are invisible on dark and on light micrographs.
_PALETTE: tuple[tuple[int, int, int], ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
_GOLDEN = 0.6180339887498949

MAX_VALUE = 65_535
"""Highest class value: labels are uint8 or uint16."""

_NAME = 200  # characters


@dataclass(frozen=True)
class ClassInfo:
    """One class of a segmentation.

    Attributes
    ----------
    value
        Label value in strokes and outputs, at least 1 (0 is unlabelled).
    name
        Name for people.
    colour
        Red, green and blue in 0..255.
    """

    value: int
    name: str
    colour: tuple[int, int, int]

    def __post_init__(self) -> None:
        if (problem := _problem_of(self.name)) is not None:
            raise InputError(f"class {self.value}: {problem}")
        if self.value < 1:
            raise InputError(
                f"class {self.name!r}: found value {self.value}, expected 1 or more (0 is unlabelled)"
            )
        if len(self.colour) != 3 or not all(0 <= level <= 255 for level in self.colour):
            raise InputError(
                f"class {self.name!r}: found colour {self.colour}, expected red, green, blue in 0..255"
            )


def _problem_of(name: str) -> str | None:
    """Return what is wrong with a name, or ``None``."""
    if 0 < len(name) <= _NAME and is_name(name):
        return None
    shown = printable(name, 100)
    return f"found the name '{shown}', expected 1 to {_NAME} characters without control characters"


def default_colours(n: int) -> tuple[tuple[int, int, int], ...]:
    """Return the colours of classes 1..n as (red, green, blue) in 0..255.

    The first six are safe for colour-blind readers; further ones have hues in steps of the golden ratio.
    ``default_colours(n)`` starts with ``default_colours(n - 1)``, so a class keeps its colour.
    """
    return tuple(default_colour(value) for value in range(1, n + 1))


def default_colour(value: int) -> tuple[int, int, int]:
    """Return the colour of a class value of at least 1, see :func:`default_colours`."""
    if value <= len(_PALETTE):
        return _PALETTE[value - 1]
    i = value - len(_PALETTE) - 1
    # Lightness and saturation cycle too, and differ between classes of similar hue.
    rgb = colorsys.hls_to_rgb(i * _GOLDEN % 1.0, (0.45, 0.65, 0.3)[i % 3], (0.8, 0.5)[i // 3 % 2])
    return round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])


def default_classes(values: Sequence[int], names: Sequence[str] | None = None) -> tuple[ClassInfo, ...]:
    """Return classes for label values, in ascending order of value.

    Parameters
    ----------
    values
        Different label values of at least 1, possibly with gaps. The colour of a value does not depend on
        the other values.
    names
        Names in order of value: either one for each value, or one for each of 1..max (as a user writes
        ``--classes`` when strokes skip a class). ``None`` names them ``class 1``, ``class 2``, ...

    Raises
    ------
    UsageError
        The number of names does not fit, or a name occurs twice, is too long or has control characters.
    InputError
        A value is below 1, above 65,535 or occurs twice.
    """
    ordered = sorted(int(value) for value in values)
    if len(set(ordered)) != len(ordered):
        raise InputError(f"classes: found values {listed(ordered)}, expected each value once")
    if ordered and ordered[0] < 1:
        raise InputError(f"classes: found value {ordered[0]}, expected 1 or more (0 is unlabelled)")
    top = ordered[-1] if ordered else 0
    if top > MAX_VALUE:
        raise InputError(f"classes: found value {top}, expected at most {MAX_VALUE}")
    for name in names or ():
        if (problem := _problem_of(name)) is not None:
            raise UsageError(f"classes: {problem}")
    if names is None:
        of_value = {value: f"class {value}" for value in ordered}
    elif len(set(names)) != len(names):
        raise UsageError(f"classes: found names {listed(names)}, expected each name once")
    elif len(names) == len(ordered):
        of_value = dict(zip(ordered, names, strict=True))
    elif len(names) == top:
        of_value = {value: names[value - 1] for value in ordered}
    else:
        raise UsageError(
            f"classes: found {len(names)} names, expected {len(ordered)}, for values {listed(ordered)}"
        )
    return tuple(ClassInfo(value, of_value[value], default_colour(value)) for value in ordered)


def class_names(classes: Sequence[ClassInfo]) -> list[str]:
    """Return the names of classes 1, 2, ...; empty for values without one."""
    names = {info.value: info.name for info in classes}
    return [names.get(value, "") for value in range(1, max(names, default=0) + 1)]
