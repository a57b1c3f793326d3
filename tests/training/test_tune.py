"""A recipe is chosen on strokes: what is tried, how it is scored, what is chosen, and how it is written."""

from functools import partial

import numpy as np
import pytest
import tifffile
import yaml
from click.testing import CliRunner
from run_data import QUICK

from hrvol.cli import main
from hrvol.features.featuriser import load_featuriser
from hrvol.quality.metrics import mean_iou
from hrvol.recipe.recipe import PRESETS, Recipe
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.strokes import Samples
from hrvol.training import train as pipeline
from hrvol.training.strokes import TrainingPair, gather
from hrvol.training.tile_features import TileFeatures
from hrvol.training.train import train_model
from hrvol.training.tuning.candidates import VIEW_BUDGETS, Row, choose_recipe, network_work, price, short_yaml
from hrvol.training.tuning.folds import UNUSED
from hrvol.training.tuning.held_out import choose_tiles, hold_out, mean_iou_of
from hrvol.training.tuning.tune import tune_recipe
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.volume import open_volume

BASE = QUICK.with_(**{"classifier.hidden": [8], "classifier.max_iter": 200})
FIRST = {"classical, vote", "deep, woven, mirrored, vote", "hybrid, woven, mirrored, vote"}


@pytest.fixture(scope="module")
def pair(data):
    return data[0][:, :100, :100], data[2][:, :100, :100]


@pytest.fixture(scope="module")
def tuned(pair, weights):
    """Everything tried, and what was said of it."""
    told = []
    found = tune_recipe(
        [pair],
        recipe=BASE,
        minutes=None,
        weights_path=weights,
        progress=lambda *event: told.append(event),
    )
    return found, told


def test_kinds_scales_and_classifiers_are_tried_and_one_is_chosen(tuned):
    found, _ = tuned
    names = {row.name for row in found.rows}
    assert names >= FIRST
    for scale in ("scale 0.5, 4 x 4", "scale 2, 1 x 1"):
        assert {f"deep, {scale} offsets, vote", f"hybrid, {scale} offsets, vote"} <= names
    assert {"forest", "logistic", "mlp"} <= {row.recipe.classifier.kind for row in found.rows}
    means = [row.mean for row in found.rows]
    assert means == sorted(means, reverse=True)
    assert found.chosen.recipe == found.recipe
    assert found.chosen.mean > 0.7  # grey values tell the two apart
    assert found.chosen.name in found.why
    assert all(len(row.scores) == 4 and row.microseconds > 0 for row in found.rows)
    assert "4 folds of whole strokes" in found.notes[0]


def test_what_is_not_varied_is_kept(tuned):
    for row in tuned[0].rows:
        assert row.recipe.tiles == BASE.tiles
        assert row.recipe.features.classical == BASE.features.classical
        assert row.recipe.classifier.trees == 10
        assert row.recipe.features.deep.block == 6


def test_progress_ends_at_the_whole_of_each_stage(tuned):
    last = {}
    for stage, done, total in tuned[1]:
        assert done <= total
        last[stage] = (done, total)
    assert {
        "features of strokes: classical",
        "features of strokes: woven, mirrored",
        "cross-validation",
    } <= set(last)
    assert all(done == total for done, total in last.values())


def test_the_chosen_recipe_is_short_yaml_that_trains(tuned, pair, weights, tmp_path):
    found, _ = tuned
    file = tmp_path / "recipe.yaml"
    file.write_text(found.to_yaml())
    assert Recipe.load(file) == found.recipe
    assert file.read_text().startswith("# Chosen by hrvol tune. ")
    assert "cluster" not in file.read_text()
    model = train_model([pair], recipe=file, weights_path=weights)
    assert model.recipe == found.recipe


def test_without_time_only_the_first_are_tried_and_the_rest_is_named(pair, weights):
    found = tune_recipe([pair], recipe=BASE, minutes=0, weights_path=weights)
    assert {row.name for row in found.rows} == FIRST
    said = "\n".join(found.notes)
    for what in (
        "scale 0.5, 4 x 4 offsets",
        "scale 2, 1 x 1 offsets",
        "forest classifier",
        "logistic classifier",
        "mlp classifier",
    ):
        assert f"{what} not tried: it takes about" in said


def test_the_same_strokes_and_seed_give_the_same_scores(pair, weights):
    a, b = (tune_recipe([pair], recipe=BASE, minutes=0, seed=4, weights_path=weights) for _ in range(2))
    assert [(row.recipe, row.scores) for row in a.rows] == [(row.recipe, row.scores) for row in b.rows]
    assert a.recipe == b.recipe
    c = tune_recipe([pair], recipe=BASE, minutes=0, seed=5, weights_path=weights)
    assert [row.scores for row in a.rows] != [row.scores for row in c.rows]


@pytest.mark.parametrize("combine", ["concatenate", "product"])
def test_scores_are_those_of_classifiers_trained_without_the_fold(pair, weights, combine):
    base = BASE if combine == "concatenate" else BASE.with_(**{"classifier.kind": "forest"})
    found = tune_recipe([pair], recipe=base, minutes=0, seed=1, weights_path=weights)
    (row,) = [r for r in found.rows if r.recipe.combine == combine and r.recipe.features.kind == "hybrid"]
    held_out = hold_out([TrainingPair(open_volume(pair[0]), open_strokes(pair[1]))], BASE, 1, 4)
    featuriser = load_featuriser(row.recipe.features, weights_path=str(weights))
    features = TileFeatures(featuriser, held_out.window, BASE.tiles)
    samples = gather(held_out.pairs, held_out.pixels, features, None)
    scores = []
    for fold in range(4):
        train, test = held_out.folds.split(fold)
        part = Samples(samples.features[train], samples.labels[train], samples.image[train])
        classifier = PixelClassifier.fit(
            part,
            row.recipe.classifier,
            combine=combine,
            groups=featuriser.groups,
            grey=featuriser.grey,
            seed=1,
        )
        scores.append(mean_iou_of(held_out, classifier.predict(samples.features[test]), test))
    assert row.scores == pytest.approx(scores, abs=1e-12)


def test_few_tiles_are_read_and_pixels_lie_in_them(data):
    image, _, strokes = data
    held_out = hold_out([TrainingPair(open_volume(image), open_strokes(strokes))], BASE, 0, 4)
    where = held_out.pixels.where
    assert (strokes[tuple(where[:, 1:].T)] == held_out.pixels.labels).all()
    assert held_out.tiles == 4
    assert len({tuple(row) for row in (where[:, 1:] // (1, 64, 64)).tolist()}) == 4
    assert "4 of 12 tiles" in held_out.description
    assert held_out.pixels_per_tile == pytest.approx(150 * 130 / 9)
    assert held_out.pixels.drawn.keys() == {1, 2}
    assert not (held_out.folds.of == UNUSED).any()  # pixels in gaps are not sampled


def test_classes_count_as_much_as_they_are_drawn():
    strokes = np.zeros((4, 40, 100), np.uint8)
    strokes[:, :30, :90] = 1  # 10800 pixels
    strokes[:, 35:37, :90] = 2  # 720 pixels
    held_out = hold_out([TrainingPair(open_volume(strokes), open_strokes(strokes))], BASE, 0, 4)
    _, test = held_out.folds.split(0)
    true = held_out.pixels.labels[test]
    predicted = np.where(np.arange(len(test)) % 10 == 0, 3 - true, true).astype(np.uint16)
    found = mean_iou_of(held_out, predicted, test)
    wrong = [np.mean(predicted[true == value] != value) for value in (1, 2)]
    drawn = [n / 500 * (true == value).sum() for value, n in ((1, 10800), (2, 720))]
    counts = np.zeros((3, 3))
    for i in (0, 1):
        counts[i + 1, 2 - i] = drawn[i] * wrong[i]
        counts[i + 1, i + 1] = drawn[i] * (1 - wrong[i])
    assert found == pytest.approx(mean_iou(counts), abs=1e-4)
    assert found < 0.65  # one in ten of class 1 is more than all of class 2


def test_tiles_are_spread_over_planes_and_show_every_class():
    counts = {(0, z, 0, x): {1: 500 + x, 2: 400} for z in range(3) for x in range(4)}
    counts[0, 7, 2, 2] = {3: 1}
    chosen = choose_tiles(counts, 4, seed=0)
    assert (0, 7, 2, 2) in chosen
    assert len({place[1] for place in chosen}) == 4
    assert set(choose_tiles(counts, 1, seed=0)) >= {(0, 7, 2, 2)}
    assert len(choose_tiles(counts, 1, seed=0)) == 2
    assert choose_tiles(counts, 99, seed=0) == sorted(counts)


def rows(**scores):
    """Rows of presets with scores, all as dear as each other to measure."""
    return [Row(PRESETS[name], tuple(values), 1.0) for name, values in scores.items()]


def test_of_equals_the_cheapest_is_chosen():
    tried = rows(balanced=[0.8, 0.6, 0.7, 0.7], fast=[0.797, 0.6, 0.7, 0.7], classical=[0.6] * 4)
    choice = choose_recipe(tried, Recipe())
    assert choice.chosen.recipe == PRESETS["fast"]
    assert choice.best.recipe == PRESETS["balanced"]
    assert choice.why.startswith("hybrid, woven, mirrored, vote: mIoU 0.699 on held-out strokes")
    assert "hybrid, woven, mirrored and turned, vote has 0.700" in choice.why


def test_a_small_gain_in_every_fold_is_no_tie_though_folds_differ_widely():
    choice = choose_recipe(rows(balanced=[0.91, 0.41, 0.61, 0.21], fast=[0.89, 0.39, 0.59, 0.19]), Recipe())
    assert choice.chosen.recipe == PRESETS["balanced"]
    unsure = choose_recipe(rows(best=[0.99, 0.39, 0.61, 0.21], fast=[0.89, 0.41, 0.59, 0.23]), Recipe())
    assert unsure.chosen.recipe == PRESETS["fast"]


def test_what_is_probably_better_is_worth_less_than_twice_the_cost():
    better, worse = [0.99, 0.39, 0.61, 0.21], [0.89, 0.41, 0.59, 0.23]  # 0.02 apart, give or take 0.03
    assert price(PRESETS["balanced"]) < price(PRESETS["best"]) < 2 * price(PRESETS["balanced"])
    assert choose_recipe(rows(best=better, balanced=worse), Recipe()).chosen.recipe == PRESETS["best"]
    assert choose_recipe(rows(best=better, fast=worse), Recipe()).chosen.recipe == PRESETS["fast"]
    close = [0.987, 0.39, 0.61, 0.21]
    assert choose_recipe(rows(best=better, balanced=close), Recipe()).chosen.recipe == PRESETS["balanced"]


def test_another_input_scale_has_to_be_better_beyond_doubt():
    half = PRESETS["fast"].with_(**{"features.deep.input_scale": 0.5})
    fast = Row(PRESETS["fast"], (0.7, 0.6, 0.8, 0.7), 1.0)
    assert choose_recipe([fast, Row(half, (0.8, 0.59, 0.82, 0.68), 1.0)], Recipe()).chosen is fast
    assert choose_recipe([fast, Row(half, (0.8, 0.69, 0.89, 0.79), 1.0)], Recipe()).chosen.recipe == half
    # 0.04 more, give or take 0.025: one standard error is not beyond doubt.
    assert choose_recipe([fast, Row(half, (0.8, 0.6, 0.86, 0.7), 1.0)], Recipe()).chosen is fast


def test_doubt_about_another_scale_is_no_reason_to_take_what_is_cheap_and_bad():
    half = PRESETS["best"].with_(**{"features.deep.input_scale": 0.5})
    tried = [
        *rows(fast=[0.7, 0.6, 0.7, 0.6], classical=[0.6, 0.5, 0.6, 0.5]),
        Row(half, (0.9, 0.5, 0.9, 0.5), 1),
    ]
    assert choose_recipe(tried, Recipe()).chosen.recipe == PRESETS["fast"]


def test_another_classifier_has_to_be_better_beyond_doubt_too():
    logistic = PRESETS["fast"].with_(**{"classifier.kind": "logistic"})
    fast = Row(PRESETS["fast"], (0.7, 0.6, 0.8, 0.7), 1.0)
    assert price(logistic) < price(fast.recipe)
    assert choose_recipe([fast, Row(logistic, (0.7, 0.6, 0.8, 0.7), 1.0)], Recipe()).chosen is fast
    assert (
        choose_recipe([fast, Row(logistic, (0.72, 0.62, 0.82, 0.72), 1.0)], Recipe()).chosen.recipe
        == logistic
    )
    assert choose_recipe([fast, Row(logistic, (0.7, 0.6, 0.8, 0.7), 1.0)], logistic).chosen.recipe == logistic


def test_price_rises_with_what_is_done():
    names = ["classical", "fast", "balanced", "best"]
    assert [price(PRESETS[name]) for name in names] == sorted(price(PRESETS[name]) for name in names)
    assert price(PRESETS["deep"]) < price(PRESETS["balanced-0.1"])
    assert price(PRESETS["balanced"].with_(combine="product")) > price(PRESETS["balanced"])
    work = [network_work(PRESETS[name].features.deep, 518) for name in ("fast", "balanced")]
    assert work[1] == 2 * work[0]


def test_efforts_are_those_of_the_presets_and_keep_their_spacing_at_other_scales():
    deep = PRESETS["balanced"].features.deep
    for name, effort in zip(("fast", "balanced", "best"), VIEW_BUDGETS, strict=True):
        assert effort.of(deep, 1.0) == PRESETS[name].features.deep
    assert [effort.of(deep, 0.5).offsets for effort in VIEW_BUDGETS] == [4, 4, 4]
    assert [effort.of(deep, 2.0).offsets for effort in VIEW_BUDGETS] == [1, 1, 1]


@pytest.mark.parametrize("name", PRESETS)
def test_short_yaml_holds_what_differs_and_is_read_back(name, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(short_yaml(PRESETS[name], "Two\nlines."))
    assert Recipe.load(file) == PRESETS[name]
    assert file.read_text().startswith("# Two\n# lines.\n")
    assert "tiles" not in file.read_text()


def test_published_deep_features_are_tried_as_they_are(pair, weights):
    base = BASE.with_(**{"features.deep": PRESETS["paper"].features.deep.model_copy(update={"shifts": ()})})
    found = tune_recipe([pair], recipe=base, minutes=0, weights_path=weights)
    assert {row.name for row in found.rows} >= {"deep, stride 4, vote", "hybrid, stride 4, vote"}


@pytest.fixture
def quickly(monkeypatch):
    """Training chooses from a recipe for tests, without time."""
    monkeypatch.setattr(pipeline, "tune_recipe", partial(tune_recipe, recipe=BASE, minutes=0))


def test_training_on_auto_is_training_on_the_recipe_chosen(pair, weights, quickly):
    tuned = []
    model = train_model([pair], recipe="auto", weights_path=weights, on_tuned=tuned.append)
    assert [result.recipe for result in tuned] == [model.recipe]
    expected = tune_recipe([pair], recipe=BASE, minutes=0, weights_path=weights).recipe
    assert model.recipe == expected
    again = train_model([pair], recipe=expected, weights_path=weights)
    assert [m.name for m in again.classifier.members] == [m.name for m in model.classifier.members]


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def files(pair, tmp_path):
    for name, values in zip(("volume.tif", "strokes.tif"), pair, strict=True):
        tifffile.imwrite(tmp_path / name, values, photometric="minisblack")
    (tmp_path / "base.yaml").write_text(BASE.to_yaml())
    return tmp_path / "volume.tif", tmp_path / "strokes.tif"


def test_the_command_shows_a_table_and_writes_a_recipe(files, weights, tmp_path):
    out = tmp_path / "recipe.yaml"
    options = ("--recipe", tmp_path / "base.yaml", "--minutes", 0, "--weights", weights)
    result = run("tune", *files, "-o", out, *options)
    header, *table = result.stdout.splitlines()
    assert header.split() == ["tried", "mIoU", "spread", "us/pixel"]
    assert sum(line.endswith("chosen") for line in table) == 1
    assert f"{out}: written" in table
    assert "not tried: it takes about" in result.output
    Recipe.load(out)
    before = out.read_text()
    assert "exists already" in run("tune", *files, "-o", out, *options, code=1).stderr
    assert out.read_text() == before
    printed = run("tune", *files, *options)
    assert Recipe.from_dict(
        yaml.safe_load(printed.stdout[printed.stdout.index("# Chosen") :])
    ) == Recipe.load(out)


def test_train_with_auto_says_what_was_chosen(files, weights, tmp_path, quickly):
    out = tmp_path / "m.hrvol"
    result = run("train", *files, "-o", out, "--recipe", "auto", "--weights", weights)
    assert "on held-out strokes" in result.stdout
    assert out.exists()
    assert f"{out}: " in result.stdout.splitlines()[-1]


def test_paths_without_a_partner_are_refused(files):
    assert "expected pairs" in run("tune", files[0], code=2).stderr
