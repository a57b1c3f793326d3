"""Classifiers on trial: fewer trees, and the time that all of them would take."""

from __future__ import annotations

import numpy as np
import pytest

from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.strokes import Samples
from hrvol.training.tuning import cost as trial

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(300, 6)).astype(np.float32)
SAMPLES = Samples(VALUES, (VALUES[:, 0] > 0).astype(np.uint16) + 1, np.zeros(300, np.int32))


def test_only_forests_have_fewer_trees_on_trial() -> None:
    assert trial.on_trial(ClassifierSpec(kind="vote", trees=200)).trees == 50
    assert trial.on_trial(ClassifierSpec(kind="forest", trees=20)).trees == 20
    boosting = ClassifierSpec(kind="boosting", trees=200)
    assert trial.on_trial(boosting) is boosting


@pytest.mark.parametrize(
    ("kind", "asked", "expected"),
    [("forest", ["forest"], 4.0), ("logistic", ["logistic"], 1.0), ("vote", ["vote", "forest"], 4.0)],
)
def test_all_trees_are_counted_and_a_regression_once(
    monkeypatch: pytest.MonkeyPatch, kind: str, asked: list[str], expected: float
) -> None:
    """With a second for every question: 4 times the trees of a forest; of a vote, 3 forests more."""
    spec = ClassifierSpec.model_validate({"kind": kind, "trees": 200})
    classifier = PixelClassifier.fit(SAMPLES, trial.on_trial(spec), seed=0)
    kinds = []

    def one_second(classifier: PixelClassifier, rows: np.ndarray, device: str) -> float:
        assert len(classifier.predict(rows[:10])) == 10
        kinds.append(classifier.spec.kind)
        return 1.0

    monkeypatch.setattr(trial, "_asked", one_second)
    assert trial.asking_seconds(classifier, spec, VALUES, "cpu") == expected
    assert kinds == asked


def test_time_is_measured() -> None:
    spec = ClassifierSpec(trees=8)
    classifier = PixelClassifier.fit(SAMPLES, spec, seed=0)
    assert trial.asking_seconds(classifier, spec, VALUES, "cpu") > 0
