import functools
import hashlib
import io
import json
import os
import runpy
import stat
import subprocess
import sys
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
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.estimators.validate import TRUSTED_TYPES
from hrvol.segment.model.archive import canonical_skops, zip_bytes
from hrvol.segment.model.model import Model, check_weights, load_model, model_bytes, read_model, save_model
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.strokes import Samples

KINDS = ["vote", "forest", "logistic", "ridge", "mlp", "boosting"]
COMBINED = [*((kind, "concatenate") for kind in KINDS), ("forest", "product"), ("mlp", "product")]
GROUPS = {"deep": slice(0, 4), "classical": slice(4, 6)}


def _model(kind="forest", combine="concatenate", trees=12, n_jobs=1):
    rng = np.random.default_rng(0)
    labels = rng.choice([1, 3, 7], 200).astype(np.uint16)
    features = (rng.normal(size=(200, 6)) + labels[:, None] * 0.3).astype(np.float32)
    spec = ClassifierSpec(kind=kind, trees=trees, hidden=(12, 6), max_iter=60 if kind == "mlp" else 1000)
    classifier = PixelClassifier.fit(
        Samples(features, labels, np.zeros(200, np.int32)),
        spec,
        combine=combine,
        groups=GROUPS,
        n_jobs=n_jobs,
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


_once = functools.cache(_model)
QUERY = np.random.default_rng(1).normal(size=(500, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.hrvol"
    save_model(_model(), path)
    return path


def _rewrite(source, target, changes, drop=()):
    """Copy a model file with some members changed (bytes) or left out, and correct checksums."""
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
@pytest.mark.parametrize(("kind", "combine"), COMBINED)
def test_predictions_after_loading_are_the_same_bits(tmp_path, kind, combine):
    model = _once(kind, combine)
    path = tmp_path / "m.hrvol"
    save_model(model, path)
    loaded = load_model(path)
    before, after = (m.classifier.predict_proba(QUERY) for m in (model, loaded))
    assert before.tobytes() == after.tobytes()


def test_everything_else_is_loaded_too(saved):
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


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize(("kind", "combine"), COMBINED)
def test_the_same_model_is_the_same_bytes(tmp_path, kind, combine):
    model = _once(kind, combine)
    data = model_bytes(model)
    assert data == model_bytes(model)
    save_model(model, tmp_path / "m.hrvol")
    assert (tmp_path / "m.hrvol").read_bytes() == data
    loaded = read_model(data, "m")
    assert model_bytes(loaded) == data, "loaded"
    loaded.classifier.predict_proba(QUERY)
    assert model_bytes(loaded) == data, "used"
    assert model_bytes(read_model(model_bytes(loaded), "m")) == data, "loaded twice"
    assert model_bytes(_model(kind, combine, n_jobs=2)) == data, "trained again"


def test_another_model_is_other_bytes():
    model = _model(trees=2)
    data = model_bytes(model)
    for changes in ({"weights_sha256": "cd" * 32}, {"window": (0.1, 65535.4)}, {"trained_on": ()}):
        assert model_bytes(replace(model, **changes)) != data
    tree = model.classifier.members[0].estimator.estimators_[1].tree_
    tree.value[0, 0, 0] = np.nextafter(tree.value[0, 0, 0], 1)
    assert model_bytes(model) != data


_PRINT_DIGESTS = """
import hashlib, runpy, sys
tests, clusters = map(runpy.run_path, sys.argv[1:3])
for model in (
    *(tests["_model"](*each) for each in tests["COMBINED"]),
    clusters["_model"](classes=4),
    tests["load_model"](sys.argv[3]),
):
    print(hashlib.sha256(tests["model_bytes"](model)).hexdigest())
"""


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_skops_knows_all_estimators_although_its_import_is_shortened():
    code = (
        "import sys, hrvol.run.segment; assert 'torch' not in sys.modules\n"
        "from skops.io._trusted_types import SKLEARN_ESTIMATOR_TYPE_NAMES as known\n"
        "from skops.io._utils import get_type_name\n"
        "from sklearn.utils import all_estimators\n"
        "found = {get_type_name(estimator) for _, estimator in all_estimators()}\n"
        "assert set(known) == {name for name in found if name.startswith('sklearn.')} != set()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_process_writes_the_same_bytes(saved):
    clusters = Path(__file__).with_name("test_clusters.py")
    models = [_once(*each) for each in COMBINED]
    models += [runpy.run_path(str(clusters))["_model"](classes=4), load_model(saved)]
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PRINT_DIGESTS, __file__, clusters, saved],
        env=os.environ | {"PYTHONHASHSEED": seed},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [hashlib.sha256(model_bytes(model)).hexdigest() for model in models]


def test_a_file_holds_no_dates_and_no_memory_addresses(saved):
    with zipfile.ZipFile(saved) as archive:
        inner = zipfile.ZipFile(io.BytesIO(archive.read("estimator_all.skops")))
        with inner:
            entries = [*archive.infolist(), *inner.infolist()]
            schema = inner.read("schema.json").decode()
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {(entry.create_system, entry.external_attr >> 16) for entry in entries} == {(3, 0o100644)}
    numbers = []
    json.loads(schema, object_hook=lambda node: numbers.append(node.get("__id__")))
    numbers = {number for number in numbers if number is not None}
    assert numbers == set(range(1, len(numbers) + 1))
    arrays = {entry.filename for entry in entries if entry.filename[0].isdigit()}
    assert arrays == {f"{number}.npy" for number in range(len(arrays))}


def test_padding_between_the_fields_of_a_node_is_not_written():
    model = _model(trees=2)
    data = model_bytes(model)
    tree = model.classifier.members[0].estimator.estimators_[0].tree_
    state = tree.__getstate__()
    nodes = state["nodes"].copy()
    last, start, *_ = nodes.dtype.fields["missing_go_to_left"]
    nodes.view(np.uint8).reshape(len(nodes), -1)[:, start + last.itemsize :] = 0xAB
    tree.__setstate__({**state, "nodes": nodes})
    assert b"\xab" * 7 in tree.__getstate__()["nodes"].tobytes(), "the test fills no padding"
    assert model_bytes(model) == data


def test_equal_values_are_one_object_and_arrays_are_not():
    text, array = "from a recipe", np.arange(3)
    apart = canonical_skops(skops.io.dumps([text, "".join([text[:4], text[4:]]), array, array.copy()]))
    shared = canonical_skops(skops.io.dumps([text, text, array, array]))
    other = canonical_skops(skops.io.dumps([text, "".join([text[:4], text[4:]]), array, array]))
    assert shared == other != apart
    first, second = skops.io.loads(shared)[2:]
    assert first is second
    first, second = skops.io.loads(apart)[2:]
    assert first is not second
    np.testing.assert_array_equal(first, second)


def test_attributes_may_have_the_names_of_skops_entries():
    values = {
        "__id__": 7,
        "file": "a.npy",
        "content": {"__id__": "x", "file": b"\x00\xff"},
        3: np.arange(4.0),
    }
    loaded = skops.io.loads(canonical_skops(skops.io.dumps(values)))
    np.testing.assert_equal(loaded, values)
    assert canonical_skops(skops.io.dumps(loaded)) == canonical_skops(skops.io.dumps(values))


def test_references_within_an_estimator_are_kept():
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(["one", "two", [1.5]]))) as archive:
        schema = json.loads(archive.read("schema.json"))
    for node in list(schema["content"]):  # no version of skops writes these, but all read them
        again = {"__loader__": "CachedNode", "__module__": None, "__class__": None, "__id__": node["__id__"]}
        schema["content"].append(again)
    loaded = skops.io.loads(canonical_skops(zip_bytes({"schema.json": json.dumps(schema).encode()})))
    assert loaded == ["one", "two", [1.5]] * 2
    assert loaded[2] is loaded[5]


@pytest.mark.parametrize("combine", ["concatenate", "product"])
def test_files_of_plain_skops_still_load(tmp_path, combine):
    model = _model(combine=combine)
    save_model(model, tmp_path / "now.hrvol")
    plain = {
        f"estimator_{member.name}.skops": skops.io.dumps(
            member.estimator, compression=zipfile.ZIP_DEFLATED, compresslevel=1
        )
        for member in model.classifier.members
    }
    loaded = load_model(_rewrite(tmp_path / "now.hrvol", tmp_path / "before.hrvol", plain))
    before, after = (m.classifier.predict_proba(QUERY) for m in (model, loaded))
    assert before.tobytes() == after.tobytes()
    assert model_bytes(loaded) == model_bytes(model)


def test_the_untrusted_types_are_those_of_plain_skops():
    for kind in ("forest", "boosting"):
        plain = skops.io.dumps(_model(kind).classifier.members[0].estimator)
        untrusted = skops.io.get_untrusted_types(data=plain)
        assert untrusted == skops.io.get_untrusted_types(data=canonical_skops(plain))
        assert untrusted
        assert set(untrusted) <= set(TRUSTED_TYPES)
    foreign = canonical_skops(skops.io.dumps(FunctionTransformer(func=os.path.join)))
    assert "posixpath.join" in skops.io.get_untrusted_types(data=foreign)
    with pytest.raises(skops.io.exceptions.UntrustedTypesFoundException):
        skops.io.loads(foreign, trusted=list(TRUSTED_TYPES))


def test_a_model_is_read_from_memory_as_from_a_file(saved):
    model = read_model(saved.read_bytes(), "from somewhere")
    assert model.source == "from somewhere"
    assert model_bytes(model) == saved.read_bytes()
    for data in (b"", saved.read_bytes()[:999]):
        with pytest.raises(ModelError, match=r"^from somewhere: found a damaged file or no model"):
            read_model(data, "from somewhere")


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

    monkeypatch.setattr(os, "fsync", fail)  # which may report a full disk
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


def test_saving_to_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be written: No such file or directory"):
        save_model(_model(trees=1), tmp_path / "none" / "m.hrvol")
    with pytest.raises(ModelError):  # a path without a name
        save_model(_model(trees=1), "/")


def _refused(path, match):
    with pytest.raises(ModelError, match=match) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert "expected" in message or "cannot be read" in message


def test_other_files_are_refused(tmp_path):
    _refused(tmp_path / "none.hrvol", "no such file")
    _refused(tmp_path, "found a folder, expected")
    for data in (b"", b"PK\x03\x04", b"not a zip " * 100):
        path = tmp_path / "m.hrvol"
        path.write_bytes(data)
        _refused(path, "a damaged file or no model")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    _refused(
        path, r"found the member word/document\.xml, expected only \.json, \.npy, \.skops, \.safetensors$"
    )


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
    # The archive's directory is at the end: half of the bytes are from there.
    offsets = [*rng.integers(0, len(data), 75), *rng.integers(len(data) - 400, len(data), 75)]
    refused = 0
    for offset in offsets:
        damaged = bytearray(data)
        damaged[offset] ^= int(rng.integers(1, 256))
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
        ({"members": [{"name": "all"}]}, r"info\.json: members\[0\]: found no columns, expected one"),
    ],
)
def test_inconsistent_info_is_refused(saved, tmp_path, changes, message):
    _refused(_rewrite(saved, tmp_path / "m.hrvol", {"info.json": _info(saved, **changes)}), message)


def test_pickled_arrays_are_refused(saved, tmp_path):
    pickled = io.BytesIO()
    np.save(pickled, np.array([0, {}], dtype=object), allow_pickle=True)
    path = _rewrite(saved, tmp_path / "m.hrvol", {"window.npy": pickled.getvalue()})
    _refused(path, "window.npy: found Python objects, expected numbers")


@pytest.mark.parametrize(
    ("foreign", "message"),
    [
        (
            FunctionTransformer(func=os.path.join),
            "found types .*join, .*, expected those of a classifier only",
        ),
        (
            GaussianProcessClassifier(),
            "found types .*GaussianProcessClassifier, expected those of a classifier only",
        ),
        ([1, 2], "found a list"),
    ],
)
def test_an_estimator_of_another_type_is_refused(saved, tmp_path, foreign, message):
    changes = {"estimator_all.skops": skops.io.dumps(foreign)}
    _refused(_rewrite(saved, tmp_path / "m.hrvol", changes), message)


def test_trees_with_node_numbers_out_of_range_are_refused(tmp_path):
    model = _model()
    tree = model.classifier.members[0].estimator.estimators_[0].tree_
    state = tree.__getstate__()
    nodes = state["nodes"].copy()
    nodes["left_child"][0] = 2**40
    tree.__setstate__({**state, "nodes": nodes})
    save_model(model, tmp_path / "m.hrvol")
    _refused(tmp_path / "m.hrvol", "child out of range")


def test_another_scikit_learn_is_named_when_an_estimator_fails(saved, tmp_path):
    versions = {"scikit-learn": "0.1"}
    changes = {"info.json": _info(saved, versions=versions), "estimator_all.skops": skops.io.dumps([1])}
    _refused(_rewrite(saved, tmp_path / "m.hrvol", changes), r"made with scikit-learn 0\.1, installed: \d")


def test_classes_and_channels_match_the_classifier():
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
