"""The quick stand-in for a classifier: folded onto tokens it predicts what it predicts from features."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from session_data import CLASSICAL, HYBRID, phantom
from sklearn.ensemble import RandomForestClassifier, _forest

from hrvol.features.weights.source import WeightsSource
from hrvol.interactive.lane import Gate
from hrvol.interactive.live_classifier import TREES, Basis, LiveClassifier
from hrvol.interactive.parts import FilterPart, TileParts, labelled
from hrvol.interactive.stages import fast_features, stages_of
from hrvol.interactive.tile_cache import TileCache
from hrvol.recipe.recipe import PRESETS
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.estimators.estimators import fit_classifier
from hrvol.volume.intensity import common_window
from hrvol.volume.volume import open_volume

KEY = (0, 0, 1)


@pytest.fixture(scope="module")
def scene():
    return phantom()


def parts_of(image, recipe, weights, disk=None, memory=2**28):
    volume = open_volume(image)
    window = common_window([volume], recipe.intensity, recipe.seed)
    source = WeightsSource(str(weights))
    return TileParts(volume, window, recipe.tiles, device="cpu", weights=source, disk=disk, memory=memory)


def prepared(scene, recipe, weights, **options):
    image, truth = scene
    parts = parts_of(image, recipe, weights, **options)
    stage = stages_of(recipe)[-1]
    parts.prepare(stage, KEY, Gate())
    tile = parts.tile(KEY)
    rows, columns = tile.core_in_window
    labels = truth[KEY[0]][tile.window_slices]
    return parts, stage, parts.get(stage, KEY), (rows, columns), labels


@pytest.mark.parametrize("kind", ["vote", "forest", "logistic", "ridge", "mlp", "boosting"])
@pytest.mark.parametrize("classes", [2, 3])
def test_maps_of_tokens_predict_what_features_do(scene, weights, kind, classes):
    parts, stage, values, (rows, columns), labels = prepared(scene, HYBRID, weights)
    y, x = (axis.ravel() for axis in np.mgrid[rows, columns])
    features = values.at(y, x)
    labels = np.minimum(labels, classes)
    featuriser = parts.load(stage.features)
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(y), 300, replace=False)
    classifier = LiveClassifier.fit(
        features[chosen],
        labels[y, x][chosen],
        featuriser.groups,
        Basis.of(values),
        ClassifierSpec(kind=kind, trees=7),
        grey=featuriser.grey,
    )
    assert len(classifier.classes) == classes
    found = classifier.predict(values, rows, columns, Gate(), threads=2)
    expected = classifier.predict_rows(features).reshape(found.shape)
    assert np.allclose(found.sum(axis=-1), 1, atol=1e-5)
    close = np.abs(found - expected).max(axis=-1) < 1e-3
    assert close.mean() > 0.97  # rounding may move a pixel across a threshold of a tree
    # Every third row and second column of the same.
    steps = slice(rows.start, rows.stop, 3), slice(columns.start, columns.stop, 2)
    some = classifier.predict(values, *steps, Gate())
    assert np.abs(some - found[::3, ::2]).mean() < 1e-3


def test_grey_values_are_hidden_from_half_of_the_trees(scene, weights):
    parts, stage, values, (rows, columns), labels = prepared(scene, HYBRID, weights)
    y, x = (axis.ravel() for axis in np.mgrid[rows, columns])
    featuriser = parts.load(stage.features)
    features = values.at(y, x)
    arguments = (features, labels[y, x], featuriser.groups, Basis.of(values))
    fitted = LiveClassifier.fit(*arguments, ClassifierSpec(kind="forest"), grey=featuriser.grey)
    assert [len(forest) for forest in fitted._forest.forests] == [TREES // 2, TREES // 2]
    deep = featuriser.groups["deep"].stop
    grey = [32 + column - deep for column in featuriser.grey]
    importances = [sum(tree.feature_importances_ for tree in trees) for trees in fitted._forest.forests]
    assert importances[1][grey].sum() == 0
    assert importances[0][grey].sum() > 0


def test_fits_at_once_leave_the_warning_filters_of_the_process(monkeypatch):
    rng = np.random.default_rng(0)
    features, labels = rng.random((200, 4), np.float32), rng.integers(1, 4, 200)
    spec = ClassifierSpec(kind="forest", trees=4)

    def serial(*values, **options):
        raise AssertionError("sets the warning filters of the process")

    with monkeypatch.context() as patch:
        patch.setattr(_forest, "Parallel", serial)
        fitted = LiveClassifier.fit(
            features, labels, {"classical": slice(0, 4)}, None, spec, seed=1, threads=3
        )
    again = LiveClassifier.fit(features, labels, {"classical": slice(0, 4)}, None, spec, seed=1)
    found = fitted.predict_rows(features)
    assert (found.argmax(axis=1) + 1 == labels).mean() > 0.6  # of noise
    assert np.array_equal(found, again.predict_rows(features))
    # Fits of models wait for each other.
    together, fit = threading.Barrier(2, timeout=0.2), RandomForestClassifier.fit

    def meet(self, *values):
        with suppress(threading.BrokenBarrierError):
            together.wait()
            met.append(1)
        return fit(self, *values)

    met = []
    monkeypatch.setattr(RandomForestClassifier, "fit", meet)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda seed: fit_classifier(spec, features, labels, seed, 2), range(2)))
    assert not met


def test_filters_are_kept_where_labels_are_made(scene, weights):
    parts, stage, values, _, _ = prepared(scene, CLASSICAL, weights)
    tile = parts.tile(KEY)
    exact = parts.load(stage.features)(parts.image(KEY)).numpy()
    rows, columns = labelled(tile)
    assert values.filters.values.dtype == np.float16
    assert values.filters.values.shape[:2] == (rows.stop - rows.start, columns.stop - columns.start)
    found = values.filters.stripe(rows, columns)
    expected = np.moveaxis(exact[:, rows, columns], 0, -1)
    scale = np.abs(expected).max(axis=(0, 1))
    assert np.abs((found - expected) / scale).max() < 1e-3
    y, x = np.array([rows.start, rows.stop - 1]), np.array([columns.start, columns.start])
    assert np.array_equal(values.at(y, x), found[y - rows.start, x - columns.start])
    assert np.isfinite(FilterPart.of(np.zeros_like(exact), tile).stripe(rows, columns)).all()


def test_tokens_on_disk_serve_previews_but_not_runs(scene, weights, tmp_path):
    disk = TileCache(tmp_path)
    _, stage, values, _, _ = prepared(scene, HYBRID, weights, disk=disk)
    assert values.deep.exact
    again, _, rounded, _, _ = prepared(scene, HYBRID, weights, disk=disk)
    assert not rounded.deep.exact
    first, second = values.deep.tokens.grids[0].numpy(), rounded.deep.tokens.grids[0].numpy()
    assert not np.array_equal(first, second)
    assert np.array_equal(first.astype(np.float16), second.astype(np.float16))
    exact = again.tokens(stage.features, again.image(KEY), Gate(), exact=True)
    assert np.array_equal(exact.grids[0].numpy(), first)
    assert again.get(stage, KEY).deep.exact
    # Other grey values, other tokens.
    image, truth = scene
    other, _, changed, _, _ = prepared((image[:, ::-1], truth), HYBRID, weights, disk=disk)
    assert changed.deep.exact
    assert other.visited == (KEY,)


def test_little_memory_is_enough(scene, weights):
    image, _ = scene
    parts = parts_of(image, HYBRID, weights, memory=1)
    stage = stages_of(HYBRID)[0]
    for key in ((0, 0, 0), (0, 0, 1)):
        parts.prepare(stage, key, Gate())
    assert parts.get(stage, (0, 0, 0)) is None
    assert parts.get(stage, (0, 0, 1)) is not None


def test_tiles_at_a_border_may_share_their_window(scene, weights):
    image, _ = scene
    parts = parts_of(image, CLASSICAL, weights)
    (stage,) = stages_of(CLASSICAL)
    first, second = (0, 0, 1), (0, 0, 2)
    assert parts.tile(first).window == parts.tile(second).window
    for key in (first, second):
        parts.prepare(stage, key, Gate())
    for key in (first, second):
        rows, columns = labelled(parts.tile(key))
        assert parts.get(stage, key).filters.stripe(rows, columns).shape[:2] == (
            rows.stop - rows.start,
            columns.stop - columns.start,
        )


def test_stages_end_with_the_recipe():
    for name, names in {
        "fast": ["filters", "recipe"],
        "balanced": ["filters", "fast", "recipe"],
        "paper": ["filters", "fast", "recipe"],
        "deep": ["filters", "fast", "recipe"],
        "classical": ["recipe"],
    }.items():
        recipe = PRESETS[name]
        stages = stages_of(recipe)
        assert [stage.name for stage in stages] == names
        assert stages[-1].features == recipe.features
    assert fast_features(PRESETS["balanced"].features.deep) == PRESETS["fast"].features.deep
    assert fast_features(PRESETS["paper"].features.deep).offsets == 2
