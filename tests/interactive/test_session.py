"""A session shows what a run writes, and its model is that of training."""

import sys
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest
from session_data import CLASSICAL, HYBRID, SHAPE, ReadDrawing, classes, damaged, phantom, strokes_of

from hrvol.errors import InputError, MissingExtraError, StrokesError, UnreadableError, UsageError
from hrvol.interactive import background
from hrvol.interactive.session import Session
from hrvol.recipe.specs import CrfSpec, IntensitySpec
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import load_model, model_bytes, save_model
from hrvol.training.train import train_model
from hrvol.volume.volume import open_labels

NAMES = ("pore", "binder", "particle")
SOURCE = "ndarray array 4x100x130"  # as training names strokes in memory
WAIT = 60


@pytest.fixture(scope="module")
def scene():
    image, truth = phantom()
    return image, truth, strokes_of(truth)


@pytest.fixture(params=["classical", "hybrid"])
def recipe(request):
    return {"classical": CLASSICAL, "hybrid": HYBRID}[request.param]


@pytest.fixture
def begin(scene, weights, tmp_path):
    opened = []

    def start(recipe=CLASSICAL, drawing=None, volume=None, **options):
        image, _, strokes = scene
        drawing = drawing or ReadDrawing(strokes, classes())
        drawing.source = SOURCE
        options = {"cache": tmp_path / "cache", "threads": 2, "device": "cpu"} | options
        session = Session.open(
            image if volume is None else volume, drawing, recipe=recipe, weights_path=weights, **options
        )
        session.on_error(errors.append)
        opened.append(session)
        return session, drawing

    errors = []
    yield start
    for session in opened:
        session.close()
    expected = ("two", "expected one to make", "at present", "pydensecrf2", "cannot read")
    assert not [line for line in errors if not any(text in line for text in expected)]


class Seen(list):
    """Collects previews, and waits for one."""

    def __init__(self, session):
        super().__init__()
        self._new = threading.Condition()
        self.errors = []
        session.on_preview(self._add)
        session.on_error(self.errors.append)

    def _add(self, preview):
        with self._new:
            self.append(preview)
            self._new.notify_all()

    def wait(self, wanted, timeout=WAIT):
        with self._new:
            assert self._new.wait_for(lambda: any(map(wanted, self)), timeout), (
                self.errors,
                [(p.stage, p.exact, p.complete, p.version) for p in self],
            )
            return next(p for p in self if wanted(p))


def test_previews_become_what_a_run_writes(begin, scene, recipe, weights, tmp_path):
    image, _, strokes = scene
    session, _ = begin(recipe)
    seen = Seen(session)
    session.view(1, slice(10, 95), slice(-5, 120))
    preview = session.update().result(WAIT)
    model = session.model()
    save_model(model, tmp_path / "m.hrvol")
    plane = (slice(1, 2), slice(None), slice(None))
    segment_volume(
        image,
        tmp_path / "out.ome.zarr",
        tmp_path / "m.hrvol",
        **{"weights_path": weights, "roi": plane, "device": "cpu"},
    )
    expected = open_labels(tmp_path / "out.ome.zarr").read()[1, 10:95, :120]
    assert (preview.plane, preview.rows, preview.columns) == (1, slice(10, 95), slice(0, 120))
    assert preview.exact
    assert preview.stage == "recipe"
    assert np.array_equal(preview.labels, expected)
    assert session.preview() is seen[-1]
    trained = train_model(
        [(image, strokes)], recipe=recipe, classes=NAMES, device="cpu", weights_path=weights
    )
    assert model_bytes(model) == model_bytes(trained)
    assert model_bytes(load_model(tmp_path / "m.hrvol")) == model_bytes(trained)
    # Class weights act on the cached probabilities, as those of a run do.
    session.class_weights = {1: 0.3, 3: 2.0}
    changed = seen.wait(lambda p: p.exact and not np.array_equal(p.labels, expected))
    segment_volume(
        image,
        tmp_path / "weighted.ome.zarr",
        tmp_path / "m.hrvol",
        **{"class_weights": {"pore": 0.3, "particle": 2.0}},
        **{"weights_path": weights, "roi": plane, "device": "cpu"},
    )
    weighted = open_labels(tmp_path / "weighted.ome.zarr").read()[1, 10:95, :120]
    assert np.array_equal(changed.labels, weighted)


def test_an_exact_preview_is_refined_as_a_run_is(begin, scene, tmp_path, monkeypatch):
    pytest.importorskip("pydensecrf.densecrf")
    session, _ = begin(CLASSICAL.with_(crf=CrfSpec()))
    session.view(1, slice(0, 100), slice(0, 130))
    preview = session.update().result(WAIT)
    plane = (slice(1, 2), slice(None), slice(None))
    segment_volume(scene[0], tmp_path / "out.ome.zarr", session.model(), roi=plane, device="cpu")
    assert np.array_equal(preview.labels, open_labels(tmp_path / "out.ome.zarr").read()[1])
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(MissingExtraError, match="pydensecrf2"):  # as a run says it
        session.update().result(WAIT)


def test_quick_previews_come_first_and_are_alike(begin, recipe):
    session, _ = begin(recipe)
    seen = Seen(session)
    session.view(1, slice(0, 100), slice(0, 130))
    session.live = True
    exact = seen.wait(lambda p: p.exact)
    quick = [p for p in seen[: seen.index(exact)] if p.complete]
    names = ["recipe"] if recipe is CLASSICAL else ["filters", "fast", "recipe"]
    assert [n for i, n in enumerate(p.stage for p in quick) if n not in [p.stage for p in quick[:i]]] == names
    last = quick[-1]
    assert (last.stage, last.step, last.exact) == ("recipe", 1, False)
    assert (last.labels == exact.labels).mean() > 0.85
    for preview in (*quick, exact):
        assert np.allclose(preview.probabilities.sum(axis=0), 1, atol=1e-5)
        assert preview.uncertainty.min() >= 0
        assert preview.uncertainty.max() <= 1


def test_models_of_changed_strokes_are_those_of_training(begin, scene, recipe, weights):
    image, truth, strokes = scene
    session, drawing = begin(recipe)
    session.view(0, slice(0, 100), slice(0, 130))
    first = session.model()
    box = (slice(3, 4), slice(20, 90), slice(30, 33))
    drawing.paint(box, truth[box])
    drawing.reads.clear()
    second = session.model()
    assert drawing.reads == [(3,)]  # only the plane that was drawn on
    changed = strokes.copy()
    changed[box] = truth[box]
    pairs = {"recipe": recipe, "classes": NAMES, "device": "cpu", "weights_path": weights}
    assert model_bytes(second) == model_bytes(train_model([(image, changed)], **pairs))
    drawing.paint(box, strokes[box])
    assert model_bytes(session.model()) == model_bytes(first)


def test_live_previews_follow_strokes_and_view(begin, scene):
    _, truth, _ = scene
    session, drawing = begin()
    seen = Seen(session)
    session.live = True
    session.view(1, slice(0, 100), slice(0, 100))
    seen.wait(lambda p: p.version == 0 and p.complete)
    box = (slice(1, 2), slice(40, 60), slice(10, 13))
    drawing.paint(box, truth[box])
    seen.wait(lambda p: p.version == 1 and p.complete and not p.exact)
    session.view(2, slice(50, 100), slice(50, 130))
    found = seen.wait(lambda p: p.plane == 2 and p.complete)
    assert found.version == 1
    seen.wait(lambda p: p.plane == 2 and p.exact)  # when nothing changes
    session.live = False
    drawing.paint(box, 0)
    time.sleep(0.2)
    assert session.preview().version == 1


class HeldDrawing(ReadDrawing):
    """Strokes whose version the thread that watches them reads late, while ``free`` is not set."""

    free = threading.Event()

    @property
    def version(self):
        if threading.current_thread().name == "hrvol-watch":
            self.free.wait(WAIT)
        return self._version

    @version.setter
    def version(self, value):
        self._version = value


def test_strokes_that_another_thread_reads_first_are_previewed(begin, scene):
    _, truth, strokes = scene
    HeldDrawing.free.set()
    session, drawing = begin(drawing=HeldDrawing(strokes, classes()), memory=1)  # no neighbours arrive
    seen = Seen(session)
    session.view(1, slice(0, 60), slice(0, 60))
    session.live = True
    seen.wait(lambda p: p.exact)
    drawing.free.clear()
    box = (slice(1, 2), slice(40, 50), slice(10, 13))
    drawing.paint(box, truth[box])
    session._work.strokes.read()  # as the thread that prepares features does
    drawing.free.set()
    seen.wait(lambda p: p.version == 1, timeout=10)


def test_strokes_are_read_in_threads_of_the_session(begin, scene):
    readers, failures = set(), ["strokes: cannot be read at present"]

    class WatchedDrawing(ReadDrawing):
        def points(self, planes=None):
            readers.add(threading.current_thread().name)
            if failures:
                raise StrokesError(failures.pop())
            return super().points(planes)

    drawing = WatchedDrawing(scene[2], classes())
    session, _ = begin(drawing=drawing)
    seen = Seen(session)
    session.view(1, slice(0, 60), slice(0, 60))
    session.live = True
    session.student = None
    assert session.student is None
    seen.wait(lambda p: p.complete)  # they are read again
    assert threading.current_thread().name not in readers


def test_a_preview_is_gone_with_the_second_class(begin, scene):
    session, drawing = begin()
    seen, gone = Seen(session), threading.Event()
    session.on_nothing(gone.set)
    session.view(1, slice(0, 60), slice(0, 60))
    session.live = True
    seen.wait(lambda p: p.complete)
    everything = tuple(slice(0, n) for n in SHAPE)
    drawing.paint(everything, 0)
    assert gone.wait(WAIT)
    assert session.preview() is None
    drawing.paint(everything, scene[2])
    assert seen.wait(lambda p: p.version == 2).classes == classes()


def test_a_coarse_level_has_fewer_values(begin):
    session, _ = begin()
    session.view(0, slice(0, 100), slice(0, 130))
    whole = session.update().result(WAIT)
    session.view(0, slice(0, 100), slice(0, 130), level=2)
    part = session.update().result(WAIT)
    assert part.step == 4
    assert np.array_equal(part.labels, whole.labels[::4, ::4])


def test_the_exact_preview_of_a_large_view_does_not_follow(begin, monkeypatch):
    session, _ = begin()
    monkeypatch.setattr(background, "IDLE", 0.05)
    session.view(0, slice(0, 100), slice(0, 130))
    follow = session._work._follow
    assert session._work._slow.submit("exact", follow).result(WAIT).exact
    monkeypatch.setattr(background, "LIVE_TILES", 5)
    with pytest.raises(CancelledError):
        session._work._slow.submit("exact", follow).result(WAIT)
    assert session.update().result(WAIT).exact


def test_newer_updates_cancel_older_ones(begin):
    session, _ = begin(HYBRID)
    session.view(0, slice(0, 100), slice(0, 130))
    older, newer = session.update(), session.update()
    assert newer.result(WAIT).exact
    assert older.cancelled
    ticket = session.request_quality()
    session.cancel()
    assert ticket.cancelled
    assert session.update().result(WAIT).exact


def test_errors_are_one_line_each(begin, scene):
    image, _, _ = scene
    empty = ReadDrawing(np.zeros(SHAPE, np.uint8))
    session, drawing = begin(drawing=empty)
    lines = []
    session.on_error(lines.append)
    with pytest.raises(UsageError, match="expected one to make a preview"):
        session.update().result(WAIT)
    session.view(0, slice(0, 100), slice(0, 100))
    with pytest.raises(StrokesError, match="expected strokes of at least two"):
        session.update().result(WAIT)
    with pytest.raises(StrokesError):
        session.quality()
    with pytest.raises(StrokesError):
        session.next_places()
    assert len(lines) == 4
    assert not any("\n" in line for line in lines)
    with pytest.raises(UsageError, match="expected pixels of a volume"):
        session.view(9, slice(0, 10), slice(0, 10))
    with pytest.raises(UsageError, match="class weights"):
        session.class_weights = {1: 0.0}
    with pytest.raises(InputError, match="found shape"):
        Session.open(image[:2], drawing)
    # One class only: nothing to learn from yet, and no error in live mode.
    lines.clear()
    session.live = True
    box = (slice(0, 1), slice(0, 5), slice(0, 5))
    drawing.paint(box, 1)
    time.sleep(0.3)
    assert not lines
    drawing.paint((slice(0, 1), slice(50, 60), slice(50, 60)), 2)
    seen = Seen(session)
    seen.wait(lambda p: p.version == 2)
    assert [info.name for info in session.preview().classes] == ["class 1", "class 2"]


def test_a_tile_that_cannot_be_read_is_reported_once(begin, scene, tmp_path):
    image, truth, _ = scene
    given = IntensitySpec(window=(float(image.min()), float(image.max())))  # else planes are read for it
    recipe = CLASSICAL.with_(intensity=given)
    session, drawing = begin(recipe, volume=damaged(tmp_path / "volume.zarr"))
    seen = Seen(session)
    session.view(1, slice(0, 60), slice(0, 60))
    session.live = True
    for number in range(1, 4):
        seen.wait(lambda p, version=number - 1: p.version == version and p.complete)
        box = (slice(1, 2), slice(10 * number, 10 * number + 3), slice(0, 50))
        drawing.paint(box, truth[box])
    seen.wait(lambda p: p.version == 3)
    assert len(seen.errors) == 1, seen.errors
    with pytest.raises(UnreadableError):  # there are strokes on it
        session.model()


def test_listeners_that_fail_stop_nothing(begin):
    session, _ = begin()
    forget = session.on_preview(lambda preview: 1 / 0)
    session.view(0, slice(0, 60), slice(0, 60))
    assert session.update().result(WAIT).exact
    forget()
    forget()


def test_closing_ends_all_threads(begin):
    before = set(threading.enumerate())
    session, _ = begin(HYBRID)
    session.view(0, slice(0, 100), slice(0, 130))
    session.live = True
    time.sleep(0.2)
    session.close()
    session.close()
    names = {thread.name for thread in set(threading.enumerate()) - before if thread.is_alive()}
    assert not {name for name in names if name.split("-")[-1] in ("publish", "preview", "model", "features")}


def test_features_are_found_again_by_another_session(begin, tmp_path, monkeypatch):
    from hrvol.interactive import parts

    passes = []
    tokens = parts._Gated.tokens

    def counted(self, *arguments, **options):
        passes.append(1)
        return tokens(self, *arguments, **options)

    monkeypatch.setattr(parts._Gated, "tokens", counted)
    for expected in (True, False):
        session, _ = begin(HYBRID)
        seen = Seen(session)
        passes.clear()
        session.view(0, slice(0, 60), slice(0, 60))
        session.live = True
        seen.wait(lambda p: p.stage == "recipe" and p.complete and not p.exact)
        assert bool(passes) == expected
        if expected:
            seen.wait(lambda p: p.exact)  # after the features of all strokes
        session.close()
    assert list((tmp_path / "cache").glob("*.safetensors"))
