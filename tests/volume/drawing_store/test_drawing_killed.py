"""Real processes draw and are killed; others read meanwhile, and train on what is there."""

import multiprocessing
import os
import signal
import time
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import zarr
from drawing_data import (
    DRAWN,
    FLUSHED,
    REPORT,
    SHAPE,
    act,
    create,
    disc,
    draw_until_killed,
    fork_on_request,
    lasting,
    open_and_wait,
    place,
)
from ome_zarr_models.v05 import ImageLabel
from run_data import QUICK, draw, make_volume

from hrvol.classes import default_classes
from hrvol.errors import BusyError
from hrvol.segment.model.model import model_bytes
from hrvol.training.train import train_model
from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.grid.tiling import whole
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.volume import open_volume

ALL = whole(SHAPE)
CLASSES = default_classes([1, 2], ["pore", "solid"])
KILLS = 20
LOST = 2.0


class Model:
    """What strokes are after each of the changes."""

    def __init__(self, path):
        self._store = create(path, classes=CLASSES)
        self._states = [(self._store.read(ALL), CLASSES)]

    def after(self, count):
        while len(self._states) <= count:
            act(self._store, len(self._states) - 1)
            self._states.append((self._store.read(ALL), self._store.classes))
        return self._states[count]

    def close(self):
        self._store.close()


class Drawer:
    """Another process that draws."""

    def __init__(self, connection, function, log, *arguments):
        self._connection = connection
        connection.send((function, *arguments, str(log)))
        self.pid = connection.recv()
        deadline = time.monotonic() + 60
        while not log.exists() or not log.stat().st_size:
            assert time.monotonic() < deadline
            assert not connection.poll(0.005), "it ended"

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        assert self._connection.recv() is None


@pytest.fixture(scope="module")
def drawer():
    """A function that starts a process, and waits for its first report."""
    spawned = multiprocessing.get_context("spawn")
    ours, theirs = spawned.Pipe()
    process = spawned.Process(target=fork_on_request, args=(theirs,))
    process.start()
    yield partial(Drawer, ours)
    ours.send(None)
    process.join()


def bytes_of(model):
    (entry,) = model.trained_on
    return model_bytes(replace(model, trained_on=(entry | {"strokes": "strokes"},)))


def check_unopened(path, flushed, model):
    """What was flushed is there for every reader, before the store is opened again."""
    with warnings.catch_warnings(action="error"):
        ImageLabel.from_zarr(zarr.open_group(path, mode="r"))
    found = open_strokes(path, open_volume(np.zeros(SHAPE, np.uint8)))
    expected, values = model.after(flushed + 1)[0], found.read(ALL)
    for number in range(flushed + 1):
        if lasting(number):
            where = disc(place(number))
            assert np.array_equal(values[where], expected[where]), number


def test_a_process_that_is_killed_loses_two_seconds_at_most_and_damages_nothing(tmp_path, drawer):
    path = tmp_path / "strokes.ome.zarr"
    create(path, classes=CLASSES).close()
    model = Model(tmp_path / "model.ome.zarr")
    rng = np.random.default_rng(os.getpid())
    first, flushed = 0, -1
    for kill in range(KILLS):
        log = tmp_path / f"{kill}.log"
        process = drawer(draw_until_killed, log, path, first, int(rng.integers(2**32)))
        time.sleep(rng.uniform(0, 0.4) if kill else 2.6)
        process.kill()
        at = time.monotonic()
        data = log.read_bytes()
        reports = [REPORT.unpack_from(data, i) for i in range(0, len(data), REPORT.size)]
        flushed = max([number for kind, number, _ in reports if kind == FLUSHED], default=flushed)
        check_unopened(path, flushed, model)
        with DrawingStore.open(path) as store:
            values, classes = store.read(ALL), store.classes
            assert np.array_equal(store.points().places, np.argwhere(values))
        drawn = [number for kind, number, when in reports if kind == DRAWN and when < at - LOST]
        least = max([*drawn, flushed, first - 1]) + 1
        most = reports[-1][1] + 2  # the next change may have been made and not reported
        matching = [
            count
            for count in range(least, most + 1)
            if np.array_equal(values, model.after(count)[0]) and classes == model.after(count)[1]
        ]
        assert matching, (kill, least, most)
        first = matching[0]
        assert first >= most - 40  # what is lost is far less than 2 s
    model.close()
    assert first > 3 * KILLS
    assert np.array_equal(zarr.open_array(path / "0", mode="r")[...], values)


def test_another_writer_is_refused_in_one_line_and_readers_are_fine(tmp_path, drawer):
    path = tmp_path / "strokes.ome.zarr"
    create(path, classes=CLASSES).close()
    process = drawer(open_and_wait, tmp_path / "log", path)
    with pytest.raises(
        BusyError, match=f"process {process.pid} on .* draws in it, expected nobody else"
    ) as busy:
        DrawingStore.open(path)
    assert "\n" not in str(busy.value)
    assert np.count_nonzero(open_strokes(path).read(ALL)) == len(disc((0, 0, 0))[0])
    process.kill()
    with DrawingStore.open(path) as store:
        assert len(store.points()) == len(disc((0, 0, 0))[0])
        with pytest.raises(BusyError):
            DrawingStore.open(path)


def test_training_on_a_killed_store_is_training_on_its_strokes(tmp_path, drawer):
    image, truth = make_volume()
    strokes = draw(truth)
    volume = open_volume(image)
    path = tmp_path / "strokes.ome.zarr"
    with DrawingStore.create(path, volume, default_classes([1, 2], ["matrix", "disc"])) as store:
        store.paint(np.s_[0 : image.shape[0], 0 : image.shape[1], 0 : image.shape[2]], strokes)
    process = drawer(open_and_wait, tmp_path / "log", path)
    process.kill()
    expected = strokes.copy()
    expected[disc((1, 20, 20))] = 1
    model = train_model([(image, path)], recipe=QUICK)
    dense = train_model([(image, expected)], recipe=QUICK, classes=["matrix", "disc"])
    assert [info.name for info in model.classes] == ["matrix", "disc"]
    assert bytes_of(model) == bytes_of(dense)
