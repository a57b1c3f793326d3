"""A student is saved and loaded as it is, and a file that is no student is refused in one line."""

import io
import json
import math
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner
from crafted import claiming, expanding, members, with_json, with_members
from student_data import BESIDE, CUBIC, FLAT, KINDS, student_model, taught
from test_crafted_models import ODD, refused

from hrvol.cli.info import info as command
from hrvol.errors import ModelError
from hrvol.info import describe
from hrvol.recipe.recipe import Recipe
from hrvol.segment.model.archive import zip_bytes
from hrvol.segment.model.model import load_model, model_bytes, read_model, save_model
from hrvol.segment.student.lattice import least_memory
from hrvol.segment.student.spec import SIZES, StudentSpec
from hrvol.segment.student.student import channel_names

TAUGHT = {
    "teacher": {"sha256": "ab" * 32, "source": "phases.hrvol"},
    "volume": {"source": "a\udc80.zarr", "sha256": "cd" * 32},
    "grey": {"mean": 0.5, "std": 0.1},
    "tiles": [[0, 1, 2], [3, 4, 5]],
    "agreement": {"mean": 0.93, "pore": None},
}
MEMBER = "student.safetensors"


@pytest.fixture(scope="module")
def made():
    return model_bytes(student_model(FLAT, taught=TAUGHT, temperature=1.5))


@pytest.mark.parametrize("spec", [*KINDS.values(), *SIZES.values()], ids=[*KINDS, *SIZES])
def test_a_student_is_loaded_as_it_was_saved(tmp_path, spec):
    model = student_model(spec, (2, 5, 300), taught=TAUGHT, temperature=0.7)
    save_model(model, tmp_path / "s.hrvol")
    loaded = load_model(tmp_path / "s.hrvol")
    for name in ("recipe", "classes", "window", "weights_sha256", "channels", "versions", "trained_on"):
        assert getattr(loaded, name) == getattr(model, name), name
    before, after = model.classifier, loaded.classifier
    assert (after.spec, after.classes, after.temperature) == (before.spec, before.classes, before.temperature)
    assert after.taught == TAUGHT
    assert after.arrays.keys() == before.arrays.keys()
    for name, values in before.arrays.items():
        assert values.tobytes() == after.arrays[name].tobytes()
    assert model_bytes(loaded) == model_bytes(model) == (tmp_path / "s.hrvol").read_bytes()


def test_there_is_no_pickle_in_the_file_and_weights_are_stored_as_they_are(made):
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        stored = {entry.filename: entry.compress_type for entry in archive.infolist()}
    assert sorted(stored) == ["classes.json", "info.json", "recipe.json", MEMBER, "window.npy"]
    assert stored[MEMBER] == zipfile.ZIP_STORED


def test_earlier_versions_are_shown_another_format_version(made):
    assert json.loads(members(made)["info.json"])["format_version"] == 2
    for wrong in (1, 3, None):
        refused(
            with_json(made, "info.json", lambda values, wrong=wrong: values.update(format_version=wrong)),
            f"m.hrvol: found format version {wrong}, expected 2",
        )
    plain = with_json(made, "info.json", lambda values: values.pop("student") and None)
    refused(plain, "found format version 2, expected 1")


def test_what_a_student_was_taught_is_finite_json():
    for odd in (float("nan"), {1, 2}, b"x"):
        with pytest.raises(ModelError, match=r"taught: found .*, expected finite JSON values"):
            model_bytes(taught(student_model(), agreement=odd))


def test_info_describes_a_student(tmp_path, made):
    (tmp_path / "s.hrvol").write_bytes(made)
    values = json.loads(json.dumps(describe(str(tmp_path / "s.hrvol"))))
    assert (values["kind"], values["classifier"], values["dimensions"]) == ("model", "student", "2D")
    assert values["widths"] == [4, 8]
    assert values["parameters"] == sum(v.size for v in student_model(FLAT).classifier.arrays.values())
    assert values["flop_per_voxel"] > 100
    assert values["context"] == list(FLAT.halo)
    assert values["temperature"] == 1.5
    assert values["taught"] == TAUGHT
    for spec, kind in ((BESIDE, "2.5D"), (CUBIC, "3D")):
        save_model(student_model(spec), tmp_path / "other.hrvol")
        assert describe(str(tmp_path / "other.hrvol"))["dimensions"] == kind


def test_info_shows_what_a_student_was_taught_in_a_few_rows(tmp_path, made):
    (tmp_path / "s.hrvol").write_bytes(made)
    rows = CliRunner().invoke(command, [str(tmp_path / "s.hrvol")]).output.splitlines()
    shown = {row[:19].strip(): row[19:].strip() for row in rows}
    assert shown["classifier"] == "student"
    assert shown["dimensions"] == "2D"
    assert shown["widths"] == "4 x 8"
    assert shown["temperature"] == "1.5"
    assert shown["taught: teacher"] == f"sha256 {'ab' * 32}, source phases.hrvol"
    assert shown["taught: volume"].startswith(r"source a\udc80.zarr, sha256 cd")
    assert shown["taught: agreement"] == "mean 0.93"
    assert len(rows) < 20


# -- files made to crash, to fill the memory or to label wrongly ------------------------------------------


def entry(**changes):
    return lambda data: with_json(data, "info.json", lambda values: values["student"].update(changes))


def spec(**changes):
    return lambda data: with_json(data, "info.json", lambda values: values["student"]["spec"].update(changes))


def info(**changes):
    return lambda data: with_json(data, "info.json", lambda values: values.update(changes))


def arrays(change):
    """Return a change of the weights, which get another name, shape or type."""

    def make(data):
        stored = safetensors.numpy.load(members(data)[MEMBER])
        change(stored)
        return with_members(data, student__safetensors=safetensors.numpy.save(stored))

    return make


def raw(change):
    return lambda data: with_members(data, student__safetensors=change(members(data)[MEMBER]))


def put(name, value):
    def change(stored):
        stored[name] = value(stored[name]) if callable(value) else value

    return change


def with_one(value):
    def change(values):
        values.flat[3] = value
        return values

    return change


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def header(**changes):
    """Return a change of the description of the first array."""

    def change(weights):
        size = int.from_bytes(weights[:8], "little")
        values = json.loads(weights[8 : 8 + size])
        first = next(key for key in values if key != "__metadata__")
        values[first].update(changes)
        text = json.dumps(values).encode()
        return len(text).to_bytes(8, "little") + text + weights[8 + size :]

    return raw(change)


HOSTILE = {
    "no student": (info(student=None), "student: found a NoneType, expected a mapping"),
    "a list": (info(student=[1]), "student: found a list, expected a mapping"),
    "no spec": (info(student={"temperature": 1.0, "taught": {}}), "student: found no spec, expected one"),
    "no temperature": (entry(temperature=None), "temperature: found null, expected a number"),
    "a temperature of 0": (entry(temperature=0), "temperature: found 0, expected a number greater"),
    "a huge temperature": (entry(temperature=1e9), "temperature: found 1000000000.0, expected a number less"),
    "a negative temperature": (entry(temperature=-1.5), "temperature: found -1.5, expected"),
    "an unknown key": (spec(depth=3), "spec.depth: unknown key"),
    "a wide level": (spec(widths=[4, 10**6]), r"spec.widths\[1\]: found 1000000, expected"),
    "many levels": (spec(widths=[4] * 99), "spec.widths: found .* expected a list of at most 6 values"),
    "no levels": (spec(widths=[]), "spec.widths: found"),
    "another number of pools": (spec(pools=[]), "spec.pools: found 0 entries, expected 1 for 2 widths"),
    "a pool of 3": (spec(pools=[[1, 3, 3]]), r"spec.pools\[0\]\[1\]: found 3, expected 1, 2 or 4"),
    "a deep alignment": (
        spec(widths=[4] * 5, pools=[[1, 4, 4]] * 4, depth_kernels=[1] * 5),
        "spec.pools: found factors whose product is 512, expected at most 64",
    ),
    "many planes": (spec(planes=10**9), "spec.planes: found 1000000000, expected"),
    "planes and volumes": (spec(planes=3, depth_kernels=[3, 3]), "spec.planes: found 3 planes as channels"),
    "another normalisation": (spec(normalisation="global"), "spec.normalisation: found 'global', expected"),
    "the memory of a machine": (
        spec(
            widths=[1024] * 6,
            pools=[[4, 2, 2]] * 3 + [[1, 2, 2]] * 2,
            stem=[1, 1, 1],
            depth_kernels=[3] * 6,
            encoder_convolutions=4,
            decoder_convolutions=4,
        ),
        "needs .* GiB for its smallest window, expected at most 4",
    ),
    "too many weights": (
        spec(widths=[1024, 1024], encoder_convolutions=4, decoder_convolutions=4),
        "found a network of .* weights, expected at most 67,108,864",
    ),
    "a larger network": (spec(widths=[8, 16]), "student.safetensors: found .* bytes, expected more than"),
    "a smaller network": (spec(widths=[2, 2]), "weight: found F32|expected at most"),
    "another network": (spec(encoder_convolutions=1, decoder_convolutions=2), "student.safetensors: "),
    "channels of another": (info(channels=["a"]), "found 1 channels from 'a', expected 1 from 'grey value'"),
    "weights of a network": (info(weights_sha256="ab" * 32), "found a student and a classifier"),
    "estimators": (info(members=[{"name": "all", "columns": [0, 1]}]), "found a student and a classifier"),
    "no knowledge": (entry(taught=None), "taught: found a NoneType, expected a mapping"),
    "deep knowledge": (entry(taught={"a": nested(500)}), "taught: found values nested more than 12 deep"),
    "wide knowledge": (entry(taught={"a": ["b" * 100] * 20_000}), "taught: found more than 1,048,576 bytes"),
    "another digest": (entry(taught={"volume": {"sha256": "x"}}), "taught: volume.sha256: found 'x'"),
    "a volume that is text": (entry(taught={"volume": "v.zarr"}), "taught: volume: found 'v.zarr', expected"),
    "dark grey": (entry(taught={"grey": {"mean": -1, "std": 0.1}}), "taught: grey.mean: found -1, expected"),
    "half of grey": (entry(taught={"grey": {"mean": 0.1}}), "taught: grey: found no std, expected one"),
    "no weights": (
        lambda data: zip_bytes({name: held for name, held in members(data).items() if name != MEMBER}),
        "found no student.safetensors, expected one in the file",
    ),
    "text as weights": (raw(lambda weights: b"x" * len(weights)), "student.safetensors: found"),
    "half of the weights": (raw(lambda weights: weights[: len(weights) // 2]), "expected more than"),
    "many bytes": (raw(lambda weights: weights + bytes(10**6)), "bytes, expected at most"),
    "a header of terabytes": (
        raw(lambda weights: (2**42).to_bytes(8, "little") + weights[8:]),
        "student.safetensors: found .*, expected weights",
    ),
    "an array of terabytes": (header(shape=[2**40]), "student.safetensors: found .*, expected weights"),
    "offsets beyond": (header(data_offsets=[0, 2**50]), "student.safetensors: found .*, expected weights"),
    "an array missing": (arrays(lambda stored: stored.pop("head.bias")), "found no head.bias|bytes"),
    "an array more": (arrays(put("a\x1b[31m", np.zeros(1, np.float32))), r"found the array a\\x1b\[31m"),
    "half precision": (
        arrays(put("head.weight", lambda values: np.repeat(values.astype(np.float16), 2, 0))),
        r"head.weight: found F16 \(24, 4, 3, 3\), expected F32 \(12, 4, 3, 3\)",
    ),
    "another shape": (
        arrays(put("head.weight", lambda values: values.reshape(4, 12, 3, 3))),
        r"head.weight: found F32 \(4, 12, 3, 3\)",
    ),
    "NaN": (arrays(put("head.weight", with_one(np.nan))), "head.weight: found NaN or infinity"),
    "infinity": (arrays(put("encoder.0.0.0.bias", with_one(np.inf))), "encoder.0.0.0.bias: found NaN or"),
    "a bomb": (lambda data: expanding(data, MEMBER), "found .* bytes, expected at most"),
    "a bomb that claims little": (
        lambda data: claiming(expanding(data, MEMBER), MEMBER, 20_000),
        "student.safetensors: found|damaged",
    ),
}


@pytest.mark.parametrize(("change", "match"), HOSTILE.values(), ids=HOSTILE)
def test_a_file_of_something_else_is_refused(made, change, match):
    refused(change(made), match)


@pytest.mark.parametrize("key", ["student", "spec", "temperature", "taught"])
def test_odd_values_of_a_student_are_refused(made, key):
    for value in ODD:
        if (key, value) in (("temperature", True), ("temperature", 3), ("temperature", 2.5), ("taught", {})):
            continue
        if key == "taught" and value == {"a": 1}:
            continue
        refused((info if key == "student" else entry)(**{key: value})(made), "m.hrvol")


def test_too_many_classes_are_refused():
    model = student_model(
        StudentSpec(widths=(1,), stem=(1, 4, 4), pools=(), depth_kernels=(1,)), range(1, 257)
    )
    refused(model_bytes(model), "found 256 classes, expected at most 255")


def test_every_size_needs_far_less_memory_than_is_allowed():
    for size in SIZES.values():
        assert least_memory(size, 20) < 2**28
    assert math.isclose(least_memory(FLAT, 3), 176**2 * 4 * max(2 * 2 + 3 * 1, 1 + 9))


def test_models_without_a_student_are_written_as_before(model):
    values = json.loads(members(model_bytes(model))["info.json"])
    assert values["format_version"] == 1
    assert "student" not in values


def test_a_recipe_belongs_to_the_model(made):
    loaded = read_model(made, "s.hrvol")
    assert loaded.recipe == Recipe()
    assert loaded.channels == channel_names(FLAT)
    assert read_model(model_bytes(replace(loaded, window=(1.0, 2.0))), "s").window == (1.0, 2.0)
