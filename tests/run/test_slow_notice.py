"""A run that will take hours with a model names the command that makes a student, once."""

import logging
import shlex

import numpy as np
import pytest
import zarr
from run_data import QUICK, draw, make_volume
from student_data import FLAT, student_model

from hrvol.cli import main
from hrvol.run.segment import segment_volume
from hrvol.run.students import slow_notice
from hrvol.run.students.slow_notice import with_notice
from hrvol.segment.model.model import save_model
from hrvol.training.train import train_model


@pytest.fixture
def said(caplog):
    """Return the notices so far."""
    caplog.set_level(logging.INFO, "hrvol.run")
    return lambda: [text for text in caplog.messages if "this run will take" in text]


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def reports(steps, total, message=": advice"):
    """Report voxels done after so many seconds; return what was reported on."""
    clock, seen = Clock(), []
    report = with_notice(lambda *values: seen.append(values), message, clock)
    for stage, seconds, done in steps:
        clock.now = 100.0 + seconds
        report(stage, done, total)
    return seen


def test_the_pace_of_the_first_minute_decides_once(said):
    steps = [("check", 0, 0), ("segment", 0, 0), ("segment", 30, 5), ("segment", 60, 10), ("segment", 90, 11)]
    seen = reports(steps, 1000)
    assert seen == [(stage, done, 1000) for stage, _, done in steps]
    assert said() == ["this run will take about 1 h 40 min: advice"]


@pytest.mark.parametrize(
    ("steps", "total"),
    [
        ([("segment", 0, 0), ("segment", 60, 20), ("segment", 7200, 21)], 1000),  # decided at 50 min
        ([("segment", 0, 0), ("segment", 50, 1)], 10**6),  # too early
        ([("segment", 0, 0), ("segment", 600, 0)], 10**6),  # no block yet
        ([("segment", 0, 900), ("segment", 60, 910)], 1000),  # resumed: ten minutes are left
        ([("levels", 0, 0), ("levels", 60, 1)], 10**6),
    ],
)
def test_shorter_runs_and_other_stages_say_nothing(said, steps, total):
    reports(steps, total)
    assert said() == []


def test_it_waits_for_a_block_that_takes_long(said):
    reports([("segment", 0, 0), ("segment", 600, 0), ("segment", 1800, 1)], 100)
    assert said() == ["this run will take about 2 d 02 h: advice"]


@pytest.fixture
def hurried(monkeypatch):
    """Let every run count as long from its first block on."""
    monkeypatch.setattr(slow_notice, "SETTLED", 0.0)
    monkeypatch.setattr(slow_notice, "LONG", -1.0)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a folder")
    image, truth = make_volume()
    zarr.create_array(folder / "volume.zarr", data=image)
    save_model(train_model([(image, draw(truth))], recipe=QUICK, classes=["a", "b"]), folder / "model.hrvol")
    return folder


def test_a_run_names_the_command_once(hurried, said, project, tmp_path):
    roi = (slice(0, 4), slice(0, 70), slice(0, 70))
    out = tmp_path / "labels.ome.zarr"
    segment_volume(project / "volume.zarr", out, project / "model.hrvol", roi=roi)
    (notice,) = said()
    start, _, command = notice.partition("make one with: ")
    assert start.endswith("a student of the model is many times as fast; ")
    words = shlex.split(command)
    files = [str(project / "volume.zarr"), str(project / "model.hrvol"), "-o"]
    assert words == [
        *("hrvol", "distil", *files, str(tmp_path / "labels.student.hrvol")),
        *("--roi", "0:4,0:70,0:70"),
    ]
    context = main.commands["distil"].make_context("distil", words[2:])
    assert context.params["output"] == words[5]


def test_students_and_complete_outputs_need_no_notice(hurried, said, project, tmp_path):
    image = make_volume()[0]
    segment_volume(image, tmp_path / "student", student_model(FLAT, (1, 2)))
    assert said() == []
    model = project / "model.hrvol"
    segment_volume(image, tmp_path / "array", model, roi=(slice(0, 2), slice(0, 64), slice(0, 64)))
    (notice,) = said()
    assert notice.endswith("(hrvol.distil_model, or hrvol distil with files)")
    assert np.all(zarr.open_array(tmp_path / "array/labels/hrvol/0", mode="r")[:2, :64, :64])
    segment_volume(image, tmp_path / "array", model, roi=(slice(0, 2), slice(0, 64), slice(0, 64)))
    assert len(said()) == 1
