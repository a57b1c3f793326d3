"""One case: how its files are damaged, the command that reads them, and which end of the command is right."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from damage import ODD, Key, key_paths, replaced, shown

REFUSE, SAME, EITHER = "refuse", "same", "either"
"""What is right: a refusal; a refusal or the result of the undamaged files; any end in good order."""

Damage = Callable[[Path], object]
"""Damages the files of a folder."""


@dataclass(frozen=True)
class Case:
    """A damaged file or an odd request.

    Attributes
    ----------
    group, name
        Class of input, and name of the case in it.
    command
        Words of the command line. Words that are names of the sound files are copied into the folder.
    damage
        Called with the folder of the case before the command starts there.
    expect
        ``refuse``, ``same`` or ``either``.
    names
        A refusal has to contain one of these texts: the file or the option that is at fault.
    generated
        Drawn at random, with a seed.
    files
        More sound files that are copied.
    keep
        Files that the command must leave as they are.
    tty
        Standard output and error are a terminal.
    shows
        Text that a command that succeeds has to show.
    """

    group: str
    name: str
    command: tuple[str, ...]
    damage: Damage
    expect: str = REFUSE
    names: tuple[str, ...] = ()
    generated: bool = False
    files: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    tty: bool = False
    shows: str = ""

    @property
    def title(self) -> str:
        """Return class and name."""
        return f"{self.group}/{self.name}"


def nothing(folder: Path) -> None:
    """Damage nothing: the request itself is odd."""


def written(name: str, data: bytes | str) -> Damage:
    """Return a damage that writes a file."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    return damage


def written_by(name: str, data: Callable[[], bytes]) -> Damage:
    """Return a damage that writes a file, whose bytes are made when it is needed."""

    def damage(folder: Path) -> None:
        written(name, data())(folder)

    return damage


def changed(name: str, change: Callable[[bytes], bytes]) -> Damage:
    """Return a damage that changes the bytes of a file."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def edited(name: str, change: Callable[[Any], Any]) -> Damage:
    """Return a damage that changes the values of a JSON file."""
    return changed(name, lambda data: json.dumps(change(json.loads(data))).encode())


def odd_values(
    source: Mapping[str, Any], paths: Sequence[Key], odd: Sequence[Any] = ODD
) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Yield a name and a change for each odd value at each path of JSON values, and for its removal."""
    for path in paths:
        for value in odd:
            yield f"{dotted(path)} = {shown(value)}", lambda old, p=path, v=value: replaced(old, p, v)


def drawn_odd(values: Any, rng: random.Random, skip: Sequence[str] = ()) -> tuple[Key, Any]:
    """Draw a key path that has none of the keys to skip, and an odd value."""
    paths = [path for path in key_paths(values) if path and not set(skip) & set(path)]
    return rng.choice(paths), rng.choice(ODD)


def dotted(path: Key) -> str:
    return ".".join(map(str, path))
