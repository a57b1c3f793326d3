"""Features of what is seen are there, whatever else is prepared."""

import tracemalloc

import numpy as np
import pytest
import zarr
from session_data import CLASSICAL, damaged, phantom, strokes_of

from hrvol.errors import ResourceError, UnreadableError
from hrvol.features.weights.source import WeightsSource
from hrvol.interactive import answers, fetch, stroke_rows
from hrvol.interactive.array_drawing import ArrayDrawing
from hrvol.interactive.drawing import DrawnStrokes
from hrvol.interactive.fetch import Fetcher
from hrvol.interactive.lane import Gate
from hrvol.interactive.live import LivePreviews
from hrvol.interactive.parts import TileParts
from hrvol.interactive.regions import Region, keys_of_region
from hrvol.interactive.stages import stages_of
from hrvol.volume.intensity import common_window
from hrvol.volume.volume import open_volume

FEW = 200_000  # bytes: three tiles


class Desk:
    """What prepares features of a small volume, without threads."""

    def __init__(self, labels, image=None, memory=FEW, threads=1):
        volume = open_volume(phantom()[0] if image is None else image)
        window = common_window([open_volume(phantom()[0])], CLASSICAL.intensity, CLASSICAL.seed)
        self.parts = TileParts(
            volume,
            window,
            CLASSICAL.tiles,
            device="cpu",
            weights=WeightsSource(),
            disk=None,
            memory=memory,
        )
        self.live = LivePreviews(self.parts, stages_of(CLASSICAL), CLASSICAL, 1)
        self.stage = self.live.stages[-1]
        self.drawing = ArrayDrawing(labels)
        self.strokes = DrawnStrokes(self.drawing)
        self.progress, self.errors = [], []
        self.fetcher = Fetcher(
            self.parts,
            self.live,
            self.strokes,
            on_new=lambda: None,
            on_progress=lambda *values: self.progress.append(values),
            on_error=self.errors.append,
            idle=lambda: False,
            threads=threads,
        )

    def look(self, plane, level=0):
        _, height, width = self.parts.volume.shape
        region = Region(plane, slice(0, height), slice(0, width), level)
        self.region = region
        self.keys = keys_of_region(self.parts.volume.shape, self.parts.tiles, region)
        self.fetcher.look(region)
        self.fetcher.run(Gate())

    def held(self):
        return [self.parts.get(self.stage, key) is not None for key in self.keys]

    def missing(self):
        return self.live.missing(self.stage, self.strokes.read())


@pytest.fixture
def everywhere():
    return strokes_of(phantom()[1], (0, 1, 2, 3))


@pytest.mark.parametrize("threads", [1, 4])
def test_strokes_of_other_planes_do_not_push_the_view_out_of_memory(everywhere, threads):
    desk = Desk(everywhere, threads=threads)
    desk.look(1)
    assert all(desk.held())
    assert desk.missing() == ()
    desk.drawing.paint((slice(1, 2), slice(0, 100), slice(60, 61)), 3)
    assert desk.missing() == ()  # a stroke in the view counts at once
    desk.look(2)
    assert all(desk.held())
    assert desk.parts.memory.nbytes < 16 * FEW // 3  # those of the plane before are not held


def test_features_that_were_dropped_are_prepared_again(everywhere):
    desk = Desk(everywhere)
    desk.look(0)
    desk.parts.memory.clear()
    desk.fetcher.run(Gate())
    assert all(desk.held())
    assert desk.progress[-1][1:] == (len(desk.keys), len(desk.keys))


def test_features_that_are_lost_at_once_are_not_prepared_for_ever(everywhere, monkeypatch):
    desk = Desk(np.zeros_like(everywhere))
    monkeypatch.setattr(desk.parts.memory, "put", lambda *values: None)
    desk.look(0)  # ends
    assert not any(desk.held())


@pytest.mark.parametrize("threads", [1, 4])
def test_a_tile_that_cannot_be_read_stops_no_others(everywhere, tmp_path, threads, monkeypatch):
    desk = Desk(everywhere, damaged(tmp_path / "volume.zarr"), threads=threads)
    desk.look(1)
    assert all(desk.held())
    assert {key[0] for key in desk.missing()} == {0}
    desk.drawing.paint((slice(1, 2), slice(0, 100), slice(60, 61)), 3)
    desk.fetcher.run(Gate())
    assert [type(error) for error in desk.errors] == [UnreadableError]
    desk.look(0)
    assert desk.progress[-1][1:] == (len(desk.keys), len(desk.keys))
    assert len(desk.errors) <= 2  # of tiles that were not seen before
    (tmp_path / "volume.zarr" / "c" / "0" / "0" / "0").unlink()  # readable again: zeros
    monkeypatch.setattr(fetch, "_RETRY", 0.0)
    desk.fetcher.run(Gate())
    assert all(desk.held())
    assert desk.missing() == ()


@pytest.fixture
def wide(everywhere, tmp_path):
    """A plane of 3136 tiles, of which few are drawn on."""
    array = zarr.create_array(tmp_path / "wide.zarr", shape=(1, 3600, 3600), dtype="u1", chunks=(1, 512, 512))
    array[0, :100, :130] = phantom()[0][0]
    labels = np.zeros(array.shape, np.uint8)
    labels[0, :100, :130] = everywhere[0]
    return Desk(labels, tmp_path / "wide.zarr", memory=2**24)


def test_previews_of_large_planes_are_made_of_the_tiles_that_are_known(wide):
    wide.look(0, level=5)
    assert len(wide.keys) == 57 * 57 > fetch.MOST_TILES
    found = []
    tracemalloc.start()
    try:
        wide.live.make(wide.region, wide.strokes.read(), Gate(), found.append)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * 2**20  # the weights of all tiles are five times as many
    preview = found[-1]
    assert not preview.complete
    known = preview.probabilities.sum(axis=0) > 0
    assert known[56, 56]
    assert known[0, 0]  # drawn on
    assert 2 * fetch.MOST_TILES < known.sum() < 6 * fetch.MOST_TILES


def test_places_of_large_views_are_looked_for_in_a_sample(wide):
    wide.look(0, level=5)
    wide.progress.clear()
    places = answers.find_places(
        wide.parts,
        wide.live,
        wide.strokes.read(),
        wide.region,
        answers.Search("view"),
        Gate(),
        progress=lambda *values: wide.progress.append(values),
    )
    assert len(places) == 1
    assert wide.progress[-1][2] <= answers.VIEW


def test_features_of_strokes_are_kept_for_older_and_newer_versions():
    desk = Desk(strokes_of(phantom()[1], (0,)))
    desk.look(0)
    older = desk.strokes.read()
    for row in (10, 70):  # in all tiles: of class 2, others are chosen
        desk.drawing.paint((slice(0, 1), slice(row, row + 4), slice(0, 130)), 2)
    newer = desk.strokes.read()
    desk.live.missing(desk.stage, newer)
    desk.parts.memory.clear()
    pixels = [drawn.choose(300, CLASSICAL.seed) for drawn in (older, newer)]
    rows = [desk.live.rows.collect(desk.stage, each) for each in pixels + pixels]
    for features, known, missing in rows:
        assert known.all()
        assert missing == ()
        assert len(features) == len(known)
    for first, again in zip(rows[:2], rows[2:], strict=True):
        assert np.array_equal(first[0], again[0])
    where = [{tuple(place): n for n, place in enumerate(each.where)} for each in pixels]
    shared = where[0].keys() & where[1].keys()
    assert len(shared) > 20
    for place in shared:
        assert np.array_equal(rows[0][0][where[0][place]], rows[1][0][where[1][place]])


def test_features_of_strokes_take_little_memory(everywhere, monkeypatch):
    monkeypatch.setattr(stroke_rows, "_FEW", 0)
    desk = Desk(everywhere)
    desk.look(0)
    for number in range(12):
        desk.drawing.paint((slice(0, 1), slice(8 * number, 8 * number + 8), slice(0, 130)), 1 + number % 3)
        desk.fetcher.run(Gate())
        kept = sum(len(rows.keys) for rows in desk.live.rows._rows[desk.stage.name].values())
        assert kept <= stroke_rows._MOST * len(desk.live.pixels(desk.strokes.read()))


def test_places_without_memory_are_an_error_of_one_line(everywhere, monkeypatch):
    desk = Desk(everywhere)
    desk.look(0)
    monkeypatch.setattr(desk.live, "fit", lambda *values: None)
    values = desk.parts, desk.live, desk.strokes.read(), desk.region, answers.Search("view"), Gate()
    with pytest.raises(ResourceError, match="found too little memory"):
        answers.find_places(*values, progress=lambda *progress: None)
