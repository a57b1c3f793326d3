"""Describe what is exported, and what a format has to offer: the protocol of all modules in this room.

A format gets the planes of a volume in order, some at a time, and never all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Shape3, Spacing3
from hrvol.classes import ClassInfo, default_colour
from hrvol.errors import InputError, MissingExtraError

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Content:
    """What a file is to hold.

    Attributes
    ----------
    source
        Where it comes from, for messages.
    kind
        What the values are: ``labels``, ``image``, ``mask``, ``probabilities`` or ``uncertainty``.
    shape
        Voxels per axis, (z, y, x).
    ndim
        2 for an image, 3 for a volume.
    dtype
        Type of the values.
    voxel_size, translation
        Size of a voxel and position of the centre of the first one, (z, y, x) in ``unit``.
    unit
        OME name of a unit of length; ``None`` if unknown.
    classes
        Classes of the labels; the one class of a mask or of probabilities; none of grey values.
    """

    source: str
    kind: str
    shape: Shape3
    ndim: int
    dtype: np.dtype[Any]
    voxel_size: Spacing3
    translation: Spacing3 = (0.0, 0.0, 0.0)
    unit: str | None = None
    classes: tuple[ClassInfo, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def coloured(self) -> bool:
        """Whether the values are labels that a palette of 256 colours can show."""
        return self.kind == "labels" and self.dtype == np.uint8

    def palette(self) -> NDArray[np.uint8]:
        """Return ``(256, 3)`` uint8: a colour for each label of 8 bits; 0 is black."""
        known = {info.value: info.colour for info in self.classes}
        colours = [known.get(value) or default_colour(value) for value in range(1, 256)]
        return np.array([(0, 0, 0), *colours], np.uint8)


@dataclass(frozen=True)
class Writing:
    """How a file is written.

    Attributes
    ----------
    planes
        Planes that are passed on at once; fewer only at the end.
    threads
        Threads that compress.
    compress
        Whether to compress, where the format offers it.
    """

    planes: int = 1
    threads: int = 1
    compress: bool = True


class PlaneWriter(Protocol):
    """Writes planes one after the other."""

    def write(self, planes: NDArray[Any]) -> None:
        """Write the next planes, (k, y, x), of the content's type."""
        ...


Opener = Callable[[Path, Content, Writing], AbstractContextManager[PlaneWriter]]


@dataclass(frozen=True)
class Format:
    """A format for planes.

    Attributes
    ----------
    name
        As users write it.
    title
        For messages.
    suffixes
        Suffixes of its files, with the dot; the first one is used where several files are written.
    open
        Begins a file; a context manager that gives a :class:`PlaneWriter`. The file is whole when the context
        is left without an error.
    is_ours
        Whether hrvol wrote an existing file; called with its path. Others are never replaced.
    types
        Types it can hold.
    parts
        Suffixes of its files in the order in which they are published; empty: as users name the file. The
        one with the header is the last.
    folder
        Whether it is a folder.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    open: Opener
    is_ours: Callable[[Path], bool]
    types: tuple[str, ...]
    parts: tuple[str, ...] = ("",)
    folder: bool = False

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the files that are written for a path, the one with the header last."""
        return tuple(path.with_suffix(suffix) if suffix else path for suffix in self.parts)

    def check(self, content: Content) -> None:
        """Raise :class:`InputError` if the format cannot hold the content."""
        if content.dtype.name not in self.types:
            raise InputError(
                f"{content.source}: found values of type {content.dtype}, expected for {self.title}:"
                f" {', '.join(self.types)}"
            )


INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")

NUMBERS = (*INTEGERS, "float32", "float64")


def library(name: str, file: Path) -> Any:
    """Import an optional library; :class:`MissingExtraError` names the file and the extra without it."""
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtraError(f"{file}: needs the package {name}: pip install 'hrvol[export]'") from None


def hex_colour(info: ClassInfo) -> str:
    """Return the colour of a class as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*info.colour)


def class_lines(classes: Sequence[ClassInfo]) -> list[str]:
    """Return one line of text per class: value, name and colour."""
    return [f"{info.value} {info.name} {hex_colour(info)}" for info in classes]
