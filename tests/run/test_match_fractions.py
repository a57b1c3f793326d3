"""Runs with fractions: what is sampled, what the output records, and when it is not sampled again."""

import json
import signal

import numpy as np
import pytest
import torch
import zarr
from run_data import QUICK, draw, make_volume

from hrvol.classes import default_classes
from hrvol.engine.stop import Stop
from hrvol.errors import InputError, OtherRunError, OutputExistsError, StoppedError
from hrvol.planning.plan_run import plan_run
from hrvol.recipe.specs import TileSpec
from hrvol.run.attribute_names import CLASS_WEIGHTS, FRACTIONS
from hrvol.run.fractions.match_fractions import STAGE
from hrvol.run.fractions.sample_probabilities import SIDE, VOXELS, chosen_places, window_lattice
from hrvol.run.job import SegmentJob
from hrvol.run.options import PredictOptions
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import Model, save_model
from hrvol.segment.student.network import StudentNetwork, folded, network_arrays
from hrvol.segment.student.spec import StudentSpec
from hrvol.segment.student.student import StudentClassifier, channel_names
from hrvol.training.cluster import fit_classes
from hrvol.training.train import train_model
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.volume import open_labels, open_volume

GIVEN = {"matrix": 0.9, "disc": 0.1}
FLAT = StudentSpec(widths=(4, 8), pools=((1, 2, 2),), depth_kernels=(1, 1))
CUBIC = StudentSpec(widths=(4, 6), stem=(2, 2, 2), pools=((2, 2, 2),), depth_kernels=(3, 3))


class Stages:
    """A progress callback that remembers the stages, and what was done of each."""

    def __init__(self):
        self.done = {}

    def __call__(self, stage, done, total):
        assert done <= total
        self.done[stage] = done / total


@pytest.fixture(scope="module")
def image():
    return make_volume(shape=(3, 120, 130))


@pytest.fixture(scope="module")
def model(image):
    """A model whose blocks have several tiles."""
    recipe = QUICK.with_(**{"tiles.across": 2, "tiles.overlap": 20})
    return train_model([(image[0], draw(image[1], [0, 2]))], recipe=recipe, classes=["matrix", "disc"])


@pytest.fixture(scope="module")
def done(image, model, tmp_path_factory):
    """A run with fractions, and its stages."""
    out, stages = tmp_path_factory.mktemp("runs") / "out", Stages()
    return out, segment_volume(image[0], out, model, fractions=GIVEN, progress=stages), stages.done


def student(spec, classes):
    """Return an untrained student: its labels are noise, its probabilities are not."""
    torch.manual_seed(0)
    arrays = network_arrays(folded(StudentNetwork(spec, len(classes)).eval()))
    arrays["head.bias"] = arrays["head.bias"] + np.repeat(
        np.arange(len(classes), dtype=np.float32), len(arrays["head.bias"]) // len(classes)
    )
    classifier = StudentClassifier(spec, tuple(info.value for info in classes), arrays)
    return Model(QUICK, classes, (0, 255), classifier, None, channel_names(spec))


def attributes_of(out):
    return open_label_store(out).attributes


def test_labels_have_the_fractions_and_the_output_says_how(done):
    out, report, stages = done
    assert report.fractions["disc"] == pytest.approx(0.1, abs=0.02)  # 8 of 18 tiles were sampled
    assert stages[STAGE] == 1
    stored = attributes_of(out)
    assert stored[FRACTIONS] == GIVEN
    assert stored[CLASS_WEIGHTS]["matrix"] == 1
    assert 0 < stored[CLASS_WEIGHTS]["disc"] < 1


def test_a_plane_of_which_all_is_sampled_has_just_the_fractions(image, model, tmp_path, caplog):
    caplog.set_level("INFO")
    roi = (slice(1, 2), slice(10, 110), slice(None))
    report = segment_volume(image[0], tmp_path / "out", model, roi=roi, fractions=GIVEN)
    assert report.fractions["disc"] == pytest.approx(0.1, abs=0.005)
    (line,) = [message for message in caplog.messages if message.startswith("fractions:")]
    assert "labels of 6 tiles of" in line
    assert "have matrix 90" in line


def test_a_resumed_run_takes_the_recorded_factors(done, image, model, tmp_path):
    out, report, _ = done
    weights = attributes_of(out)[CLASS_WEIGHTS]
    before = open_labels(out).read()
    for request in ({"fractions": [90, 10]}, {"fractions": GIVEN}, {"class_weights": weights}):
        stages = Stages()
        again = segment_volume(image[0], out, model, progress=stages, **request)
        assert again.before == again.voxels == report.voxels
        assert STAGE not in stages.done
    np.testing.assert_array_equal(open_labels(out).read(), before)
    assert attributes_of(out)[FRACTIONS] == GIVEN
    segment_volume(image[0], tmp_path / "weights", model, class_weights=weights)
    np.testing.assert_array_equal(open_labels(tmp_path / "weights").read(), before)


def test_recorded_factors_are_used_even_if_now_others_would_be_chosen(done, image, model, tmp_path):
    """As after an update of a library that rounds otherwise."""
    segment_volume(image[0], tmp_path / "half", model, fractions=GIVEN, part=(1, 2))
    (tmp_path / "half" / "ledger" / "zarr.json").unlink()  # the record of the settings
    root = tmp_path / "half" / "zarr.json"
    values = json.loads(root.read_text())
    values["attributes"]["hrvol"][CLASS_WEIGHTS]["disc"] = 5
    root.write_text(json.dumps(values))
    segment_volume(image[0], tmp_path / "half", model, fractions=GIVEN)
    assert attributes_of(tmp_path / "half")[CLASS_WEIGHTS]["disc"] == 5
    segment_volume(image[0], tmp_path / "five", model, class_weights={"disc": 5})
    paths = (done[0], tmp_path / "five", tmp_path / "half")
    first, other, found = (open_labels(path).read() for path in paths)
    assert ((found == first) | (found == other)).all()
    assert (found != first).any()
    assert (found != other).any()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"fractions": [0.8, 0.2]}, "fractions.disc was 0.1, now 0.2; fractions.matrix was 0.9, now 0.8"),
        ({"class_weights": {"disc": 0.5}}, "class_weights.disc was 0.*, now 0.5"),
        ({}, "class_weights.disc was 0.*, now null"),
        ({"fractions": GIVEN, "uncertainty": True}, "outputs.uncertainty was false, now true"),
    ],
)
def test_another_request_is_another_run_before_anything_is_sampled(done, image, model, request_, message):
    stages = Stages()
    with pytest.raises(OtherRunError, match=message):
        segment_volume(image[0], done[0], model, progress=stages, **request_)
    with pytest.raises(OtherRunError, match=message):
        plan_run(image[0], done[0], model, **request_)
    assert stages.done == {}


def test_fractions_of_an_output_without_them_are_another_run(image, model, tmp_path):
    segment_volume(image[0], tmp_path / "out", model)
    for function in (segment_volume, plan_run):
        with pytest.raises(OtherRunError, match=r"fractions.disc was null, now 0.1"):
            function(image[0], tmp_path / "out", model, fractions=GIVEN)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "note.txt").write_text("mine")
    for overwrite in (False, True):
        stages = Stages()
        with pytest.raises(OutputExistsError):
            segment_volume(
                image[0], tmp_path / "other", model, fractions=GIVEN, overwrite=overwrite, progress=stages
            )
        assert stages.done == {}


def test_an_earlier_output_is_replaced_by_one_with_factors_of_its_own(done, image, model, tmp_path):
    segment_volume(image[0], tmp_path / "out", model, fractions=[0.7, 0.3])
    stages = Stages()
    segment_volume(image[0], tmp_path / "out", model, fractions=GIVEN, overwrite=True, progress=stages)
    assert stages.done[STAGE] == 1
    assert attributes_of(tmp_path / "out")[CLASS_WEIGHTS] == attributes_of(done[0])[CLASS_WEIGHTS]


def test_a_plan_samples_nothing(done, image, model, tmp_path, monkeypatch):
    def never(*arguments):
        raise AssertionError

    monkeypatch.setattr("hrvol.run.prepare.matched_factors", never)
    assert plan_run(image[0], tmp_path / "new", model, fractions=GIVEN, seconds=0.1).blocks > 0
    assert plan_run(image[0], done[0], model, fractions=GIVEN, seconds=0.1).blocks == 0
    assert list(tmp_path.iterdir()) == []


def test_parts_and_workers_have_the_factors_and_labels_of_one_process(done, image, model, tmp_path):
    zarr.save_array(tmp_path / "volume.zarr", image[0])
    save_model(model, tmp_path / "m.hrvol")
    source = (tmp_path / "volume.zarr", tmp_path / "out", tmp_path / "m.hrvol")
    segment_volume(*source, fractions=GIVEN, part=(2, 2))
    segment_volume(*source, engine="local", workers=1, fractions=GIVEN, part=(1, 2))
    assert attributes_of(tmp_path / "out")[CLASS_WEIGHTS] == attributes_of(done[0])[CLASS_WEIGHTS]
    np.testing.assert_array_equal(open_labels(tmp_path / "out").read(), open_labels(done[0]).read())


def test_fractions_are_those_inside_the_mask(image, model, tmp_path):
    mask = np.zeros(image[0].shape, np.uint8)
    mask[1, 20:100, 30:120] = 1
    report = segment_volume(image[0], tmp_path / "out", model, mask=mask, fractions=[0.6, 0.4])
    assert report.voxels == mask.sum()
    assert report.fractions["disc"] == pytest.approx(0.4, abs=0.01)
    with pytest.raises(InputError, match="found no voxel of the mask in 18 places"):
        segment_volume(image[0], tmp_path / "none", model, mask=0 * mask, fractions=[0.6, 0.4])
    assert not (tmp_path / "none").exists()


def test_a_class_that_is_nowhere_in_the_sample_is_an_error(image, model, tmp_path):
    dark = np.full_like(image[0], 90)
    with pytest.raises(InputError, match=r"found no disc \(expected 10 %\) in the labels"):
        segment_volume(dark, tmp_path / "out", model, fractions=GIVEN)
    assert not (tmp_path / "out").exists()


def test_fractions_that_are_out_of_reach_are_reported(image, model, tmp_path, caplog):
    """Two thirds of the voxels are equal: they get one label, whatever the factors."""
    dark = np.where(np.indices(image[0].shape)[1] < 40, image[0], 90)
    report = segment_volume(dark, tmp_path / "out", model, fractions=[0.5, 0.5])
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "no class weights label the sample as requested" in line
    assert "(expected 50 %)" in line
    assert abs(report.fractions["disc"] - 0.5) > 0.05


def test_places_that_cannot_be_read_are_left_to_their_blocks(image, model, tmp_path, caplog):
    caplog.set_level("INFO")
    broken = image[0].astype(np.float32)
    broken[0, 5, 5] = np.nan
    roi = (slice(0, 1), slice(None), slice(None))
    tiny = (slice(0, 1), slice(0, 30), slice(0, 30))
    with pytest.raises(InputError, match="found nan at z=0, y=5, x=5"):
        segment_volume(broken, tmp_path / "none", model, roi=tiny, fractions=GIVEN)
    segment_volume(broken, tmp_path / "out", model, roi=roi, fractions=GIVEN)
    assert "labels of 5 tiles of" in caplog.text


def test_a_stop_while_sampling_leaves_nothing(image, model, tmp_path):
    stop = Stop()
    stop.request(signal.SIGTERM)
    with pytest.raises(StoppedError, match="run the same command"):
        segment_volume(image[0], tmp_path / "out", model, fractions=GIVEN, stop=stop)
    assert list(tmp_path.iterdir()) == []


def test_clusters_have_the_fractions_too(image, tmp_path):
    recipe = QUICK.with_(**{"cluster.clusters": 6, "cluster.classes": 2, "cluster.samples": 2000})
    found = fit_classes(image[0], recipe=recipe)
    roi = (slice(1, 2), slice(None), slice(None))
    report = segment_volume(image[0], tmp_path / "out", found, roi=roi, fractions=[0.75, 0.25])
    assert list(report.fractions.values()) == pytest.approx([0.75, 0.25], abs=0.01)


# Students


@pytest.mark.parametrize("spec", [FLAT, CUBIC], ids=["planes", "3d"])
def test_a_student_has_the_fractions(image, model, tmp_path, spec, caplog):
    caplog.set_level("INFO")
    taught = student(spec, model.classes)
    plain = segment_volume(image[0], tmp_path / "plain", taught)
    assert max(plain.fractions.values()) > 0.6
    stages = Stages()
    report = segment_volume(image[0], tmp_path / "out", taught, fractions=[0.5, 0.5], progress=stages)
    assert report.fractions["disc"] == pytest.approx(0.5, abs=0.01)
    assert stages.done[STAGE] == 1
    assert f"labels of {3 if spec is FLAT else 1} window" in caplog.text
    again = segment_volume(image[0], tmp_path / "out", taught, fractions=[0.5, 0.5])
    assert again.before == again.voxels


@pytest.mark.parametrize("spec", [FLAT, CUBIC], ids=["planes", "3d"])
def test_each_place_of_a_student_is_in_one_window(spec):
    lattice = window_lattice((9, 700, 130), spec)
    tiles = TileSpec(core=SIDE, overlap=0, blend=0)
    region = (slice(1, 8), slice(3, 690), slice(5, 130))
    job = SegmentJob(
        open_volume(np.zeros(lattice.shape, np.uint8)), None, None, PredictOptions(), region, tiles
    )
    places = chosen_places(job, tiles, 64, student(spec, default_classes([1, 2])), lattice.cell[0])
    assert all(len(list(lattice.cells(place.box))) == 1 for place in places)
    counted = np.zeros(lattice.shape, np.uint8)
    for place in places:
        counted[place.box] += 1
    assert (counted[region] == 1).all()
    assert counted.sum() == sum(place.voxels for place in places) == 7 * 687 * 125


# Samples


def test_places_are_spread_over_the_mask_however_small(image, model):
    mask = np.zeros((40, 400, 400), np.uint8)
    mask[30:33, 200:260, 300:310] = 1
    volume = open_volume(np.zeros(mask.shape, np.uint8))
    region = (slice(0, 40), slice(0, 400), slice(0, 400))
    tiles = TileSpec(core=64, overlap=12)
    job = SegmentJob(volume, None, None, PredictOptions(), region, tiles, open_labels(mask))
    places = chosen_places(job, tiles, 8, model)
    assert places
    assert all(mask[place.box][place.mask].all() and place.voxels > 0 for place in places)


def test_no_more_voxels_are_kept_than_needed_and_always_the_same(image, model):
    volume = open_volume(np.zeros((2, 900, 900), np.uint8))
    tiles = TileSpec(core=448, overlap=12)
    region = (slice(0, 2), slice(0, 900), slice(0, 900))
    job = SegmentJob(volume, None, None, PredictOptions(), region, tiles)
    (place, *others) = chosen_places(job, tiles, 8, model)
    assert len(others) == 7
    rows, columns = (span.stop - span.start for span in place.box[1:])
    values = np.arange(2 * rows * columns, dtype=np.float32).reshape(2, 1, rows, columns)
    kept = place.sample(values, VOXELS // 8, 0)
    assert kept.shape == (2, VOXELS // 8)
    np.testing.assert_array_equal(kept, place.sample(values, VOXELS // 8, 0))
    assert (kept[1] - kept[0] == rows * columns).all()
    assert (place.sample(values, VOXELS // 8, 1) != kept).any()
