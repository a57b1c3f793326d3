"""Candidates have fewer trees, and their prediction time is scaled to all of them."""

from __future__ import annotations

import numpy as np
import pytest

from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.strokes import Samples
from hrvol.training.tuning import cost

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(300, 6)).astype(np.float32)
SAMPLES = Samples(VALUES, (VALUES[:, 0] > 0).astype(np.uint16) + 1, np.zeros(300, np.int32))


def test_only_forests_have_fewer_trees_in_a_trial() -> None:
    assert cost.trial_spec(ClassifierSpec(kind="vote", trees=200)).trees == 50
    assert cost.trial_spec(ClassifierSpec(kind="forest", trees=20)).trees == 20
    boosting = ClassifierSpec(kind="boosting", trees=200)
    assert cost.trial_spec(boosting) is boosting


@pytest.mark.parametrize(
    ("kind", "predicted", "expected"),
    [("forest", ["forest"], 4.0), ("logistic", ["logistic"], 1.0), ("vote", ["vote", "forest"], 4.0)],
)
def test_all_trees_are_counted_and_a_regression_once(
    monkeypatch: pytest.MonkeyPatch, kind: str, predicted: list[str], expected: float
) -> None:
    """With a second for every prediction: 4 times the trees of a forest; of a vote, 3 forests more."""
    spec = ClassifierSpec.model_validate({"kind": kind, "trees": 200})
    classifier = PixelClassifier.fit(SAMPLES, cost.trial_spec(spec), seed=0)
    kinds = []

    def one_second(classifier: PixelClassifier, rows: np.ndarray, device: str) -> float:
        assert len(classifier.predict(rows[:10])) == 10
        kinds.append(classifier.spec.kind)
        return 1.0

    monkeypatch.setattr(cost, "_measured", one_second)
    assert cost.predict_seconds(classifier, spec, VALUES, "cpu") == expected
    assert kinds == predicted


def test_time_is_measured() -> None:
    spec = ClassifierSpec(trees=8)
    classifier = PixelClassifier.fit(SAMPLES, spec, seed=0)
    assert cost.predict_seconds(classifier, spec, VALUES, "cpu") > 0
