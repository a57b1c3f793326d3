"""Recipes: presets, defaults, YAML, the JSON schema, and the commands that show them."""

import json

import pytest
import yaml
from click.testing import CliRunner

from hrvol.cli import main
from hrvol.errors import RecipeError
from hrvol.recipe.recipe import PRESETS, SUMMARIES, Recipe
from hrvol.recipe.spec import Spec, attribute_docs
from hrvol.recipe.specs import ClusterSpec, CrfSpec, DeepSpec


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_hashable_and_round_trip(name, tmp_path):
    recipe = Recipe.load(name)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml())
    assert Recipe.load(file) == recipe
    assert hash(Recipe.load(file)) == hash(recipe)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("featurs: {}", r"featurs: unknown key; did you mean features\?"),
        (
            "features: {deep: {block: 0}}",
            r"features\.deep\.block: found 0, expected .*greater than or equal to 1",
        ),
        ("intensity: {window: [5, 1]}", "low < high"),
        ("tiles: {core: 64, overlap: 40}", r"tiles\.overlap: found 40, expected at most half of core, 32"),
        (
            "combine: product\nfeatures: {kind: deep}",
            r"combine: found product .*needs features\.kind: hybrid",
        ),
        (
            "features: {deep: {stride: 4, offsets: 4}}",
            r"features\.deep\.offsets: found 4, .*needs stride: native",
        ),
        ("cluster: {classes: 81}", "classes: found 81, expected at most the number of clusters, 80"),
        ("cluster: {clusters: 5, classes: 6}", r"cluster\.classes: found 6, .*clusters, 5"),
        ("cluster: {clusters: 1}", r"cluster\.clusters: found 1, .*greater than or equal to 2"),
        ("cluster: {clusters: 5000}", r"cluster\.clusters: .*less than or equal to 4095"),
        ("cluster: {merge: 0}", r"cluster\.merge: found 0, .*greater than 0"),
        ("cluster: {classes: 0}", r"cluster\.classes: .*greater than or equal to 1"),
        ("cluster: {distance: manhattan}", r"cluster\.distance: .*'cosine' or 'euclidean'"),
        ("cluster: {edge: middle}", r"cluster\.edge: .*'lower', 'centre' or 'upper'"),
        ("cluster: {samples: 1}", r"cluster\.samples: .*greater than or equal to 2"),
        ("cluster: {sample_tiles: 0}", r"cluster\.sample_tiles: .*greater than or equal to 1"),
        ("cluster: {bins: 0}", r"cluster\.bins: .*greater than or equal to 1"),
        ("cluster: {cluster: 5}", r"cluster\.cluster: unknown key"),
        ("crf: {sxy_gauss: 0}", r"crf\.sxy_gauss: found 0, .*greater than 0"),
        ("crf: {srgb: -1}", r"crf\.srgb: .*greater than 0"),
        ("crf: {compat_bilateral: -1}", r"crf\.compat_bilateral: .*greater than or equal to 0"),
        ("crf: {iterations: 0}", r"crf\.iterations: .*greater than or equal to 1"),
        ("crf: {confidence: 1}", r"crf\.confidence: .*less than 1"),
        ("crf: {colour: 3}", r"crf\.colour: unknown key"),
        ("crf: yes", r"crf: found true, "),
        ("- a list", "expected a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_bad_recipe_is_one_clear_line(text, problem, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=problem) as caught:
        Recipe.load(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        "seed: 0",
        "features: {kind: hybrid}",
        "features: {deep: {flips: true}}",
        "features: {deep: {rotations: true}}",
        "features: {deep: {}}",
    ],
)
def test_a_recipe_with_few_keys_is_the_default_in_all_else(text, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    assert Recipe.load(file) == PRESETS["balanced"]
    file.write_text("features: {deep: {block: last}}")
    assert Recipe.load(file).features.deep.block == "last"
    for deep, preset in (
        ("rotations: false", "fast"),
        ("weave: 2", "best"),
        ("weave: 0", "balanced-0.1"),
        ("offsets: 2", "balanced-0.1"),
        ("offsets: 2, flips: true, rotations: true", "best-0.1"),
        ("flips: false", "fast-0.1"),
    ):
        file.write_text(f"features: {{deep: {{{deep}}}}}")
        assert Recipe.load(file) == PRESETS[preset], deep
    file.write_text("features: {deep: {stride: 7}}")
    assert Recipe.load(file).features.deep == DeepSpec(block=6, stride=7, flips=True)


def test_strided_recipes_need_not_turn_interleaving_off():
    assert DeepSpec.model_validate({"stride": 4}).offsets == 1
    assert DeepSpec.model_validate({}).offsets == 4
    with pytest.raises(RecipeError, match="presets are fast, balanced"):
        Recipe.load("no-such-preset")


def test_a_recipe_defines_how_classes_are_found_and_refined(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("cluster: {clusters: 40, classes: 40, distance: euclidean}\ncrf: {}")
    recipe = Recipe.load(file)
    assert recipe.cluster == ClusterSpec(clusters=40, classes=40, distance="euclidean")
    assert recipe.crf == CrfSpec()
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert {PRESETS[name].crf for name in PRESETS} == {None}
    assert {PRESETS[name].features.deep.block for name in ("cas", "cas-volume")} == {9}
    assert PRESETS["cas-paper"].features.deep.block == "last"


def run(*arguments):
    done = CliRunner().invoke(main, ["recipe", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("name", PRESETS)
def test_show_prints_every_key_and_loads_back(name, tmp_path):
    file = tmp_path / "shown.yaml"
    file.write_text(run("show", name))
    assert Recipe.load(file) == PRESETS[name]
    assert yaml.safe_load(file.read_text()) == PRESETS[name].to_dict()
    assert run("show", file) == file.read_text()


def test_show_completes_a_file_with_defaults(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("features: {deep: {offsets: 3}}\ncrf: {iterations: 5}\n")
    shown = yaml.safe_load(run("show", file))
    assert shown == Recipe.load(file).to_dict()
    assert (shown["features"]["deep"]["offsets"], shown["crf"]["iterations"]) == (3, 5)


def test_show_refuses_what_is_no_recipe():
    done = CliRunner().invoke(main, ["recipe", "show", "balancd"])
    assert done.exit_code == 2
    assert "balancd: no such recipe file or preset; did you mean balanced?" in done.stderr


def test_list_has_one_line_for_each_preset():
    lines = run("list").splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS) == list(SUMMARIES)
    assert all(len(line.split()) > 2 for line in lines)


def models(model):
    yield model
    for kind in model.__subclasses__():
        if kind.__module__.startswith("hrvol.recipe."):
            yield from models(kind)


@pytest.mark.parametrize("model", list(models(Spec))[1:])
def test_every_key_is_described_once_in_the_docstring(model):
    texts = attribute_docs(model)
    assert list(texts) == list(model.model_fields)
    assert all(texts.values())


def test_the_schema_describes_and_checks_every_key():
    schema = json.loads(run("schema"))
    sections = [schema, *schema["$defs"].values()]
    assert {section["title"] for section in sections} == {model.__name__ for model in list(models(Spec))[1:]}
    for section in sections:
        assert section["description"]
        assert "Attributes" not in section["description"]
        assert section["additionalProperties"] is False
        assert all(field["description"] for field in section["properties"].values())
    deep = schema["$defs"]["DeepSpec"]["properties"]
    assert deep["input_scale"]["description"].startswith("Factor by which the image is resized")
    assert deep["offsets"]["maximum"] == 16
