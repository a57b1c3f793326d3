"""Train a pixel classifier on samples of strokes (weakly supervised segmentation; paper, section 3.3).

A prediction depends on the pixel's features alone, not on other pixels or the number of threads, so every
worker, block and engine gives the same bits (on one kind of CPU).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.arrays import Array, namespace, on_host, to_host
from hrvol.errors import InputError, ModelError, StrokesError
from hrvol.recipe.specs import ClassifierSpec, Combine
from hrvol.segment.estimators.estimators import (
    CHUNK,
    fit_classifier,
    limit_worker_thread,
    prediction_threads,
    probabilities,
)
from hrvol.segment.estimators.on_device import device_probabilities, multiply
from hrvol.segment.strokes import Samples


@dataclass(frozen=True, eq=False)
class Member:
    """A fitted estimator and its feature columns (``start:stop``)."""

    name: str
    columns: slice
    estimator: Any


@dataclass(frozen=True, eq=False)
class PixelClassifier:
    """A fitted pixel classifier: one estimator, or several whose probabilities are multiplied.

    Attributes
    ----------
    spec
        Settings of the fit.
    classes
        Class values in increasing order, possibly with gaps: the order of the columns of probabilities.
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
            Kind and settings. ``class_weight: balanced`` weights a sample by ``n / (K * n_class)``.
        combine
            ``concatenate``: one estimator on all columns. ``product``: one each on the classical, the deep
            and all columns, with their probabilities multiplied and normalised.
        groups
            Columns of the ``classical`` and the ``deep`` features; required for ``product``.
        grey
            Columns of grey values, see ``spec.grey_share``.
        seed
            Random seed.
        n_jobs
            Threads for the fit, -1 for all cores. The result does not depend on it.
        device
            Device of the fit, see :func:`hrvol.segment.estimators.estimators.fit_classifier`.

        Raises
        ------
        StrokesError
            Fewer than two classes.
        InputError
            A feature is not finite, or a group for ``product`` is missing.
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
                member_columns,
                fit_classifier(
                    spec,
                    np.ascontiguousarray(samples.features[:, member_columns]),
                    samples.labels,
                    seed,
                    n_jobs,
                    device,
                    grey if member_columns == slice(0, n_features) else (),
                ),
            )
            for name, member_columns in columns.items()
        )
        return cls(spec, classes, n_features, members)

    def predict_proba(self, features: Array, *, threads: int = 1) -> Array:
        """Return the probabilities of the classes of pixels.

        Parameters
        ----------
        features
            ``(n, C)`` with any strides: a transposed ``(C, n)`` view is copied in chunks only. Arrays of
            libraries other than NumPy are predicted on their device, see
            :mod:`hrvol.segment.estimators.on_device`.
        threads
            Threads that share the chunks; affects the time, never the bits. Unused on a device.

        Returns
        -------
        Array
            ``(n, K)`` float32 in order of :attr:`classes`; rows sum to 1. In the library and on the device of
            ``features``.

        Raises
        ------
        ModelError
            The number of columns differs from that of the training.
        InputError
            A feature is not finite.
        MissingExtraError
            Trees run on a GPU, and nvForest is not installed.
        """
        if features.ndim != 2 or features.shape[1] != self.n_features:
            raise ModelError(
                f"features: found shape {tuple(features.shape)}, expected (n, {self.n_features}) as trained"
            )
        if not on_host(features):
            return self._predict_on_device(features)
        out = np.empty((len(features), len(self.classes)), np.float32)

        def predict_chunk(start: int) -> None:
            chunk = np.ascontiguousarray(features[start : start + CHUNK], dtype=np.float32)
            _check_finite(chunk)
            out[start : start + CHUNK] = self._predict_chunk(chunk)

        starts = range(0, len(features), CHUNK)
        with prediction_threads(self.spec.kind):
            if threads <= 1 or len(starts) <= 1:
                for start in starts:
                    predict_chunk(start)
            else:
                with ThreadPoolExecutor(
                    min(threads, len(starts)), "predict", limit_worker_thread, (self.spec.kind,)
                ) as pool:
                    for _ in pool.map(predict_chunk, starts):
                        pass
        return out

    def predict(self, features: Array, *, threads: int = 1) -> NDArray[np.uint16]:
        """Return the most probable class value of each pixel, ``(n,)`` uint16; of equals, the lowest."""
        best = to_host(self.predict_proba(features, threads=threads)).argmax(axis=1)
        labels: NDArray[np.uint16] = np.asarray(self.classes, dtype=np.uint16)[best]
        return labels

    def _predict_chunk(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return float64 probabilities of at most ``CHUNK`` pixels."""
        factors = [
            probabilities(member.estimator, np.ascontiguousarray(features[:, member.columns]))
            for member in self.members
        ]
        return factors[0] if len(factors) == 1 else np.asarray(multiply(factors))

    def _predict_on_device(self, features: Array) -> Array:
        """Return float32 probabilities of features on a device, without chunks."""
        xp = namespace(features)
        features = xp.astype(features, xp.float32, copy=False)
        _check_finite(features)
        factors = [
            device_probabilities(self.spec.kind, member.estimator, features[:, member.columns])
            for member in self.members
        ]
        return xp.astype(factors[0] if len(factors) == 1 else multiply(factors), xp.float32)


def _check_finite(features: Array) -> None:
    xp = namespace(features)
    finite = xp.isfinite(features)
    if not xp.all(finite):
        rows = int(xp.sum(xp.astype(~xp.all(finite, axis=1), xp.int64)))
        raise InputError(
            f"features: found NaN or infinity in {rows} of {features.shape[0]} pixels, expected finite values"
        )
