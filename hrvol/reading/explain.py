"""Turn pydantic's validation errors into one line: position, key path, value found, value expected."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from hrvol.text import printable

KeyPath = tuple[str | int, ...]
"""Keys and list indices that lead from the top of a file to a value."""

Position = tuple[int, int]

Locate = Callable[[KeyPath, bool], Position]
"""``locate(path, of_key)`` returns line and column of a value or of its key."""

_SUGGESTED = 3

_EXPECTED = {
    "int": "an integer",
    "float": "a number",
    "bool": "true, false",
    "string": "text",
    "invalid": "text as key",
}
"""What is expected, by the first word of the type of pydantic's error."""


@dataclass(frozen=True)
class _Located:
    """One of pydantic's errors, with the model and field that it is about.

    Attributes
    ----------
    path
        Keys and list indices, without the names that pydantic gives to members of a union.
    section
        Model that holds the last key.
    field
        Field of the last key; ``None`` for an unknown key or a section's own check.
    details
        The error itself.
    """

    path: KeyPath
    section: type[BaseModel]
    field: FieldInfo | None
    details: ErrorDetails

    @property
    def key_path(self) -> KeyPath:
        """The path without list indices."""
        return tuple(part for part in self.path if isinstance(part, str))

    @property
    def unknown_key(self) -> bool:
        """Whether the model has no such field."""
        return self.details["type"] == "extra_forbidden"


def explain(error: ValidationError, model: type[BaseModel], source: str, locate: Locate | None = None) -> str:
    """Return one line for the most useful of the errors, with the number of the others.

    Unknown keys come first, because a misspelt key explains more than the default that replaced it; then the
    order of the file counts.

    Parameters
    ----------
    error
        What pydantic raised.
    model
        The model that was validated.
    source
        Name of the file.
    locate
        Returns positions in the file; without it the message has none.
    """
    located = [_locate(details, model) for details in error.errors(include_url=False)]
    problems: list[tuple[bool, Position, str]] = []
    for alternatives in _by_value(located):
        first = alternatives[0]
        path = first.path[:-1] if first.details["type"] == "missing" else first.path
        position = (1, 1) if locate is None else locate(path, first.unknown_key)
        prefix = source if locate is None else f"{source}:{position[0]}:{position[1]}"
        line = ": ".join(filter(None, (prefix, _dotted(path), _problem(alternatives, model))))
        problems.append((not first.unknown_key, position, line))
    problems.sort(key=lambda problem: problem[:2])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{problems[0][2]}{more}"


def _locate(details: ErrorDetails, model: type[BaseModel]) -> _Located:
    """Follow the fields of models along pydantic's ``loc``, and leave out what is no key and no index."""
    path: list[str | int] = []
    owner, field = model, None
    inner: type[BaseModel] | None = model
    for part in details["loc"]:
        if isinstance(part, int):  # of a list, whose values are of the same model
            path.append(part)
        elif inner is not None and not part.startswith("function-") and part != inner.__name__:
            path.append(part)
            owner, field = inner, _field(inner, part)
            inner = None if field is None else _section(field.annotation)
    key = details.get("ctx", {}).get("key")  # a section's own check names the field
    return _Located((*path, key) if key else tuple(path), owner, field, details)


def _field(model: type[BaseModel], key: str) -> FieldInfo | None:
    """Return the field of a key of the file, which may have another name in Python."""
    fields = model.model_fields
    return fields.get(key) or next((field for field in fields.values() if field.alias == key), None)


def _by_value(located: Sequence[_Located]) -> Iterator[list[_Located]]:
    """Group errors by value: members of a union each have one; those inside of a list tell the most."""
    for _, group in groupby(located, key=lambda one: one.key_path):
        errors = list(group)
        depth = max(len(one.path) for one in errors)
        deepest = [one for one in errors if len(one.path) == depth]
        if deepest[0].details["type"] == "missing":  # one per value that a list lacks
            yield deepest[:1]
        else:
            for _, same in groupby(deepest, key=lambda one: one.path):
                yield list(same)


def _problem(alternatives: Sequence[_Located], model: type[BaseModel]) -> str:
    first = alternatives[0]
    details = first.details
    if first.unknown_key:
        return f"unknown key; {_suggest(str(first.path[-1]), first.section, model)}"
    if "key" in details.get("ctx", {}):
        return details["msg"]
    if details["type"] == "missing" and isinstance(first.path[-1], str):
        return f"found no {first.path[-1]}, expected one"
    annotation = None if first.field is None else first.field.annotation
    options = list(dict.fromkeys(_expected(one.details, annotation) for one in alternatives))
    if type(None) in get_args(annotation) and len(first.path) == len(first.key_path):
        options.append("null")
    head, comma, last = ", ".join(options).rpartition(", ")
    return f"found {_shown(details['input'])}, expected {f'{head} or {last}' if comma else last}"


def _expected(details: ErrorDetails, annotation: Any) -> str:
    kind = details["type"]
    if kind in ("too_long", "too_short") and details["ctx"]["field_type"] == "List":
        most = details["ctx"].get("max_length")
        return f"at most {most} values" if most else f"at least {details['ctx']['min_length']} values"
    if kind in ("tuple_type", "too_long", "missing"):
        expected = _list_of(annotation)
        limited = kind == "too_long" and expected == "a list"
        return f"a list of at most {details['ctx']['max_length']} values" if limited else expected
    if kind == "too_short":
        return f"a list of at least {details['ctx']['min_length']} values"
    if kind == "string_too_long":
        return f"text of at most {details['ctx']['max_length']} characters"
    if kind in ("model_type", "model_attributes_type"):
        return "a mapping of keys"
    rule = details["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if kind.startswith(("greater_than", "less_than")):
        return f"a number {rule}"
    if kind == "literal_error":
        return rule.replace(" or ", ", ")
    return _EXPECTED.get(kind.partition("_")[0], rule)


def _list_of(annotation: Any) -> str:
    """Return how many values the list among a field's types has."""
    for option in (annotation, *get_args(annotation)):
        values = get_args(option)
        if get_origin(option) is tuple and Ellipsis not in values:
            return f"a list of {len(values)} values"
    return "a list"


def _suggest(key: str, section: type[BaseModel], model: type[BaseModel]) -> str:
    """Return the nearest key of the section, and the same key of other sections."""
    near = difflib.get_close_matches(key, section.model_fields, 1)
    elsewhere = [_dotted(path) for path in _paths(model) if path[-1] == key]
    if near or elsewhere:
        return f"did you mean {' or '.join((near + elsewhere)[:_SUGGESTED])}?"
    return f"expected one of {', '.join(section.model_fields)}"


def _paths(model: type[BaseModel], above: KeyPath = ()) -> Iterator[KeyPath]:
    for name, field in model.model_fields.items():
        yield (*above, name)
        section = _section(field.annotation)
        if section is not None:
            yield from _paths(section, (*above, name))


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the model among a field's types, or among those of its list's values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)


def _dotted(path: KeyPath) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _shown(value: Any) -> str:
    """Return a value as YAML has it, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "a mapping" if isinstance(value, Mapping) else printable(reprlib.repr(value))
