"""Places to draw next, cross-validation, and previews of students."""

import numpy as np
import pytest
from session_data import CLASSICAL, ReadDrawing, classes, phantom, strokes_of
from student_data import CUBIC, FLAT, student_model

from hrvol.errors import ModelError, StrokesError, UsageError
from hrvol.interactive.drawing import DrawnStrokes
from hrvol.interactive.places import Candidates, choose_places
from hrvol.interactive.session import Session
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import save_model
from hrvol.volume.volume import open_labels

WAIT = 60


@pytest.fixture(scope="module")
def scene():
    image, truth = phantom()
    return image, truth, strokes_of(truth)


@pytest.fixture
def session(scene):
    image, _, strokes = scene
    with Session.open(
        image,
        ReadDrawing(strokes, classes()),
        recipe=CLASSICAL,
        cache=False,
        device="cpu",
        threads=1,
    ) as opened:
        yield opened


def test_places_are_in_what_is_looked_at(session, scene):
    _, _, strokes = scene
    with pytest.raises(UsageError, match="found no view"):
        session.next_places()
    session.view(1, slice(20, 90), slice(30, 120))
    places = session.next_places(5)
    assert len(places) == 5
    assert all(p.plane == 1 and 20 <= p.row < 90 and 30 <= p.column < 120 for p in places)
    assert all(0 < p.uncertainty <= 1 for p in places)
    pairs = [(a, b) for i, a in enumerate(places) for b in places[:i]]
    assert all(abs(a.row - b.row) + abs(a.column - b.column) >= 12 for a, b in pairs)
    session.view(0, slice(0, 100), slice(0, 130))
    on_strokes = session.next_places(200)
    assert on_strokes
    assert not any(strokes[p.plane, p.row, p.column] for p in on_strokes)
    visited = {p.plane for p in session.next_places(30, "visited")}
    assert {0, 1} <= visited <= {0, 1, 2}  # 2 is drawn on
    assert len({p.plane for p in session.next_places(12, "volume")}) > 2
    with pytest.raises(UsageError, match="expected view, visited or volume"):
        session.next_places(1, "plane")


def test_uncertain_places_that_differ_are_chosen():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 50)  # kinds of features; the strokes are on the first
    features = np.zeros((200, 3), np.float32)
    features[np.arange(200), np.minimum(groups, 2)] = 5
    features[groups == 3] = -5
    features += rng.normal(0, 0.01, features.shape).astype(np.float32)
    uncertainty = np.where(groups == 2, 0.05, 0.5).astype(np.float32)
    places = np.stack([np.zeros(200), 20 * np.arange(200), np.zeros(200)], axis=1).astype(np.int64)
    drawing = ReadDrawing(np.zeros((1, 10, 10), np.uint8))
    drawn = DrawnStrokes(drawing).read()
    chosen = choose_places(Candidates(places, uncertainty, features), drawn, features[:10], 2)
    kinds = {int(groups[p.row // 20]) for p in chosen}
    assert kinds == {1, 3}  # not what is drawn already, nor what is certain
    # An outlier, however uncertain, stands for nothing else.
    features[0], uncertainty[0] = 40, 1
    (place,) = choose_places(Candidates(places, uncertainty, features), drawn, features[10:20], 1)
    assert place.row > 0
    assert choose_places(Candidates(places, uncertainty, features), drawn, features[:0], 3)


def test_quality_is_that_of_held_out_strokes(session, scene):
    steps = []
    session.on_progress(lambda *report: steps.append(report))
    quality = session.quality()
    assert [info.name for info in quality.classes] == ["pore", "binder", "particle"]
    assert all(0 <= value <= 1 for value in quality.iou)
    assert quality.mean == pytest.approx(np.mean(quality.iou))
    assert quality.mean > 0.4
    assert "4 folds of whole strokes" in quality.description
    assert any(stage == "cross-validation" for stage, _, _ in steps)
    assert session.quality() == quality


def test_a_class_that_cannot_be_held_out_has_no_iou(scene):
    image, _, strokes = scene
    strokes = np.where(strokes == 3, 0, strokes)
    strokes[1, 50, 50] = 3
    with Session.open(image, ReadDrawing(strokes), recipe=CLASSICAL, cache=False, device="cpu") as session:
        quality = session.quality()
    assert np.isnan(quality.iou[2])
    assert quality.mean == pytest.approx(np.mean(quality.iou[:2]))
    with (
        Session.open(image, ReadDrawing(strokes * 0), recipe=CLASSICAL, cache=False) as session,
        pytest.raises(StrokesError),
    ):
        session.quality()


@pytest.mark.parametrize("spec", [FLAT, CUBIC], ids=["planes", "volumes"])
def test_the_last_stage_is_that_of_the_student(scene, spec, tmp_path):
    image, _, strokes = scene
    model = student_model(spec)
    save_model(model, tmp_path / "s.hrvol")
    image = (image // 256).astype(np.uint8)
    segment_volume(image, tmp_path / "out.ome.zarr", tmp_path / "s.hrvol", device="cpu")
    expected = open_labels(tmp_path / "out.ome.zarr").read()[1, 10:95, :120]
    drawing = ReadDrawing(strokes, classes())
    options = {"recipe": CLASSICAL, "cache": False, "device": "cpu", "student": tmp_path / "s.hrvol"}
    with Session.open(image, drawing, **options) as session:
        session.view(1, slice(10, 95), slice(0, 120))
        found = session.update().result(WAIT)
        assert found.stage == "student"
        assert not found.exact
        assert (found.labels == expected).mean() > 0.999  # those of equal probabilities may differ
        drawing.paint((slice(0, 1), slice(0, 3), slice(0, 3)), 1)
        assert session.student is None  # it does not know these strokes
        assert session.update().result(WAIT).stage == "recipe"
        session.student = None
        with pytest.raises(ModelError, match="expected a student"):
            session.student = session.model()
