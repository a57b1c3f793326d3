"""Define invertible views of an image, whose features are averaged (paper, section 3.1).

A view is one frozen object with both directions, so that views and their inverses cannot get out of step.
Views act on the last two axes of NumPy arrays and torch tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, Protocol

from hrvol.recipe.specs import DeepSpec

Neighbourhood = Literal["moore", "von_neumann"]

_DIRECTIONS: dict[Neighbourhood, tuple[tuple[int, int], ...]] = {
    "von_neumann": ((-1, 0), (0, -1), (0, 1), (1, 0)),
    "moore": ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)),
}


class View(Protocol):
    """A transform of the last two axes with its exact inverse: ``undo(apply(x)) == x``.

    ``where`` transforms points ``(y, x)`` of an image of the given shape, in pixels with edges at integers.
    """

    def apply(self, x: Any) -> Any:
        """Return the view of ``x``, shape ``(..., Y, X)``."""
        ...

    def undo(self, x: Any) -> Any:
        """Return the argument of :meth:`apply` from its result."""
        ...

    def where(self, y: Any, x: Any, shape: tuple[int, int]) -> tuple[Any, Any]:
        """Return the positions in the view of points of the image."""
        ...


@dataclass(frozen=True)
class Shift:
    """Shift an image by ``(dy, dx)`` pixels around its borders."""

    dy: int
    dx: int

    def apply(self, x: Any) -> Any:
        """Shift by ``(dy, dx)``."""
        return _roll(x, self.dy, self.dx)

    def undo(self, x: Any) -> Any:
        """Shift back."""
        return _roll(x, -self.dy, -self.dx)

    def where(self, y: Any, x: Any, shape: tuple[int, int]) -> tuple[Any, Any]:
        """Shift points around the borders."""
        return (y + self.dy) % shape[0], (x + self.dx) % shape[1]


@dataclass(frozen=True)
class Flip:
    """Mirror an image along an axis: ``y`` up-down, ``x`` left-right. It is its own inverse."""

    axis: Literal["y", "x"]

    def apply(self, x: Any) -> Any:
        """Mirror."""
        return _flip(x, -2 if self.axis == "y" else -1)

    def undo(self, x: Any) -> Any:
        """Mirror again."""
        return self.apply(x)

    def where(self, y: Any, x: Any, shape: tuple[int, int]) -> tuple[Any, Any]:
        """Mirror points."""
        return (shape[0] - y, x) if self.axis == "y" else (y, shape[1] - x)


@dataclass(frozen=True)
class Rotate90:
    """Rotate an image by ``quarters`` x 90 degrees from the y axis towards the x axis."""

    quarters: int

    def apply(self, x: Any) -> Any:
        """Rotate."""
        return _rot90(x, self.quarters % 4)

    def undo(self, x: Any) -> Any:
        """Rotate back."""
        return _rot90(x, -self.quarters % 4)

    def where(self, y: Any, x: Any, shape: tuple[int, int]) -> tuple[Any, Any]:
        """Rotate points about the centre."""
        height, width = shape
        for _ in range(self.quarters % 4):
            y, x = x, height - y
            height, width = width, height
        return y, x


@dataclass(frozen=True)
class Chain:
    """Apply views one after the other; an empty chain is the identity."""

    views: tuple[View, ...] = ()

    def apply(self, x: Any) -> Any:
        """Apply the views in order."""
        for view in self.views:
            x = view.apply(x)
        return x

    def undo(self, x: Any) -> Any:
        """Undo the views in reverse order."""
        for view in reversed(self.views):
            x = view.undo(x)
        return x

    def where(self, y: Any, x: Any, shape: tuple[int, int]) -> tuple[Any, Any]:
        """Transform points by the views in order."""
        for view in self.views:
            y, x = view.where(y, x, shape)
            if transposes(view):
                shape = (shape[1], shape[0])
        return y, x


IDENTITY = Chain()


def shifts(distances: Iterable[int], neighbourhood: Neighbourhood = "moore") -> tuple[View, ...]:
    """Return the identity and every shift of a neighbourhood by each distance (paper, section S7)."""
    moved = (Shift(d * y, d * x) for d in distances for y, x in _DIRECTIONS[neighbourhood])
    return (IDENTITY, *moved)


def flips(kind: Literal["group", "published"] = "group") -> tuple[View, ...]:
    """Return mirror images.

    ``group`` gives all four reflections, whose average has no preferred direction; ``published`` gives the
    paper's list of identity, left-right, identity, up-down (section S7), whose average has one.
    """
    if kind == "published":
        return (IDENTITY, Flip("x"), IDENTITY, Flip("y"))
    # Views that share their columns are neighbours: see hrvol.features.deep.placement.spread.
    return (IDENTITY, Flip("y"), Flip("x"), Chain((Flip("y"), Flip("x"))))


def rotations() -> tuple[View, ...]:
    """Return the four rotations by multiples of 90 degrees."""
    return (IDENTITY, Rotate90(1), Rotate90(2), Rotate90(3))


def symmetries() -> tuple[View, ...]:
    """Return the eight symmetries of a square: mirror images, and mirror images rotated by 90 degrees."""
    # The order is as in flips: an up-down reflection and a rotation by 90 degrees keep the columns.
    sides, turns, ends = ((), (Flip("x"),)), ((), (Rotate90(1),)), ((), (Flip("y"),))
    return tuple(Chain((*side, *end, *turn)) for side, turn, end in product(sides, turns, ends))


def combine(*sets: Iterable[View]) -> tuple[View, ...]:
    """Return the Cartesian product of sets of views; each member is a chain in the order of the sets."""
    return tuple(Chain(views) for views in product(*sets))


def views_of(spec: DeepSpec) -> tuple[View, ...]:
    """Return the views that a recipe averages over, at least one."""
    sets: list[tuple[View, ...]] = []
    if spec.shifts:
        sets.append(shifts(spec.shifts, spec.neighbourhood))
    if spec.flips and spec.rotations:
        sets.append(symmetries())
    elif spec.rotations:
        sets.append(rotations())
    elif spec.flips:
        sets.append(flips("published" if spec.flips == "published" else "group"))
    return combine(*sets)


def transposes(view: View) -> bool:
    """Return whether a view exchanges rows and columns."""
    if isinstance(view, Chain):
        return sum(transposes(member) for member in view.views) % 2 == 1
    return isinstance(view, Rotate90) and view.quarters % 2 == 1


def _roll(x: Any, dy: int, dx: int) -> Any:
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__().roll(x, (dy, dx), axis=(-2, -1))
    return x.roll((dy, dx), dims=(-2, -1))


def _flip(x: Any, axis: int) -> Any:
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__().flip(x, axis=axis)
    return x.flip(axis)


def _rot90(x: Any, quarters: int) -> Any:
    """Rotate by mirrors and a transpose, which every array library has."""
    for _ in range(quarters):
        x = _flip(x, -2).swapaxes(-2, -1)
    return x
