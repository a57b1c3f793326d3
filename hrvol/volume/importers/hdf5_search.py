"""Find the dataset of an HDF5 or NeXus file that holds the image.

The order is: the one that the user names; NeXus' default signal (https://manual.nexusformat.org/datarules.html);
places where dxchange, nabu and Savu write; the only signal of an NXdata group; the only 3D dataset; the only
2D dataset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hrvol.errors import InputError
from hrvol.text import listed, printable

NODES = 100_000
"""Most groups and datasets of a file that are looked at."""

_DEPTH = 64  # of groups

_ERRORS = (KeyError, OSError, RuntimeError, ValueError)  # of h5py for what cannot be opened

# Where programs write a reconstruction, or else projections.
_KNOWN = tuple(
    re.compile(pattern)
    for pattern in (
        r"/exchange/data",  # dxchange, tomopy
        r"/[^/]+/reconstruction/results/data",  # nabu
        r"/entry/final_result_[^/]+/data",  # Savu
        r"/data",  # HTTomo
    )
)


@dataclass(frozen=True)
class Candidate:
    """A dataset that may be an image.

    Attributes
    ----------
    path
        In the file.
    shape
        Of the dataset.
    dtype
        Name of its type.
    signal
        Whether an NXdata group names it as its signal.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    signal: bool = False

    @property
    def ndim(self) -> int:
        """Number of axes that are longer than 1."""
        return sum(side > 1 for side in self.shape)

    def __str__(self) -> str:
        return f"{self.path} ({' x '.join(map(str, self.shape))} {self.dtype})"


@dataclass(frozen=True)
class Contents:
    """What a file holds: datasets that may be images, links that lead nowhere, and whether all was seen."""

    candidates: tuple[Candidate, ...]
    broken: tuple[str, ...]
    whole: bool


def choose(file: Any, inside: str, source: str) -> Any:
    """Return the dataset of the image.

    Parameters
    ----------
    file
        An open :class:`h5py.File`.
    inside
        Path of the dataset, or of a group around it; empty: the whole file.
    source
        Name for messages.

    Raises
    ------
    InputError
        There is no such dataset, or there are several: the message lists them with their shapes.
    """
    start = _named(file, inside, source) if inside else file
    if hasattr(start, "shape"):
        return start
    default = _default(start, source)
    if default is not None:
        return default
    found = contents(start)
    usable = [one for one in found.candidates if one.ndim <= 3]
    for pattern in _KNOWN:
        matching = [one for one in usable if pattern.fullmatch(one.path)]
        if len(matching) == 1 and matching[0].ndim >= 2:
            return file[matching[0].path]
    signals = [one for one in usable if one.signal]
    for several in (_of(signals, 3), _of(usable, 3), _of(signals, 2), _of(usable, 2)):
        if len(several) == 1:
            return file[several[0].path]
        if several:
            break
    if len(found.candidates) == 1:  # of more axes, of which one may be channels
        return file[found.candidates[0].path]
    raise InputError(f"{source}: {_listed(found)}")


def contents(group: Any) -> Contents:
    """Return the datasets of numbers with two or more axes in a group, and broken links."""
    import h5py

    candidates: list[Candidate] = []
    broken: list[str] = []
    seen: set[tuple[str, int]] = set()
    whole = True
    for count, (path, node, signal) in enumerate(_walk(group, seen, broken)):
        if count >= NODES:
            whole = False
            break
        if isinstance(node, h5py.Dataset) and node.shape is not None and len(node.shape) >= 2:
            try:
                kind = node.dtype
            except (TypeError, ValueError):  # types that NumPy has not
                continue
            one = Candidate(path, tuple(map(int, node.shape)), str(kind), signal)
            if kind.kind in "biuf" and one.ndim >= 2:
                candidates.append(one)
    return Contents(tuple(candidates), tuple(broken), whole)


def _walk(
    group: Any, seen: set[tuple[str, int]], broken: list[str], depth: int = 0
) -> Iterator[tuple[str, Any, bool]]:
    """Yield path, node and whether it is a signal, of all nodes in a group, each once."""
    import h5py

    signal = _signal_name(group)
    # The signal first: the same dataset may have other names.
    for name in sorted(group, key=lambda name: (name != signal, name)):
        path = f"{group.name.rstrip('/')}/{name}"
        try:
            node = group[name]
            info = h5py.h5o.get_info(node.id)
        except _ERRORS:
            broken.append(_target(group, name, path))
            continue
        key = (str(node.file.filename), int(info.addr))
        if key in seen:
            continue
        seen.add(key)
        yield path, node, name == signal
        if isinstance(node, h5py.Group) and depth < _DEPTH:
            yield from _walk(_renamed(node, path), seen, broken, depth + 1)


class _Renamed:
    """A group by the path that leads to it: in another file, its own name is another one."""

    def __init__(self, group: Any, name: str) -> None:
        self.name = name
        self.attrs = group.attrs
        self.get = group.get
        self._group = group

    def __iter__(self) -> Iterator[str]:
        return iter(self._group)

    def __getitem__(self, name: str) -> Any:
        return self._group[name]


def _renamed(group: Any, name: str) -> Any:
    return group if group.name == name else _Renamed(group, name)


def _target(group: Any, name: str, path: str) -> str:
    """Return a link that leads nowhere, for messages."""
    try:
        link = group.get(name, getlink=True)
    except _ERRORS:
        return path
    file, inside = getattr(link, "filename", None), getattr(link, "path", "")
    return f"{path} -> {file or ''}{':' if file else ''}{inside}"


def _named(file: Any, inside: str, source: str) -> Any:
    try:
        return file[inside]
    except _ERRORS:
        pass
    place, _, name = inside.rstrip("/").rpartition("/")
    try:
        parent = file[place or "/"]
        if parent.get(name, getlink=True) is not None:
            raise InputError(f"{source}: found a broken link {printable(_target(parent, name, inside), 300)}")
    except _ERRORS:
        pass
    found = contents(file)
    raise InputError(f"{source}: found no {printable(inside, 200)}; {_listed(found)}")


def _default(group: Any, source: str) -> Any:
    """Return the signal that NeXus' ``default`` attributes lead to; ``None`` without one.

    Raises
    ------
    InputError
        The signal is a link that leads nowhere.
    """
    node = group
    for _ in range(_DEPTH):
        signal = _signal_name(node)
        if signal is not None:
            break
        name = text_of(node.attrs.get("default"))
        if name is None or node.get(name, getlink=True) is None:
            return None
        try:
            node = node[name]
        except _ERRORS:
            return None
        if not hasattr(node, "attrs") or hasattr(node, "shape"):
            return None
    else:
        return None
    path = f"{node.name.rstrip('/')}/{signal}"
    try:
        dataset = node[signal]
    except _ERRORS:
        shown = printable(_target(node, signal, path), 300)
        raise InputError(
            f"{source}: found a broken link to its default signal, {shown}; {_listed(contents(group))}"
        ) from None
    shape = getattr(dataset, "shape", None) or ()
    sides = sum(side > 1 for side in shape)
    return dataset if 2 <= sides <= 3 and dataset.dtype.kind in "biuf" else None


def _signal_name(group: Any) -> str | None:
    """Return the name of an NXdata group's signal; ``None`` for other groups."""
    name = text_of(group.attrs.get("signal"))
    if name is not None and group.get(name, getlink=True) is not None:
        return name
    if text_of(group.attrs.get("NX_class")) != "NXdata":
        return None
    for name in list(group)[:100]:  # before 2014 the dataset was marked
        try:
            if str(text_of(group[name].attrs.get("signal"))) == "1":
                return str(name)
        except _ERRORS:
            continue
    return None


def text_of(value: Any) -> str | None:
    """Return an attribute as text."""
    if getattr(value, "size", 0) == 1:
        value = value.item()
    if value is None:
        return None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _of(candidates: Sequence[Candidate], ndim: int) -> list[Candidate]:
    return [one for one in candidates if one.ndim == ndim]


def _listed(found: Contents) -> str:
    """Return what a file holds, for messages."""
    broken = f"; links that lead nowhere: {listed(found.broken, 3)}" if found.broken else ""
    more = "" if found.whole else f" among its first {NODES:,} objects"
    if not found.candidates:
        return f"found no dataset of numbers with 2 or 3 axes{more}, expected one{broken}"
    ranked = sorted(found.candidates, key=lambda one: (one.ndim != 3, one.ndim != 2))
    return (
        f"found {len(ranked):,} datasets{more}, expected one or FILE::/PATH, with one of"
        f" {listed(ranked, 5)}{broken}"
    )
