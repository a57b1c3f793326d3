"""Derive class weights from measured volume fractions, and from the prior that a model assumes.

A model's probabilities hold the shares of the classes among its training samples as their prior. Where the
volume's fractions are known, the factor of a class is its fraction over that prior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hrvol.classes import ClassInfo
from hrvol.errors import UsageError
from hrvol.segment.class_weights import (
    ClassWeights,
    Fractions,
    by_class,
    class_list,
    named_factors,
    problem_of,
)
from hrvol.segment.cluster_classifier import ClusterClassifier
from hrvol.segment.model.model import Model
from hrvol.segment.student.student import StudentClassifier

_DIGITS = 9  # of a factor: fractions in per cent and as shares of 1 are the same request


def class_factors(request: ClassWeights, model: Model) -> tuple[float, ...] | None:
    """Return the factors that a request means for a model.

    Parameters
    ----------
    request
        Factors or fractions, by class.
    model
        The model whose probabilities will be multiplied.

    Returns
    -------
    tuple of float or None
        One factor per class in order of value; ``None`` where nothing is requested, or the fractions are the
        prior.

    Raises
    ------
    UsageError
        A class, factor or fraction cannot be used, or see :func:`assumed_prior`.
    """
    if request.fractions is not None:
        return _fraction_factors(request.fractions, model)
    return named_factors(request.factors, model.classes) if request.factors else None


def assumed_prior(model: Model) -> tuple[float, ...]:
    """Return the prior probabilities of classes that a model's probabilities assume.

    Clusters: the classes' shares of the sample that they were found in. Their probabilities come from
    distances alone, but they divide the volume as they divide that sample: fractions that equal these shares
    must change nothing. A classifier trained with ``class_weight: balanced``: uniform. Any other: the
    classes' shares of the training samples. A student has the prior of its teacher.

    Returns
    -------
    tuple of float
        One per class in order of value, each above 0, with sum 1.

    Raises
    ------
    UsageError
        The model does not record its training samples, or multiplies the probabilities of several classifiers
        (``combine: product``) trained without balancing, each of which has the prior.
    """
    if isinstance(model.classifier, StudentClassifier):
        return _taught_prior(model.classifier, model.source)
    if isinstance(model.classifier, ClusterClassifier):
        return _shares(model.classifier.class_tally.pixels.tolist())
    if model.recipe.classifier.class_weight == "balanced":
        return _shares([1] * len(model.classes))
    if model.recipe.combine == "product":
        raise UsageError(
            f"fractions: {model.source}: found combine: product without class_weight: balanced, which has no"
            " single prior; expected a balanced model, or class weights instead of fractions"
        )
    samples = [_samples(model.trained_on, info) for info in model.classes]
    if not all(samples):
        raise UsageError(
            f"fractions: {model.source}: found no record of the training samples of each class, expected one,"
            " or a model with class_weight: balanced; or class weights instead of fractions"
        )
    return _shares(samples)


def _taught_prior(student: StudentClassifier, source: str) -> tuple[float, ...]:
    """Return the prior that a student records of its teacher; the record comes from a file."""
    prior = student.taught.get("prior")
    valid = isinstance(prior, list) and len(prior) == len(student.classes)
    if not valid or not all(isinstance(share, float) and 0 < share <= 1 for share in prior or ()):
        raise UsageError(
            f"fractions: {source}: found no record of its teacher's prior, expected one;"
            " give class weights instead"
        )
    return _shares(prior or ())


def _fraction_factors(fractions: Fractions, model: Model) -> tuple[float, ...] | None:
    """Return each class's fraction over its prior; ``None`` if they are equal."""
    shown = class_list(model.classes)
    given = tuple(_in_order(fractions, model.classes))
    problem = problem_of(given, "fraction")
    if problem is not None:
        raise UsageError(f"fractions: {problem}, for the classes {shown}")
    prior = assumed_prior(model)
    factors = tuple(
        float(f"{fraction / assumed:.{_DIGITS}g}")
        for fraction, assumed in zip(_shares(given), prior, strict=True)
    )
    if (problem := problem_of(factors)) is not None:
        raise UsageError(f"fractions: over the model's prior: {problem}, for the classes {shown}")
    return None if min(factors) == max(factors) else factors


def _in_order(fractions: Fractions, classes: Sequence[ClassInfo]) -> list[float]:
    """Return one fraction per class, in order of value."""
    named = tuple(entry for entry in fractions if isinstance(entry, tuple))
    if named:
        of_value = by_class(named, classes, "fractions")
        found = [of_value[info.value] for info in classes if info.value in of_value]
    else:
        found = [entry for entry in fractions if not isinstance(entry, tuple)]
    if len(found) != len(classes):
        raise UsageError(
            f"fractions: found {len(found)}, expected {len(classes)}, one for each of the classes"
            f" {class_list(classes)}"
        )
    return found


def _samples(trained_on: Sequence[Mapping[str, Any]], info: ClassInfo) -> int:
    """Return the training samples of a class in all images; 0 if they are not recorded.

    ``trained_on`` comes from a file and may hold anything.
    """
    total = 0
    for entry in trained_on:
        samples = entry.get("samples")
        count = samples.get(str(info.value), 0) if isinstance(samples, Mapping) else 0
        if not isinstance(count, int) or not 0 <= count < 2**63:
            return 0
        total += count
    return total


def _shares(amounts: Sequence[float]) -> tuple[float, ...]:
    """Return numbers above 0 over their sum."""
    largest = max(amounts)  # first, because the sum may overflow
    scaled = [amount / largest for amount in amounts]
    return tuple(amount / sum(scaled) for amount in scaled)
