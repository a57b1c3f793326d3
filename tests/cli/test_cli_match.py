"""Labels whose numbers mean nothing, scored: `hrvol evaluate --match` and what it computes."""

import json

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from hrvol.analysis import evaluate as compare
from hrvol.analysis.evaluate import evaluate_volumes
from hrvol.classes import default_classes
from hrvol.cli import main
from hrvol.errors import InputError
from hrvol.quality.matching import match_classes, purity
from hrvol.quality.metrics import Confusion
from hrvol.volume.grid.tiling import whole
from hrvol.volume.ome.labels import create_labels
from hrvol.volume.volume import open_volume

TRUTH = np.repeat(np.array([[1, 2, 3]], np.uint8), 20, axis=1).repeat(8, axis=0)[None]
PRED = np.array([0, 4, 2, 9, 7], np.uint8)[TRUTH]
PRED[:, 0, :5] = 7  # 5 voxels in a class that is left over


def run(*arguments):
    result = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("match")
    for name, labels in (("pred", PRED), ("truth", TRUTH)):
        tifffile.imwrite(folder / f"{name}.tif", labels, photometric="minisblack")
    for name, labels, names in (
        ("pred", PRED, ["u", "v", "w", "x"]),
        ("truth", TRUTH, ["pore", "matrix", "grain"]),
    ):
        values = [int(v) for v in np.unique(labels)]
        store = create_labels(
            folder / f"{name}.ome.zarr",
            open_volume(labels),
            classes=default_classes(values, names),
            block_shape=labels.shape,
            attributes={},
        )
        store.write(whole(labels.shape), labels)
        store.finish()
    return folder


def test_classes_are_named_after_the_true_ones(place):
    figures = evaluate_volumes(place / "pred.ome.zarr", place / "truth.ome.zarr", match=True)
    assert figures["matching"] == {"2": "matrix", "4": "pore", "7": None, "9": "grain"}
    assert figures["iou"] == {"pore": 155 / 160, "matrix": 1.0, "grain": 1.0}
    assert figures["confusion"] == [[155, 0, 0], [0, 160, 0], [0, 0, 160]]
    assert figures["unlabelled"] == 5
    assert figures["purity"] == 1.0
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_names_are_numbers_or_given_where_the_truth_has_none(place):
    figures = evaluate_volumes(place / "pred.ome.zarr", TRUTH, match=True)
    assert figures["matching"] == {"2": "2", "4": "1", "7": None, "9": "3"}
    figures = evaluate_volumes(PRED, np.array([0, 1, 5, 8])[TRUTH], classes=["a", "b", "c"], match=True)
    assert figures["matching"] == {"2": "b", "4": "a", "7": None, "9": "c"}
    assert {name for name, iou in figures["iou"].items() if iou is not None} == {"a", "b", "c"}


def test_without_match_nothing_changes(place):
    figures = evaluate_volumes(PRED, TRUTH)
    assert figures["iou"]["2"] == 0.0 + 160 / 160
    assert figures["miou"] == 1 / 3
    assert not {"matching", "purity"} & set(figures)


def test_pieces_are_matched_as_a_whole(monkeypatch):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (3, 30, 40))
    truth[:, :10] = 1  # a piece of its own, which alone would be matched otherwise
    pred = np.where(rng.random(truth.shape) < 0.6, (truth + 1) % 4 + 1, rng.integers(0, 7, truth.shape))
    whole = Confusion.of(pred, truth)
    monkeypatch.setattr(compare, "EVALUATE", (2, 10, 17))
    figures = evaluate_volumes(pred, truth, match=True)
    named = {int(value): int(name) for value, name in figures["matching"].items() if name is not None}
    assert named == match_classes(whole.matrix)
    assert figures["purity"] == purity(whole.matrix)
    expected = whole.matched().to_dict()
    assert {key: figures[key] for key in expected} == expected


def test_a_truth_without_labels_is_refused():
    with pytest.raises(InputError, match="no labelled pixels"):
        evaluate_volumes(PRED, np.zeros_like(TRUTH), match=True)


def test_the_table_says_which_class_became_which(place):
    lines = run(place / "pred.ome.zarr", place / "truth.ome.zarr", "--match").splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["class", "predicted"],
        ["pore", "4"],
        ["matrix", "2"],
        ["grain", "9"],
    ]
    assert lines[4] == "mIoU 0.990, pixel accuracy 0.990, purity 1.000"
    assert lines[5] == "predicted classes that match no true class: 7"
    assert lines[6] == (
        "5 voxels have a truth but no label, or one that matches no class; they count as wrong"
    )
    lines = run(place / "truth.tif", place / "pred.tif", "--match").splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [["2", "2"], ["4", "1"], ["7", "-"], ["9", "3"]]
    assert not any("match no true class" in line for line in lines)


def test_the_json_has_the_matching(place):
    figures = json.loads(
        run(place / "pred.tif", place / "truth.tif", "--match", "--json", "--classes", "a,b,c")
    )
    assert figures["matching"] == {"2": "b", "4": "a", "7": None, "9": "c"}
    assert figures["purity"] == 1.0
