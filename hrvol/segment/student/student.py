"""A trained student: its architecture, its weights, and what it was taught."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.segment.student.spec import StudentSpec

MOST_CLASSES = 255
"""Most classes of a student."""


@dataclass(frozen=True, eq=False)
class StudentClassifier:
    """A student network without its runtime.

    Attributes
    ----------
    spec
        The architecture.
    classes
        Class values, in order of the network's outputs.
    arrays
        Weights of the network, batch norm folded in, float32, by name.
    temperature
        Logits are divided by it, so that probabilities fit those of the teacher.
    taught
        How it was taught, as JSON values: teacher, volume, tiles, agreement. Used are ``volume``, what
        :meth:`hrvol.volume.volume.Volume.identity` returns, and ``grey``, the ``mean`` and ``std`` of
        :func:`hrvol.volume.intensity.grey_statistics`.
    """

    spec: StudentSpec
    classes: tuple[int, ...]
    arrays: Mapping[str, NDArray[np.float32]] = field(repr=False)
    temperature: float = 1.0
    taught: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def n_features(self) -> int:
        """Number of input planes."""
        return self.spec.planes


def channel_names(spec: StudentSpec) -> tuple[str, ...]:
    """Return the names of the network's input planes."""
    if spec.planes == 1:
        return ("grey value",)
    half = spec.planes // 2
    return tuple(f"grey value, plane {offset:+d}" for offset in range(-half, half + 1))
