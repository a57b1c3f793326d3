"""Choose the stroke pixels to train on, and collect their features.

The choice depends on the strokes and the seed alone, not on how a volume is divided or in which order it is
read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import StrokesError

_MAX_CLASS = np.iinfo(np.uint16).max

_MOST_CLASSES = 1000  # more mean that a grey volume was passed as strokes

# Labels that cover so much are regions, in which neighbours are equal. Grey values that do are noise.
_DENSE = 0.2

_FEW_CLASSES, _MANY_CLASSES = 20, 100

_EQUAL_NEIGHBOURS = 0.5

_PLANES_LOOKED_AT = 8


@dataclass(frozen=True)
class StrokeBlock:
    """A box of a strokes volume.

    Attributes
    ----------
    image
        Number of the volume or image, from 0.
    origin
        First voxel of the box in it, ``(z, y, x)``.
    labels
        ``(Z, Y, X)`` integers; 0 is unlabelled, classes are 1 and above, possibly with gaps.
    """

    image: int
    origin: tuple[int, int, int]
    labels: NDArray[Any]


@dataclass(frozen=True, eq=False)
class StrokePixels:
    """Labelled pixels chosen for training, in order of image, z, y, x.

    Attributes
    ----------
    where
        ``(n, 4)`` int64: image, z, y, x.
    labels
        ``(n,)`` uint16 class values.
    drawn
        Number of labelled pixels of each class before the cap.
    """

    where: NDArray[np.int64]
    labels: NDArray[np.uint16]
    drawn: Mapping[int, int]

    def __len__(self) -> int:
        return len(self.labels)

    def planes(self) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield ``(image, z, y, x)`` for each plane that has pixels, in order; ``y``, ``x`` are ``(m,)``."""
        cuts = np.flatnonzero((np.diff(self.where[:, :2], axis=0) != 0).any(axis=1)) + 1
        for pixels in np.split(self.where, cuts):
            yield int(pixels[0, 0]), int(pixels[0, 1]), pixels[:, 2], pixels[:, 3]


@dataclass(frozen=True, eq=False)
class Samples:
    """Training data: ``features`` (n, C) float32, ``labels`` (n,) uint16, ``image`` (n,) int32 numbers."""

    features: NDArray[np.float32]
    labels: NDArray[np.uint16]
    image: NDArray[np.int32]

    def counts(self, image: int | None = None) -> dict[int, int]:
        """Return the number of samples of each class present in one image, or in all."""
        labels = self.labels if image is None else self.labels[self.image == image]
        return _counts(labels)


def check_drawn(labels: NDArray[Any], source: str) -> None:
    """Check that a box of strokes does not look like grey values: to train on these would take hours.

    Sparse strokes, and dense ones of up to 20 classes, always pass.

    Parameters
    ----------
    labels
        ``(Z, Y, X)`` integers.
    source
        Name for error messages.

    Raises
    ------
    StrokesError
        The box is full of different values that neighbours seldom share.
    """
    planes = labels[:: -(-len(labels) // _PLANES_LOOKED_AT)]
    share = int(np.count_nonzero(planes)) / planes.size
    if share < _DENSE:
        return
    values = np.unique(planes)
    count = int(np.count_nonzero(values))
    if count <= _FEW_CLASSES:
        return
    left, right = planes[:, :, :-1], planes[:, :, 1:]
    drawn = (left != 0) & (right != 0)
    pairs = max(int(np.count_nonzero(drawn)), 1)
    equal = int(np.count_nonzero(drawn & (left == right))) / pairs
    if count > _MANY_CLASSES or equal < _EQUAL_NEIGHBOURS:
        raise StrokesError(
            f"{source}: found {count} different values on {share:.0%} of the pixels, expected strokes: 0"
            " where nothing is drawn, and a value for each of a few classes (are volume and strokes swapped?)"
        )


def choose_pixels(
    strokes: Iterable[StrokeBlock], per_class: int | None, seed: int, source: str = "strokes"
) -> StrokePixels:
    """Choose the labelled pixels to train on.

    Each pixel is ranked by a hash of the seed and its position, and a class keeps the ``per_class`` lowest
    ranks: a uniform sample, independent of the order and extent of the blocks, in bounded memory.

    Parameters
    ----------
    strokes
        Blocks of strokes in any order, without overlap. Read one at a time.
    per_class
        Maximum number of pixels per class over all images; ``None`` for all.
    seed
        Random seed.
    source
        Name for error messages.

    Raises
    ------
    StrokesError
        No labelled pixel, only one class, a value that is no class, or more than 1000 classes.
    """
    kept: dict[int, tuple[NDArray[np.uint64], NDArray[np.int64]]] = {}
    drawn: dict[int, int] = {}
    for block in strokes:
        if block.labels.ndim != 3 or block.labels.dtype.kind not in "iub":
            raise StrokesError(
                f"{source}: found {block.labels.ndim}-D strokes of {block.labels.dtype}, "
                "expected 3-D integers"
            )
        for z, plane in enumerate(block.labels, start=block.origin[0]):
            y, x = np.nonzero(plane)
            labels = plane[y, x].astype(np.int64)
            pixels = np.empty((len(y), 4), np.int64)
            pixels[:, 0], pixels[:, 1] = block.image, z
            pixels[:, 2], pixels[:, 3] = y + block.origin[1], x + block.origin[2]
            ranks = _ranks(pixels, seed)
            for value, count in _counts(labels).items():
                if not 0 < value <= _MAX_CLASS:
                    raise StrokesError(
                        f"{source}: found label {value}, expected 0 or classes 1..{_MAX_CLASS}"
                    )
                drawn[value] = drawn.get(value, 0) + count
                if len(drawn) > _MOST_CLASSES:
                    raise StrokesError(
                        f"{source}: found more than {_MOST_CLASSES} different labels (a grey image?),"
                        " expected strokes with 0 for unlabelled pixels and one value per class"
                    )
                class_ranks, class_pixels = ranks[labels == value], pixels[labels == value]
                if value in kept:
                    class_ranks = np.concatenate([kept[value][0], class_ranks])
                    class_pixels = np.concatenate([kept[value][1], class_pixels])
                kept[value] = _lowest(class_ranks, class_pixels, per_class)
    if not drawn:
        raise StrokesError(f"{source}: found no labelled pixels, expected strokes of at least two classes")
    if len(drawn) == 1:
        ((value, count),) = drawn.items()
        raise StrokesError(
            f"{source}: found only class {value} ({count} pixels), expected at least two classes"
        )
    chosen = np.concatenate([pixels for _, pixels in kept.values()])
    labels = np.concatenate([np.full(len(pixels), value) for value, (_, pixels) in kept.items()])
    order = np.lexsort(chosen.T[::-1])
    return StrokePixels(chosen[order], labels[order].astype(np.uint16), dict(sorted(drawn.items())))


def choose_listed(
    pixels: NDArray[np.int64], labels: NDArray[Any], per_class: int | None, seed: int
) -> StrokePixels:
    """Choose among listed pixels those that :func:`choose_pixels` chooses; there may be one class, or none.

    Parameters
    ----------
    pixels
        ``(n, 4)`` int64, each row once: image, z, y, x.
    labels
        ``(n,)`` class values from 1.
    per_class, seed
        As for :func:`choose_pixels`.
    """
    ranks = _ranks(pixels, seed)
    kept = [np.flatnonzero(labels == value) for value in np.unique(labels)]
    kept = [chosen[_lowest_of(ranks[chosen], pixels[chosen], per_class)] for chosen in kept]
    chosen = np.concatenate(kept) if kept else np.empty(0, np.intp)
    chosen = chosen[np.lexsort(pixels[chosen].T[::-1])]
    return StrokePixels(pixels[chosen], np.asarray(labels)[chosen].astype(np.uint16), _counts(labels))


def collect_samples(
    positions: StrokePixels,
    features_at: Callable[[int, int, NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]],
) -> Samples:
    """Collect the features of chosen pixels plane by plane.

    Parameters
    ----------
    positions
        The pixels, from :func:`choose_pixels`.
    features_at
        Called with image, z, y and x (both ``(m,)``); returns ``(m, C)`` float32.
    """
    features = [np.asarray(features_at(*plane), dtype=np.float32) for plane in positions.planes()]
    return Samples(np.concatenate(features), positions.labels, positions.where[:, 0].astype(np.int32))


def _counts(labels: NDArray[Any]) -> dict[int, int]:
    values, counts = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _ranks(pixels: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """Hash rows of (image, z, y, x) to 64 bits: splitmix64 (Steele et al., 2014) once per coordinate."""
    state = np.full(len(pixels), seed, np.uint64)
    for column in pixels.T:
        state = (state ^ column.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def _lowest(
    ranks: NDArray[np.uint64], pixels: NDArray[np.int64], n: int | None
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    if n is None or len(ranks) <= n:
        return ranks, pixels
    keep = _lowest_of(ranks, pixels, n)
    return ranks[keep], pixels[keep]


def _lowest_of(
    ranks: NDArray[np.uint64], pixels: NDArray[np.int64], n: int | None
) -> NDArray[np.intp] | slice:
    """Return the indices of the lowest ranks, at most ``n``."""
    if n is None or len(ranks) <= n:
        return slice(None)
    # Positions break ties of ranks, so that even a collision does not depend on the order of reading.
    return np.lexsort((*pixels.T[::-1], ranks))[:n]
