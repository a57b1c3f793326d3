"""Edit the classes of strokes: each edit gives a new table; values stay, names are unique."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hrvol.classes import ClassInfo, default_colour
from hrvol.errors import InputError, StrokesError
from hrvol.text import listed, printable

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassTable:
    """Classes of strokes.

    Attributes
    ----------
    source
        Name of the strokes for messages.
    highest
        Highest value that the type of the strokes holds.
    classes
        In order of value.
    next_value
        Value of the next new class: above all that were used, so that a value means one class for ever.
    """

    source: str
    highest: int
    classes: tuple[ClassInfo, ...] = ()
    next_value: int = 1

    @classmethod
    def of(cls, source: str, highest: int, classes: Sequence[ClassInfo], next_value: int = 1) -> ClassTable:
        """Return a table of classes.

        Raises
        ------
        StrokesError
            A value or a name occurs twice, or a value is too high.
        """
        table = cls(source, highest)
        for info in classes:
            table = table._with(info)
        return replace(table, next_value=max(next_value, table.next_value))

    def info(self, value: int) -> ClassInfo:
        """Return the class of a value; :class:`StrokesError` if it does not exist."""
        for info in self.classes:
            if info.value == value:
                return info
        known = listed(info.value for info in self.classes) or "a class that was added"
        raise StrokesError(f"{self.source}: found no class {value}, expected {known}")

    def add(self, name: str, colour: Colour | None = None, value: int | None = None) -> ClassTable:
        """Add a class with the next value, or with a higher one.

        Raises
        ------
        InputError
            The name is used or not printable, the colour is not valid, or all values are used.
        """
        chosen = self.next_value if value is None else max(value, self.next_value)
        return self._with(ClassInfo(chosen, name, colour or default_colour(chosen)))

    def with_values(self, values: Iterable[int]) -> ClassTable:
        """Add classes with default names for values that have none; the same table if all have."""
        known = {info.value for info in self.classes}
        table = self
        for value in sorted({int(value) for value in values} - known - {0}):
            name, names = f"class {value}", {info.name for info in table.classes}
            free = next(
                text for i in range(1, 2**17) if (text := name if i == 1 else f"{name} ({i})") not in names
            )
            table = table._with(ClassInfo(value, free, default_colour(value)))
        return table

    def rename(self, value: int, name: str) -> ClassTable:
        """Give a class another name."""
        return self.without(value)._with(replace(self.info(value), name=name))

    def recolour(self, value: int, colour: Colour) -> ClassTable:
        """Give a class another colour (red, green, blue in 0..255)."""
        return self.without(value)._with(replace(self.info(value), colour=colour))

    def without(self, value: int) -> ClassTable:
        """Remove a class; its value is not used again."""
        self.info(value)
        return replace(self, classes=tuple(info for info in self.classes if info.value != value))

    def then(self, later: ClassTable) -> ClassTable:
        """Return a later table, also an undone one, that uses no value again which this one used."""
        return replace(later, next_value=max(self.next_value, later.next_value))

    def _with(self, info: ClassInfo) -> ClassTable:
        if info.value > self.highest:
            raise StrokesError(
                f"{self.source}: found class value {info.value}, expected at most {self.highest}: the type of"
                f" these strokes holds no more{' (uint16 does)' if self.highest < 256 else ''}"
            )
        for other in self.classes:
            if other.value == info.value:
                raise StrokesError(f"{self.source}: found class {info.value} twice, expected it once")
            if other.name == info.name:
                raise StrokesError(
                    f"{self.source}: found the name '{printable(info.name, 100)}' of class {other.value},"
                    " expected another name"
                )
        classes = tuple(sorted((*self.classes, info), key=lambda one: one.value))
        return replace(self, classes=classes, next_value=max(self.next_value, info.value + 1))

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON values."""
        return {
            "classes": [[info.value, info.name, list(info.colour)] for info in self.classes],
            "next": self.next_value,
        }

    def from_json(self, values: Any) -> ClassTable:
        """Return the table of JSON values after this one; :class:`InputError` if they are damaged."""
        try:
            classes = [
                ClassInfo(int(v), str(name), (int(r), int(g), int(b)))
                for v, name, (r, g, b) in values["classes"]
            ]
            next_value = int(values["next"])
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{self.source}: found a damaged table of classes") from None
        return self.then(ClassTable.of(self.source, self.highest, classes, min(next_value, self.highest + 1)))


def next_value(attributes: Mapping[str, Any]) -> int:
    """Return the next value that the attributes of strokes state; 1 without one."""
    drawing = attributes.get("hrvol")
    drawing = drawing.get("drawing") if isinstance(drawing, Mapping) else None
    found = drawing.get("next") if isinstance(drawing, Mapping) else None
    return found if isinstance(found, int) and 1 <= found <= 2**16 else 1
