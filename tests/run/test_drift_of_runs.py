"""Runs compare a volume with the training strokes, and calibrated probabilities keep the labels."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import zarr
from run_data import QUICK

from hrvol.engine.stop import Stop
from hrvol.errors import InputError, StoppedError
from hrvol.info import describe
from hrvol.phantom import make_phantom
from hrvol.recipe.recipe import Recipe
from hrvol.report.write_report import write_report
from hrvol.run.attribute_names import CALIBRATION, DRIFT
from hrvol.run.drift_entry import Drift, read_entry
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import model_bytes, read_model, save_model
from hrvol.training.train import train_model
from hrvol.volume.ome.labels import open_label_store

SHAPE = (24, 96, 96)
RECIPE = Recipe.load("classical").with_(
    **{
        "classifier.trees": 10,
        "classifier.samples_per_class": 800,
        "tiles.core": 64,
        "tiles.overlap": 28,
        "tiles.planes": 8,
    }
)
ARRAYS = ("labels/hrvol/0", "probabilities/0", "uncertainty/0")


@pytest.fixture(scope="module", autouse=True)
def compared():
    """Runs compare volumes with the strokes, which tests/conftest.py switches off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HRVOL_DRIFT", raising=False)
        yield


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(SHAPE, seed=1)


@pytest.fixture(scope="module")
def model(phantom):
    strokes = np.zeros_like(phantom.labels)
    for z in (2, 8, 14, 20):
        strokes[z, ::9] = phantom.labels[z, ::9]
    return train_model([(phantom.image, strokes)], recipe=RECIPE, calibrate=True)


@pytest.fixture(scope="module")
def noise(phantom):
    low, high = np.percentile(phantom.image, [1, 99]).astype(int)
    return np.random.default_rng(0).integers(low, high, SHAPE).astype(phantom.image.dtype)


def warned(caplog):
    return [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING]


def drift_of(out):
    return open_label_store(out).attributes.get(DRIFT)


def arrays(out):
    return {name: zarr.open_array(out / name, mode="r")[:] for name in ARRAYS}


def test_the_same_volume_is_silent(phantom, model, tmp_path, caplog):
    segment_volume(phantom.image, tmp_path / "out", model)
    assert warned(caplog) == []
    found = drift_of(tmp_path / "out")
    assert len(found["planes"]) == found["tiles"] == 3
    assert max(found["distances"]) < found["threshold"] == round(model.drift.threshold, 3)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("kind", ["inverted", "noise"])
def test_another_texture_warns_and_names_planes(phantom, model, noise, tmp_path, caplog, kind):
    image = noise if kind == "noise" else phantom.image.max() - phantom.image
    segment_volume(image, tmp_path / "out", model)
    planes, what_to_do = warned(caplog)
    found = drift_of(tmp_path / "out")
    far = [z for z, d in zip(found["planes"], found["distances"], strict=True) if d > found["threshold"]]
    assert f"{len(far)} of 3 compared planes look unlike the training strokes: plane" in planes
    assert all(f"{z} (" in planes for z in far)
    assert "draw strokes on" in what_to_do
    assert "\n" not in planes + what_to_do


def test_only_the_planes_that_are_far_are_named(phantom, model, noise, tmp_path, caplog):
    image = phantom.image.copy()
    image[16:] = noise[16:]
    segment_volume(image, tmp_path / "out", model)
    found = drift_of(tmp_path / "out")
    far = [z for z, d in zip(found["planes"], found["distances"], strict=True) if d > found["threshold"]]
    assert far == [z for z in found["planes"] if z >= 16]
    assert far
    values = describe(str(tmp_path / "out"))["drift"]
    assert values["far"] == [str(z) for z in far]
    assert values["threshold"] == found["threshold"]


def test_labels_do_not_depend_on_it(phantom, model, tmp_path, caplog):
    options = {"probabilities": True, "uncertainty": True}
    segment_volume(phantom.image, tmp_path / "with", model, **options)
    segment_volume(phantom.image, tmp_path / "without", model, drift=False, **options)
    for name, values in arrays(tmp_path / "with").items():
        np.testing.assert_array_equal(values, arrays(tmp_path / "without")[name])
    assert drift_of(tmp_path / "without") is None


def test_a_model_without_a_record_says_nothing(noise, model, tmp_path, caplog):
    segment_volume(noise, tmp_path / "out", replace(model, drift=None))
    assert warned(caplog) == []
    assert drift_of(tmp_path / "out") is None


def test_a_mask_and_a_region_limit_what_is_compared(phantom, model, noise, tmp_path, caplog):
    image = phantom.image.copy()
    image[:, 64:] = noise[:, 64:]
    mask = np.ones(SHAPE, np.uint8)
    mask[:, 60:] = 0
    segment_volume(image, tmp_path / "masked", model, mask=mask)
    segment_volume(image, tmp_path / "part", model, roi=(slice(4, 20), slice(0, 60), slice(0, 96)))
    assert warned(caplog) == []
    assert all(4 <= z < 20 for z in drift_of(tmp_path / "part")["planes"])
    segment_volume(image, tmp_path / "beside", model, mask=1 - mask)
    assert len(warned(caplog)) == 2


def test_a_resumed_run_takes_what_is_recorded(phantom, model, noise, tmp_path, caplog):
    out = tmp_path / "out"
    segment_volume(noise, out, model, part=(1, 2))
    before = drift_of(out)
    first = warned(caplog)
    caplog.clear()
    stages = []
    segment_volume(noise, out, model, progress=lambda stage, *_: stages.append(stage))
    assert "compare with the strokes" not in stages
    assert drift_of(out) == before
    assert warned(caplog) == first
    segment_volume(noise, out, model, drift=False)  # the record stays
    assert drift_of(out) == before


def test_an_output_begun_without_it_is_resumed_without_it(phantom, model, tmp_path):
    out = tmp_path / "out"
    segment_volume(phantom.image, out, model, part=(1, 2), drift=False)
    segment_volume(phantom.image, out, model)
    assert open_label_store(out).complete
    assert drift_of(out) is None


def test_a_stop_comes_before_anything_is_written(phantom, model, tmp_path):
    stop = Stop()
    stop.request()
    with pytest.raises(StoppedError, match="stopped before any block; run the same command"):
        segment_volume(phantom.image, tmp_path / "out", model, stop=stop)
    assert not (tmp_path / "out").exists()


def test_workers_give_the_same_bits(phantom, model, tmp_path):
    zarr.save_array(tmp_path / "volume.zarr", phantom.image)
    save_model(model, tmp_path / "m.hrvol")
    options = {"probabilities": True, "uncertainty": True}
    segment_volume(tmp_path / "volume.zarr", tmp_path / "serial", tmp_path / "m.hrvol", **options)
    segment_volume(
        tmp_path / "volume.zarr",
        tmp_path / "local",
        tmp_path / "m.hrvol",
        engine="local",
        workers=2,
        **options,
    )
    for name, values in arrays(tmp_path / "serial").items():
        np.testing.assert_array_equal(values, arrays(tmp_path / "local")[name])
    assert drift_of(tmp_path / "serial") == drift_of(tmp_path / "local")


def test_calibration_changes_probabilities_and_no_label(phantom, model, tmp_path):
    options = {"probabilities": True, "uncertainty": True}
    segment_volume(phantom.image, tmp_path / "with", model, **options)
    segment_volume(phantom.image, tmp_path / "without", replace(model, calibration=None), **options)
    with_, without = arrays(tmp_path / "with"), arrays(tmp_path / "without")
    np.testing.assert_array_equal(with_[ARRAYS[0]], without[ARRAYS[0]])
    temperature = model.calibration.temperature
    assert temperature != 1
    before = np.clip(without[ARRAYS[1]] / 255, 1e-3, 1)
    expected = before ** (1 / temperature)
    expected /= expected.sum(axis=0)
    clear = before.min(axis=0) > 0.05  # bytes of small probabilities are coarse
    assert clear.mean() > 0.02
    assert abs(with_[ARRAYS[1]] / 255 - expected)[:, clear].max() < 0.03
    assert (with_[ARRAYS[2]].astype(int) <= without[ARRAYS[2]]).mean() > 0.99  # it makes this model surer
    stored = open_label_store(tmp_path / "with").attributes
    assert stored[CALIBRATION] == {"temperature": temperature}
    assert CALIBRATION not in open_label_store(tmp_path / "without").attributes


def test_the_report_and_the_info_show_both(phantom, model, tmp_path):
    save_model(model, tmp_path / "m.hrvol")
    segment_volume(phantom.image, tmp_path / "out", tmp_path / "m.hrvol")
    report = write_report(tmp_path / "out", tmp_path / "report.html", volume=phantom.image)
    page = report.page.read_text(encoding="utf-8")
    assert "Distance from the strokes" in page
    assert "labels that are right" in page
    assert report.values["drift"]["far"] == []
    assert report.values["calibration"]["temperature"] == model.calibration.temperature
    assert report.values["calibration"]["applied"] is True
    values = describe(str(tmp_path / "m.hrvol"))
    assert values["drift"]["threshold"] == round(model.drift.threshold, 3)
    assert values["calibration"]["temperature"] == model.calibration.temperature


def test_models_keep_it_in_their_file(model):
    data = model_bytes(model)
    loaded = read_model(data, "m")
    assert loaded.drift.threshold == model.drift.threshold
    assert model_bytes(loaded) == data
    assert len(data) - len(model_bytes(replace(model, drift=None))) < 60_000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": 0, "planes": [1], "distances": [1.0], "tiles": 1}, "threshold"),
        (
            {"threshold": 1.0, "planes": [1, 2], "distances": [1.0], "tiles": 1},
            "found 1 distances",
        ),
        ({"threshold": 1.0, "planes": [1], "distances": ["x"], "tiles": 1}, "distances"),
        ([1], "drift"),
    ],
)
def test_damaged_records_are_one_line(values, message):
    with pytest.raises(InputError) as refused:
        read_entry(values, "out")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_long_list_of_planes_is_cut():
    drift = Drift(1.0, tuple(range(30)), tuple(1.0 + z / 10 for z in range(30)), 30)
    first, _ = drift.warnings("v")
    assert "29 of 30 compared planes" in first
    assert "29 (3.90)" in first
    assert "10 (2.00)" not in first
    assert Drift(2.0, (3,), (1.0,), 1).warnings("v") == ()
    assert read_entry(drift.to_dict(), "v") == drift


def test_a_run_with_a_quick_recipe_is_compared_too(phantom, tmp_path):
    strokes = np.zeros_like(phantom.labels)
    strokes[3, ::9] = phantom.labels[3, ::9]
    model = train_model([(phantom.image, strokes)], recipe=QUICK)
    segment_volume(phantom.image, tmp_path / "out", model)
    assert "whole strokes" in model.drift.description
    found = drift_of(tmp_path / "out")
    assert max(found["distances"]) < found["threshold"]
