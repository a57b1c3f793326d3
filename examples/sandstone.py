"""Make a synthetic sandstone with strokes and its truth: the data of the tutorial "Sandstone in numbers".

    python examples/sandstone.py [FOLDER]

Grains are balls that were placed without overlap and then grown, as by compaction; the rest are pores. FOLDER
("sandstone") gets scan.ome.zarr, strokes.tif and truth.tif (1 pore, 2 grain).
"""

import sys
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

import hrvol
from hrvol.phantom import draw_strokes
from hrvol.volume.write_image import write_image

SHAPE = (128, 128, 128)
VOXEL = 2.5
"""Micrometres."""
RADII = (8.0, 14.0)
"""Voxels, before the grains grow."""
GROWTH = 1.27
PORE, GRAIN = 1, 2
STROKE_PLANES = (26, 64, 102)


def make_labels(generator: np.random.Generator) -> np.ndarray:
    """Return 1 in pores and 2 in grains."""
    most = RADII[1] * GROWTH
    placed = np.empty((0, 4))
    for radius in np.sort(generator.uniform(*RADII, 60_000))[::-1]:
        centre = generator.uniform(-most, np.array(SHAPE) + most)
        gap = np.linalg.norm(placed[:, :3] - centre, axis=1) - placed[:, 3] - radius
        if not (gap < 0).any():
            placed = np.vstack([placed, [*centre, radius]])
    labels = np.full(SHAPE, PORE, np.uint8)
    for *centre, radius in placed:
        reach = radius * GROWTH
        box = tuple(
            slice(max(0, int(np.ceil(c - reach))), max(0, min(n, int(c + reach) + 1)))
            for c, n in zip(centre, SHAPE, strict=True)
        )
        z, y, x = (np.arange(span.start, span.stop) - c for span, c in zip(box, centre, strict=True))
        labels[box][z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < reach**2] = GRAIN
    return labels


def scan(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return grey values: mottled grains, blur and noise, in 16 bits."""
    mottled = ndimage.gaussian_filter(generator.normal(size=SHAPE), 3.0)
    grey = np.where(labels == GRAIN, 0.62 + 0.03 * mottled / mottled.std(), 0.34)
    grey = ndimage.gaussian_filter(grey, 0.8) + 0.06 * generator.normal(size=SHAPE)
    return np.clip(60_000 * grey, 0, 65_535).astype(np.uint16)


def main() -> None:
    """Write the files."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "sandstone")
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(4)
    labels = make_labels(generator)
    size = {"voxel_size": (VOXEL,) * 3, "unit": "um"}
    write_image(folder / "scan.ome.zarr", hrvol.open_volume(scan(labels, generator), **size), overwrite=True)
    tifffile.imwrite(folder / "truth.tif", labels, photometric="minisblack", compression="zlib")
    strokes = draw_strokes(labels, STROKE_PLANES, strokes=3, length=30)
    tifffile.imwrite(folder / "strokes.tif", strokes, photometric="minisblack", compression="zlib")
    print(f"{folder}: {100 * np.mean(labels == PORE):.2f} % pores")


if __name__ == "__main__":
    main()
