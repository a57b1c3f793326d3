"""Keep the tokens of an image so that any of its pixels can be upsampled: added up, or view by view.

Views are added up on a joint grid (:mod:`hrvol.features.deep.joint_grid`) where it holds no more values than
the tokens, and half as many as the pixels. Woven views always
are. Otherwise, with many shifts or small strides (`paper`), each view
is interpolated at the pixels (:mod:`hrvol.features.deep.token_grids`): there a joint grid would need as much
memory as the features. The choice depends on the spec and the shape of the image alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from hrvol.features.deep.joint_grid import JointGrid, JointTokens, joint_grid
from hrvol.features.deep.layout import Layout, layout_of, view_layouts
from hrvol.features.deep.placement import Axis, axis_weights
from hrvol.features.deep.token_grids import TokenGrids, ViewGroup
from hrvol.features.deep.views import views_of
from hrvol.features.deep.weave import woven_grid
from hrvol.recipe.specs import DeepSpec


class ImageTokens(Protocol):
    """Tokens of one image, from which pixels are upsampled: ``JointTokens`` or ``TokenGrids``."""

    def spread(self, rows: slice, columns: slice, out: Tensor) -> None:
        """Write the features of some rows and columns into ``out``, ``(y, x, C)`` float32."""
        ...

    def at(self, y: Tensor, x: Tensor) -> Tensor:
        """Return the features ``(n, C)`` of single pixels, with the bits of :meth:`spread`."""
        ...

    def mapped(self, weight: Tensor, bias: Tensor | None = None) -> ImageTokens:
        """Return the tokens with a linear map applied to each, so that its result is upsampled."""
        ...

    @property
    def grids(self) -> tuple[Tensor, ...]:
        """The values ``(h, w, C)`` that are kept."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of the values that are kept."""
        ...


def grid_size(patch: int, spec: DeepSpec, shape: tuple[int, int]) -> int:
    """Return the number of tokens of all views of an image of a shape."""
    passes = view_layouts(patch, spec, shape)
    return sum(len(layout.centres[0]) * len(layout.centres[1]) for _, layout in passes)


@lru_cache(maxsize=32)
def joint_grid_of(
    patch: int, spec: DeepSpec, shape: tuple[int, int], device: torch.device
) -> JointGrid | None:
    """Return the joint grid of a spec's views on a device, or ``None`` where views are not added up."""
    if spec.weave:
        return woven_grid(view_layouts(patch, spec, shape), device=device)
    joint = joint_grid(layout_of(patch, spec, shape), views_of(spec), spec.interpolation, device=device)
    knots, tokens, pixels = math.prod(joint.knots), grid_size(patch, spec, shape), math.prod(shape)
    return joint if knots <= tokens <= pixels and 2 * knots <= pixels else None


def kept_shapes(patch: int, spec: DeepSpec, shape: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Return the rows and columns of each of :attr:`ImageTokens.grids` of an image of a shape."""
    joint = joint_grid_of(patch, spec, shape, torch.device("cpu"))
    if joint is not None:
        return (joint.knots,)
    layout = layout_of(patch, spec, shape)
    return ((len(layout.centres[0]), len(layout.centres[1])),) * len(views_of(spec))


def kept_again(grids: Iterable[Tensor], patch: int, spec: DeepSpec, shape: tuple[int, int]) -> ImageTokens:
    """Return the tokens of a whole image of :attr:`ImageTokens.grids` that were stored, or moved."""
    values = tuple(grids)
    joint = joint_grid_of(patch, spec, shape, values[0].device)
    if joint is not None:
        return JointTokens(values[0], joint.y[1], joint.x[1], range(shape[0]), range(shape[1]))
    return grouped(values, spec, layout_of(patch, spec, shape))


def grouped(grids: Iterable[Tensor], spec: DeepSpec, layout: Layout) -> TokenGrids:
    """Return tokens ``(h, w, C)`` of all views of a spec, in order, with the weights of a layout."""
    each = iter(grids)
    return TokenGrids(
        tuple(
            ViewGroup(tuple(islice(each, len(rows))), rows, columns)
            for rows, columns in view_groups(layout, spec)
        )
    )


def view_groups(layout: Layout, spec: DeepSpec) -> Iterator[tuple[tuple[Axis, ...], Axis]]:
    """Yield the row weights of successive views that share their column weights, and the column weights."""
    rows: list[Axis] = []
    columns: Axis | None = None
    for view in views_of(spec):
        down, across = layout.pixels_of(view)
        x = axis_weights(layout.centres[1], across, spec.interpolation)
        if columns is not None and not columns.same_as(x):
            yield tuple(rows), columns
            rows = []
        rows.append(axis_weights(layout.centres[0], down, spec.interpolation))
        columns = x
    assert columns is not None  # there is always a view
    yield tuple(rows), columns
