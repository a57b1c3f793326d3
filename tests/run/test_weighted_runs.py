"""Runs with class weights: what they store, and with which settings they are resumed."""

import numpy as np
import pytest
import zarr
from run_data import QUICK, draw, make_volume

from hrvol.arrays import added_up
from hrvol.errors import OtherRunError, UsageError
from hrvol.planning.plan_run import plan_run
from hrvol.run.attribute_names import CLASS_WEIGHTS, FRACTIONS
from hrvol.run.classify import classify
from hrvol.run.segment import segment_volume
from hrvol.segment.class_weights import weighted
from hrvol.segment.model.model import save_model
from hrvol.training.train import train_model
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.volume import open_labels

ARRAYS = ("labels/hrvol/0", "probabilities/0", "uncertainty/0")
DISC = {"disc": 0.2}


def arrays(path):
    return {name: zarr.open_array(path / name, mode="r")[:] for name in ARRAYS}


def same(ours, theirs):
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)


@pytest.fixture(scope="module")
def image():
    return make_volume(shape=(3, 120, 130))


@pytest.fixture(scope="module")
def blended(image):
    """A model whose blocks have several tiles."""
    recipe = QUICK.with_(**{"tiles.across": 2, "tiles.overlap": 20})
    return train_model([(image[0], draw(image[1], [0, 2]))], recipe=recipe, classes=["matrix", "disc"])


@pytest.fixture(scope="module")
def runs(image, blended, tmp_path_factory):
    """Outputs without weights, and with weights."""
    folder = tmp_path_factory.mktemp("runs")
    requests = {"plain": {}, "weighted": {"class_weights": DISC}}
    for name, request in requests.items():
        segment_volume(image[0], folder / name, blended, probabilities=True, uncertainty=True, **request)
    return {name: folder / name for name in requests}


def test_labels_are_those_of_the_weighted_probabilities(runs):
    plain, found = (arrays(runs[name]) for name in ("plain", "weighted"))
    before = plain["probabilities/0"].astype(np.float32) / 255
    expected = weighted(before / added_up(before), (1, 0.2))
    clear = abs(expected[0] - expected[1]) > 0.02
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(found["labels/hrvol/0"][clear], (expected.argmax(axis=0) + 1)[clear])
    assert (found["labels/hrvol/0"] != plain["labels/hrvol/0"]).any()
    assert abs(found["probabilities/0"] / 255 - expected).max() < 0.03
    sure = np.clip(found["probabilities/0"] / 255, 1e-12, 1)
    entropy = -(sure * np.log(sure)).sum(axis=0) / np.log(2)
    assert abs(found["uncertainty/0"] / 255 - entropy).max() < 0.03


def test_weights_are_recorded_where_there_are_some(runs):
    stored = {name: open_label_store(out).attributes for name, out in runs.items()}
    assert stored["weighted"][CLASS_WEIGHTS] == {"matrix": 1.0, "disc": 0.2}
    assert not {CLASS_WEIGHTS, FRACTIONS} & stored["plain"].keys()
    assert FRACTIONS not in stored["weighted"]


def test_workers_give_the_same_bits(runs, image, blended, tmp_path):
    zarr.save_array(tmp_path / "volume.zarr", image[0])
    save_model(blended, tmp_path / "m.hrvol")
    segment_volume(
        tmp_path / "volume.zarr",
        tmp_path / "out",
        tmp_path / "m.hrvol",
        engine="local",
        workers=2,
        probabilities=True,
        uncertainty=True,
        class_weights=DISC,
    )
    same(arrays(tmp_path / "out"), arrays(runs["weighted"]))


@pytest.mark.parametrize(
    ("run", "request_", "message"),
    [
        ("plain", {"class_weights": DISC}, "class_weights.disc was null, now 0.2"),
        ("weighted", {"class_weights": {"disc": 0.3}}, "class_weights.disc was 0.2, now 0.3"),
        ("weighted", {"class_weights": {"2": 0.2, "matrix": 2}}, "class_weights.matrix was 1.0, now 2.0"),
        ("weighted", {}, "class_weights.disc was 0.2, now null"),
    ],
)
def test_other_weights_are_another_run(runs, image, blended, run, request_, message):
    options = {"probabilities": True, "uncertainty": True, **request_}
    for function in (segment_volume, plan_run):
        with pytest.raises(OtherRunError, match=message):
            function(image[0], runs[run], blended, **options)


def test_the_same_weights_are_the_same_run(runs, image, blended):
    options = {"probabilities": True, "uncertainty": True}
    for name in ("disc", "2"):
        report = segment_volume(image[0], runs["weighted"], blended, class_weights={name: 0.2}, **options)
        assert report.before == report.voxels == image[0].size


def test_parts_and_a_region_are_those_of_the_whole(runs, image, blended, tmp_path):
    for k in (2, 1):
        segment_volume(image[0], tmp_path / "parts", blended, part=(k, 2), class_weights=DISC)
    expected = arrays(runs["weighted"])["labels/hrvol/0"]
    np.testing.assert_array_equal(open_labels(tmp_path / "parts").read(), expected)
    roi = (slice(1, 2), slice(40, 90), slice(30, 100))
    segment_volume(image[0], tmp_path / "roi", blended, roi=roi, class_weights=DISC)
    np.testing.assert_array_equal(open_labels(tmp_path / "roi").read()[roi], expected[roi])


def test_a_crf_is_shifted_after_it(image, blended, tmp_path):
    pytest.importorskip("pydensecrf.densecrf", reason="needs the extra crf")
    roi = (slice(1, 2), slice(0, 64), slice(None))
    options = {"crf": True, "roi": roi, "probabilities": True, "uncertainty": True}
    segment_volume(image[0], tmp_path / "plain", blended, **options)
    segment_volume(image[0], tmp_path / "weighted", blended, class_weights={"disc": 0.05}, **options)
    before, after = (arrays(tmp_path / name) for name in ("plain", "weighted"))
    refined = before["probabilities/0"][(slice(None), *roi)] / 255
    expected = weighted(refined / added_up(refined), (1, 0.05))
    clear = abs(expected[0] - expected[1]) > 0.2
    found = after["labels/hrvol/0"][roi]
    np.testing.assert_array_equal(found[clear], expected.argmax(axis=0)[clear] + 1)
    assert (found != before["labels/hrvol/0"][roi])[clear].any()
    assert (found == 2)[clear].any()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"class_weights": {"discs": 2}},
            r"found 'discs', expected one of the classes matrix \(1\), disc \(2\)",
        ),
        ({"class_weights": {"disc": 0}}, "found the factor 0"),
        ({"class_weights": {"disc": 2}, "fractions": [1, 1]}, "expected only one"),
        ({"fractions": [1, 1, 1]}, "found 3, expected 2"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_written(image, blended, tmp_path, request_, message):
    for function in (segment_volume, plan_run):
        with pytest.raises(UsageError, match=message):
            function(image[0], tmp_path / "out", blended, **request_)
    assert not list(tmp_path.iterdir())


def test_weights_apply_to_the_blended_plane_once(image, blended, tmp_path, monkeypatch):
    """Tiles are classified without weights: their seams and their blending are those of the model."""
    seen = []

    def spy(image, inside, model, featuriser, options):
        seen.append(classify(image, inside, model, featuriser, options))
        return seen[-1]

    monkeypatch.setattr("hrvol.run.predict.classify", spy)
    reports, tiles = [], []
    for name, request in (("plain", {}), ("weighted", {"class_weights": DISC})):
        seen.clear()
        reports.append(segment_volume(image[0], tmp_path / name, blended, **request))
        tiles.append(list(seen))
    for ours, theirs in zip(*tiles, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert reports[0].seams == reports[1].seams
    assert reports[0].fractions["disc"] > reports[1].fractions["disc"]
