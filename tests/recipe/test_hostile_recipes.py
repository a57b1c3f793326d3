"""Recipes that would take memory, time or a fault: each is refused at once, in one line."""

import json
import os
import time

import pytest

from hrvol.errors import RecipeError
from hrvol.recipe.recipe import PRESETS, Recipe

LAUGHS = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
MERGES = "a0: &a0 {b: 1}\n" + "".join(f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))

FILES = {
    LAUGHS + "seed: 1": "found more than 10,000 values, expected fewer",
    LAUGHS + "seed: *a39": "found more than 10,000 values, expected fewer",
    MERGES + "seed: 1": "found more than 10,000 values, expected fewer",
    "seed: &a [*a]": "1:7: found an alias of itself, expected none",
    "a: &a {<<: *a}": "1:4: found an alias of itself, expected none",
    "seed: [" + "1, " * 15_000 + "1]": "1:7: found more than 10,000 values",
    "seed: " + "[" * 60 + "]" * 60: "not valid YAML: nested too deeply",
    "seed: " + "9" * 5000: "1:7: not valid YAML: found an integer of 5000 digits, expected at most 40",
    "seed: 0x" + "f" * 5000: "1:7: not valid YAML: found an integer of 5002 digits, expected at most 40",
    "seed: !!bool abc": "1:7: not valid YAML: found no value of tag:yaml.org,2002:bool",
    "seed: !!timestamp abc": "1:7: not valid YAML: found no value of tag:yaml.org,2002:timestamp",
    "seed: !!float abc": "1:7: not valid YAML: could not convert",
    "seed: !!int " + "1:" * 4000 + "1": "found an integer of 8001 digits, expected at most 40",
    "seed: 1" + " " * 70_000: ": found 70,007 bytes, expected at most 65,536",
    "features: {deep: {input_scale: .nan}}": (
        "1:32: features.deep.input_scale: found nan, expected a finite number"
    ),
    "features: {deep: {input_scale: -.inf}}": "input_scale: found -inf, expected a finite number",
    "intensity: {window: [.nan, 5]}": "intensity.window[0]: found nan, expected a finite number",
    "intensity: {percentiles: [1, .inf]}": "intensity.percentiles[1]: found inf, expected a finite number",
    "crf: {srgb: .nan}": "crf.srgb: found nan, expected a finite number",
    "features: {classical: {sigmas: [1, .nan]}}": "sigmas[1]: found nan, expected a finite number",
    "classifier: {max_features: .inf}": "classifier.max_features: found inf, expected",
    "classifier: {regularisation: .nan}": "found nan, expected a finite number",
    "crf: {srgb: 1.0e+400}": "crf.srgb: found inf, expected a finite number",
}

TOO_LARGE = {
    "features.deep.stride": 65,
    "features.deep.block": 101,
    "features.deep.offsets": 17,
    "features.deep.input_scale": 9,
    "features.classical.sigmas": [65],
    "classifier.samples_per_class": 10**9,
    "classifier.trees": 10**9,
    "classifier.max_features": 10**9,
    "classifier.max_depth": 10**9,
    "classifier.min_samples_leaf": 10**9,
    "classifier.learning_rate": 1e9,
    "classifier.regularisation": 1e300,
    "classifier.hidden": [10**9],
    "classifier.max_iter": 10**9,
    "cluster.clusters": 10**9,
    "cluster.samples": 10**9,
    "cluster.sample_tiles": 10**9,
    "cluster.merge": 1e300,
    "cluster.classes": 10**9,
    "cluster.position_degree": 10**9,
    "cluster.bins": 10**9,
    "crf.iterations": 10**9,
    "crf.sxy_bilateral": 1e300,
    "features.deep.shifts": [10**9],
    "tiles.core": 10**9,
    "tiles.overlap": 10**9,
    "tiles.blend": 10**9,
    "tiles.planes": 10**9,
    "tiles.across": 10**9,
    "seed": 10**39,
}

LONG = {
    "features.deep.shifts": ([1] * 17, "a list of at most 16 values"),
    "features.deep.block": ([1] * 25, "a list of at most 24 values"),
    "features.classical.sigmas": ([1] * 33, "a list of at most 32 values"),
    "classifier.hidden": ([1] * 9, "a list of at most 8 values"),
    "features.deep.weights": ("x" * 101, "text of at most 100 characters"),
}


def nested(name, value):
    for key in reversed(name.split(".")):
        value = {key: value}
    return value


def refused(source, tmp_path, match):
    began = time.process_time()
    with pytest.raises(RecipeError) as caught:
        Recipe.load(source)
    message = str(caught.value)
    assert match in message
    assert message.startswith(str(source))
    assert "\n" not in message
    assert len(message) < 400
    assert time.process_time() - began < 3


@pytest.mark.parametrize(("text", "match"), FILES.items(), ids=range(len(FILES)))
def test_a_harmful_file_is_refused_at_once(text, match, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(text)
    refused(file, tmp_path, match)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", tmp_path, "found a named pipe, expected a recipe file or preset")
    refused("/dev/zero", tmp_path, "found a device, expected a recipe file or preset")
    refused(tmp_path, tmp_path, "found a folder, expected a recipe file or preset")
    with pytest.raises(RecipeError, match="no such recipe file or preset"):
        Recipe.load("a\0b\x1b[31m")
    sparse = tmp_path / "sparse.yaml"
    with sparse.open("wb") as stream:
        stream.truncate(2**40)
    refused(sparse, tmp_path, "found 1,099,511,627,776 bytes, expected at most 65,536")


@pytest.mark.parametrize(("name", "value"), TOO_LARGE.items())
def test_every_number_has_an_upper_bound(name, value, tmp_path):
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict(nested(name, value))
    assert f"{name}" in str(caught.value)
    assert "expected" in str(caught.value)
    assert "less than" in str(caught.value)


def test_a_scale_that_leaves_no_pixels_is_refused():
    with pytest.raises(
        RecipeError, match=r"input_scale: found 1e-09, expected a number greater than or equal to 0\.05"
    ):
        Recipe.from_dict(nested("features.deep.input_scale", 1e-9))


@pytest.mark.parametrize(("name", "value", "expected"), [(name, *rest) for name, rest in LONG.items()])
def test_lists_and_texts_have_bounds(name, value, expected):
    with pytest.raises(RecipeError, match=expected):
        Recipe.from_dict(nested(name, value))


def test_every_number_in_the_schema_has_a_maximum():
    """The reference page is made from it."""

    def numbers(schema, path):
        if schema.get("type") in ("integer", "number"):
            yield path, schema.keys() & {"maximum", "exclusiveMaximum"}
        for key, value in schema.items():
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, dict):
                    yield from numbers(part, f"{path}.{key}")

    bounds = dict(numbers(Recipe.model_json_schema(), ""))
    assert len(bounds) > 30
    # An intensity window is in the units of the volume.
    assert all(bound for path, bound in bounds.items() if "IntensitySpec" not in path)


def test_presets_and_a_repeated_alias_are_fine(tmp_path):
    for preset in PRESETS.values():
        assert Recipe.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset
    file = tmp_path / "my.yaml"
    file.write_text(
        "features: {classical: {sigmas: &s [1, 2]}}\nclassifier: {hidden: *s}\ncluster: &c {bins: 9}\n"
    )
    recipe = Recipe.load(file)
    assert recipe.classifier.hidden == (1, 2)


def test_a_model_with_such_a_recipe_is_refused_too():
    with pytest.raises(RecipeError, match=r"m\.hrvol: recipe\.json: classifier\.trees: found 1000000000"):
        Recipe.from_dict({"classifier": {"trees": 10**9}}, "m.hrvol: recipe.json")
