"""Wrong recipe files: one line with file, line, column, key path, value found and values expected."""

import pytest

from hrvol.errors import RecipeError
from hrvol.recipe.recipe import PRESETS, Recipe
from hrvol.recipe.specs import ClusterSpec

TOP = "intensity, features, combine, classifier, cluster, crf, tiles, seed"

UNKNOWN_KEYS = {
    "features:\n  deep:\n    ofsets: 3\n": "3:5: features.deep.ofsets: unknown key; did you mean offsets?",
    "features: {deep: {ofsets: 3}}": "1:19: features.deep.ofsets: unknown key; did you mean offsets?",
    "seed: 1\nfeatur: {}\n": "2:1: featur: unknown key; did you mean features?",
    "block: 6": "1:1: block: unknown key; did you mean features.deep.block?",
    "clusters: 6": "1:1: clusters: unknown key; did you mean cluster or cluster.clusters?",
    "kind: deep": "1:1: kind: unknown key; did you mean features.kind or classifier.kind?",
    "# a comment\n\nxyz: 3": f"3:1: xyz: unknown key; expected one of {TOP}",
    "seed: -1\ncombine: sum\nxyz: 3": f"3:1: xyz: unknown key; expected one of {TOP} (and 2 more)",
    "tiles:\n  zzz: 1\n  cores: 2\n": (
        "2:3: tiles.zzz: unknown key; expected one of core, overlap, blend, planes, across,"
        " overlap_planes (and 1 more)"
    ),
}

VALUES = {
    "seed: -1": "1:7: seed: found -1, expected a number greater than or equal to 0",
    "seed: 5000000000": "1:7: seed: found 5000000000, expected a number less than 4294967296",
    "classifier:\n  trees:  many\n": "2:11: classifier.trees: found 'many', expected an integer",
    "classifier: {trees: 2.5}": "1:21: classifier.trees: found 2.5, expected an integer",
    "classifier: {max_depth: a}": "1:25: classifier.max_depth: found 'a', expected an integer or null",
    "classifier: {hidden: 5}": "1:22: classifier.hidden: found 5, expected a list",
    "classifier: {hidden: [5, 0]}": (
        "1:26: classifier.hidden[1]: found 0, expected a number greater than or equal to 1"
    ),
    "classifier:\n  hidden:\n  - 5\n  - x\n": "4:5: classifier.hidden[1]: found 'x', expected an integer",
    "crf: {srgb: red}": "1:13: crf.srgb: found 'red', expected a number",
    "crf: yes": "1:6: crf: found true, expected a mapping of keys or null",
    "tiles:\nseed: 0\n": "1:1: tiles: found null, expected a mapping of keys",
    "tiles: [1, 2]": "1:8: tiles: found [1, 2], expected a mapping of keys",
    "features: {deep: {rotations: 3}}": "1:30: features.deep.rotations: found 3, expected true or false",
    "features: {deep: {weights: 3}}": "1:28: features.deep.weights: found 3, expected text",
    "combine: sum": "1:10: combine: found 'sum', expected 'concatenate' or 'product'",
    "cluster: {edge: {a: 1}}": "1:11: cluster.edge: found a mapping, expected 'lower', 'centre' or 'upper'",
    "features: {deep: {flips: maybe}}": (
        "1:26: features.deep.flips: found 'maybe', expected true, false or 'published'"
    ),
    "features: {deep: {block: first}}": (
        "1:26: features.deep.block: found 'first', expected 'last', an integer or a list"
    ),
    "features: {deep: {block: 0}}": (
        "1:26: features.deep.block: found 0, expected 'last', a number greater than or equal to 1 or a list"
    ),
    "features: {deep: {block: [1, 0]}}": (
        "1:30: features.deep.block[1]: found 0, expected a number greater than or equal to 1"
    ),
    "classifier: {max_features: [1]}": (
        "1:28: classifier.max_features: found [1], expected 'sqrt', 'log2', an integer, a number or null"
    ),
    "intensity: {window: full}": (
        "1:21: intensity.window: found 'full', expected 'auto', 'dtype' or a list of 2 values"
    ),
    "intensity: {window: [5]}": "1:21: intensity.window: found [5], expected a list of 2 values",
    "intensity: {percentiles: []}": "1:26: intensity.percentiles: found [], expected a list of 2 values",
    "seed: a\ncrf: 3\ntiles: {core: 1}": ("1:7: seed: found 'a', expected an integer (and 2 more)"),
}

COMBINATIONS = {
    "seed: 1\ntiles:\n  core: 64\n  overlap: 40\n": (
        "4:12: tiles.overlap: found 40, expected at most half of core, 32"
    ),
    "seed: 1\ntiles:\n  core: 64\n": "2:1: tiles.overlap: found 35, expected at most half of core, 32",
    "intensity: {window: [5, 1]}": (
        "1:21: intensity.window: found [5.0, 1.0], expected [low, high] with low < high"
    ),
    "intensity: {percentiles: [5, 101]}": (
        "1:26: intensity.percentiles: found [5.0, 101.0], expected [low, high] with low < high within 0..100"
    ),
    "combine: product\nfeatures: {kind: deep}": (
        "1:10: combine: found product with features.kind: deep, expected concatenate"
        " (product needs features.kind: hybrid)"
    ),
    "features: {deep: {stride: 4, offsets: 2}}": (
        "1:39: features.deep.offsets: found 2, expected 1 with stride: 4 (more needs stride: native)"
    ),
    "features: {deep: {placement: stretch, offsets: 2}}": (
        "1:48: features.deep.offsets: found 2, expected 1 with placement: stretch"
    ),
    "features: {deep: {placement: stretch, input_scale: 2}}": (
        "1:52: features.deep.input_scale: found 2.0, expected 1 with placement: stretch"
    ),
    "features: {deep: {rotations: true, flips: published}}": (
        "1:43: features.deep.flips: found published, expected true or false with rotations: true"
    ),
    "features: {deep: {block: []}}": (
        "1:26: features.deep.block: found an empty list, expected at least one number"
    ),
    "features: {classical: {filters: [mean, mean]}}": (
        "1:33: features.classical.filters: found ['mean', 'mean'], expected a list of different names"
    ),
    "cluster: {clusters: 5, classes: 6}": (
        "1:33: cluster.classes: found 6, expected at most the number of clusters, 5"
    ),
}

FILES = {
    "": "1:1: found no keys, expected some recipe keys, or {} for the defaults",
    "# seed: 1\n": "1:1: found no keys, expected some recipe keys, or {} for the defaults",
    "- seed: 1": "1:1: found a list, expected a mapping of recipe keys",
    "\n  balanced": "2:3: found text, expected a mapping of recipe keys",
    "null": "1:1: found null, expected a mapping of recipe keys",
    "0": "1:1: found a number, expected a mapping of recipe keys",
    "seed: 1\ncombine: product\nseed: 2\n": "3:1: seed: duplicate key, first found on line 1",
    "features:\n  deep:\n    block: 1\n    block: 2\n": (
        "4:5: features.deep.block: duplicate key, first found on line 3"
    ),
    "tiles: {core: 64, core: 128}": "1:19: tiles.core: duplicate key, first found on line 1",
    "seed: 1\nyes: 2": "2:1: found the key yes, expected text as key",
    "[a]: 2": "1:1: found the key a list or mapping, expected text as key",
    "features:\n\tkind: deep\n": "2:1: not valid YAML: found a tab, expected spaces",
    "features: {deep: {block: 1}\nseed: 1\n": (
        "2:1: not valid YAML: while parsing a flow mapping (line 1), expected ',' or '}', but got '<scalar>'"
    ),
    "a: b: c": "1:5: not valid YAML: mapping values are not allowed here",
    "seed: 2020-99-99": "1:7: not valid YAML: month must be in 1..12",
    "seed: 1\n---\nseed: 2\n": (
        "2:1: not valid YAML: expected a single document in the stream, but found another document"
    ),
    "tiles: &a {core: 64}\ncrf: *b\n": "2:6: not valid YAML: found undefined alias 'b'",
    "seed: \x07": "1:7: not valid YAML: found the control character '\\x07', expected text",
    "seed: !!python/name:os.system x": (
        "1:7: not valid YAML: could not determine a constructor for the tag"
        " 'tag:yaml.org,2002:python/name:os.system'"
    ),
}


@pytest.mark.parametrize(
    ("text", "line"), [*UNKNOWN_KEYS.items(), *VALUES.items(), *COMBINATIONS.items(), *FILES.items()]
)
def test_a_wrong_file_is_one_line_with_the_position(text, line, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_bytes(text.encode())
    with pytest.raises(RecipeError) as caught:
        Recipe.load(file)
    assert str(caught.value) == f"{file}:{line}"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"seed: 1\ncombine: \xc3\xa4\xff", "2:11: found the byte 0xff, expected YAML in UTF-8"),
        ("seed: 1".encode("utf-16"), "1:1: found the byte 0xff, expected YAML in UTF-8"),
        (b"PK\x03\x04", "1:3: not valid YAML: found the control character '\\x03', expected text"),
    ],
)
def test_a_file_that_is_not_text_is_one_line_with_the_position(content, line, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        Recipe.load(file)
    assert str(caught.value) == f"{file}:{line}"


def test_a_file_that_nests_too_deeply_is_one_line(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("[" * 5000)
    with pytest.raises(RecipeError, match=r"my\.yaml: not valid YAML: nested too deeply$"):
        Recipe.load(file)


def test_merged_keys_are_reported_where_they_are_written(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("tiles: &a {core: 128}\ncrf:\n  <<: *a\n  srgb: 9\n")
    with pytest.raises(RecipeError) as caught:
        Recipe.load(file)
    assert str(caught.value) == f"{file}:1:12: crf.core: unknown key; did you mean tiles.core?"
    file.write_text("crf: &a {srgb: 9}\ntiles:\n  <<: *a\n  core: 64\n")
    with pytest.raises(
        RecipeError, match=r"my\.yaml:1:10: tiles\.srgb: unknown key; did you mean crf\.srgb\?"
    ):
        Recipe.load(file)


def test_a_name_that_is_no_file_suggests_the_nearest_preset(tmp_path):
    names = ", ".join(PRESETS)
    for name, hint in (("balancd", "did you mean balanced? "), ("cas_volume", "did you mean cas-volume? ")):
        with pytest.raises(RecipeError) as caught:
            Recipe.load(name)
        assert str(caught.value) == f"{name}: no such recipe file or preset; {hint}presets are {names}"
    missing = tmp_path / "missing.yaml"
    with pytest.raises(RecipeError) as caught:
        Recipe.load(missing)
    assert str(caught.value) == f"{missing}: no such recipe file or preset; presets are {names}"
    with pytest.raises(RecipeError) as caught:
        Recipe.load(tmp_path)
    assert str(caught.value) == f"{tmp_path}: found a folder, expected a recipe file or preset"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"features": {"deep": {"ofsets": 3}}}, "features.deep.ofsets: unknown key; did you mean offsets?"),
        ({"seed": "x", "crf": 5}, "crf: found 5, expected a mapping of keys or null (and 1 more)"),
        ({"tiles": {"core": 64}}, "tiles.overlap: found 35, expected at most half of core, 32"),
        ({1: 2}, "[1]: found 1, expected text as key"),
    ],
)
def test_mappings_of_programs_have_no_position(values, line):
    for source in ("recipe", "m.hrvol: recipe.json"):
        with pytest.raises(RecipeError) as caught:
            Recipe.from_dict(values, source)
        assert str(caught.value) == f"{source}: {line}"


def test_changes_by_dotted_name_are_validated():
    with pytest.raises(RecipeError) as caught:
        Recipe.load("balanced").with_(**{"cluster.classes": 81})
    assert str(caught.value) == (
        "recipe: cluster.classes: found 81, expected at most the number of clusters, 80"
    )


def test_sections_alone_raise_errors_of_pydantic():
    with pytest.raises(ValueError, match="found 81, expected at most the number of clusters, 80"):
        ClusterSpec(classes=81)
