"""Colour from strokes to labels: better than grey, the same however it is computed, and never mixed up."""

from dataclasses import replace

import numpy as np
import pytest
from colour_data import COLOURED, make_coloured, write_ome
from PIL import Image
from run_data import QUICK, draw

from hrvol.analysis.evaluate import evaluate_volumes
from hrvol.arrays import luminance
from hrvol.distil.distil import distil_model
from hrvol.errors import InputError, OtherRunError, OutputExistsError
from hrvol.interactive.array_drawing import ArrayDrawing
from hrvol.interactive.session import Session
from hrvol.planning.plan_run import plan_run
from hrvol.recipe.specs import CrfSpec, TileSpec
from hrvol.report.write_report import write_report
from hrvol.run.cluster import cluster_volume
from hrvol.run.convert.convert_volume import convert_volume
from hrvol.run.extract_features import extract_features
from hrvol.run.segment import segment_volume
from hrvol.segment.crf import refine, unary_from_probabilities
from hrvol.segment.model.model import load_model, save_model
from hrvol.training.train import train_model
from hrvol.training.tuning.tune import tune_recipe
from hrvol.volume.background.find import find_material
from hrvol.volume.exporters.sources import open_exported
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.volume import open_labels, open_volume
from hrvol.volume.voxel_array import VoxelArray

CLUSTERS = QUICK.with_(
    **{
        "cluster.clusters": 6,
        "cluster.classes": 2,
        "cluster.samples": 2000,
        "features.classical.colour": "channels",
    }
)


def labels_of(path):
    return open_labels(path).read()


@pytest.fixture(scope="module")
def data():
    colours, truth = make_coloured()
    return colours, truth, draw(truth, (0, 2))


@pytest.fixture(scope="module")
def model(data):
    return train_model([(data[0], data[2])], recipe=COLOURED)


@pytest.fixture(scope="module")
def expected(data, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("colour") / "out.ome.zarr"
    segment_volume(data[0], out, model)
    return labels_of(out)


def iou(found, truth):
    return evaluate_volumes(found, truth)["miou"]


def test_colour_tells_apart_what_is_alike_in_grey(data, expected, tmp_path):
    colours, truth, strokes = data
    grey = open_volume(colours, channel="mean")
    of_grey = train_model([(grey, strokes)], recipe=QUICK)
    segment_volume(grey, tmp_path / "grey.ome.zarr", of_grey)
    assert iou(expected, truth) > 0.95
    assert iou(labels_of(tmp_path / "grey.ome.zarr"), truth) < 0.8


def test_the_model_records_colour(model, tmp_path):
    assert model.recipe.features.input == "colour"
    assert model.recipe.features.classical.colour == "channels"
    assert model.channels[0] == "red_original"
    assert model.trained_on[0]["channel"] == "rgb"
    save_model(model, tmp_path / "m.hrvol")
    loaded = load_model(tmp_path / "m.hrvol")
    assert (loaded.recipe, loaded.channels) == (model.recipe, model.channels)


def test_luminance_is_the_default(data):
    found = train_model([(data[0], data[2])], recipe=QUICK)
    grey = train_model([(open_volume(data[0], channel=0), data[2])], recipe=QUICK)
    assert found.channels == grey.channels
    assert found.recipe.features.of_colour
    assert not grey.recipe.features.of_colour
    assert "input" not in grey.recipe.to_dict()["features"]


@pytest.mark.parametrize("across", [1, 2])
def test_tiled_equals_untiled(data, model, tmp_path, across):
    whole = TileSpec(core=448, overlap=12, blend=0)
    cut = TileSpec(core=64, overlap=12, blend=0, planes=1, across=across)
    for name, tiles in (("whole", whole), ("cut", cut)):
        changed = replace(model, recipe=model.recipe.model_copy(update={"tiles": tiles}))
        report = segment_volume(data[0], tmp_path / f"{name}.ome.zarr", changed)
        assert (report.blocks == 1) is (name == "whole")
    np.testing.assert_array_equal(
        labels_of(tmp_path / "cut.ome.zarr"), labels_of(tmp_path / "whole.ome.zarr")
    )


@pytest.mark.parametrize("axes", ["zyxc", "czyx", "zcyx"])
def test_stored_order_of_axes_does_not_matter(data, model, expected, tmp_path, axes):
    path = write_ome(tmp_path / "v.ome.zarr", np.moveaxis(data[0], -1, axes.index("c")), axes)
    trained = train_model([(path, data[2])], recipe=COLOURED)
    segment_volume(path, tmp_path / "out.ome.zarr", trained)
    np.testing.assert_array_equal(labels_of(tmp_path / "out.ome.zarr"), expected)


def test_an_image_with_a_channel_axis(data, tmp_path):
    path = write_ome(tmp_path / "v.ome.zarr", np.moveaxis(data[0][0], -1, 0), "cyx")
    trained = train_model([(path, data[2][0])], recipe=COLOURED)
    segment_volume(path, tmp_path / "out.ome.zarr", trained)
    Image.fromarray(data[0][0]).save(tmp_path / "v.png")
    segment_volume(tmp_path / "v.png", tmp_path / "png.ome.zarr", trained)
    found = labels_of(tmp_path / "out.ome.zarr")
    np.testing.assert_array_equal(labels_of(tmp_path / "png.ome.zarr"), found)
    assert iou(found, data[1][:1]) > 0.9


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_matter(data, model, expected, tmp_path, workers):
    path = write_ome(tmp_path / "v.ome.zarr", data[0], "zyxc")
    segment_volume(path, tmp_path / "out.ome.zarr", model, engine="local", workers=workers)
    np.testing.assert_array_equal(labels_of(tmp_path / "out.ome.zarr"), expected)


def test_resume(data, model, expected, tmp_path):
    path = write_ome(tmp_path / "v.ome.zarr", np.moveaxis(data[0], -1, 0), "czyx", ("red", "green", "blue"))
    out = tmp_path / "out.ome.zarr"
    segment_volume(path, out, model, part=(1, 2))
    assert not open_label_store(out).complete
    report = segment_volume(path, out, model)
    assert 0 < report.before < report.voxels
    np.testing.assert_array_equal(labels_of(out), expected)


def test_another_channel_is_another_run(data, tmp_path):
    same = np.repeat(data[0][..., :1], 3, axis=3)  # only the number of the channel tells them apart
    path = write_ome(tmp_path / "v.ome.zarr", same, "zyxc", ("a", "b", "c"))
    grey = train_model([(open_volume(path, channel="a"), data[2])], recipe=QUICK)
    out = tmp_path / "out.ome.zarr"
    segment_volume(open_volume(path, channel="a"), out, grey)
    assert open_label_store(out).attributes["input"]["channel"] == 0
    again = segment_volume(open_volume(path, channel=0), out, grey)
    assert again.before == again.voxels
    with pytest.raises(OtherRunError, match=r"input\.channel was 0, now 2"):
        segment_volume(open_volume(path, channel="c"), out, grey)
    clusters = tmp_path / "clusters.ome.zarr"
    cluster_volume(open_volume(path, channel=0), clusters, recipe=CLUSTERS)
    with pytest.raises(OutputExistsError):
        cluster_volume(open_volume(path, channel=1), clusters, recipe=CLUSTERS)


def test_plan(data, model, tmp_path):
    path = write_ome(tmp_path / "v.ome.zarr", data[0], "zyxc")
    plan = plan_run(path, tmp_path / "out.ome.zarr", model, seconds=1)
    assert plan.blocks == 12
    assert plan.students == ()
    assert not (tmp_path / "out.ome.zarr").exists()


def test_cluster_and_features(data, tmp_path):
    colours, truth, _ = data
    report = cluster_volume(colours, tmp_path / "out.ome.zarr", recipe=CLUSTERS)
    assert report.model.recipe.features.of_colour
    found = evaluate_volumes(tmp_path / "out.ome.zarr", truth, match=True)
    assert found["miou"] > 0.8
    full = extract_features(colours, tmp_path / "features.zarr", recipe=COLOURED, full=True)
    assert full.shape == (len(report.model.channels), *truth.shape)


def test_tuning_keeps_colour(data):
    found = tune_recipe([(data[0], data[2])], recipe=COLOURED, minutes=0.01)
    assert all(row.recipe.features.of_colour for row in found.rows)


def test_a_session_has_the_model_of_training(data):
    colours, _, strokes = data
    drawing = ArrayDrawing(strokes.copy())
    alone = train_model([(colours, strokes)], recipe=COLOURED)
    with Session.open(colours, drawing, recipe=COLOURED, cache=False, threads=1) as session:
        found = session.model()
        with pytest.raises(InputError, match="students see grey only"):
            session.student = found
    assert found.recipe == alone.recipe
    for mine, other in zip(found.classifier.members, alone.classifier.members, strict=True):
        values = np.random.default_rng(0).random((50, len(alone.channels)), np.float32)
        np.testing.assert_array_equal(
            mine.estimator.predict_proba(values), other.estimator.predict_proba(values)
        )


def test_report_shows_the_mean(data, model, tmp_path):
    path = write_ome(tmp_path / "v.ome.zarr", data[0], "zyxc")
    segment_volume(path, tmp_path / "out.ome.zarr", model)
    files = write_report(tmp_path / "out.ome.zarr", tmp_path / "r.html")
    assert files is not None
    assert "data:image/" in (tmp_path / "r.html").read_text()


def test_kinds_that_do_not_fit_are_one_line(data, model, tmp_path):
    colours, _, strokes = data
    grey = open_volume(colours, channel=0)
    of_grey = train_model([(grey, strokes)], recipe=QUICK)
    with pytest.raises(InputError, match=r"found a grey volume, expected red, green and blue: .* on colour"):
        segment_volume(grey, tmp_path / "a.ome.zarr", model)
    with pytest.raises(InputError, match=r"colour volume .* grey one: .* trained on grey; .*--channel"):
        segment_volume(colours, tmp_path / "a.ome.zarr", of_grey)
    with pytest.raises(InputError, match=r"found a grey volume, expected a colour one as"):
        train_model([(colours, strokes), (grey, strokes)], recipe=QUICK)
    with pytest.raises(InputError, match=r"expected red, green and blue, of which the recipe's"):
        train_model([(grey, strokes)], recipe=model.recipe)
    assert not (tmp_path / "a.ome.zarr").exists()


def test_what_sees_grey_only_says_so(data, model, tmp_path):
    colours = data[0]
    save_model(model, tmp_path / "m.hrvol")
    with pytest.raises(InputError, match=r"found a colour volume .*students see grey only"):
        distil_model(colours, tmp_path / "m.hrvol", minutes=0.01)
    with pytest.raises(InputError, match=r"found a colour volume .*one value per voxel"):
        convert_volume(colours, tmp_path / "c.ome.zarr")
    assert not (tmp_path / "c.ome.zarr").exists()


@pytest.mark.data
def test_a_photograph_is_better_in_colour(data_dir, tmp_path):
    file = data_dir / "nat_ecssd/0372.jpg"
    mask = np.asarray(Image.open(file.with_name("0372_mask.png")).convert("L")) > 127
    truth = np.where(mask, 2, 1).astype(np.uint8)
    strokes = np.zeros_like(truth)
    strokes[::60, 20:-20] = truth[::60, 20:-20]
    score = {}
    for channel in (None, "mean"):
        volume = open_volume(file, channel=channel)
        out = tmp_path / f"{channel}.ome.zarr"
        segment_volume(volume, out, train_model([(volume, strokes)], recipe=COLOURED))
        score[channel] = iou(out, truth)
    assert score[None] > score["mean"] + 0.1


def test_what_shows_grey_only_says_so(data, tmp_path):
    path = write_ome(tmp_path / "v.ome.zarr", data[0], "zyxc")
    with pytest.raises(InputError, match=r"v\.ome\.zarr: found a colour volume .*viewers show one value"):
        VoxelArray(open_volume(path))
    with pytest.raises(InputError, match=r"export writes one value per voxel"):
        open_exported(path, "image")
    assert VoxelArray(open_volume(path, channel=1)).shape == data[1].shape


def test_background_is_found_in_colour(tmp_path):
    colours = np.zeros((4, 300, 300, 3), np.uint8)
    colours[:, 100:200, 100:200] = make_coloured((4, 100, 100))[0]
    mask = find_material(open_volume(colours))
    assert mask is not None
    grey = find_material(open_volume(colours, channel="mean"))
    np.testing.assert_array_equal(mask.cells, grey.cells)


def test_crf_compares_colours():
    pytest.importorskip("pydensecrf")
    colours, truth = make_coloured((1, 40, 50))
    image = colours[0].astype(np.float32) / 255
    rng = np.random.default_rng(0)
    certain = np.where(truth[0] == 2, 0.6, 0.4) + rng.normal(0, 0.25, truth[0].shape)
    certain = np.clip(certain, 0.01, 0.99).astype(np.float32)
    unary = unary_from_probabilities(np.stack([1 - certain, certain], axis=-1))
    right = {
        name: (refine(unary, values, CrfSpec()).argmax(axis=2) + 1 == truth[0]).mean()
        for name, values in (("colour", image), ("grey", luminance(image)))
    }
    assert right["colour"] > 0.95
    assert right["colour"] > right["grey"]
    threefold = np.repeat(image[..., :1], 3, axis=2)
    np.testing.assert_array_equal(
        refine(unary, threefold, CrfSpec()), refine(unary, np.ascontiguousarray(image[..., 0]), CrfSpec())
    )
