"""Shapes with known measures, made of voxels: spheres in a box, overlapping or in a row of channels."""

import numpy as np


def overlapping_spheres(shape, radius, eta, seed):
    """Return True in the pores between spheres at random places, of eta sphere volumes per volume."""
    generator = np.random.default_rng(seed)
    sides = np.array(shape) + 2 * radius  # spheres that reach in from outside
    number = generator.poisson(eta * np.prod(sides) / (4 / 3 * np.pi * radius**3))
    return _around(shape, generator.uniform(0, 1, (number, 3)) * sides - radius, radius)


def _around(shape, centres, radius):
    pore = np.ones(shape, bool)
    for centre in centres:
        low = np.maximum(np.ceil(centre - radius).astype(int), 0)
        high = np.minimum(np.floor(centre + radius).astype(int) + 1, shape)
        if (low >= high).any():
            continue
        z, y, x = (np.arange(a, b) - c for a, b, c in zip(low, high, centre, strict=True))
        inside = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < radius**2
        pore[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] &= ~inside
    return pore


def separate_spheres(shape, radius, share, seed):
    """Return True in the pores between spheres that do not overlap, which fill a share of the volume."""
    generator = np.random.default_rng(seed)
    sides = np.array(shape) + 2 * radius
    placed = np.empty((0, 3))
    while len(placed) < share * np.prod(sides) / (4 / 3 * np.pi * radius**3):
        centre = generator.uniform(0, 1, 3) * sides - radius
        if (np.linalg.norm(placed - centre, axis=1) > 2 * radius).all():
            placed = np.vstack([placed, centre])
    return _around(shape, placed, radius)


def ball(shape, radius, spacing=(1.0, 1.0, 1.0), shift=0.3):
    """Return a ball near the middle of a box; its radius is in units of length."""
    axes = [(np.arange(n) - (n - 1) / 2 + shift) * s for n, s in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 < radius**2


def serpentine(rows, side):
    """Return a channel of one voxel that crosses so many rows, each in the other direction; z is the axis."""
    mask = np.zeros((2 * rows + 1, 1, side), bool)
    mask[1::2] = True
    mask[0::4, 0, 0] = mask[2::4, 0, -1] = True
    return mask
