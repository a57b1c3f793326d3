"""Tortuosity of a mask: steady diffusion along an axis, solved by taufactor on the whole array.

The tortuosity factor is fraction / relative diffusivity; the relative diffusivity is the effective one of the
box whose other voxels and sides are closed, over that of the voxels of the mask. Diffusion is through faces.

Cooper et al. 2016, TauFactor: an open-source application for calculating tortuosity factors from tomographic
data, SoftwareX 5, 203; Kench et al. 2023, TauFactor 2, J. Open Source Software 8, 5358.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hrvol.arrays import Spacing3
from hrvol.errors import MissingExtraError

TOLERANCE = 1e-3
"""Largest relative difference of the flux through planes at which a solution is accepted."""

STEP = 100
"""Iterations between two tests of convergence, those of taufactor."""

CONVERGED, CLOSED, UNFINISHED, EMPTY = (
    "converged",
    "none (does not percolate)",
    "not converged",
    "none (no voxels)",
)

_MOST_WEIGHT = 3.0
"""Sum of the weights of both other axes up to which taufactor 1.2 counts no conducting voxel as closed."""


@dataclass(frozen=True)
class Diffusion:
    """Diffusion through a mask along one axis.

    Attributes
    ----------
    status
        :data:`CONVERGED`, or why there is no number.
    fraction
        Of the mask in its box.
    through
        Share of the mask that is connected with both ends by faces.
    diffusivity
        Effective diffusivity, relative to that of the mask's material; 0 if it does not percolate, ``None``
        if the solution did not converge.
    factor
        Tortuosity factor; ``None`` without one.
    imbalance
        Relative difference of the flux through planes; ``None`` if nothing was solved.
    iterations
        Of the solver.
    """

    status: str
    fraction: float
    through: float
    diffusivity: float | None
    factor: float | None
    imbalance: float | None
    iterations: int


def check_taufactor() -> None:
    """Raise a :class:`MissingExtraError` if taufactor is not installed."""
    if find_spec("taufactor") is None:
        raise MissingExtraError("tortuosity: needs the package taufactor: pip install 'hrvol[measure]'")


def diffuse(
    mask: NDArray[np.bool_],
    axis: int,
    sampling: Spacing3,
    *,
    device: str = "cpu",
    most: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Diffusion:
    """Solve diffusion through a mask along an axis.

    Parameters
    ----------
    mask
        ``(z, y, x)``; at least 2 voxels along the axis.
    axis
        0 (z), 1 (y) or 2 (x).
    sampling
        Sides (z, y, x) of a voxel.
    device
        ``cpu`` or ``cuda``.
    most
        Iterations after which the solver gives up; ``None``: 50 per voxel along the axis, at least 10,000.
    progress
        Called with the number of iterations.
    """
    turned = np.moveaxis(mask, axis, 0)
    first, second = (side for other, side in enumerate(sampling) if other != axis)
    spacing = (sampling[axis], first, second)
    count = int(np.count_nonzero(turned))
    fraction = count / turned.size
    if not count:
        return Diffusion(EMPTY, 0.0, 0.0, None, None, None, 0)
    open_ = _through(turned)
    through = int(np.count_nonzero(open_)) / count
    if not through:
        return Diffusion(CLOSED, fraction, 0.0, 0.0, None, None, 0)
    relative, imbalance, iterations = _solve(open_, spacing, device, most, progress)
    if relative is None or not relative > 0:
        return Diffusion(UNFINISHED, fraction, through, None, None, imbalance, iterations)
    return Diffusion(CONVERGED, fraction, through, relative, fraction / relative, imbalance, iterations)


def _through(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the part of a mask whose components, by faces, reach both ends of the first axis."""
    numbers, count = ndimage.label(mask)
    both = np.zeros(count + 1, np.bool_)
    both[np.intersect1d(numbers[0], numbers[-1])] = True
    both[0] = False
    return np.asarray(both[numbers])


def _solve(
    mask: NDArray[np.bool_],
    spacing: Spacing3,
    device: str,
    most: int | None,
    progress: Callable[[int], None] | None,
) -> tuple[float | None, float | None, int]:
    """Return relative diffusivity along the first axis (``None``: not converged), imbalance, iterations."""
    from taufactor import AnisotropicSolver, Solver

    along, *across = spacing
    # Voxels that are long along the axis are divided: the shape stays, and weights are small.
    parts = max(1, math.ceil(along * math.sqrt(sum(side**-2 for side in across) / _MOST_WEIGHT) - 1e-9))
    image = np.repeat(mask, parts, axis=0).astype(np.uint8)
    sides = (along / parts, *across)
    # Its messages are for terminals; what they tell is in the result.
    with redirect_stdout(io.StringIO()), np.errstate(divide="ignore", invalid="ignore"):
        cubes = max(sides) <= min(sides) * (1 + 1e-9)
        solver: Any = (
            Solver(image, device=device)
            if cubes
            else AnisotropicSolver(image, tuple(float(side) for side in sides), device=device)
        )
        limit = max(10_000, 50 * len(image)) if most is None else most
        while not solver.converged and solver.iter < limit:
            solver.solve(iter_limit=min(solver.iter + STEP, limit), verbose=False, conv_crit=TOLERANCE)
            if progress is not None:
                progress(int(solver.iter))
    if solver.iter < STEP:
        return None, None, int(solver.iter)
    fluxes = np.asarray(solver.flux_1d[0], np.float64)
    top = float(fluxes.max())
    imbalance = float((top - fluxes.min()) / top) if top > 0 else None
    relative = float(solver.D_rel[0])
    done = bool(solver.converged) and imbalance is not None and imbalance < TOLERANCE
    return (relative if done else None), imbalance, int(solver.iter)
