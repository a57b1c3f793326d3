"""Linear classifiers and MLPs have scikit-learn's probabilities in any array library."""

import gc
from concurrent.futures import ThreadPoolExecutor

import array_api_strict as strict
import numpy as np
import pytest
import torch
from scipy.special import softmax

from hrvol.arrays import to_host, where_is
from hrvol.errors import ModelError
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.estimators import on_device as device
from hrvol.segment.estimators.estimators import fit_classifier, probabilities
from hrvol.segment.estimators.linear import linear_head
from hrvol.segment.estimators.on_device import device_probabilities

LIBRARIES = {
    "strict": lambda values: strict.asarray(values, device=strict.Device("device1")),
    "torch": lambda values: torch.from_numpy(np.array(values)),
}
KINDS = ["logistic", "ridge", "mlp"]
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def drawn(classes, count=400, seed=0):
    """Return features of very different scales and levels, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([1, 3, 7][:classes], count).astype(np.uint16)
    features = rng.normal(size=(count, 6)) + labels[:, None] * [0.5, 0, 0, 0, 0.3, 0]
    return (features * [1, 100, 1e-3, 1, 1, 30] + [0, 5000, 0, 0, -3, 0]).astype(np.float32), labels


def by_scikit_learn(estimator, features):
    exact = features.astype(np.float64)
    if hasattr(estimator, "predict_proba"):
        return estimator.predict_proba(exact)
    scores = estimator.decision_function(exact)
    return softmax(scores if scores.ndim == 2 else np.stack([-scores, scores], axis=1), axis=1)


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_products_have_the_probabilities_of_scikit_learn(kind, classes, move):
    spec = ClassifierSpec(kind=kind, hidden=(16, 8), max_iter=60)
    estimator = fit_classifier(spec, *drawn(classes), 0)
    unseen = drawn(classes, 4100, seed=1)[0]  # more than one batch
    unseen[:20] *= 5  # far from any sample
    expected = by_scikit_learn(estimator, unseen)
    np.testing.assert_allclose(probabilities(estimator, unseen), expected, rtol=0, atol=1e-12)
    result = device_probabilities(kind, estimator, move(unseen))
    assert where_is(result) == where_is(move(unseen))
    assert to_host(result).dtype == np.float64
    np.testing.assert_allclose(to_host(result), expected, rtol=0, atol=1e-12)
    assert expected.max() > 0.999
    assert ((expected > 0.2) & (expected < 0.8)).any()


def test_a_head_is_moved_to_a_device_once_and_freed_with_its_classifier():
    features, labels = drawn(3)
    moved = LIBRARIES["strict"](features)
    gc.collect()
    before = len(device._PREPARED)
    estimators = [fit_classifier(ClassifierSpec(kind="ridge"), features, labels, 0)]
    with ThreadPoolExecutor(4) as pool:
        heads = list(pool.map(lambda _: device._prepared("ridge", estimators[0], moved), range(8)))
    assert len({id(head) for head in heads}) == 1
    assert where_is(heads[0].layers[0][0]) == where_is(moved)
    assert len(device._PREPARED) == before + 1
    estimators.clear()
    gc.collect()
    assert len(device._PREPARED) == before


def test_networks_with_other_activations_are_refused():
    estimator = fit_classifier(ClassifierSpec(kind="mlp", hidden=(4,), max_iter=5), *drawn(2), 0)
    estimator[-1].activation = "tanh"
    with pytest.raises(ModelError, match="found an mlp with activation tanh, expected relu"):
        linear_head("mlp", estimator)
