"""Dense CRF: draws a plane's labels towards the edges of its image (Kraehenbuehl and Koltun, 2011).

Every pixel is tied to every other by two kernels: smoothness (near pixels are alike) and appearance (near
pixels of like grey are alike). Mean-field inference gives the marginals of the classes. The parameters are
those of the paper's code. One plane at a time, as a whole: the caller brings context, and crops it.

pydensecrf2 runs on one thread and draws nothing at random: same input, same bits. It holds the interpreter's
lock while it runs (0.5 s for 518 x 518 pixels and 3 classes), so only processes work side by side.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError, MissingExtraError, RecipeError, UsageError

if TYPE_CHECKING:
    from hrvol.recipe.specs import CrfSpec

FLOOR = 1e-12
"""Least probability of a class. The kernels of the default spec weigh up to about 22 nats; this is 27.6, so
what is certain stays. The paper's code clips at 1e-5; on its images that alters hardly a pixel."""

_GREY = 255
_LATTICE = 32_000  # the lattice numbers its points in 16 bits; past them pydensecrf corrupts memory


def check_available() -> None:
    """Check that the optional dependency is there.

    Raises
    ------
    MissingExtraError
        pydensecrf2 is not installed; the message names the extra.
    """
    _densecrf()


def unary_from_probabilities(probabilities: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return energies of the classes from a classifier's probabilities.

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
        Not three axes, or a value is not finite or not in [0, 1].
    """
    flat = _by_class("probabilities", probabilities)
    if flat.min() < 0 or flat.max() > 1 + 1e-3:
        raise InputError(f"probabilities: found {flat.min():g}..{flat.max():g}, expected them in 0..1")
    return -np.log(np.clip(flat, FLOOR, 1))


def unary_from_labels(labels: NDArray[Any], n_classes: int, confidence: float) -> NDArray[np.float32]:
    """Return energies of the classes from labels that are trusted equally.

    Parameters
    ----------
    labels
        ``(Y, X)`` integers: 1..K, or 0 for unsure (all classes alike).
    n_classes
        Number of classes K.
    confidence
        Probability that a label is right, in 0..1 (exclusive); the other classes share the rest.

    Returns
    -------
    NDArray[np.float32]
        ``(K, Y * X)`` in nats.

    Raises
    ------
    InputError
        Not two axes, no integers, or a label is not in 0..K.
    UsageError
        K or the confidence is out of range.
    """
    if n_classes < 1:
        raise UsageError(f"crf: found {n_classes} classes, expected at least 1")
    if not 0 < confidence < 1:
        raise UsageError(f"crf: found a confidence of {confidence}, expected it between 0 and 1")
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "iu":
        raise InputError(
            f"labels: found shape {labels.shape} of {labels.dtype}, expected integers of shape (Y, X)"
        )
    if labels.min() < 0 or labels.max() > n_classes:
        raise InputError(f"labels: found {labels.min()}..{labels.max()}, expected them in 0..{n_classes}")
    flat = labels.reshape(-1)
    other = (1 - confidence) / max(n_classes - 1, 1)
    energies = np.full((n_classes, flat.size), -math.log(other), np.float32)
    (known,) = np.nonzero(flat)
    energies[flat[known].astype(np.intp) - 1, known] = -math.log(confidence)
    energies[:, flat == 0] = math.log(n_classes)
    return energies


def unary_from_distances(distances: NDArray[np.floating], temperature: float) -> NDArray[np.float32]:
    """Return energies of the classes from distances to their centroids (paper, algorithm 2).

    Parameters
    ----------
    distances
        ``(Y, X, K)``, for instance squared Euclidean; only differences between a pixel's classes count.
    temperature
        Difference of distance that is worth one nat; above 0.

    Returns
    -------
    NDArray[np.float32]
        ``(K, Y * X)`` in nats; each pixel's nearest class has 0.

    Raises
    ------
    InputError
        Not three axes, or a distance is not finite.
    UsageError
        The temperature is not above 0.
    """
    if not 0 < temperature < math.inf:
        raise UsageError(f"crf: found a temperature of {temperature}, expected it above 0")
    flat = _by_class("distances", distances)
    energies: NDArray[np.float32] = (flat - flat.min(axis=0)) / np.float32(temperature)
    return energies


def refine(unary: NDArray[np.float32], image: NDArray[np.floating], spec: CrfSpec) -> NDArray[np.float32]:
    """Return the marginals of a dense CRF over one plane.

    Parameters
    ----------
    unary
        ``(K, Y * X)`` energies in nats, as the functions ``unary_from_...`` return them.
    image
        ``(Y, X)`` in [0, 1]; what lies outside is clipped. Any size; a constant image leaves smoothing
        by distance alone.
    spec
        Kernels and number of iterations. ``confidence`` is not used here.

    Returns
    -------
    NDArray[np.float32]
        ``(Y, X, K)``; the classes of a pixel sum to 1. With one class all are 1.

    Raises
    ------
    InputError
        Shapes do not fit, or an energy or a pixel is not finite.
    RecipeError
        A kernel is too narrow for the image.
    MissingExtraError
        pydensecrf2 is not installed.
    """
    densecrf = _densecrf()
    if image.ndim != 2 or image.size == 0:
        raise InputError(f"crf: found an image of shape {image.shape}, expected (Y, X)")
    if unary.ndim != 2 or len(unary) == 0 or unary.shape[1] != image.size:
        raise InputError(
            f"crf: found energies of shape {unary.shape}, expected (classes, {image.size}) "
            f"for an image of {image.shape[0]} x {image.shape[1]}"
        )
    # One NaN would turn the whole plane into NaN.
    _check_finite("crf: energies", unary)
    _check_finite("crf: image", image)
    _check_kernels(image.shape, spec)
    height, width = image.shape
    n_classes = len(unary)
    if n_classes == 1:
        return np.ones((height, width, 1), np.float32)
    grey = np.rint(np.clip(image, 0, 1) * _GREY).astype(np.uint8)
    crf = densecrf.DenseCRF2D(width, height, n_classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary, dtype=np.float32))
    how = {"kernel": densecrf.FULL_KERNEL, "normalization": densecrf.NORMALIZE_SYMMETRIC}
    crf.addPairwiseGaussian(sxy=(spec.sxy_gauss,) * 2, compat=spec.compat_gauss, **how)
    crf.addPairwiseBilateral(
        sxy=(spec.sxy_bilateral,) * 2,
        srgb=(spec.srgb,) * 3,
        rgbim=np.repeat(grey[:, :, None], 3, axis=2),
        compat=spec.compat_bilateral,
        **how,
    )
    marginals = np.asarray(crf.inference(spec.iterations), dtype=np.float32)
    return np.ascontiguousarray(marginals.T).reshape(height, width, n_classes)


def refine_probabilities(
    probabilities: NDArray[np.floating], image: NDArray[np.floating], spec: CrfSpec
) -> NDArray[np.uint16]:
    """Return refined labels ``(Y, X)``, 1..K, from probabilities ``(Y, X, K)``; of equals, the lowest.

    This is how the paper's weakly supervised results were refined. See :func:`refine` and
    :func:`unary_from_probabilities` for arguments and errors.
    """
    _check_plane("probabilities", probabilities, image)
    return _likeliest(refine(unary_from_probabilities(probabilities), image, spec))


def refine_labels(
    labels: NDArray[Any], image: NDArray[np.floating], n_classes: int, spec: CrfSpec
) -> NDArray[np.uint16]:
    """Return refined labels ``(Y, X)``, 1..K, from labels ``(Y, X)``; of equals, the lowest.

    Pixels labelled 0 take the class that fits them best. The labels are trusted as far as
    ``spec.confidence``. See :func:`refine` and :func:`unary_from_labels` for arguments and errors.
    """
    _check_plane("labels", labels, image)
    return _likeliest(refine(unary_from_labels(labels, n_classes, spec.confidence), image, spec))


def _densecrf() -> Any:
    """Return the module ``pydensecrf.densecrf``: the one door to the optional extra ``crf``."""
    try:
        return importlib.import_module("pydensecrf.densecrf")
    except ModuleNotFoundError:
        raise MissingExtraError(
            "crf: pydensecrf2 is not installed; expected it with: pip install 'hrvol[crf]'"
        ) from None


def _likeliest(marginals: NDArray[np.float32]) -> NDArray[np.uint16]:
    labels: NDArray[np.uint16] = (marginals.argmax(axis=2) + 1).astype(np.uint16)
    return labels


def _by_class(name: str, values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return ``(Y, X, K)`` as ``(K, Y * X)`` float32, checked."""
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


def _check_plane(name: str, values: NDArray[Any], image: NDArray[np.floating]) -> None:
    """Catch transposed planes, which have the right number of pixels."""
    if values.shape[:2] != image.shape:
        raise InputError(f"{name}: found shape {values.shape}, expected the image's {image.shape} first")


def _check_kernels(shape: tuple[int, ...], spec: CrfSpec) -> None:
    """Refuse kernels whose lattice would not fit into its numbers.

    The lattice turns a point of d coordinates, in standard deviations, by a rotation scaled by
    sqrt(2/3) (d + 1) (Adams et al., 2010), so no number exceeds that times the point's distance from 0.
    """
    pixels = math.hypot(*shape)
    gauss = 3 * pixels / spec.sxy_gauss
    bilateral = 6 * math.hypot(pixels / spec.sxy_bilateral, math.sqrt(3) * _GREY / spec.srgb)
    excess = math.sqrt(2 / 3) * max(gauss, bilateral) / _LATTICE
    if excess > 1:
        raise RecipeError(
            f"crf: found sxy_gauss {spec.sxy_gauss:g}, sxy_bilateral {spec.sxy_bilateral:g}, "
            f"srgb {spec.srgb:g} for {shape[0]} x {shape[1]} pixels; "
            f"expected the narrowest {excess:.2g} times wider"
        )
