"""cuML converts its forests to scikit-learn's through treelite; the second half of this runs without a GPU.

``as_sklearn()`` takes the trees of ``treelite.sklearn.export_model`` and sets names, classes and parameters.
Here the trees are those of a forest of scikit-learn instead of cuML, in the same serialised form.
"""

import numpy as np
import pytest
from contract.wheels import unpacked
from sklearn.ensemble import RandomForestClassifier

from hrvol.classes import default_classes
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.estimators.estimators import fit_classifier, probabilities
from hrvol.segment.model.model import Model, model_bytes, read_model
from hrvol.segment.pixel_classifier import Member, PixelClassifier


@pytest.fixture
def treelite(monkeypatch):
    pytest.importorskip("packaging")
    monkeypatch.syspath_prepend(str(unpacked("treelite")))
    return pytest.importorskip("treelite")


@pytest.mark.parametrize("classes", [2, 3])
def test_a_forest_from_treelite_passes_every_check_of_a_model_file(classes, treelite):
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 300).astype(np.uint16) * 2 + 1
    features = (rng.normal(size=(300, 6)) + labels[:, None]).astype(np.float32)
    values = tuple(np.unique(labels).tolist())
    fitted = fit_classifier(ClassifierSpec(kind="forest", trees=9), features, labels, 0)

    form = treelite.sklearn.import_model(fitted).serialize_bytes()
    trees = treelite.sklearn.export_model(treelite.Model.deserialize_bytes(form))
    returned = RandomForestClassifier(**fitted.get_params(deep=False))
    for name in ("estimators_", "n_outputs_"):
        setattr(returned, name, getattr(trees, name))
    returned.estimator_ = trees.estimator
    returned.n_features_in_, returned.n_classes_ = 6, classes
    returned.classes_ = np.unique(labels)

    np.testing.assert_array_equal(probabilities(returned, features), probabilities(fitted, features))
    np.testing.assert_array_equal(returned.predict_proba(features), probabilities(fitted, features))
    assert np.isnan(returned.feature_importances_).all()  # lost in the conversion

    spec = ClassifierSpec(kind="forest", trees=9)
    classifier = PixelClassifier(spec, values, 6, (Member("all", slice(0, 6), returned),))
    channels = tuple("abcdef")
    model = Model(Recipe(classifier=spec), default_classes(values), (0.0, 1.0), classifier, None, channels)
    stored = model_bytes(model)
    assert stored == model_bytes(model)
    read = read_model(stored, "model")  # checks types, columns, classes and every node
    np.testing.assert_array_equal(read.classifier.predict_proba(features), classifier.predict_proba(features))
    assert model_bytes(read) == stored
