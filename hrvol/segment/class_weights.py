"""Weigh classes at prediction: multiply probabilities by a factor for each class, and normalise them again.

This shifts log-odds, as a change of the classes' prior probabilities does (Saerens et al., Neural Computation
14, 2002). Classes are weighted evenly in training, so rare ones come out too large; a factor below 1 makes a
class rarer. :mod:`hrvol.segment.fraction_factors` chooses factors by measured fractions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hrvol.arrays import Array, added_up, namespace
from hrvol.classes import ClassInfo
from hrvol.errors import UsageError
from hrvol.text import listed, printable

MOST_RATIO = 1e12
"""Largest factor over the smallest one: a product with a probability in single precision cannot underflow."""

Pairs = tuple[tuple[str, float], ...]
"""Names or values of classes, and a number for each."""

Fractions = tuple[float, ...] | Pairs
"""A number for each class in order of value, or pairs."""


@dataclass(frozen=True)
class ClassWeights:
    """A request for class weights, not yet compared with the classes of a model.

    Attributes
    ----------
    factors
        Name or number of a class and its factor; classes that are not named have 1. Empty: none.
    fractions
        Volume fractions of all classes in order of value, or by name or number, which labels should have;
        ``None``: none.

    Raises
    ------
    UsageError
        Both are given.
    """

    factors: Pairs = ()
    fractions: Fractions | None = None

    def __post_init__(self) -> None:
        if self.factors and self.fractions is not None:
            raise UsageError("class weights: found both factors and fractions, expected only one of them")

    @classmethod
    def of(
        cls,
        factors: Mapping[Any, float] | Iterable[tuple[Any, float]] | None,
        fractions: Mapping[Any, float] | Iterable[float] | None,
    ) -> ClassWeights:
        """Return the request that keywords of public functions stand for.

        Raises
        ------
        UsageError
            A value is no number, or both are given.
        """
        named = factors.items() if isinstance(factors, Mapping) else factors or ()
        if fractions is None:
            return cls(_pairs(named, "class_weights"))
        if isinstance(fractions, Mapping):
            return cls(_pairs(named, "class_weights"), _pairs(fractions.items(), "fractions"))
        return cls(_pairs(named, "class_weights"), tuple(_number(value, "fractions") for value in fractions))


def _pairs(named: Iterable[tuple[Any, Any]], argument: str) -> Pairs:
    return tuple((str(name), _number(value, argument)) for name, value in named)


def _number(value: Any, argument: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{argument}: found {printable(repr(value), 100)}, expected a number") from None


def weighted(probabilities: Array, factors: Sequence[float]) -> Array:
    """Return probabilities that are multiplied by the factor of their class and normalised again.

    Parameters
    ----------
    probabilities
        ``(K, ...)`` floating-point numbers in [0, 1] of any library, whose sum over the first axis is 1.
    factors
        K numbers above 0 in order of classes. Only their ratios matter.

    Returns
    -------
    Array
        ``(K, ...)`` of the same dtype with sum 1, in the library and on the device of ``probabilities``; the
        array itself where all factors are equal.

    Raises
    ------
    UsageError
        The number of factors is not K, or see :func:`log_shift`.
    """
    classes = probabilities.shape[0]
    if len(factors) != classes:
        raise UsageError(f"class weights: found {len(factors)} factors, expected {classes}, one per class")
    ratios = _ratios(factors)
    if min(ratios) == 1:
        return probabilities
    shifted = namespace(probabilities).empty_like(probabilities)
    for k, ratio in enumerate(ratios):
        shifted[k, ...] = probabilities[k, ...] * ratio
    return shifted / added_up(shifted)


def log_shift(factors: Sequence[float]) -> tuple[float, ...]:
    """Return what to add to the logits of classes: ``softmax(logits + shift)`` is :func:`weighted`.

    Parameters
    ----------
    factors
        K numbers above 0 in order of classes.

    Returns
    -------
    tuple of float
        K numbers in nats; the largest is 0.

    Raises
    ------
    UsageError
        A factor is not finite or not above 0, or the ratio of two is above :data:`MOST_RATIO`.
    """
    return tuple(math.log(ratio) for ratio in _ratios(factors))


def _ratios(factors: Sequence[float]) -> tuple[float, ...]:
    """Return factors over the largest one."""
    if (problem := problem_of(factors)) is not None:
        raise UsageError(f"class weights: {problem}")
    largest = max(factors)
    return tuple(factor / largest for factor in factors)


def problem_of(factors: Sequence[float], noun: str = "factor") -> str | None:
    """Return what is wrong with factors, or with what the noun names; ``None`` if nothing is."""
    for factor in factors:
        if not (math.isfinite(factor) and factor > 0):
            return f"found the {noun} {factor:g}, expected finite {noun}s above 0"
    if max(factors) > MOST_RATIO * min(factors):
        found = f"{noun}s from {min(factors):g} to {max(factors):g}"
        return f"found {found}, expected a ratio of at most {MOST_RATIO:g}"
    return None


def named_factors(named: Pairs, classes: Sequence[ClassInfo]) -> tuple[float, ...]:
    """Return the factor of each class; 1 for those that are not named.

    Parameters
    ----------
    named
        Name or number of a class, and its factor.
    classes
        Of a model.

    Raises
    ------
    UsageError
        There is no such class, or one is named twice; a factor cannot be used; or all are equal, which would
        change nothing. The message lists the classes.
    """
    given = by_class(named, classes, "class weights")
    factors = tuple(given.get(info.value, 1.0) for info in classes)
    problem = problem_of(factors)
    if problem is None and min(factors) == max(factors):
        problem = f"found the factor {factors[0]:g} for each class, expected different factors"
    if problem is not None:
        raise UsageError(f"class weights: {problem}, for the classes {class_list(classes)}")
    return factors


def by_class(named: Pairs, classes: Sequence[ClassInfo], subject: str) -> dict[int, float]:
    """Return numbers by the value of their class.

    Parameters
    ----------
    named
        A class and a number for it. A class is named by its name or, where no class has that name, by its
        value.
    classes
        Of a model.
    subject
        Begins the message of an error.

    Raises
    ------
    UsageError
        There is no such class, one is named twice, or two classes have the same name.
    """
    of_name = {str(info.value): info for info in classes} | {info.name: info for info in classes}
    if len({info.name for info in classes}) < len(classes):
        raise UsageError(
            f"{subject}: found classes of the same name, expected different names: {class_list(classes)}"
        )
    found: dict[int, float] = {}
    for name, number in named:
        info = of_name.get(name)
        if info is None:
            shown = printable(repr(name), 100)
            raise UsageError(f"{subject}: found {shown}, expected one of the classes {class_list(classes)}")
        if info.value in found:
            raise UsageError(
                f"{subject}: found {printable(info.name, 100)} twice, expected each of the classes once:"
                f" {class_list(classes)}"
            )
        found[info.value] = number
    return found


def class_list(classes: Sequence[ClassInfo]) -> str:
    """Return names and values of classes, for messages."""
    return listed(f"{info.name} ({info.value})" for info in classes)
