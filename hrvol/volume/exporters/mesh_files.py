"""Write meshes as binary STL or PLY while their triangles are found: a mesh is never in memory as a whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from hrvol.arrays import Shape3
from hrvol.errors import InputError
from hrvol.files import SOFTWARE
from hrvol.volume.exporters.content import Content, class_lines
from hrvol.volume.exporters.surface import Surface, Welder, positions

_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])

_VERTEX = np.dtype([("position", "<f4", 3), ("colour", "u1", 3)])

_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])

_MOST = 2**31 - 1

_STL_BYTES = 80

_WIDTH = 10  # digits of a count in the header of a PLY, which is known at the end


class MeshWriter(Protocol):
    """Writes pieces of a surface, in the order of their blocks."""

    def write(self, index: Shape3, block: tuple[slice, slice, slice], surface: Surface) -> None:
        """Write the surface inside a block."""
        ...


@dataclass(frozen=True)
class MeshFormat:
    """A format for meshes; attributes as of :class:`hrvol.volume.exporters.content.Format`."""

    name: str
    title: str
    suffixes: tuple[str, ...]
    open: Callable[[Path, Content], AbstractContextManager[MeshWriter]]
    is_ours: Callable[[Path], bool]


class _Stl:
    """Triangles with the positions of their corners."""

    def __init__(self, stream: BinaryIO, content: Content) -> None:
        self._stream, self._content, self.count = stream, content, 0

    def write(self, index: Shape3, block: tuple[slice, slice, slice], surface: Surface) -> None:
        content = self._content
        placed = positions(surface.vertices, content.voxel_size, content.translation)
        triangles = np.zeros(len(surface.faces), _TRIANGLE)
        triangles["corners"] = corners = placed[surface.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        triangles["normal"] = normals / np.where(lengths > 0, lengths, 1)
        self._stream.write(triangles.tobytes())
        self.count += len(triangles)
        _check_count(self.count, 2**32 - 1, "triangles", content)


class _Ply:
    """Numbered vertices, and triangles of their numbers, in two streams."""

    def __init__(self, vertices: BinaryIO, faces: BinaryIO, content: Content) -> None:
        self._vertices, self._faces, self._content = vertices, faces, content
        self._welder, self.faces = Welder(), 0

    @property
    def vertices(self) -> int:
        """Number of vertices so far."""
        return self._welder.count

    def write(self, index: Shape3, block: tuple[slice, slice, slice], surface: Surface) -> None:
        content = self._content
        numbers, new = self._welder.numbers(index, block, surface.vertices)
        rows = np.zeros(int(new.sum()), _VERTEX)
        rows["position"] = positions(surface.vertices[new], content.voxel_size, content.translation)
        rows["colour"] = content.classes[0].colour
        faces = np.zeros(len(surface.faces), _FACE)
        faces["count"] = 3
        self.faces += len(faces)
        _check_count(max(self.faces, self.vertices), _MOST, "triangles", content)
        faces["corners"] = numbers[surface.faces]
        self._vertices.write(rows.tobytes())
        self._faces.write(faces.tobytes())


@contextmanager
def open_stl(path: Path, content: Content) -> Iterator[MeshWriter]:
    """Write a binary STL; it has no place for units, colours and names: the header has what fits."""
    with path.open("wb") as stream:
        title = " ".join([SOFTWARE, *class_lines(content.classes), content.unit or ""])
        stream.write(title.encode("ascii", "replace")[:_STL_BYTES].ljust(_STL_BYTES) + bytes(4))
        writer = _Stl(stream, content)
        yield writer
        stream.seek(_STL_BYTES)
        stream.write(np.uint32(writer.count).astype("<u4").tobytes())


@contextmanager
def open_ply(path: Path, content: Content) -> Iterator[MeshWriter]:
    """Write a binary PLY whose vertices have the colour of the class."""
    faces_file = path.with_suffix(".faces")
    with path.open("w+b") as stream, faces_file.open("w+b") as faces:
        stream.write(_ply_header(content, 0, 0))
        writer = _Ply(stream, faces, content)
        yield writer
        faces.seek(0)
        shutil.copyfileobj(faces, stream, 2**22)
        stream.seek(0)
        stream.write(_ply_header(content, writer.vertices, writer.faces))
    faces_file.unlink()


def _ply_header(content: Content, vertices: int, faces: int) -> bytes:
    names = [f"comment class {line}" for line in class_lines(content.classes)]
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {SOFTWARE}",
        *names,
        f"comment unit {content.unit or 'pixel'}",
        f"element vertex {vertices:<{_WIDTH}d}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {colour}" for colour in ("red", "green", "blue")),
        f"element face {faces:<{_WIDTH}d}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    return ("\n".join(lines) + "\n").encode()


def _check_count(count: int, most: int, things: str, content: Content) -> None:
    if count > most:
        raise InputError(
            f"{content.source}: found more than {most:,} {things} of {content.classes[0].name},"
            " expected fewer: choose a coarser level or a region"
        )


def _begins(path: Path, *beginnings: bytes) -> bool:
    with path.open("rb") as stream:
        return stream.read(128).startswith(beginnings)


STL = MeshFormat("stl", "STL", (".stl",), open_stl, lambda path: _begins(path, b"hrvol "))

PLY = MeshFormat(
    "ply",
    "PLY",
    (".ply",),
    open_ply,
    lambda path: _begins(path, b"ply\nformat binary_little_endian 1.0\ncomment hrvol "),
)
