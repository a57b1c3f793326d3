"""Strokes -> samples -> a classifier of pixels (the paper's weakly supervised segmentation, section 3.3).

Which pixels are used depends on the strokes and the seed alone: not on how a volume is cut, nor on the
order in which its planes are read. A prediction depends on a pixel's features alone: not on the pixels beside
it, nor on the number of threads. So every worker, block and engine gives the same bits (on one kind of CPU).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError, ModelError, StrokesError
from hrvol.recipe import ClassifierSpec, Combine
from hrvol.segment.arrays import Array, namespace, on_host, to_host
from hrvol.segment.device import device_probabilities, multiply
from hrvol.segment.estimators import (
    CHUNK,
    fit_classifier,
    hold_threads,
    prediction_threads,
    probabilities,
)

_MAX_CLASS = np.iinfo(np.uint16).max
_MOST_CLASSES = 1000  # nobody draws so many: a grey volume was given for strokes


@dataclass(frozen=True)
class StrokeBlock:
    """A piece of a strokes volume.

    Attributes
    ----------
    image
        Number of the volume or image, from 0.
    origin
        Where the piece starts in it: ``(z, y, x)``.
    labels
        ``(Z, Y, X)`` integers; 0 is unlabelled, classes are 1 and above, gaps are fine.
    """

    image: int
    origin: tuple[int, int, int]
    labels: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Positions:
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
        for part in np.split(self.where, cuts):
            yield int(part[0, 0]), int(part[0, 1]), part[:, 2], part[:, 3]


@dataclass(frozen=True, eq=False)
class Samples:
    """Training data: ``features`` (n, C) float32, ``labels`` (n,) uint16, ``image`` (n,) int32 (whence)."""

    features: NDArray[np.float32]
    labels: NDArray[np.uint16]
    image: NDArray[np.int32]

    def counts(self, image: int | None = None) -> dict[int, int]:
        """Return how many samples each class has, in one image or in all; classes without are left out."""
        labels = self.labels if image is None else self.labels[self.image == image]
        return _counts(labels)


def choose_pixels(
    strokes: Iterable[StrokeBlock], per_class: int | None, seed: int, source: str = "strokes"
) -> Positions:
    """Choose the labelled pixels to train on.

    Each pixel gets a rank, a hash of the seed and its position, and a class keeps its ``per_class`` lowest: a
    uniform sample that does not depend on the order or the cut of the blocks, in memory that the cap bounds.

    Parameters
    ----------
    strokes
        Pieces of strokes, in any order, each pixel in one piece only. Read one at a time.
    per_class
        Most pixels a class may have, over all images; ``None``: all.
    seed
        Random seed.
    source
        Name for error messages.

    Raises
    ------
    StrokesError
        No labelled pixel, or one class only, or a value that is no class, or more classes than anyone draws.
    """
    kept: dict[int, tuple[NDArray[np.uint64], NDArray[np.int64]]] = {}
    drawn: dict[int, int] = {}
    for block in strokes:
        if block.labels.ndim != 3 or block.labels.dtype.kind not in "iub":
            found = f"{block.labels.ndim}-D strokes of {block.labels.dtype}"
            raise StrokesError(f"{source}: found {found}, expected 3-D integers")
        for z, plane in enumerate(block.labels, start=block.origin[0]):
            y, x = np.nonzero(plane)
            labels = plane[y, x].astype(np.int64)
            where = np.empty((len(y), 4), np.int64)
            where[:, 0], where[:, 1] = block.image, z
            where[:, 2], where[:, 3] = y + block.origin[1], x + block.origin[2]
            ranks = _ranks(where, seed)
            for value, count in _counts(labels).items():
                if not 0 < value <= _MAX_CLASS:
                    raise StrokesError(
                        f"{source}: found label {value}, expected 0 or classes 1..{_MAX_CLASS}"
                    )
                drawn[value] = drawn.get(value, 0) + count
                if len(drawn) > _MOST_CLASSES:
                    raise StrokesError(
                        f"{source}: found more than {_MOST_CLASSES} different labels (a grey image?),"
                        " expected strokes: 0 where nothing is drawn, and a value for each class"
                    )
                rank, place = ranks[labels == value], where[labels == value]
                if value in kept:
                    rank = np.concatenate([kept[value][0], rank])
                    place = np.concatenate([kept[value][1], place])
                kept[value] = _lowest(rank, place, per_class)
    if not drawn:
        raise StrokesError(f"{source}: found no labelled pixels, expected strokes of at least two classes")
    if len(drawn) == 1:
        ((value, count),) = drawn.items()
        raise StrokesError(
            f"{source}: found only class {value} ({count} pixels), expected at least two classes"
        )
    where = np.concatenate([place for _, place in kept.values()])
    labels = np.concatenate([np.full(len(place), value) for value, (_, place) in kept.items()])
    order = np.lexsort(where.T[::-1])
    return Positions(where[order], labels[order].astype(np.uint16), dict(sorted(drawn.items())))


def collect_samples(
    positions: Positions,
    features_at: Callable[[int, int, NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]],
) -> Samples:
    """Gather the features of chosen pixels, one plane after the other.

    Parameters
    ----------
    positions
        What :func:`choose_pixels` chose.
    features_at
        Called with image, z, y and x (both ``(m,)``), returns ``(m, C)`` float32.
    """
    parts = [np.asarray(features_at(*plane), dtype=np.float32) for plane in positions.planes()]
    return Samples(np.concatenate(parts), positions.labels, positions.where[:, 0].astype(np.int32))


@dataclass(frozen=True, eq=False)
class Member:
    """A fitted estimator and the feature columns (``start:stop``) it looks at."""

    name: str
    columns: slice
    estimator: Any


@dataclass(frozen=True, eq=False)
class PixelClassifier:
    """A fitted classifier of pixels: one estimator, or several whose probabilities are multiplied.

    Attributes
    ----------
    spec
        Settings it was fitted with.
    classes
        Class values in rising order, gaps and all: the order of the columns of probabilities.
    n_features
        Number of feature columns C.
    members
        The estimators: one on all columns, or ``classical``, ``deep`` and ``hybrid``.
    """

    spec: ClassifierSpec
    classes: tuple[int, ...]
    n_features: int
    members: tuple[Member, ...]

    @classmethod
    def fit(
        cls,
        samples: Samples,
        spec: ClassifierSpec,
        *,
        combine: Combine = "concatenate",
        groups: Mapping[str, slice] | None = None,
        grey: Sequence[int] = (),
        seed: int = 0,
        n_jobs: int = 1,
        device: str = "cpu",
    ) -> PixelClassifier:
        """Fit on samples.

        Parameters
        ----------
        samples
            Training data with at least two classes.
        spec
            Kind and settings. ``class_weight: balanced`` weighs a sample by ``n / (K * n_class)``.
        combine
            ``concatenate``: one estimator on all columns. ``product``: one each on the classical, the deep
            and all columns, their probabilities multiplied and normalised.
        groups
            Columns of the ``classical`` and the ``deep`` features; needed for ``product``.
        grey
            Columns of grey values beside deep features, see ``spec.grey_share``.
        seed
            Random seed.
        n_jobs
            Threads the fit may use, -1 for all cores. The result does not depend on it.
        device
            Where to fit, see :func:`hrvol.segment.estimators.fit_classifier`.

        Raises
        ------
        StrokesError
            Fewer than two classes.
        InputError
            A feature is not finite, or ``product`` lacks a group.
        """
        n_features = samples.features.shape[1]
        classes = tuple(samples.counts())
        if len(classes) < 2:
            raise StrokesError(f"samples: found classes {list(classes)}, expected at least two classes")
        _check_finite(samples.features)
        columns = {"all": slice(0, n_features)}
        if combine == "product":
            groups = groups or {}
            if not {"classical", "deep"} <= set(groups):
                raise InputError(
                    f"combine: product: found features {list(groups)}, expected classical and deep"
                )
            columns = {
                "classical": groups["classical"],
                "deep": groups["deep"],
                "hybrid": slice(0, n_features),
            }
        members = tuple(
            Member(
                name,
                part,
                fit_classifier(
                    spec,
                    np.ascontiguousarray(samples.features[:, part]),
                    samples.labels,
                    seed,
                    n_jobs,
                    device,
                    grey if part == slice(0, n_features) else (),
                ),
            )
            for name, part in columns.items()
        )
        return cls(spec, classes, n_features, members)

    def predict_proba(self, features: Array, *, threads: int = 1) -> Array:
        """Return the probabilities of the classes of pixels.

        Parameters
        ----------
        features
            ``(n, C)``, any strides: a transposed ``(C, n)`` view is not copied as a whole. Those of another
            library than NumPy's are asked about on their device, see :mod:`hrvol.segment.device`.
        threads
            Threads that share the chunks; changes the time, never a bit of the result. Unused on a device.

        Returns
        -------
        Array
            ``(n, K)`` float32 in order of :attr:`classes`; rows sum to 1. In the library and on the device of
            ``features``.

        Raises
        ------
        ModelError
            The number of columns is not the one trained with.
        InputError
            A feature is not finite.
        MissingExtraError
            Trees are asked on a GPU, and nvForest is not installed.
        """
        if features.ndim != 2 or features.shape[1] != self.n_features:
            raise ModelError(
                f"features: found shape {tuple(features.shape)}, expected (n, {self.n_features}) as trained"
            )
        if not on_host(features):
            return self._on_device(features)
        out = np.empty((len(features), len(self.classes)), np.float32)

        def predict_chunk(start: int) -> None:
            chunk = np.ascontiguousarray(features[start : start + CHUNK], dtype=np.float32)
            _check_finite(chunk)
            out[start : start + CHUNK] = self._chunk(chunk)

        starts = range(0, len(features), CHUNK)
        with prediction_threads(self.spec.kind):
            if threads <= 1 or len(starts) <= 1:
                for start in starts:
                    predict_chunk(start)
            else:
                with ThreadPoolExecutor(
                    min(threads, len(starts)), "predict", hold_threads, (self.spec.kind,)
                ) as pool:
                    for _ in pool.map(predict_chunk, starts):
                        pass
        return out

    def predict(self, features: Array, *, threads: int = 1) -> NDArray[np.uint16]:
        """Return the likeliest class value of each pixel, ``(n,)`` uint16; of equals, the lowest."""
        best = to_host(self.predict_proba(features, threads=threads)).argmax(axis=1)
        labels: NDArray[np.uint16] = np.asarray(self.classes, dtype=np.uint16)[best]
        return labels

    def _chunk(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return float64 probabilities of at most ``CHUNK`` pixels."""
        parts = [
            probabilities(member.estimator, np.ascontiguousarray(features[:, member.columns]))
            for member in self.members
        ]
        return parts[0] if len(parts) == 1 else np.asarray(multiply(parts))

    def _on_device(self, features: Array) -> Array:
        """Return float32 probabilities of pixels whose features are on a device: all at once."""
        xp = namespace(features)
        features = xp.astype(features, xp.float32, copy=False)
        _check_finite(features)
        parts = [
            device_probabilities(self.spec.kind, member.estimator, features[:, member.columns])
            for member in self.members
        ]
        return xp.astype(parts[0] if len(parts) == 1 else multiply(parts), xp.float32)


def _counts(labels: NDArray[Any]) -> dict[int, int]:
    values, counts = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _check_finite(features: Array) -> None:
    xp = namespace(features)
    finite = xp.isfinite(features)
    if not xp.all(finite):
        rows = int(xp.sum(xp.astype(~xp.all(finite, axis=1), xp.int64)))
        raise InputError(
            f"features: found NaN or infinity in {rows} of {features.shape[0]} pixels, expected finite values"
        )


def _ranks(where: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """Hash rows of (image, z, y, x) to 64 bits: splitmix64 (Steele et al., 2014) once per coordinate."""
    state = np.full(len(where), seed, np.uint64)
    for column in where.T:
        state = (state ^ column.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def _lowest(
    ranks: NDArray[np.uint64], where: NDArray[np.int64], n: int | None
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    if n is None or len(ranks) <= n:
        return ranks, where
    # Position decides between equal ranks, so that even a collision cannot depend on the order of reading.
    keep = np.lexsort((*where.T[::-1], ranks))[:n]
    return ranks[keep], where[keep]
