"""Clusters in a model file: the same bits are loaded, and inconsistent files are refused in one line."""

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from hrvol.classes import default_classes
from hrvol.errors import ModelError
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClusterSpec
from hrvol.segment.attention import ClusterTally
from hrvol.segment.cluster_classifier import fit_clusters
from hrvol.segment.model.model import Model, load_model, model_bytes, read_model, save_model
from hrvol.segment.positions import PositionField, n_terms

ARRAYS = ("centroids", "of_cluster", "mean", "scale", "pixels", "attention")
FEATURES = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
FEATURES[:, 4] *= 1e3


def _model(attention=True, **spec):
    weights = np.random.default_rng(1).gamma(1, 1, 400).astype(np.float32) if attention else None
    classifier = fit_clusters(FEATURES, weights, ClusterSpec(clusters=9, **spec), directions=slice(0, 3))
    return Model(
        recipe=Recipe(cluster=ClusterSpec(clusters=9, **spec)),
        classes=default_classes(classifier.classes),
        window=(0.0, 255.0),
        classifier=classifier,
        weights_sha256="ab" * 32,
        channels=tuple(f"c{i}" for i in range(6)),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("clusters") / "m.hrvol"
    save_model(_model(classes=4), path)
    return path


@pytest.mark.parametrize(("attention", "spec"), [(True, {"classes": 4}), (True, {}), (False, {"classes": 1})])
def test_the_same_bits_are_loaded(tmp_path, attention, spec):
    model = _model(attention, **spec)
    save_model(model, tmp_path / "m.hrvol")
    loaded = load_model(tmp_path / "m.hrvol")
    before, after = model.classifier, loaded.classifier
    for name in ("centroids", "of_cluster", "mean", "scale"):
        saved_array, loaded_array = getattr(before, name), getattr(after, name)
        assert saved_array.dtype == loaded_array.dtype
        assert saved_array.tobytes() == loaded_array.tobytes(), name
    np.testing.assert_array_equal(before.tally.pixels, after.tally.pixels)
    np.testing.assert_array_equal(before.tally.attention, after.tally.attention)
    assert before.temperature == after.temperature
    np.testing.assert_equal(before.semantic_distance, after.semantic_distance)
    assert (before.classes, before.foreground) == (after.classes, after.foreground)
    np.testing.assert_array_equal(before.assign(FEATURES), after.assign(FEATURES))
    scores = [
        c.class_probabilities(FEATURES @ c.linear(slice(None))[0].T + c.linear(slice(None))[1])
        for c in (before, after)
    ]
    assert scores[0].tobytes() == scores[1].tobytes()
    assert (loaded.recipe, loaded.classes) == (model.recipe, model.classes)


def test_there_is_no_pickle_in_the_file(saved):
    with zipfile.ZipFile(saved) as archive:
        expected = {"info.json", "recipe.json", "classes.json", "window.npy", *(f"{n}.npy" for n in ARRAYS)}
        assert set(archive.namelist()) == expected
        for name in ARRAYS:
            np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)


def _with_position():
    """Return a model with a position field."""
    model = _model(classes=4)
    terms = np.random.default_rng(2).normal(size=(n_terms(2), 4)).astype(np.float32)
    return replace(model, classifier=replace(model.classifier, position=PositionField(2, terms)))


def test_the_same_model_is_the_same_bytes(saved):
    for make in (_model, lambda: _model(classes=4), lambda: _model(False, classes=1), _with_position):
        data = model_bytes(make())
        assert data == model_bytes(make()), "fitted again"
        loaded = read_model(data, "m")
        loaded.classifier.assign(FEATURES)
        assert model_bytes(loaded) == data, "loaded and used"
    assert model_bytes(load_model(saved)) == saved.read_bytes() == model_bytes(_model(classes=4))


def test_arrays_of_other_types_are_written_as_they_are_read():
    model = _model(classes=4)
    classifier = model.classifier
    tally = ClusterTally(classifier.tally.pixels.astype(np.int32), classifier.tally.attention)
    other_types = replace(
        classifier,
        of_cluster=classifier.of_cluster.astype(np.uint8),
        mean=classifier.mean.astype(np.float64),
        tally=tally,
        semantic_distance=np.float64(classifier.semantic_distance),
    )
    assert model_bytes(replace(model, classifier=other_types)) == model_bytes(model)


def _edited(source, folder, changes, drop=()):
    """Copy a model file with some members changed or left out, and correct checksums."""
    target = folder / "m.hrvol"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name not in drop:
                new.writestr(name, changes.get(name, old.read(name)))
    return target


def _refused(path, match):
    with pytest.raises(ModelError, match=match) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "expected" in message


def _array(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def _stored(path, name):
    with zipfile.ZipFile(path) as archive:
        return np.load(io.BytesIO(archive.read(f"{name}.npy")))


@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_garbled_or_misshapen_array_is_refused(saved, tmp_path, name):
    member = f"{name}.npy"
    _refused(_edited(saved, tmp_path, {}, drop=[member]), f"found no {name}")
    for data in (b"", b"garbage", _array(np.zeros((2, 2, 2), np.float32)), _array(np.array(["a", "b"]))):
        _refused(_edited(saved, tmp_path, {member: data}), member)
    values = _stored(saved, name)
    _refused(_edited(saved, tmp_path, {member: _array(values[:-1])}), rf"{member}: found .*\(")
    other = values.astype(np.float32 if values.dtype.kind == "i" else np.int64)
    _refused(_edited(saved, tmp_path, {member: _array(other)}), f"{member}: found .* numbers")


@pytest.mark.parametrize("name", ["centroids", "mean", "scale", "attention"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(saved, tmp_path, name, bad):
    values = _stored(saved, name).copy()
    values.flat[1] = bad
    _refused(_edited(saved, tmp_path, {f"{name}.npy": _array(values)}), f"{name}.npy: found NaN or infinity")


@pytest.mark.parametrize(
    "values",
    [
        [1, 1, 1, 2, 2, 1, 3, 3, 4],  # not in order
        [1, 1, 1, 1, 1, 1, 3, 3, 4],  # 2 is missing
        [0, 0, 1, 1, 2, 2, 3, 3, 4],  # from 0, which is no class
        [2, 2, 2, 2, 3, 3, 4, 4, 5],
        [-1, 1, 1, 2, 2, 2, 3, 3, 4],
    ],
)
def test_classes_out_of_order_are_refused(saved, tmp_path, values):
    _refused(
        _edited(saved, tmp_path, {"of_cluster.npy": _array(np.array(values))}), "found classes out of order"
    )


def test_other_classes_than_named_are_refused(saved, tmp_path):
    fewer = _array(np.array([1, 1, 1, 1, 1, 1, 2, 2, 3]))
    _refused(
        _edited(saved, tmp_path, {"of_cluster.npy": fewer}), r"found classes \(1, 2, 3, 4\), expected \(1, 2"
    )


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_a_scale_of_0_or_less_is_refused(saved, tmp_path, bad):
    values = _stored(saved, "scale").copy()
    values[2] = bad
    _refused(
        _edited(saved, tmp_path, {"scale.npy": _array(values)}),
        rf"scale\.npy: found {bad:g}, expected values above 0",
    )


def _with_info(path, folder, drop=None, **changes):
    with zipfile.ZipFile(path) as archive:
        info = json.loads(archive.read("info.json"))
    info["clusters"].update(changes)
    info["clusters"].pop(drop, None)
    return _edited(path, folder, {"info.json": json.dumps(info).encode()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 8}, r"of_cluster\.npy: found int64 \(9,\), expected numbers of shape \(8,\)"),
        ({"count": 0}, r"info\.json: clusters\.count: found 0, expected a number greater"),
        ({"count": -9}, r"clusters\.count: found -9, expected"),
        (
            {"count": 10**9},
            r"clusters\.count: found 1000000000, expected a number less than or equal to 4095",
        ),
        ({"count": 4000}, "found 4000 clusters, expected at most the 9 of the recipe"),
        ({"count": "nine"}, r"clusters\.count: found 'nine', expected an integer"),
        ({"count": None}, r"clusters\.count: found null, expected an integer"),
        ({"count": float("inf")}, "found the number Infinity"),
        ({"temperature": 0}, r"clusters\.temperature: found 0, expected a number greater than 0"),
        ({"temperature": -1}, r"clusters\.temperature: found -1, expected"),
        ({"temperature": float("nan")}, "found the number NaN"),
        ({"temperature": "warm"}, r"clusters\.temperature: found 'warm', expected a number"),
        ({"semantic_distance": "far"}, r"semantic_distance: found 'far', expected a number or null"),
        (
            {"position": {"degree": 2, "columns": 7}},
            "found a position field of 7 columns, expected at most 6",
        ),
        ({"position": {"degree": 10**6, "columns": 2}}, r"clusters\.position\.degree: found 1000000"),
        ({"drop": "attention"}, "clusters: found no attention, expected one"),
        ({"drop": "count"}, "clusters: found no count, expected one"),
    ],
)
def test_inconsistent_values_are_refused(saved, tmp_path, changes, message):
    _refused(_with_info(saved, tmp_path, **changes), message)


@pytest.mark.parametrize("entry", [None, [], "clusters", 3])
def test_another_kind_of_entry_is_refused(saved, tmp_path, entry):
    with zipfile.ZipFile(saved) as archive:
        info = json.loads(archive.read("info.json")) | {"clusters": entry}
    _refused(_edited(saved, tmp_path, {"info.json": json.dumps(info).encode()}), "found .*expected")


@pytest.mark.parametrize("counts", [np.zeros(9, np.int64), np.arange(9), np.arange(-4, 5)])
def test_clusters_without_pixels_are_refused(saved, tmp_path, counts):
    _refused(
        _edited(saved, tmp_path, {"pixels.npy": _array(counts)}),
        r"pixels\.npy: found a cluster of -?\d pixels",
    )


def test_a_file_cut_short_anywhere_is_refused(saved, tmp_path):
    data = saved.read_bytes()
    path = tmp_path / "m.hrvol"
    for end in np.linspace(0, len(data) - 1, 40).astype(int):
        path.write_bytes(data[:end])
        _refused(path, "damaged")


def test_a_changed_byte_is_refused_or_harmless(saved, tmp_path):
    data = saved.read_bytes()
    expected = load_model(saved).classifier.assign(FEATURES)
    path = tmp_path / "m.hrvol"
    rng = np.random.default_rng(0)
    refused = 0
    for offset in [*rng.integers(0, len(data), 60), *rng.integers(len(data) - 700, len(data), 60)]:
        damaged = bytearray(data)
        damaged[offset] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            loaded = load_model(path)
        except ModelError:
            refused += 1
        else:
            np.testing.assert_array_equal(loaded.classifier.assign(FEATURES), expected)
    assert refused > 60


def test_classes_and_channels_match_the_classifier():
    model = _model(classes=4)
    with pytest.raises(ModelError, match=r"found classes \(1, 2, 3\), expected \(1, 2, 3, 4\)"):
        replace(model, classes=model.classes[:3])
    with pytest.raises(ModelError, match="found 5 channels, expected 6"):
        replace(model, channels=model.channels[:5])
    assert isinstance(model.classifier.tally, ClusterTally)
