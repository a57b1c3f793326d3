"""Folds of training pixels, and what is fitted on them."""

from dataclasses import replace

import numpy as np
import pytest
from run_data import QUICK, draw, make_volume

from hrvol.errors import StrokesError
from hrvol.features.weights.source import WeightsSource
from hrvol.recipe.recipe import Recipe
from hrvol.segment.strokes import choose_pixels
from hrvol.training.calibrate import calibrate
from hrvol.training.drift import MARGIN, drift_record
from hrvol.training.strokes import TrainingPair, gather, stroke_blocks
from hrvol.training.tile_features import TileFeatures, load_features
from hrvol.training.train import train_model
from hrvol.training.tuning.folds import UNUSED, Folds
from hrvol.training.tuning.pixel_folds import capped, fold_pixels
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.volume import open_volume


@pytest.fixture(scope="module")
def image():
    return make_volume(shape=(12, 100, 90))


def chosen(image, planes, most=300):
    pair = TrainingPair(open_volume(image[0]), open_strokes(draw(image[1], planes)))
    return [pair], choose_pixels(stroke_blocks([pair]), most, 0)


def test_whole_planes_are_held_out_where_there_are_enough(image):
    pairs, pixels = chosen(image, (1, 4, 6, 9))
    folds = fold_pixels(pairs, pixels, QUICK.tiles, 0)
    assert "whole planes" in folds.description
    for z in (1, 4, 6, 9):
        assert len(np.unique(folds.of[pixels.where[:, 1] == z])) == 1
    assert sorted(np.unique(folds.of)) == [0, 1, 2, 3]


def test_whole_strokes_are_held_out_of_fewer_planes(image):
    pairs, pixels = chosen(image, (6,))
    folds = fold_pixels(pairs, pixels, QUICK.tiles, 0)
    assert "whole strokes" in folds.description
    assert (folds.of >= 0).sum() > 0.8 * len(pixels)
    # Strokes are the vertical lines of draw(), where the class does not change along them.
    for value in (1, 2):
        for x in np.unique(pixels.where[:, 3]):
            drawn = np.flatnonzero(image[1][6, :, x] == value)
            if not len(drawn) or np.ptp(drawn) + 1 != len(drawn):
                continue  # of this class there are several strokes in the line
            of_line = folds.of[(pixels.where[:, 3] == x) & (pixels.labels == value)]
            assert len(np.unique(of_line[of_line >= 0])) <= 1


def test_pixels_are_capped_by_class():
    labels, allowed = np.repeat([1, 2], [50, 8]), np.ones(58, bool)
    allowed[0] = False
    kept = capped(labels, allowed, 10, 0)
    assert np.bincount(labels[kept]).tolist() == [0, 10, 8]
    assert 0 not in kept
    np.testing.assert_array_equal(kept, capped(labels, allowed, 10, 0))


def samples_of(image, planes):
    pairs, pixels = chosen(image, planes)
    featuriser = load_features(QUICK.features, "cpu", WeightsSource())
    features = TileFeatures(featuriser, (0.0, 255.0), QUICK.tiles)
    return pairs, pixels, gather(pairs, pixels, features, None), featuriser


def test_the_threshold_is_that_of_held_out_strokes(image):
    pairs, pixels, samples, featuriser = samples_of(image, (1, 4, 6, 9))
    folds = fold_pixels(pairs, pixels, QUICK.tiles, 0)
    record = drift_record(samples, pixels, folds, featuriser.groups, 0)
    assert record.threshold == pytest.approx(MARGIN * record.held_out)
    inside = np.median(record.cloud.distances(samples.features))
    assert inside < record.held_out < 3 * inside
    # A plane that looks otherwise makes the model expect more.
    odd = replace(samples, features=samples.features.copy())
    odd.features[pixels.where[:, 1] == 9] += 3 * samples.features.std(axis=0)
    assert drift_record(odd, pixels, folds, featuriser.groups, 0).held_out > 1.5 * record.held_out


def test_calibration_brings_probabilities_nearer_to_the_truth(image):
    pairs, pixels, samples, featuriser = samples_of(image, (1, 4, 6, 9))
    noise = np.random.default_rng(0).normal(size=samples.features.shape) * samples.features.std(axis=0)
    samples = replace(samples, features=(samples.features + noise).astype(np.float32))
    recipe = QUICK.with_(**{"classifier.kind": "forest", "classifier.trees": 60})
    folds = fold_pixels(pairs, pixels, QUICK.tiles, 0)
    found = calibrate(samples, folds, recipe, featuriser.groups, featuriser.grey)
    assert found.pixels == len(pixels)
    assert found.after.error < 0.8 * found.before.error
    again = calibrate(samples, folds, recipe, featuriser.groups, featuriser.grey, n_jobs=2)
    assert again.temperature == found.temperature


def test_strokes_that_cannot_be_held_out_are_named(image):
    _, pixels, samples, featuriser = samples_of(image, (1, 4))
    never = Folds(np.full(len(pixels), UNUSED, np.int8), 4, "none")
    never.of[:50] = -1
    never.of[-50:] = -1
    with pytest.raises(StrokesError, match=r"found strokes for 0 folds .* expected two or more"):
        calibrate(samples, never, QUICK, featuriser.groups, featuriser.grey)


def test_a_recipe_names_its_calibration_only_if_it_has_one():
    assert "calibration" not in Recipe().to_dict()["classifier"]
    recipe = Recipe().with_(**{"classifier.calibration": "temperature"})
    assert recipe.to_dict()["classifier"]["calibration"] == "temperature"
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_models_are_calibrated_on_request(image):
    data = [(image[0], draw(image[1], (1, 4, 6, 9)))]
    plain = train_model(data, recipe=QUICK)
    asked = train_model(data, recipe=QUICK, calibrate=True)
    by_recipe = train_model(data, recipe=QUICK.with_(**{"classifier.calibration": "temperature"}))
    assert plain.calibration is None
    assert asked.calibration.temperature == by_recipe.calibration.temperature
    assert asked.recipe == by_recipe.recipe != plain.recipe
    assert plain.drift.threshold == asked.drift.threshold
