"""Compute classical features with the filters of Trainable Weka Segmentation (paper, section 3.3).

The default set (gaussian, sobel, hessian, difference_of_gaussians, membrane) has the channels of the
published method up to a constant factor per channel, with the same behaviour at the borders. The other
filters are optional, and mirror the image at its borders where the published method wraps or crops.

Every filter is local, so a tile and the whole image agree bit for bit at pixels further than :func:`halo`
from the border of the tile. NumPy and CuPy arrays use the same code; only :func:`_backend` differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage

from hrvol.arrays import luminance
from hrvol.errors import InputError
from hrvol.features.filters import kernels as filters
from hrvol.features.filters.kernels import BLUR, GREY, Array, Plane
from hrvol.features.filters.membrane import line_reach, membrane
from hrvol.recipe.specs import ClassicalSpec, FilterName


def _backend(image: Array) -> tuple[Any, Any]:
    """Return the modules of ``image``: (numpy, scipy.ndimage) or (cupy, cupyx.scipy.ndimage)."""
    if isinstance(image, np.ndarray):
        return np, scipy.ndimage
    if type(image).__module__.partition(".")[0] == "cupy":
        # CuPy is optional, and is installed if there is a CuPy array.
        import cupy
        import cupyx.scipy.ndimage

        return cupy, cupyx.scipy.ndimage
    raise InputError(f"classical features: found {type(image).__name__}, expected a NumPy or CuPy array")


@dataclass(frozen=True)
class _Filter:
    """A filter with a scale: names of its channels, its reach in pixels by scale, and its function."""

    parts: tuple[str, ...]
    reach: Callable[[float], int]
    compute: Callable[[Plane, float], Iterable[Array]]


_HESSIAN_PARTS = tuple(
    f"hessian_{name}" for name in ("module", "trace", "determinant", "eigenvalue1", "eigenvalue2")
)

_SCALED: dict[FilterName, _Filter] = {
    "gaussian": _Filter(
        ("gaussian",), lambda s: filters.gaussian_reach(BLUR * s), lambda plane, s: (plane.gaussian(s),)
    ),
    "sobel": _Filter(
        ("sobel",),
        lambda s: filters.gaussian_reach(BLUR * s) + 1,
        lambda plane, s: (filters.sobel(plane, plane.gaussian(s)),),
    ),
    "hessian": _Filter(
        _HESSIAN_PARTS,
        lambda s: filters.gaussian_reach(BLUR * s) + 2,
        lambda plane, s: filters.hessian(plane, plane.gaussian(s)),
    ),
    "mean": _Filter(("mean",), filters.disc_radius, lambda plane, s: (filters.mean(plane, s),)),
    "median": _Filter(("median",), filters.disc_radius, lambda plane, s: (filters.median(plane, s),)),
    "minimum": _Filter(
        ("minimum",), filters.disc_radius, lambda plane, s: (filters.extreme(plane, s, plane.xp.minimum),)
    ),
    "maximum": _Filter(
        ("maximum",), filters.disc_radius, lambda plane, s: (filters.extreme(plane, s, plane.xp.maximum),)
    ),
    "entropy": _Filter(("entropy_32", "entropy_64", "entropy_128"), filters.disc_radius, filters.entropy),
    "structure": _Filter(
        ("structure_eigenvalue1", "structure_eigenvalue2"),
        lambda s: filters.gaussian_reach(s) + 1,
        filters.structure,
    ),
    "neighbours": _Filter(
        tuple(f"neighbour_{direction}" for direction in filters.NEIGHBOURS),
        filters.neighbour_distance,
        filters.neighbours,
    ),
    "derivatives": _Filter(
        tuple(f"derivative_{2 * order}" for order in filters.DERIVATIVE_ORDERS),
        filters.gaussian_reach,
        filters.derivatives,
    ),
}
"""In the order of the channels."""

_GREY = ("original", "gaussian", "mean", "median", "minimum", "maximum", "neighbour", "bilateral")

_GREY_MEMBRANE = ("mean", "maximum", "minimum", "sum", "median")

_COLOURS = ("red", "green", "blue")

_MEMBRANE_PARTS = ("mean", "maximum", "minimum", "sum", "deviation", "median")


def _scales(spec: ClassicalSpec) -> tuple[float, ...]:
    """Return the different scales in ascending order."""
    return tuple(sorted(set(spec.sigmas)))


def _scale_name(sigma: float) -> str:
    return repr(float(sigma)).removesuffix(".0")


def is_grey_value(name: str) -> bool:
    """Return whether a channel is a grey value (averaged or selected), not a difference, shape or texture.

    Of colour, values of red, green and blue count as such, too.
    """
    kind, _, part = name.partition("_")
    if kind in _COLOURS:
        return is_grey_value(part)
    return kind in _GREY or (kind == "membrane" and part in _GREY_MEMBRANE)


def grey_columns(spec: ClassicalSpec, start: int = 0, *, colour: bool = False) -> tuple[int, ...]:
    """Return the columns of grey values if the classical channels begin at column ``start``."""
    names = channel_names(spec, colour=colour)
    return tuple(i for i, name in enumerate(names, start) if is_grey_value(name))


def channel_names(spec: ClassicalSpec, *, colour: bool = False) -> tuple[str, ...]:
    """Return the names of the channels of :func:`classical_features` in order.

    The order does not depend on the order of ``spec.filters`` or ``spec.sigmas``: first the image itself,
    which Weka always adds, and its Sobel and Hessian channels at scale 0 if these filters are used; then all
    channels of each scale; then channels without a scale.

    Parameters
    ----------
    spec
        Filters and scales.
    colour
        Whether they are of colour images: with ``spec.colour: channels``, all of red, then green, then blue.

    Returns
    -------
    tuple of str
        Unique names such as ``hessian_trace_4``; a number at the end is the scale in pixels.
        ``red_hessian_trace_4`` is that of red.
    """
    if colour and spec.colour == "channels":
        return tuple(f"{name}_{filtered}" for name in _COLOURS for filtered in channel_names(spec))
    scales = _scales(spec)
    names = ["original"]
    names += [
        f"{part}_0" for name in ("sobel", "hessian") if name in spec.filters for part in _SCALED[name].parts
    ]
    names += [
        f"{part}_{_scale_name(sigma)}"
        for sigma in scales
        for name, filter_ in _SCALED.items()
        if name in spec.filters
        for part in filter_.parts
    ]
    if "difference_of_gaussians" in spec.filters:
        names += [f"difference_of_gaussians_{_scale_name(a)}_{_scale_name(b)}" for a, b in _pairs(scales)]
    if "membrane" in spec.filters:
        names += [f"membrane_{part}" for part in _MEMBRANE_PARTS]
    if "bilateral" in spec.filters:
        names += [
            f"bilateral_{radius}_{limit}"
            for radius in filters.BILATERAL_RADII
            for limit in filters.BILATERAL_RANGES
        ]
    return tuple(names)


def _pairs(scales: tuple[float, ...]) -> list[tuple[float, float]]:
    """Return all pairs of a smaller and a larger scale, sorted by the larger one."""
    return [(small, large) for i, large in enumerate(scales) for small in scales[:i]]


def halo(spec: ClassicalSpec) -> int:
    """Return the largest distance along an axis at which a pixel changes the features of another one.

    Parameters
    ----------
    spec
        Filters and scales.

    Returns
    -------
    int
        Pixels, the same on all sides; 28 for the default set.
    """
    scales = _scales(spec)
    reaches = [filter_.reach(s) for name, filter_ in _SCALED.items() if name in spec.filters for s in scales]
    if "sobel" in spec.filters:
        reaches.append(1)
    if "hessian" in spec.filters:
        reaches.append(2)
    if "difference_of_gaussians" in spec.filters:
        reaches += [filters.gaussian_reach(BLUR * sigma) for sigma in scales]
    if "membrane" in spec.filters:
        reaches.append(line_reach())
    if "bilateral" in spec.filters:
        reaches.append(max(filters.BILATERAL_RADII))
    return max(reaches, default=0)


def _channels(plane: Plane, spec: ClassicalSpec) -> Iterator[Array]:
    """Yield the channels in the order of :func:`channel_names`, one at a time to save memory."""
    scales = _scales(spec)
    yield plane.image
    if "sobel" in spec.filters:
        yield filters.sobel(plane, plane.levels) / GREY
    if "hessian" in spec.filters:
        module, trace, determinant, *eigenvalues = filters.hessian(plane, plane.levels)
        yield from (module / GREY, trace / GREY, determinant / GREY**2)
        yield from (eigenvalue / GREY for eigenvalue in eigenvalues)
    for sigma in scales:
        for name, filter_ in _SCALED.items():
            if name in spec.filters:
                yield from filter_.compute(plane, sigma)
    if "difference_of_gaussians" in spec.filters:
        for small, large in _pairs(scales):
            yield plane.gaussian(small) - plane.gaussian(large)
    if "membrane" in spec.filters:
        yield from membrane(plane)
    if "bilateral" in spec.filters:
        yield from filters.bilateral(plane)


def classical_features(image: Array, spec: ClassicalSpec) -> Array:
    """Filter an image with every filter of ``spec``.

    Parameters
    ----------
    image
        ``(Y, X)``, or ``(Y, X, 3)`` of colour, floating point, finite, in [0, 1], NumPy or CuPy; any size
        from one pixel.
    spec
        Filters and scales.

    Returns
    -------
    Array
        ``(C, Y, X)`` float32 of the same library, finite; :func:`channel_names` gives the channels.
        Intensities and their sums are in units of the image, derivatives per pixel.

    Raises
    ------
    InputError
        ``image`` is empty, neither grey nor colour, not floating-point, or has NaN or infinite values.
    """
    xp, ndi = _backend(image)
    of_colour = image.ndim == 3 and image.shape[2] == 3
    if not (image.ndim == 2 or of_colour) or image.size == 0 or image.dtype.kind != "f":
        actual = f"{image.dtype} of shape {tuple(image.shape)}"
        raise InputError(f"classical features: found {actual}, expected a (Y, X) image of float32 in [0, 1]")
    if not bool(xp.isfinite(image).all()):
        raise InputError("classical features: found NaN or infinity, expected an image of finite numbers")
    values = image.astype(xp.float32, copy=False)
    planes = [values]
    if of_colour:
        each = spec.colour == "channels"
        planes = [xp.ascontiguousarray(values[..., i]) for i in range(3)] if each else [luminance(values)]
    count = len(channel_names(spec))
    out = xp.empty((len(planes) * count, *image.shape[:2]), dtype=xp.float32)
    for number, pixels in enumerate(planes):
        plane = Plane(xp, ndi, pixels)
        part = out[number * count : (number + 1) * count]
        for target, channel in zip(part, _channels(plane, spec), strict=True):
            target[...] = channel
    return out
