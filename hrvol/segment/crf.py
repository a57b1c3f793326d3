"""Refine class probabilities of a plane with a dense CRF (Kraehenbuehl and Koltun, 2011).

Two kernels connect all pairs of pixels: smoothness (near pixels are similar) and appearance (near pixels of
similar grey value are similar). Mean-field inference returns the marginals of the classes. The default
parameters are those of the paper's code. A plane is refined as a whole: the caller adds context and crops it.

pydensecrf2 runs on one thread and is deterministic. It holds the interpreter lock (0.5 s for 518 x 518 pixels
and 3 classes), so only processes run in parallel.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError, MissingExtraError, RecipeError

if TYPE_CHECKING:
    from hrvol.recipe.specs import CrfSpec

FLOOR = 1e-12
"""Least probability of a class, 27.6 nats. The kernels of the default spec add up to about 22 nats, so pixels
with a certain class keep it. The paper's code clips at 1e-5; on its images that changes hardly a pixel."""

_GREY = 255
_LATTICE = 32_000  # pydensecrf numbers lattice points in 16 bits, and corrupts memory beyond


def check_available() -> None:
    """Check that pydensecrf2 is installed.

    Raises
    ------
    MissingExtraError
        It is not; the message names the extra.
    """
    _densecrf()


def unary_from_probabilities(probabilities: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the unary energies of class probabilities.

    Parameters
    ----------
    probabilities
        ``(Y, X, K)`` in [0, 1].

    Returns
    -------
    NDArray[np.float32]
        ``(K, Y * X)``: -log p in nats, p at least :data:`FLOOR`.

    Raises
    ------
    InputError
        The array does not have three axes, or a value is not finite or not in [0, 1].
    """
    flat = _by_class("probabilities", probabilities)
    if flat.min() < 0 or flat.max() > 1 + 1e-3:
        raise InputError(f"probabilities: found {flat.min():g}..{flat.max():g}, expected them in 0..1")
    return -np.log(np.clip(flat, FLOOR, 1))


def refine(unary: NDArray[np.float32], image: NDArray[np.floating], spec: CrfSpec) -> NDArray[np.float32]:
    """Return the marginals of a dense CRF over one plane.

    Parameters
    ----------
    unary
        ``(K, Y * X)`` energies in nats, see :func:`unary_from_probabilities`.
    image
        ``(Y, X)``, or ``(Y, X, 3)`` of colour, in [0, 1]; other values are clipped. On a constant image only
        the distance smooths.
    spec
        Kernels and number of iterations; ``confidence`` is not used.

    Returns
    -------
    NDArray[np.float32]
        ``(Y, X, K)``; the classes of a pixel sum to 1.

    Raises
    ------
    InputError
        Shapes do not match, or an energy or a pixel is not finite.
    RecipeError
        A kernel is too narrow for the image.
    MissingExtraError
        pydensecrf2 is not installed.
    """
    densecrf = _densecrf()
    if image.shape[2:] not in ((), (3,)) or image.ndim < 2 or image.size == 0:
        raise InputError(f"crf: found an image of shape {image.shape}, expected (Y, X) or (Y, X, 3)")
    height, width = image.shape[:2]
    if unary.ndim != 2 or len(unary) == 0 or unary.shape[1] != height * width:
        raise InputError(
            f"crf: found energies of shape {unary.shape}, expected (classes, {height * width}) "
            f"for an image of {height} x {width}"
        )
    # One NaN would spread over the whole plane.
    _check_finite("crf: energies", unary)
    _check_finite("crf: image", image)
    _check_kernels((height, width), spec)
    n_classes = len(unary)
    if n_classes == 1:
        return np.ones((height, width, 1), np.float32)
    levels = np.rint(np.clip(image, 0, 1) * _GREY).astype(np.uint8)
    crf = densecrf.DenseCRF2D(width, height, n_classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary, dtype=np.float32))
    options = {"kernel": densecrf.FULL_KERNEL, "normalization": densecrf.NORMALIZE_SYMMETRIC}
    crf.addPairwiseGaussian(sxy=(spec.sxy_gauss,) * 2, compat=spec.compat_gauss, **options)
    crf.addPairwiseBilateral(
        sxy=(spec.sxy_bilateral,) * 2,
        srgb=(spec.srgb,) * 3,
        rgbim=np.repeat(levels[:, :, None], 3, axis=2) if levels.ndim == 2 else np.ascontiguousarray(levels),
        compat=spec.compat_bilateral,
        **options,
    )
    marginals = np.asarray(crf.inference(spec.iterations), dtype=np.float32)
    return np.ascontiguousarray(marginals.T).reshape(height, width, n_classes)


def _densecrf() -> Any:
    """Import ``pydensecrf.densecrf`` of the optional extra ``crf``."""
    try:
        return importlib.import_module("pydensecrf.densecrf")
    except ModuleNotFoundError:
        raise MissingExtraError(
            "crf: found no pydensecrf2, expected the extra crf; pip install 'hrvol[crf]'"
        ) from None


def _by_class(name: str, values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Check ``(Y, X, K)`` values and return them as ``(K, Y * X)`` float32."""
    if values.ndim != 3 or values.size == 0:
        raise InputError(f"{name}: found shape {values.shape}, expected (Y, X, classes)")
    _check_finite(name, values)
    return np.ascontiguousarray(values.reshape(-1, values.shape[2]).T, dtype=np.float32)


def _check_finite(name: str, values: NDArray[np.floating]) -> None:
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise InputError(
            f"{name}: found NaN or infinity in {bad} of {values.size} values, expected finite ones"
        )


def _check_kernels(shape: tuple[int, ...], spec: CrfSpec) -> None:
    """Check that the lattice of the kernels does not overflow its 16-bit numbers.

    The lattice rotates a point of d coordinates, in standard deviations, and scales it by sqrt(2/3) (d + 1)
    (Adams et al., 2010), so no number exceeds this factor times the point's distance from 0.
    """
    pixels = math.hypot(*shape)
    gauss = 3 * pixels / spec.sxy_gauss
    bilateral = 6 * math.hypot(pixels / spec.sxy_bilateral, math.sqrt(3) * _GREY / spec.srgb)
    excess = math.sqrt(2 / 3) * max(gauss, bilateral) / _LATTICE
    if excess > 1:
        raise RecipeError(
            f"crf: found sxy_gauss {spec.sxy_gauss:g}, sxy_bilateral {spec.sxy_bilateral:g}, "
            f"srgb {spec.srgb:g} for {shape[0]} x {shape[1]} pixels; "
            f"expected the narrowest kernel at least {excess:.2g} times wider"
        )
