"""The same strokes, wherever they are from, give the same model, bit for bit, and the same scores."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import zarr
from run_data import QUICK, draw, make_volume
from strokes_data import stored, write_ome, write_project

from hrvol.analysis.evaluate import evaluate_volumes
from hrvol.distil.distil import distil_model
from hrvol.errors import StrokesError
from hrvol.recipe.recipe import Recipe
from hrvol.segment.model.model import model_bytes
from hrvol.training.strokes import open_pairs
from hrvol.training.train import train_model
from hrvol.training.tuning.held_out import hold_out
from hrvol.volume.strokes.source import StrokesSource

CROP = np.s_[0:4, 20:120, 10:100]

FORMS = ("array", "tif", "cropped", "cropped by hand", "sparse", "sharded", "v2", "ilp", "csv", "painted")


@pytest.fixture(scope="module")
def volume():
    return make_volume()[0]


@pytest.fixture(scope="module")
def strokes():
    drawn = np.zeros_like(make_volume()[1])
    drawn[CROP] = draw(make_volume()[1])[CROP]
    return drawn


@pytest.fixture(scope="module")
def forms(tmp_path_factory, volume, strokes):
    """Sources of the same strokes on the volume ``volume.zarr``."""
    folder = tmp_path_factory.mktemp("forms")
    write_ome(folder / "volume.zarr", volume, (3, 2, 1), (1, 0.5, 0.5))
    tifffile.imwrite(folder / "strokes.tif", strokes)
    write_ome(folder / "crop.zarr", strokes[CROP], (3, 12, 6), (1, 0.5, 0.5))
    write_ome(folder / "sparse.zarr", strokes, (3, 2, 1), (1, 0.5, 0.5))
    sharded = zarr.create_array(
        folder / "sharded.zarr", shape=strokes.shape, dtype="u2", chunks=(1, 16, 16), shards=(1, 64, 64)
    )
    sharded[...] = strokes
    old = zarr.create_array(
        folder / "v2.zarr", shape=strokes.shape, dtype=">u2", chunks=(2, 16, 16), fill_value=0, zarr_format=2
    )
    old[...] = strokes
    write_project(folder / "scan.ilp", [("scan", strokes)])
    places, values = stored(strokes)
    rows = [f"{z},{y},{x},{value}" for (z, y, x), value in zip(places, values, strict=True)]
    order = np.random.default_rng(0).permutation(len(rows))
    (folder / "points.csv").write_text("\n".join(["z,y,x,class", *(rows[i] for i in order)]))
    return folder / "volume.zarr", {
        "array": strokes,
        "tif": folder / "strokes.tif",
        "cropped": folder / "crop.zarr",
        "cropped by hand": StrokesSource(strokes[CROP], (0, 20, 10)),
        "sparse": folder / "sparse.zarr",
        "sharded": folder / "sharded.zarr",
        "v2": folder / "v2.zarr",
        "ilp": folder / "scan.ilp",
        "csv": folder / "points.csv",
        "painted": str(folder / "scan.ilp") + "::scan",
    }


def model_of(volume, source):
    model = train_model([(volume, source)], recipe=QUICK, classes=["matrix", "disc"])
    (entry,) = model.trained_on
    return model_bytes(replace(model, trained_on=(entry | {"strokes": "strokes"},)))


@pytest.fixture(scope="module")
def expected(forms):
    return model_of(forms[0], forms[1]["array"])


@pytest.mark.parametrize("form", FORMS[1:])
def test_the_model_is_bit_identical(forms, expected, form):
    assert model_of(forms[0], forms[1][form]) == expected


def test_other_strokes_give_another_model(forms, strokes, expected):
    other = strokes.copy()
    other[3, 60:62] = 0
    assert model_of(forms[0], other) != expected


def test_pixels_and_folds_of_tuning_are_the_same(forms):
    recipe = Recipe.load(QUICK)
    found = []
    for source in forms[1].values():
        held_out = hold_out(open_pairs([(forms[0], source)], None), recipe, 0, 4)
        found.append((held_out.pixels.where.tobytes(), held_out.folds.of.tobytes(), held_out.description))
    assert len(set(found)) == 1
    assert found[0][0]


def test_figures_are_the_same(forms, strokes):
    predicted = np.where(np.random.default_rng(0).random(strokes.shape) < 0.8, make_volume()[1], 1)
    figures = [evaluate_volumes(predicted, source, classes=["a", "b"]) for source in (strokes,)]
    for form in ("tif", "cropped by hand", "sharded", "v2", "ilp", "csv"):
        figures.append(evaluate_volumes(predicted, forms[1][form], classes=["a", "b"]))
    assert all(one == figures[0] for one in figures)
    assert 0 < figures[0]["miou"] < 1
    assert set(evaluate_volumes(predicted, forms[1]["ilp"])["iou"]) == {"matrix", "fibre"}


def test_students_are_compared_on_the_same_strokes(tmp_path, monkeypatch, forms, volume, strokes):
    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path))
    model = train_model([(volume, strokes)], recipe=QUICK)
    scores = []
    for form in ("array", "sharded", "ilp", "cropped by hand"):
        report = distil_model(
            volume,
            model,
            tiles=4,
            steps=2,
            size="small",
            volumetric="off",
            accept=True,
            held_out=forms[1][form],
        )
        scores.append(report.on_strokes)
    assert scores[0] is not None
    assert all(score == scores[0] for score in scores)


def test_names_and_colours_of_a_project_reach_the_model(forms):
    model = train_model([(forms[0], forms[1]["ilp"])], recipe=QUICK)
    assert [(info.name, info.colour) for info in model.classes] == [
        ("matrix", (255, 225, 25)),
        ("fibre", (0, 130, 200)),
    ]


def test_sources_that_name_classes_differently_are_refused(tmp_path, forms, strokes):
    write_project(
        tmp_path / "other.ilp", [("scan", 3 - strokes * (strokes > 0))], names=("fibre", "matrix", "x")
    )
    pairs = [(forms[0], forms[1]["ilp"]), (forms[0], tmp_path / "other.ilp")]
    with pytest.raises(StrokesError, match=r"found class fibre as 1, expected 2 as in .*scan\.ilp"):
        train_model(pairs, recipe=QUICK)
