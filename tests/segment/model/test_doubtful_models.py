"""Records of training pixels and calibrations in model files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from crafted import members, small, with_json, with_members

from hrvol.errors import ModelError
from hrvol.quality.calibration import Calibration, Reliability
from hrvol.segment.drift import DriftRecord, FeatureCloud
from hrvol.segment.model.archive import array_bytes, zip_bytes
from hrvol.segment.model.model import model_bytes, read_model


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 6)).astype(np.float32)
    labels = rng.choice([1, 3, 7], 200)
    cloud = FeatureCloud.of(values, labels, slice(1, 6))
    found = Reliability.of(rng.dirichlet(np.ones(3), 90).T, rng.integers(0, 3, 90))
    return replace(
        read_model(small("forest"), "small"),
        drift=DriftRecord(cloud, 1.25, 1.0, "4 folds of whole planes"),
        calibration=Calibration(0.75, found, found, 90, "4 folds of whole planes"),
    )


@pytest.fixture(scope="module")
def data(model):
    return model_bytes(model)


def test_a_model_has_both_after_loading(model, data):
    loaded = read_model(data, "m")
    query = np.random.default_rng(1).normal(size=(50, 6)).astype(np.float32)
    np.testing.assert_array_equal(loaded.drift.cloud.distances(query), model.drift.cloud.distances(query))
    assert (loaded.drift.threshold, loaded.drift.held_out, loaded.drift.description) == (
        1.25,
        1.0,
        "4 folds of whole planes",
    )
    assert (loaded.calibration.temperature, loaded.calibration.pixels) == (0.75, 90)
    assert loaded.calibration.before.error == model.calibration.before.error
    assert model_bytes(loaded) == data


def test_a_model_without_them_is_as_before():
    loaded = read_model(small("forest"), "m")
    assert loaded.drift is None
    assert loaded.calibration is None
    assert model_bytes(loaded) == small("forest")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("drift", "columns"), [2, 7], "drift: found columns 2..7, expected some of 6"),
        (("drift", "columns"), [3, 3], "drift: found columns 3..3"),
        (("drift", "components"), 1, "drift_components.npy"),
        (("drift", "classes"), 2, "drift_means.npy"),
        (("drift", "threshold"), 0, "drift.threshold"),
        (("drift", "variance"), "much", "drift.variance"),
        (("calibration", "temperature"), 50, "calibration.temperature"),
        (("calibration", "before", "counts"), [1.0], "calibration.before.counts"),
    ],
)
def test_damaged_values_are_named(data, path, value, message):
    def change(info):
        *first, last = path
        for key in first:
            info = info[key]
        info[last] = value

    with pytest.raises(ModelError) as refused:
        read_model(with_json(data, "info.json", change), "m.hrvol")
    assert "\n" not in str(refused.value)
    assert message in str(refused.value)


def test_damaged_arrays_are_named(data):
    nothing = array_bytes(np.zeros(5, np.float32))
    with pytest.raises(ModelError, match=r"drift_scale.npy: found 0, expected values above 0"):
        read_model(with_members(data, drift_scale__npy=nothing), "m")
    infinite = array_bytes(np.full(5, np.inf, np.float32))
    with pytest.raises(ModelError, match=r"drift_centre.npy: found NaN or infinity"):
        read_model(with_members(data, drift_centre__npy=infinite), "m")
    left = {name: content for name, content in members(data).items() if name != "drift_means.npy"}
    with pytest.raises(ModelError, match=r"drift_means.npy"):
        read_model(zip_bytes(left), "m")


def test_values_are_finite_json(data):
    info = json.loads(members(data)["info.json"])
    json.dumps(info, allow_nan=False)
    assert info["drift"]["classes"] == 3
