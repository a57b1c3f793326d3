"""Choose class weights with which the labels of a run have given volume fractions, on a sample of its volume.

Factors are chosen once, by the driver, and recorded in the output: a resumed run takes them from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hrvol.classes import ClassInfo
from hrvol.engine.stop import Stop
from hrvol.errors import InputError
from hrvol.progress import ProgressCallback
from hrvol.run.attribute_names import CLASS_WEIGHTS
from hrvol.run.fractions.sample_probabilities import sample_probabilities
from hrvol.run.job import ModelSource, SegmentJob
from hrvol.run.ledger import check_free
from hrvol.run.resume import check_output
from hrvol.segment.class_weights import problem_of
from hrvol.segment.fraction_factors import CLOSE, FractionFactors, fraction_factors
from hrvol.segment.model.model import Model
from hrvol.text import listed
from hrvol.volume.ome.output import check_overwrite
from hrvol.volume.storage.location import Location

LOG = logging.getLogger("hrvol.run")

STAGE = "sample for fractions"
"""Name of the stage in progress reports."""


def settled_factors(
    location: Location,
    attributes: Mapping[str, Any],
    classes: Sequence[ClassInfo],
    choose: Callable[[], tuple[float, ...]],
    *,
    overwrite: bool,
) -> tuple[float, ...]:
    """Return the factors that the output records for the fractions requested, or else choose them.

    An output that cannot be resumed or replaced is reported before that.

    Parameters
    ----------
    location
        Of the output.
    attributes
        Provenance that it will carry, with fractions and without class weights.
    classes
        Of the model.
    choose
        Called if nothing is recorded.
    overwrite
        Whether an earlier output will be deleted.

    Raises
    ------
    OutputExistsError
        See :func:`hrvol.run.resume.check_output`.
    """
    if overwrite:
        check_free(location)
        check_overwrite(location, True)
        return choose()
    known = _recorded(check_output(location, attributes)[0], classes)
    if known is not None:
        return known
    factors = choose()
    # Another part of the run may have begun meanwhile, on a machine that rounds otherwise.
    return _recorded(check_output(location, attributes)[0], classes) or factors


def _recorded(settings: Mapping[str, Any] | None, classes: Sequence[ClassInfo]) -> tuple[float, ...] | None:
    """Return the factors in the settings of an output, which come from a file; ``None`` if there are none."""
    recorded = (settings or {}).get(CLASS_WEIGHTS)
    if not isinstance(recorded, Mapping):
        return None
    factors = [recorded.get(info.name) for info in classes]
    numbers = tuple(float(factor) for factor in factors if isinstance(factor, int | float))
    return numbers if len(numbers) == len(factors) and problem_of(numbers) is None else None


def matched_factors(
    job: SegmentJob,
    model: Model,
    source: ModelSource,
    fractions: Sequence[float],
    stop: Stop | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[float, ...]:
    """Return factors with which the labels of a sample of a run's voxels have given fractions.

    Parameters
    ----------
    job, model, source, stop, progress
        As for :func:`hrvol.run.fractions.sample_probabilities.sample_probabilities`.
    fractions
        One per class in order of value, with sum 1.

    Returns
    -------
    tuple of float
        One per class. The log tells the shares that are reached, and which are not close.

    Raises
    ------
    InputError, StoppedError
        As for :func:`hrvol.run.fractions.sample_probabilities.sample_probabilities`; or a class gets no voxel
        of the sample with any factor.
    """
    sample = sample_probabilities(job, model, source, STAGE, stop, progress)
    matched = fraction_factors(sample.probabilities, sample.weights, fractions)
    _report(matched, model.classes, fractions, f"{sample.places} of {job.volume.source}")
    return matched.factors


def _report(
    matched: FractionFactors, classes: Sequence[ClassInfo], fractions: Sequence[float], where: str
) -> None:
    """Log what is reached; raise an :class:`InputError` if a class is not reached at all."""
    found = list(zip(classes, matched.shares, fractions, strict=True))
    missing = [
        f"{info.name} (expected {100 * fraction:.3g} %)" for info, share, fraction in found if not share
    ]
    if missing:
        raise InputError(
            f"fractions: {where}: found no {listed(missing)} in the labels that come closest, expected some;"
            " give class weights instead of fractions"
        )
    LOG.info(
        "fractions: labels of %s have %s with the class weights %s",
        where,
        listed(_percent(info, share) for info, share, _ in found),
        listed(f"{factor:g}" for factor in matched.factors),
    )
    far = [
        f"{_percent(info, share)} (expected {100 * fraction:.3g} %)"
        for info, share, fraction in found
        if abs(share - fraction) > CLOSE or not 0.5 <= share / fraction <= 2
    ]
    if far:
        LOG.warning(
            "fractions: no class weights label the sample as requested: found %s; the model may not know"
            " these classes well, or the sample may hold less or more of them than the volume",
            listed(far),
        )


def _percent(info: ClassInfo, share: float) -> str:
    return f"{info.name} {100 * share:.3g} %"
