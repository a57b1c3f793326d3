"""From strokes to a labelled volume: what is read, what comes out, and what is refused."""

import sys
from dataclasses import replace

import dask.array
import numpy as np
import pytest
import xarray
import zarr
from run_data import QUICK, draw, make_volume

from hrvol.analysis import evaluate as compare
from hrvol.analysis.evaluate import evaluate_volumes
from hrvol.errors import (
    InputError,
    MissingExtraError,
    ModelError,
    OutputExistsError,
    RecipeError,
    StrokesError,
    UsageError,
)
from hrvol.features.featuriser import load_featuriser
from hrvol.recipe.specs import CrfSpec
from hrvol.run.classify import classify
from hrvol.run.segment import segment_volume
from hrvol.segment.crf import refine, unary_from_probabilities
from hrvol.segment.model.model import save_model
from hrvol.training.train import train_model
from hrvol.volume.grid.tiling import blocks, tiles_of
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.volume import Volume, class_info, open_labels, open_volume


def labels_of(path):
    return open_labels(path).read()


@pytest.fixture(scope="module")
def whole(data, model, tmp_path_factory):
    """The volume segmented by the serial engine, with everything written."""
    out = tmp_path_factory.mktemp("whole") / "out.ome.zarr"
    report = segment_volume(data[0], out, model, probabilities=True, uncertainty=True)
    return out, report


def test_labels_agree_with_the_truth(whole, data):
    out, report = whole
    figures = evaluate_volumes(out, data[1])
    assert figures["miou"] > 0.9
    assert list(figures["iou"]) == ["matrix", "disc"]
    assert report.failed == ()
    assert report.voxels == data[0].size
    assert sum(report.fractions.values()) == pytest.approx(1)
    assert report.fractions["disc"] == pytest.approx((labels_of(out) == 2).mean())


def test_output_says_how_it_was_made(whole, model):
    out, _ = whole
    store = open_label_store(out)
    said = store.attributes
    assert store.complete
    assert said["recipe"] == QUICK.to_dict()
    assert said["versions"]["hrvol"]
    assert said["input"]["shape"] == [5, 150, 130]
    assert len(said["model"]["sha256"]) == 64
    assert said["window"] == [0.0, 255.0]
    assert class_info(out) == model.classes


def test_probabilities_and_uncertainty_go_with_the_labels(whole):
    out, _ = whole
    group = zarr.open_group(out, mode="r")
    probabilities = group["probabilities/0"][:].astype(int)
    uncertainty = group["uncertainty/0"][:]
    assert probabilities.shape == (2, 5, 150, 130)
    assert abs(probabilities.sum(axis=0) - 255).max() <= 1
    clear = abs(probabilities[0] - probabilities[1]) > 1
    assert ((probabilities.argmax(axis=0) + 1 == labels_of(out)) | ~clear).all()
    assert uncertainty[probabilities.max(axis=0) == 255].max() <= 5  # 255 begins at 1 - 1 / 510
    even = abs(probabilities[0] - probabilities[1]) <= 1
    assert even.any()
    assert (uncertainty[even] >= 254).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_local_engine_gives_the_same_bits(whole, data, model, tmp_path, workers):
    reference, _ = whole
    volume = tmp_path / "volume.zarr"
    zarr.save_array(volume, data[0])
    file = tmp_path / "model.hrvol"
    save_model(model, file)
    seen = []
    report = segment_volume(
        str(volume),
        tmp_path / "out.ome.zarr",
        file,
        engine="local",
        workers=workers,
        probabilities=True,
        uncertainty=True,
        progress=lambda *event: seen.append(event),
    )
    assert report.failed == ()
    for name in ("labels/hrvol/0", "probabilities/0", "uncertainty/0"):
        ours, theirs = (
            zarr.open_array(p / name, mode="r")[:] for p in (tmp_path / "out.ome.zarr", reference)
        )
        np.testing.assert_array_equal(ours, theirs)
    done = [event for event in seen if event[0] == "segment"]
    assert done[0] == ("segment", 0, 97500)
    assert done[-1] == ("segment", 97500, 97500)


@pytest.mark.parametrize("kind", ["numpy", "dask", "xarray", "zarr", "path"])
def test_every_kind_of_array_gives_the_same_labels(whole, data, model, tmp_path, kind):
    image = data[0]
    path = tmp_path / "volume.zarr"
    stored = zarr.save_array(path, image) or zarr.open_array(path, mode="r")
    volume = {
        "numpy": image,
        "dask": dask.array.from_array(image, chunks=(2, 50, 50)),
        "xarray": xarray.DataArray(image.transpose(2, 0, 1), dims=("x", "z", "y")),
        "zarr": stored,
        "path": str(path),
    }[kind]
    segment_volume(volume, tmp_path / "out.ome.zarr", model)
    np.testing.assert_array_equal(labels_of(tmp_path / "out.ome.zarr"), labels_of(whole[0]))


def test_a_region_gets_the_labels_of_the_whole_and_the_rest_stays_zero(whole, data, model, tmp_path):
    roi = (slice(1, 4), slice(50, 100), slice(None, 70))
    report = segment_volume(data[0], tmp_path / "out.ome.zarr", model, roi=roi)
    found, expected = labels_of(tmp_path / "out.ome.zarr"), labels_of(whole[0])
    assert report.voxels == 3 * 50 * 70
    np.testing.assert_array_equal(found[roi], expected[roi])
    found[roi] = 0
    assert not found.any()


@pytest.fixture(scope="module")
def blended(data, quick):
    """A model whose blocks have several tiles, too small for its filters, so that seams show."""
    recipe = quick.with_(
        **{"tiles.across": 2, "tiles.overlap": 20, "features.classical.sigmas": [1, 8]},
    )
    model = train_model([(data[0], data[2])], recipe=recipe)
    # training would refuse them
    return replace(model, recipe=recipe.with_(**{"tiles.overlap": 5}))


def test_tiles_of_a_block_are_blended_and_their_seams_measured(data, blended, tmp_path):
    report = segment_volume(data[0], tmp_path / "out.ome.zarr", blended)
    assert report.seams.pixels > 0
    assert 0 < report.seams.mean_probability_difference < 0.5
    assert evaluate_volumes(tmp_path / "out.ome.zarr", data[1])["miou"] > 0.8


def test_a_region_of_blended_tiles_is_that_of_the_whole(data, blended, tmp_path):
    roi = (slice(0, 1), slice(40, 70), slice(60, 66))
    segment_volume(data[0], tmp_path / "whole.ome.zarr", blended)
    segment_volume(data[0], tmp_path / "part.ome.zarr", blended, roi=roi)
    found, expected = (labels_of(tmp_path / f"{name}.ome.zarr")[roi] for name in ("part", "whole"))
    np.testing.assert_array_equal(found, expected)


ONE_TILE = (slice(2, 3), slice(64, 128), slice(64, 128))


@pytest.fixture(scope="module")
def refined(data, model, tmp_path_factory):
    """One tile of a plane, refined by a CRF."""
    pytest.importorskip("pydensecrf.densecrf", reason="needs the extra crf")
    out = tmp_path_factory.mktemp("refined") / "out.ome.zarr"
    segment_volume(data[0], out, model, crf=True, roi=ONE_TILE, probabilities=True, uncertainty=True)
    return out


def test_a_tile_is_refined_with_its_context(refined, data, model):
    shape = data[0].shape
    tiles = [tile for block in blocks(shape, QUICK.tiles) for tile in tiles_of(block, shape[1:], QUICK.tiles)]
    tile = next(tile for tile in tiles if tile.core == (64, 128, 64, 128))
    image = data[0][2][tile.window_slices].astype(np.float32) / 255
    everything = (slice(0, image.shape[0]), slice(0, image.shape[1]))
    probabilities = classify(image, everything, model, load_featuriser(QUICK.features))
    marginals = refine(unary_from_probabilities(probabilities), image, CrfSpec())
    expected = (marginals.argmax(axis=2) + 1)[tile.core_in_window]
    np.testing.assert_array_equal(labels_of(refined)[ONE_TILE][0], expected)
    assert (probabilities[tile.core_in_window].argmax(axis=2) + 1 != expected).any()


def test_probabilities_and_uncertainty_are_refined_too(refined):
    group = zarr.open_group(refined, mode="r")
    probabilities = group["probabilities/0"][(slice(None), *ONE_TILE)].astype(int)
    assert abs(probabilities.sum(axis=0) - 255).max() <= 1
    clear = abs(probabilities[0] - probabilities[1]) > 1
    assert ((probabilities.argmax(axis=0) + 1 == labels_of(refined)[ONE_TILE]) | ~clear).all()
    uncertainty = group["uncertainty/0"][ONE_TILE]
    assert uncertainty[probabilities.max(axis=0) == 255].max() <= 5  # 255 begins at 1 - 1 / 510
    assert uncertainty.max() > 100


def test_what_was_refined_says_so_and_the_recipe_decides(refined, whole, data, model, tmp_path):
    said = [open_label_store(out).attributes["recipe"]["crf"] for out in (whole[0], refined)]
    assert said == [None, CrfSpec().to_dict()]
    mild = CrfSpec(iterations=1, compat_bilateral=0)
    kept = replace(model, recipe=model.recipe.with_(crf=mild))
    for name, options in (("asked", {"crf": True}), ("not", {})):  # a recipe with a CRF is refined anyway
        segment_volume(data[0], tmp_path / name, kept, roi=ONE_TILE, **options)
        assert open_label_store(tmp_path / name).attributes["recipe"]["crf"] == mild.to_dict()
    asked, unasked = (labels_of(tmp_path / name) for name in ("asked", "not"))
    np.testing.assert_array_equal(asked, unasked)
    assert (asked[ONE_TILE] != labels_of(whole[0])[ONE_TILE]).any()
    assert (asked[ONE_TILE] != labels_of(refined)[ONE_TILE]).any()


@pytest.mark.parametrize("in_recipe", [False, True])
def test_without_the_extra_a_crf_is_refused_before_anything_is_written(
    data, model, tmp_path, monkeypatch, in_recipe
):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    asked = replace(model, recipe=model.recipe.with_(crf=CrfSpec())) if in_recipe else model
    with pytest.raises(MissingExtraError, match=r"hrvol\[crf\]"):
        segment_volume(data[0], tmp_path / "out.ome.zarr", asked, crf=not in_recipe)
    assert not list(tmp_path.iterdir())


def test_images_work_like_volumes(quick, tmp_path):
    image, truth = make_volume(shape=(1, 90, 80))
    model = train_model([(image[0], draw(truth, [0])[0])], recipe=quick)
    report = segment_volume(image[0], tmp_path / "out.ome.zarr", model)
    assert open_labels(tmp_path / "out.ome.zarr").array.shape == (90, 80)
    assert report.voxels == 90 * 80
    roi = (slice(10, 20), slice(None))
    assert segment_volume(image[0], tmp_path / "roi.ome.zarr", model, roi=roi).voxels == 800


def test_a_model_segments_other_volumes(model, tmp_path):
    image, truth = make_volume(seed=7, shape=(2, 70, 200))
    segment_volume(image, tmp_path / "out.ome.zarr", model)
    assert evaluate_volumes(tmp_path / "out.ome.zarr", truth)["miou"] > 0.9


def test_an_output_names_the_file_of_its_own_model(data, model, tmp_path):
    for name in ("here", "there"):
        save_model(model, tmp_path / f"{name}.hrvol")
        segment_volume(data[0][:1], tmp_path / f"{name}.ome.zarr", tmp_path / f"{name}.hrvol")
        said = zarr.open_group(tmp_path / f"{name}.ome.zarr", mode="r").attrs["hrvol"]["model"]
        assert said["source"] == str((tmp_path / f"{name}.hrvol").resolve())


def test_training_reads_only_planes_and_tiles_with_strokes(data, quick, monkeypatch):
    image, truth, _ = data
    strokes = np.zeros_like(truth)
    strokes[3, 70:80, 10:20] = truth[3, 70:80, 10:20]
    strokes[3, 75, 15] = 1
    strokes[3, 75, 16] = 2
    asked = []
    read = Volume.read

    def spy(self, box=None):
        if self.array is image:
            asked.append(box)
        return read(self, box)

    monkeypatch.setattr(Volume, "read", spy)
    train_model([(image, strokes)], recipe=quick)
    reads = [box for box in asked if box[1].stop - box[1].start > 1]
    windows = {(z.start, z.stop, y.start, x.start) for z, y, x in reads if (y.stop - y.start) == 88}
    assert windows == {(3, 4, 52, 0)}


def test_training_features_are_those_of_the_segmentation(data, quick):
    """A tree grown to the end on its own strokes must give them back: no shift, no other window."""
    image, truth, strokes = data
    recipe = quick.with_(
        **{"classifier.min_samples_leaf": 1, "classifier.samples_per_class": None, "classifier.trees": 30}
    )
    model = train_model([(image, strokes)], recipe=recipe)
    out = {}

    def keep(self, box, labels, probabilities=None, uncertainty=None):
        out[tuple((s.start, s.stop) for s in box)] = labels

    found = np.zeros_like(truth)
    with pytest.MonkeyPatch.context() as patch:
        import tempfile

        from hrvol.volume.ome.labels import LabelStore

        patch.setattr(LabelStore, "write", keep)
        with tempfile.TemporaryDirectory() as folder:
            segment_volume(image, f"{folder}/o.ome.zarr", model)
    for spans, labels in out.items():
        found[tuple(slice(*span) for span in spans)] = labels
    drawn = strokes > 0
    assert (found[drawn] == strokes[drawn]).mean() > 0.995


def test_training_does_not_depend_on_the_order_of_reading_or_on_time(data, quick):
    image, _, strokes = data
    first, second = (train_model([(image, strokes)], recipe=quick) for _ in range(2))
    features = np.random.default_rng(0).random((500, len(first.channels)), dtype=np.float32)
    np.testing.assert_array_equal(
        first.classifier.predict_proba(features), second.classifier.predict_proba(features)
    )


def test_seed_overrides_the_recipe(data, quick):
    image, _, strokes = data
    assert train_model([(image, strokes)], recipe=quick, seed=5).recipe.seed == 5


def test_one_window_covers_all_training_volumes(data, quick):
    image, _, strokes = data
    low, high = image.astype(np.float32), 5 * image.astype(np.float32)
    windows = [train_model([(v, strokes)], recipe=quick).window for v in (low, high)]
    both = train_model([(low, strokes), (high, strokes)], recipe=quick)
    assert both.window == (windows[0][0], windows[1][1])
    assert both.trained_on[1]["samples"].keys() == {"1", "2"}


def test_classes_are_named_by_the_user_the_strokes_or_their_number(data, quick, whole):
    image, _, strokes = data
    assert [c.name for c in train_model([(image, strokes)], recipe=quick).classes] == ["class 1", "class 2"]
    from_metadata = train_model([(image, str(whole[0]))], recipe=quick)
    assert [c.name for c in from_metadata.classes] == ["matrix", "disc"]


def test_a_failing_block_is_reported_and_never_counted_as_done(data, model, tmp_path):
    image = data[0].astype(np.float32)
    image[4, 10, 11] = np.nan
    report = segment_volume(image, tmp_path / "out.ome.zarr", model)
    assert [failure.index for failure in report.failed] == [(2, 0, 0)]
    assert "nan" in report.failed[0].reason
    assert "z=4, y=10, x=11" in report.failed[0].reason
    assert report.blocks == 26
    assert report.voxels == image.size - 64 * 64
    assert not open_label_store(tmp_path / "out.ome.zarr").complete
    assert not labels_of(tmp_path / "out.ome.zarr")[4, :64, :64].any()


def test_if_no_block_can_be_done_no_output_is_left(data, model, tmp_path):
    image = np.full(data[0].shape, np.nan, np.float32)
    report = segment_volume(image, tmp_path / "out.ome.zarr", model)
    assert report.blocks == 0
    assert len(report.failed) == 27
    assert not (tmp_path / "out.ome.zarr").exists()


def test_nothing_is_written_where_something_is(data, model, whole, tmp_path):
    with pytest.raises(OutputExistsError, match=r"out\.ome\.zarr"):
        segment_volume(data[0], whole[0], model)
    segment_volume(data[0], tmp_path / "o.ome.zarr", model, roi=(slice(0, 1), slice(0, 9), slice(0, 9)))
    report = segment_volume(data[0], tmp_path / "o.ome.zarr", model, overwrite=True)
    assert report.voxels == data[0].size


def test_the_input_is_never_replaced(data, model, tmp_path):
    path = tmp_path / "volume.zarr"
    zarr.save_array(path, data[0])
    for out in (path, tmp_path, path / "labels"):
        with pytest.raises(UsageError, match="input"):
            segment_volume(str(path), out, model, overwrite=True)
    np.testing.assert_array_equal(open_volume(path).read(), data[0])


@pytest.mark.parametrize(
    ("roi", "message"),
    [
        ((slice(0, 1), slice(0, 1)), "2 axes"),
        ((slice(0, 6), slice(None), slice(None)), "along z"),
        ((slice(None), slice(9, 9), slice(None)), "along y"),
    ],
)
def test_a_region_outside_is_refused(data, model, tmp_path, roi, message):
    with pytest.raises(UsageError, match=message):
        segment_volume(data[0], tmp_path / "out.ome.zarr", model, roi=roi)
    assert not list(tmp_path.iterdir())


def test_bad_engines_are_refused_before_anything_is_written(data, model, tmp_path):
    with pytest.raises(UsageError, match="serial"):
        segment_volume(data[0], tmp_path / "out.ome.zarr", model, workers=3)
    assert not list(tmp_path.iterdir())


def test_models_of_other_weights_and_missing_files_are_refused(data, model, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"none\.hrvol"):
        segment_volume(data[0], tmp_path / "out.ome.zarr", tmp_path / "none.hrvol")
    from dataclasses import replace

    with pytest.raises(ModelError, match="SHA-256"):
        segment_volume(data[0], tmp_path / "out.ome.zarr", replace(model, weights_sha256="0" * 64))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("filters", [["gaussian"], ["gaussian", "sobel", "mean"]])
def test_a_recipe_of_other_features_is_refused(data, model, tmp_path, filters):
    edited = replace(model, recipe=model.recipe.with_(**{"features.classical.filters": filters}))
    with pytest.raises(ModelError, match=r"model: found \d+ channels, expected the \d+ of its recipe"):
        segment_volume(data[0], tmp_path / "out.ome.zarr", edited)
    assert not list(tmp_path.iterdir())


def test_strokes_that_cannot_train_are_refused(data, quick):
    image, _, strokes = data
    with pytest.raises(StrokesError, match=r"\(5, 149, 130\).*expected.*\(5, 150, 130\)"):
        train_model([(image, strokes[:, 1:])], recipe=quick)
    with pytest.raises(StrokesError, match="only class 1"):
        train_model([(image, (strokes == 1).astype(np.uint8))], recipe=quick)
    with pytest.raises(StrokesError, match="no labelled"):
        train_model([(image, np.zeros_like(strokes))], recipe=quick)
    with pytest.raises(InputError, match="float32"):
        train_model([(image, strokes.astype(np.float32))], recipe=quick)
    with pytest.raises(UsageError, match="names"):
        train_model([(image, strokes)], recipe=quick, classes=["a", "b", "c"])
    with pytest.raises(UsageError, match="no volumes"):
        train_model([], recipe=quick)
    with pytest.raises(RecipeError, match="no such recipe"):
        train_model([(image, strokes)], recipe="fastest")


def test_a_nan_volume_cannot_train(data, quick):
    image = data[0].astype(np.float32)
    image[0, 70, 5] = np.inf
    with pytest.raises(InputError, match="inf at z=0, y=70, x=5"):
        train_model([(image, data[2])], recipe=quick)


def test_evaluation_in_pieces_is_that_of_the_whole(data, monkeypatch):
    from hrvol.quality.metrics import evaluate

    truth = data[1].copy()
    truth[:, :20] = 0
    found = make_volume(seed=3)[1]
    monkeypatch.setattr(compare, "EVALUATE", (2, 37, 41))
    assert evaluate_volumes(found, truth) == evaluate(found, truth)


def test_evaluation_of_other_shapes_is_refused(data):
    with pytest.raises(InputError, match=r"\(4, 150, 130\).*\(5, 150, 130\)"):
        evaluate_volumes(data[1], data[1][1:])
