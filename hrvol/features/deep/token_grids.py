"""Tokens of the views of one image with the weights that interpolate them, to upsample any pixels of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvol.features.deep.placement import Axis, spread


@dataclass(frozen=True, eq=False)
class ViewGroup:
    """Views that share the weights of their columns.

    Attributes
    ----------
    grids
        Tokens ``(h, w, C)`` float32 of each view.
    rows
        Weights of the rows of each view.
    columns
        Weights of the columns of all views.
    """

    grids: tuple[Tensor, ...]
    rows: tuple[Axis, ...]
    columns: Axis

    def put(self, result: Tensor, *, first: bool, share: float) -> None:
        """Upsample the tokens, and write their shares to the result, or add them unless ``first``."""

        def put(start: int, stop: int, values: Tensor) -> None:
            if first:
                result[start:stop] = values
            else:
                result[start:stop].add_(values)

        spread(list(zip(self.grids, self.rows, strict=True)), self.columns, put, share=share)

    def at(self, y: Tensor, x: Tensor, *, share: float) -> Tensor:
        """Return the sum of the views' shares ``(n, C)`` at single pixels, as :meth:`put` computes it."""
        low, high = (
            self._rows_at(y, columns[x]).mul_(share) if share != 1 else self._rows_at(y, columns[x])
            for columns in (self.columns.low, self.columns.high)
        )
        return torch.lerp(low, high, self.columns.fraction[x][:, None])

    def _rows_at(self, y: Tensor, column: Tensor) -> Tensor:
        """Return the sum of the views at rows of pixels and columns of tokens, ``(n, C)``."""
        total: Tensor | None = None
        for grid, rows in zip(self.grids, self.rows, strict=True):
            low, high = grid[rows.low[y], column], grid[rows.high[y], column]
            values = torch.lerp(low, high, rows.fraction[y][:, None])
            total = values if total is None else total.add_(values)
        assert total is not None
        return total

    def crop(self, rows: slice, columns: slice) -> ViewGroup:
        """Return the group with the weights of some rows and columns of pixels; slices may have a step."""
        return ViewGroup(self.grids, tuple(y.crop(rows) for y in self.rows), self.columns.crop(columns))


@dataclass(frozen=True, eq=False)
class TokenGrids:
    """The tokens of one image in groups of views, for upsampling any rows and columns of it."""

    groups: tuple[ViewGroup, ...]

    def spread(self, rows: slice, columns: slice, out: Tensor) -> None:
        """Write the features of some rows and columns into ``out``, ``(y, x, C)`` float32."""
        views = sum(len(group.grids) for group in self.groups)
        for number, group in enumerate(self.groups):
            group.crop(rows, columns).put(out, first=number == 0, share=1 / views)

    def at(self, y: Tensor, x: Tensor) -> Tensor:
        """Return the features ``(n, C)`` of single pixels, with the bits of :meth:`spread`.

        Parameters
        ----------
        y, x
            ``(n,)`` int64 rows and columns of the image.
        """
        views = sum(len(group.grids) for group in self.groups)
        total: Tensor | None = None
        for group in self.groups:
            values = group.at(y, x, share=1 / views)
            total = values if total is None else total.add_(values)
        assert total is not None  # there is always a view
        return total

    def mapped(self, weight: Tensor, bias: Tensor | None = None) -> TokenGrids:
        """Return the tokens with a linear map applied to each, so that its result is upsampled.

        Parameters
        ----------
        weight, bias
            ``(K, C)`` and ``(K,)`` float32.
        """
        return TokenGrids(
            tuple(
                ViewGroup(
                    tuple(F.linear(grid, weight, bias) for grid in group.grids), group.rows, group.columns
                )
                for group in self.groups
            )
        )

    @property
    def grids(self) -> tuple[Tensor, ...]:
        """The tokens ``(h, w, C)`` of each view."""
        return tuple(grid for group in self.groups for grid in group.grids)

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens."""
        return sum(grid.nbytes for grid in self.grids)
