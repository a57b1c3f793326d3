"""What a user imports, and the scripts a user copies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hrvol
from hrvol.errors import HrvolError, RecipeError
from hrvol.recipe.recipe import PRESETS, Recipe
from hrvol.recipe.specs import ClusterSpec, CrfSpec, DeepSpec

ROOT = Path(__file__).parents[1]


def test_public_names_exist_and_are_documented():
    for name in hrvol.__all__:
        assert getattr(hrvol, name).__doc__, name
    assert set(dir(hrvol)) >= set(hrvol.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = hrvol.nonsense


def test_importing_hrvol_imports_nothing_heavy():
    code = "import sys, hrvol, hrvol.cli, hrvol.recipe.recipe; print([m for m in sys.modules if m in %r])"
    heavy = ("torch", "dask", "distributed", "napari", "sklearn", "zarr")
    found = subprocess.run(
        [sys.executable, "-c", code % (heavy,)], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


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
        ("featurs: {}", "featurs: Extra inputs are not permitted"),
        ("features: {deep: {block: 0}}", r"features\.deep\.block.*got 0"),
        ("intensity: {window: [5, 1]}", "low < high"),
        ("tiles: {core: 64, overlap: 40}", "more than half of core"),
        ("combine: product\nfeatures: {kind: deep}", "needs features.kind: hybrid"),
        ("features: {deep: {stride: 4, offsets: 4}}", "needs stride: native"),
        ("cluster: {classes: 81}", "classes: found 81, expected at most the number of clusters, 80"),
        ("cluster: {clusters: 5, classes: 6}", r"cluster: .*found 6, .*clusters, 5"),
        ("cluster: {clusters: 1}", r"cluster\.clusters: .*greater than or equal to 2.*got 1"),
        ("cluster: {clusters: 5000}", r"cluster\.clusters: .*less than or equal to 4095"),
        ("cluster: {merge: 0}", r"cluster\.merge: .*greater than 0.*got 0"),
        ("cluster: {classes: 0}", r"cluster\.classes: .*greater than or equal to 1"),
        ("cluster: {distance: manhattan}", r"cluster\.distance: .*'cosine' or 'euclidean'"),
        ("cluster: {edge: middle}", r"cluster\.edge: .*'lower', 'centre' or 'upper'"),
        ("cluster: {samples: 1}", r"cluster\.samples: .*greater than or equal to 2"),
        ("cluster: {sample_tiles: 0}", r"cluster\.sample_tiles: .*greater than or equal to 1"),
        ("cluster: {bins: 0}", r"cluster\.bins: .*greater than or equal to 1"),
        ("cluster: {cluster: 5}", r"cluster\.cluster: Extra inputs are not permitted"),
        ("crf: {sxy_gauss: 0}", r"crf\.sxy_gauss: .*greater than 0.*got 0"),
        ("crf: {srgb: -1}", r"crf\.srgb: .*greater than 0"),
        ("crf: {compat_bilateral: -1}", r"crf\.compat_bilateral: .*greater than or equal to 0"),
        ("crf: {iterations: 0}", r"crf\.iterations: .*greater than or equal to 1"),
        ("crf: {confidence: 1}", r"crf\.confidence: .*less than 1"),
        ("crf: {colour: 3}", r"crf\.colour: Extra inputs are not permitted"),
        ("crf: yes", r"crf: .*got True"),
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
    ["seed: 0", "features: {kind: hybrid}", "features: {deep: {flips: true}}", "features: {deep: {}}"],
)
def test_a_recipe_that_says_little_is_the_default_in_all_else(text, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    assert Recipe.load(file) == PRESETS["balanced"]
    file.write_text("features: {deep: {block: last}}")
    assert Recipe.load(file).features.deep.block == "last"
    file.write_text("features: {deep: {rotations: true}}")
    assert Recipe.load(file) == PRESETS["best"]
    file.write_text("features: {deep: {stride: 7}}")
    assert Recipe.load(file).features.deep == DeepSpec(block=6, stride=7, flips=True)


def test_strided_recipes_need_not_turn_interleaving_off(tmp_path):
    assert DeepSpec.model_validate({"stride": 4}).offsets == 1
    assert DeepSpec.model_validate({}).offsets == 4
    with pytest.raises(RecipeError, match="presets are fast, balanced"):
        Recipe.load("no-such-preset")


def test_a_recipe_says_how_classes_are_found_and_refined(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("cluster: {clusters: 40, classes: 40, distance: euclidean}\ncrf: {}")
    recipe = Recipe.load(file)
    assert recipe.cluster == ClusterSpec(clusters=40, classes=40, distance="euclidean")
    assert recipe.crf == CrfSpec()
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert {PRESETS[name].crf for name in PRESETS} == {None}
    assert {PRESETS[name].features.deep.block for name in ("cas", "cas-volume")} == {9}
    assert PRESETS["cas-paper"].features.deep.block == "last"


def test_every_error_has_an_exit_code_and_a_doc():
    kinds = [HrvolError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {kind.exit_code for kind in kinds} == {1, 2, 75}
    assert all(kind.__doc__ for kind in kinds)


def script(*arguments, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_local_workflow_runs_as_it_stands(tmp_path):
    import tifffile

    from hrvol.phantom import draw_strokes, make_phantom
    from hrvol.volume.volume import class_info, open_labels

    phantom = make_phantom((4, 96, 96), seed=0)
    labels = phantom.labels.clip(max=3)  # the script names three classes
    tifffile.imwrite(tmp_path / "volume.tif", phantom.image, photometric="minisblack")
    strokes = draw_strokes(labels, (1,), strokes=2)
    tifffile.imwrite(tmp_path / "strokes.tif", strokes, photometric="minisblack")
    (tmp_path / "quick.yaml").write_text("features: {kind: classical}\nclassifier: {trees: 5}\n")
    done = script(
        *(ROOT / "workflows" / "local_node.py", "volume.tif", "strokes.tif", "out.ome.zarr"),
        *("--recipe", "quick.yaml", "--workers", "1"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert open_labels(tmp_path / "out.ome.zarr").read().all()
    assert [info.name for info in class_info(tmp_path / "out.ome.zarr")] == ["pore", "binder", "particle"]


def test_the_array_example_runs_as_it_stands(tmp_path):
    done = script(ROOT / "examples" / "train_on_arrays.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 0.45
