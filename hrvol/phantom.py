"""Make a synthetic X-ray CT volume of a battery electrode with its ground truth.

It has the difficulties of real tomograms: pores and cracks have the same grey value and differ in shape,
binder and particles overlap in grey value and differ in texture, and there are partial volumes, noise, ring
artefacts around the rotation axis and uneven illumination.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

CLASS_NAMES = ("pore", "binder", "particle", "crack")
PORE, BINDER, PARTICLE, CRACK = 1, 2, 3, 4

_Field = npt.NDArray[np.float32]

# Grey values, 0 to 1, before artefacts, and their mapping to 16 bits.
_GREY = {PORE: 0.30, BINDER: 0.55, PARTICLE: 0.60, CRACK: 0.30}
_OFFSET, _GAIN = 6000.0, 40000.0


@dataclass(frozen=True, eq=False)
class Phantom:
    """A volume with its ground truth.

    Attributes
    ----------
    image
        Uint16 (Z, Y, X).
    labels
        Uint8 (Z, Y, X), 1..4 in order of ``class_names``; no voxel is 0.
    class_names
        ``("pore", "binder", "particle", "crack")``.
    """

    image: npt.NDArray[np.uint16]
    labels: npt.NDArray[np.uint8]
    class_names: tuple[str, ...] = CLASS_NAMES


def make_phantom(shape: tuple[int, int, int] = (32, 256, 256), seed: int = 0) -> Phantom:
    """Make an electrode of round particles, some touching and some cracked, in a porous binder.

    Parameters
    ----------
    shape
        Voxels (Z, Y, X); Z may be 1.
    seed
        Seed of all random numbers.

    Returns
    -------
    Phantom
        The image and its ground truth.
    """
    rng = np.random.default_rng(seed)
    distance, crack = _particles(shape, rng)
    # Binder is near particles and bridges them; regions far from particles are mostly pore.
    porous = _noise(shape, 5.0, rng) + 2.5 * (np.minimum(distance, 1.5) - 1.2)
    labels = np.full(shape, BINDER, np.uint8)
    labels[porous > 0.0] = PORE
    inside = distance < 1.0
    labels[inside] = PARTICLE
    labels[inside & crack] = CRACK
    grey = _texture(labels, rng)
    return Phantom(_scan(grey, rng), labels)


def draw_strokes(
    labels: npt.NDArray[np.uint8], planes: Iterable[int], *, strokes: int = 3, length: int = 40, seed: int = 0
) -> npt.NDArray[np.uint8]:
    """Draw a few short strokes per class, three pixels wide, as a person would.

    Parameters
    ----------
    labels
        Ground truth (Z, Y, X); 0 is unlabelled.
    planes
        Planes to draw on.
    strokes
        Strokes per class and plane.
    length
        Largest length of a stroke in pixels; strokes end where their class ends.
    seed
        Seed of all random numbers. Strokes on a plane do not depend on the other planes.

    Returns
    -------
    numpy.ndarray
        Uint8 (Z, Y, X): the class on strokes, 0 elsewhere. Strokes never leave their class.
    """
    drawn = np.zeros_like(labels)
    for z in planes:
        plane = labels[z]
        for value in np.unique(plane[plane > 0]):
            rng = np.random.default_rng((seed, int(z), int(value)))
            mask = plane == value
            # People start in the middle of an object; in thin classes strokes start anywhere.
            depth = ndimage.distance_transform_edt(mask)
            starts = np.argwhere(depth >= min(3.0, float(depth.max())))
            for _ in range(strokes):
                _stroke(mask, starts[rng.integers(len(starts))], length, rng, drawn[z], int(value))
    return drawn


def _particles(shape: tuple[int, int, int], rng: np.random.Generator) -> tuple[_Field, npt.NDArray[np.bool_]]:
    """Place particles and crack some of them.

    Returns
    -------
    tuple
        Distance from the centre of the nearest particle in units of its radius (at most 2), and a mask of
        the cracks; both (Z, Y, X).
    """
    depth, height, width = shape
    distance = np.full(shape, 2.0, np.float32)
    crack = np.zeros(shape, np.bool_)
    rough, wavy = _noise(shape, 6.0, rng), _noise(shape, 4.0, rng)
    largest = min(34.0, 0.2 * min(height, width))
    reach = 0.6 * largest
    extent = (depth + 2 * reach) * (height + 2 * reach) * (width + 2 * reach)
    # Number of attempts: most of the later ones overlap a particle.
    attempts = int(10 * extent / (largest**3))
    placed = np.empty((0, 4))
    for radius in np.sort(rng.uniform(0.3, 1.0, attempts))[::-1] * largest:
        centre = rng.uniform([-reach] * 3, [depth + reach, height + reach, width + reach])
        gap = np.linalg.norm(placed[:, :3] - centre, axis=1) / (placed[:, 3] + radius)
        if (gap < 0.97).any():  # just below 1: some particles touch
            continue
        placed = np.vstack([placed, [*centre, radius]])
        stretch = rng.uniform(0.85, 1.15, 3)
        cracks = rng.integers(1, 4) if rng.random() < 0.65 and radius > 0.45 * largest else 0
        normals = rng.normal(size=(cracks, 3)) * (0.25, 1.0, 1.0)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        shifts, ends = rng.uniform(-0.35, 0.35, cracks), rng.uniform(-0.9, 0.3, cracks)
        box = tuple(
            slice(max(0, int(c - 2.1 * radius)), min(n, int(c + 2.1 * radius) + 2))
            for c, n in zip(centre, shape, strict=True)
        )
        if any(span.start >= span.stop for span in box):
            continue
        z, y, x = (
            (np.arange(span.start, span.stop, dtype=np.float32) - np.float32(c)) / np.float32(radius)
            for span, c in zip(box, centre, strict=True)
        )
        z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
        away = np.sqrt((z * stretch[0]) ** 2 + (y * stretch[1]) ** 2 + (x * stretch[2]) ** 2)
        away = (away + 0.05 * rough[box]).astype(np.float32)
        distance[box] = np.minimum(distance[box], away)
        for (nz, ny, nx), shift, end in zip(normals, shifts, ends, strict=True):
            across = nz * z + ny * y + nx * x - shift + 0.07 * wavy[box]
            along = nx * y - ny * x
            open_ = np.abs(across) < rng.uniform(0.9, 1.7) / radius
            crack[box] |= open_ & (along > end) & (away < 1.0)
    return distance, crack


def _texture(labels: npt.NDArray[np.uint8], rng: np.random.Generator) -> _Field:
    """Return grey values, 0 to 1: granular and fibrous binder, slightly mottled particles."""
    shape = labels.shape
    table = np.zeros(max(_GREY) + 1, np.float32)
    for value, level in _GREY.items():
        table[value] = level
    grey: _Field = table[labels]
    granular = _noise(shape, 1.3, rng) - 0.6 * _noise(shape, 3.0, rng)
    fibres = np.exp(-((_noise(shape, 2.2, rng) / 0.35) ** 2))
    binder, particle = labels == BINDER, labels == PARTICLE
    grey[binder] += (0.075 * granular + 0.13 * (fibres - 0.33))[binder]
    grey[particle] += 0.03 * _noise(shape, 7.0, rng)[particle]
    return grey


def _scan(grey: _Field, rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Simulate a scan of grey values: partial volumes, illumination, rings and noise."""
    depth, height, width = grey.shape
    seen = ndimage.gaussian_filter(grey, (0.5, 0.7, 0.7), mode="nearest")
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    tilt = rng.uniform(-0.06, 0.06, 2)
    # Cupping by beam hardening, and illumination that is brighter on one side.
    seen *= (1.0 + 0.10 * (y**2 + x**2 - 0.67) + tilt[0] * y + tilt[1] * x).astype(np.float32)
    axis = np.array([height, width]) / 2 + rng.uniform(-4, 4, 2)
    radius = np.hypot(np.arange(height)[:, None] - axis[0], np.arange(width)[None, :] - axis[1])
    bins = int(radius.max()) + 2
    # A faulty detector pixel causes a ring; each detector row has its own.
    profile = 0.012 * rng.standard_normal((depth, bins))
    bad = rng.random(bins) < 0.05
    profile += bad * 0.05 * rng.standard_normal(bins)
    ring = np.stack([np.interp(radius, np.arange(bins), row) for row in profile])
    noise = ndimage.gaussian_filter(rng.standard_normal(grey.shape, dtype=np.float32), (0, 0.5, 0.5))
    seen += ring.astype(np.float32) + 0.05 * noise / noise.std()
    image: npt.NDArray[np.uint16] = np.clip(_OFFSET + _GAIN * seen, 0, 65535).astype(np.uint16)
    return image


def _noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> _Field:
    """Return smooth Gaussian noise of mean 0 and standard deviation 1."""
    white = rng.standard_normal(shape, dtype=np.float32)
    smooth: _Field = ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=3.0)
    smooth -= smooth.mean()
    smooth /= max(float(smooth.std()), 1e-12)
    return smooth


def _stroke(
    mask: npt.NDArray[np.bool_],
    start: npt.NDArray[np.intp],
    length: int,
    rng: np.random.Generator,
    drawn: npt.NDArray[np.uint8],
    value: int,
) -> None:
    """Draw a gently curved stroke, three pixels wide, inside a mask."""
    height, width = mask.shape
    position = start + 0.5
    angle = rng.uniform(0, 2 * np.pi)
    for _ in range(length):
        row, column = (int(p) for p in position)
        near = (slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2))
        drawn[near][mask[near]] = value
        angle += rng.normal(0, 0.15)
        # The smallest turn that stays inside.
        for turn in (0.0, 0.4, -0.4, 0.9, -0.9, 1.5, -1.5, 2.2, -2.2):
            ahead = position + np.array([np.sin(angle + turn), np.cos(angle + turn)])
            if 0 <= ahead[0] < height and 0 <= ahead[1] < width and mask[int(ahead[0]), int(ahead[1])]:
                position, angle = ahead, angle + turn
                break
        else:
            return
