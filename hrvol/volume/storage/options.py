"""Parse options of file systems from the command line, the environment and private files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hrvol.errors import UsageError
from hrvol.reading.bounded import read_file
from hrvol.text import printable

FROM_ENVIRONMENT = "env:"
"""Start of a value that names an environment variable."""

_FILE_BYTES = 2**16

_SECRET = re.compile(r"(^|_)(key|secret|token|pass(word|wd)?|credentials?|connection_string)$", re.IGNORECASE)


def parse_options(pairs: Iterable[str]) -> dict[str, Any]:
    """Parse options written as ``key=value``.

    Parameters
    ----------
    pairs
        A value that is valid JSON (``true``, ``3``, ``{"a": 1}``) is parsed, any other is text. Dots in a key
        make nested mappings: ``client_kwargs.region_name=eu-west-1``.

    Raises
    ------
    UsageError
        A pair has no ``=`` or no key.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        names = key.split(".")
        if not equals or not all(names):
            shown = f"{key}=..." if equals else "text without '='"  # a value may be a secret
            raise UsageError(f"option: found {shown}, expected key=value")
        inner = options
        for name in names[:-1]:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise UsageError(f"option {key}: found a value for {name} too, expected one of both")
        try:
            inner[names[-1]] = json.loads(value)
        except ValueError:
            inner[names[-1]] = value
    return options


def from_environment(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with each value ``env:NAME`` replaced by the environment variable NAME, as text.

    Raises
    ------
    UsageError
        A variable is not set.
    """

    def value(name: str, text: Any) -> Any:
        if isinstance(text, Mapping):
            return from_environment(text)
        if not isinstance(text, str) or not text.startswith(FROM_ENVIRONMENT):
            return text
        variable = text.removeprefix(FROM_ENVIRONMENT)
        if variable not in os.environ:
            raise UsageError(
                f"option {name}: found no environment variable {printable(variable)}, expected it to be set"
            )
        return os.environ[variable]

    return {name: value(name, text) for name, text in options.items()}


def read_options(path: str | Path) -> dict[str, Any]:
    """Read options from a JSON or YAML file that only its owner can read.

    Raises
    ------
    UsageError
        The file cannot be read, other accounts may read or change it, or it holds no mapping. The message
        shows nothing of what it holds.
    """
    name = printable(str(path))
    data = read_file(path, _FILE_BYTES, "a JSON or YAML file of options", UsageError, private=True)
    try:
        values = yaml.safe_load(data)  # JSON is YAML, too
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"{name}{line}: found text that is neither JSON nor YAML") from None
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise UsageError(f"{name}: found text that is neither JSON nor YAML") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"{name}: found no mapping, expected options by their names")
    return values


def merged(options: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with overrides; nested mappings are merged, too."""
    both = dict(options)
    for name, value in overrides.items():
        inner = both.get(name)
        both[name] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both


def secrets_in(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of options that hold secrets, judged by their names; those of ``env:NAME`` do not."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from secrets_in(value)
        elif _SECRET.search(name) and not str(value).startswith(FROM_ENVIRONMENT):
            yield name
