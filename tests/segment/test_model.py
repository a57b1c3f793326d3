import io
import json
import os
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.preprocessing import FunctionTransformer

from hrvol.classes import default_classes
from hrvol.errors import ModelError
from hrvol.recipe import ClassifierSpec, Recipe
from hrvol.segment.model import Model, check_weights, load_model, save_model
from hrvol.segment.weak import PixelClassifier, Samples

KINDS = ["forest", "logistic", "ridge", "mlp", "boosting"]
GROUPS = {"deep": slice(0, 4), "classical": slice(4, 6)}


def _model(kind="forest", combine="concatenate", trees=12):
    rng = np.random.default_rng(0)
    labels = rng.choice([1, 3, 7], 200).astype(np.uint16)
    features = (rng.normal(size=(200, 6)) + labels[:, None] * 0.3).astype(np.float32)
    spec = ClassifierSpec(kind=kind, trees=trees, hidden=(12, 6))
    classifier = PixelClassifier.fit(
        Samples(features, labels, np.zeros(200, np.int32)), spec, combine=combine, groups=GROUPS
    )
    return Model(
        recipe=Recipe(classifier=spec, combine=combine, seed=5),
        classes=default_classes([1, 3, 7], ["pore", "Bindemittel ä", "crack"]),
        window=(0.1, 65535.3),
        classifier=classifier,
        weights_sha256="ab" * 32,
        channels=tuple(f"c{i}" for i in range(6)),
        trained_on=({"name": "a.ome.zarr", "counts": {"1": 70}},),
    )


QUERY = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.hrvol"
    save_model(_model(), path)
    return path


def _rewrite(source, target, changes, drop=()):
    """Copy a model file with some members changed (bytes) or left out; checksums are right again."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name not in drop:
                new.writestr(name, changes.get(name, old.read(name)))
    return target


def _info(path, **changes):
    with zipfile.ZipFile(path) as archive:
        return json.dumps({**json.loads(archive.read("info.json")), **changes}).encode()


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")  # too few pixels for the network to settle
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("kind", "combine"), [*((k, "concatenate") for k in KINDS), ("forest", "product"), ("mlp", "product")]
)
def test_predictions_after_loading_are_the_same_bits(tmp_path, kind, combine):
    model = _model(kind, combine)
    path = tmp_path / "m.hrvol"
    save_model(model, path)
    loaded = load_model(path)
    before, after = (m.classifier.predict_proba(QUERY) for m in (model, loaded))
    assert before.tobytes() == after.tobytes()


def test_everything_else_comes_back_too(saved):
    model, loaded = _model(), load_model(saved)
    for name in ("recipe", "classes", "window", "weights_sha256", "channels", "versions", "trained_on"):
        assert getattr(loaded, name) == getattr(model, name), name
    assert loaded.source == str(saved)
    assert {"hrvol", "numpy", "scikit-learn"} <= set(loaded.versions)
    assert loaded.classifier.classes == (1, 3, 7)


def test_a_loaded_model_can_be_saved_again(saved, tmp_path):
    again = tmp_path / "again.hrvol"
    save_model(load_model(saved), again)
    first, second = (load_model(p).classifier.predict_proba(QUERY) for p in (saved, again))
    assert first.tobytes() == second.tobytes()


def test_there_is_no_pickle_in_the_file(saved):
    with zipfile.ZipFile(saved) as archive:
        assert sorted(archive.namelist()) == [
            "classes.json",
            "estimator_all.skops",
            "info.json",
            "recipe.json",
            "window.npy",
        ]
        with zipfile.ZipFile(io.BytesIO(archive.read("estimator_all.skops"))) as inner:
            assert {Path(name).suffix for name in inner.namelist()} == {".json", ".npy"}


def test_saving_is_all_or_nothing(saved, tmp_path, monkeypatch):
    path = tmp_path / "m.hrvol"
    path.write_bytes(saved.read_bytes())

    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(skops.io, "dumps", fail)
    with pytest.raises(ModelError, match=r"m\.hrvol: cannot be written: No space left on device"):
        save_model(_model(), path)
    assert path.read_bytes() == saved.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_of_the_old_file_is_not_disturbed(saved, tmp_path):
    path = tmp_path / "m.hrvol"
    path.write_bytes(saved.read_bytes())
    with path.open("rb") as reader:
        save_model(_model(trees=2), path)
        assert reader.read() == saved.read_bytes()
    assert path.stat().st_size < saved.stat().st_size


def test_model_files_have_ordinary_permissions(saved):
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o666 & ~mask


def test_saving_to_no_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be written: No such file or directory"):
        save_model(_model(trees=1), tmp_path / "none" / "m.hrvol")


def _refused(path, match):
    with pytest.raises(ModelError, match=match) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert "expected" in message or "cannot be read" in message


def test_what_is_no_model_is_refused(tmp_path):
    _refused(tmp_path / "none.hrvol", "no such file")
    _refused(tmp_path, "cannot be read: Is a directory")
    for data in (b"", b"PK\x03\x04", b"not a zip " * 100):
        path = tmp_path / "m.hrvol"
        path.write_bytes(data)
        _refused(path, "a damaged file or no model")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    _refused(path, "found no info.json")


def test_a_file_cut_short_anywhere_is_refused(saved, tmp_path):
    data = saved.read_bytes()
    path = tmp_path / "m.hrvol"
    for end in np.linspace(0, len(data) - 1, 60).astype(int):
        path.write_bytes(data[:end])
        _refused(path, "damaged")


def test_a_changed_byte_is_refused_or_harmless(saved, tmp_path):
    data = saved.read_bytes()
    expected = load_model(saved).classifier.predict_proba(QUERY)
    path = tmp_path / "m.hrvol"
    rng = np.random.default_rng(0)
    # The archive's directory is at the end: half of the bytes are taken from there.
    places = [*rng.integers(0, len(data), 75), *rng.integers(len(data) - 400, len(data), 75)]
    refused = 0
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            loaded = load_model(path)
        except ModelError:
            refused += 1
        else:
            assert np.array_equal(loaded.classifier.predict_proba(QUERY), expected)
    assert refused > 75


@pytest.mark.parametrize(
    "name", ["info.json", "recipe.json", "classes.json", "window.npy", "estimator_all.skops"]
)
def test_a_missing_or_garbled_member_is_refused(saved, tmp_path, name):
    _refused(_rewrite(saved, tmp_path / "m.hrvol", {}, drop=[name]), f"found no {name}")
    for data in (b"", b"garbage", b"[1, 2]", b'{"a": "b"}'):
        _refused(_rewrite(saved, tmp_path / "m.hrvol", {name: data}), "m.hrvol")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "found format 'other', expected 'hrvol model'"),
        ({"format_version": 2}, "found format version 2, expected 1"),
        ({"channels": ["a"] * 5}, "found columns 0..6 for all of 5"),
        ({"channels": ["a"] * 7}, "found columns 0..6 for all of 7"),
        ({"members": []}, r"found estimators \[\], expected \['all'\]"),
        ({"members": [{"name": "all", "columns": [0, 5]}]}, "found columns 0..5 for all of 6"),
        ({"members": [{"name": "all"}]}, "damaged entries"),
    ],
)
def test_info_that_does_not_fit_is_refused(saved, tmp_path, changes, message):
    _refused(_rewrite(saved, tmp_path / "m.hrvol", {"info.json": _info(saved, **changes)}), message)


def test_pickled_arrays_are_refused(saved, tmp_path):
    pickled = io.BytesIO()
    np.save(pickled, np.array([0, {}], dtype=object), allow_pickle=True)
    path = _rewrite(saved, tmp_path / "m.hrvol", {"window.npy": pickled.getvalue()})
    _refused(path, "window.npy: found Object arrays cannot be loaded")


@pytest.mark.parametrize(
    ("foreign", "message"),
    [
        (FunctionTransformer(func=os.path.join), "found types .*join"),
        (
            GaussianProcessClassifier(),
            "found a GaussianProcessClassifier, expected a classifier of kind forest",
        ),
        ([1, 2], "found a list"),
    ],
)
def test_an_estimator_of_another_type_is_refused(saved, tmp_path, foreign, message):
    changes = {"estimator_all.skops": skops.io.dumps(foreign)}
    _refused(_rewrite(saved, tmp_path / "m.hrvol", changes), message)


def test_trees_that_lead_out_of_bounds_are_refused(tmp_path):
    model = _model()
    tree = model.classifier.members[0].estimator.estimators_[0].tree_
    state = tree.__getstate__()
    nodes = state["nodes"].copy()
    nodes["left_child"][0] = 2**40
    tree.__setstate__({**state, "nodes": nodes})
    save_model(model, tmp_path / "m.hrvol")
    _refused(tmp_path / "m.hrvol", "child out of place")


def test_another_scikit_learn_is_named_when_an_estimator_fails(saved, tmp_path):
    versions = {"scikit-learn": "0.1"}
    changes = {"info.json": _info(saved, versions=versions), "estimator_all.skops": skops.io.dumps([1])}
    _refused(_rewrite(saved, tmp_path / "m.hrvol", changes), r"made with scikit-learn 0\.1, this is")


def test_a_model_is_consistent_in_itself():
    model = _model(trees=1)
    with pytest.raises(ModelError, match="found classes"):
        replace(model, classes=model.classes[:2])
    with pytest.raises(ModelError, match="found 5 channels, expected 6"):
        replace(model, channels=model.channels[:5])


def test_other_weights_are_refused(saved):
    model = load_model(saved)
    check_weights(model, "ab" * 32, "dinov2_vits14")
    with pytest.raises(ModelError, match=rf"{saved}: found weights dinov2_vitb14 .* cdcd, expected abab"):
        check_weights(model, "cdcd", "dinov2_vitb14")
    with pytest.raises(ModelError, match="None"):
        check_weights(model, None, "none")
    check_weights(replace(model, weights_sha256=None), "cdcd", "dinov2_vitb14")
