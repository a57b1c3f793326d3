"""A model is distilled: resumable, from a cache, with the same bits, and refused in one line if it fails."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_data import QUICK, draw, make_volume
from scipy.ndimage import gaussian_filter

from hrvol import distil_model, fit_classes, train_model
from hrvol.distil.cache import distil_dir
from hrvol.distil.distil import distil
from hrvol.distil.options import DistilOptions
from hrvol.engine.stop import Stop
from hrvol.errors import InputError, ModelError, StoppedError, StrokesError, UsageError
from hrvol.run.options import RunOptions
from hrvol.segment.model.model import Model, model_bytes

QUICKLY = {"size": "small", "steps": 6, "accept": True}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep OpenMP from waiting for threads of other tests' processors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_volume(shape=(6, 150, 130))[0]


@pytest.fixture(scope="module")
def teacher(image: np.ndarray) -> Model:
    truth = make_volume(shape=(6, 150, 130))[1]
    return train_model([(image, draw(truth))], recipe=QUICK, classes=["dark", "bright"])


def test_a_student_agrees_with_its_teacher(image: np.ndarray, teacher: Model) -> None:
    report = distil_model(image, teacher, tiles=12, size="small", steps=50)
    assert report.agreement.share > 0.9
    assert report.tiles == 12
    assert report.kept_back == 3
    taught = report.student.classifier.taught
    assert taught["agreement"]["miou"] == pytest.approx(report.agreement.mean_iou, abs=1e-4)
    assert taught["volume"]["shape"] == [6, 150, 130]
    assert taught["grey"]["mean"] == pytest.approx(image.mean() / 255, abs=0.01)
    assert taught["grey"]["std"] == pytest.approx(image.std() / 255, abs=0.01)
    assert 0.1 < report.student.classifier.temperature < 10
    image_of_worst, by_teacher, by_student = report.examples[0]
    assert image_of_worst.shape == by_teacher.shape == by_student.shape
    # As the student will predict it, with rare classes made rarer.
    assert (by_teacher == by_student).mean() == pytest.approx(report.agreement.tiles.min(), abs=0.05)


def test_the_cache_saves_the_labelling_and_keeps_the_bits(image: np.ndarray, teacher: Model) -> None:
    first = distil_model(image, teacher, tiles=8, **QUICKLY)
    again = distil_model(image, teacher, tiles=8, **QUICKLY)
    more = distil_model(image, teacher, tiles=10, engine="local", workers=2, **QUICKLY)
    assert (first.labelled, again.labelled, more.labelled) == (8, 0, 2)
    assert model_bytes(first.student) == model_bytes(again.student)


def test_a_student_is_trained_once(image: np.ndarray, teacher: Model) -> None:
    def trained(**other: Any) -> tuple[bytes, bool]:
        stages: set[str] = set()
        report = distil_model(
            image, teacher, tiles=8, progress=lambda stage, *_: stages.add(stage), **(QUICKLY | other)
        )
        looked.append("look at the volume" in stages)
        return model_bytes(report.student), any(stage.startswith("train") for stage in stages)

    looked: list[bool] = []
    first, computed = trained()
    assert computed
    assert trained() == (first, False)
    assert trained(seed=1)[1]
    for file in distil_dir().rglob("*.safetensors"):  # damaged: it is trained again
        file.write_bytes(file.read_bytes()[:-3])
    assert trained() == (first, True)
    assert looked == [True, False, True, False]
    for file in distil_dir().rglob("note-*.json"):
        file.write_text('{"clusters": [0, 9]}')
    assert trained() == (first, False)
    assert looked[-1]


def test_students_of_volumes_learn_from_cubes_along_all_axes(teacher: Model) -> None:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(40, 96, 96)), 3)
    blobs = np.uint8(np.clip(100 + 60 * noise / noise.std(), 0, 255))  # the same along all axes
    stages: list[str] = []

    def distilled() -> bytes:
        stages.clear()
        report = distil_model(
            blobs, teacher, tiles=6, progress=lambda stage, *_: stages.append(stage), **QUICKLY
        )
        assert report.student.classifier.spec.is_3d
        return model_bytes(report.student)

    found = distilled()
    assert list(dict.fromkeys(stages))[-3:] == ["train planes", "label cubes", "train small"]
    assert distilled() == found
    assert not {"train planes", "label cubes", "train small"} & set(stages)


class _StopAfter(Stop):
    """Is requested after so many looks at it."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    @property
    def requested(self) -> bool:
        self._looks -= 1
        if self._looks < 0:
            self.request(signal.SIGTERM)
        return super().requested


@pytest.mark.parametrize("looks", [2, 9, 14])
def test_a_stopped_distillation_is_resumed_to_the_same_bits(
    image: np.ndarray, teacher: Model, looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = DistilOptions(tiles=8, size="small", steps=6, accept=True)
    with pytest.raises(StoppedError, match="run the same command to resume"):
        distil(image, teacher, wanted, RunOptions(), _StopAfter(looks))
    resumed = distil(image, teacher, wanted, RunOptions())
    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path / "other"))
    whole = distil(image, teacher, wanted, RunOptions())
    assert model_bytes(resumed.student) == model_bytes(whole.student)
    assert resumed.labelled < whole.labelled


def test_labels_are_cached_by_what_the_volume_shows(image: np.ndarray, teacher: Model) -> None:
    distil_model(image, teacher, tiles=8, **QUICKLY)
    other = image.copy()
    other[2:4, 70:74, 60:64] += 1  # not among the voxels that identify a volume
    assert 0 < distil_model(other, teacher, tiles=8, **QUICKLY).labelled < 8


def test_both_are_compared_on_held_out_strokes(image: np.ndarray, teacher: Model) -> None:
    truth = make_volume(shape=(6, 150, 130))[1]
    held_out = draw(truth, planes=(1,))
    report = distil_model(image, teacher, tiles=8, held_out=held_out, **QUICKLY)
    assert report.on_strokes is not None
    by_teacher, by_student = report.on_strokes
    assert by_teacher > 0.8
    assert by_student < by_teacher - 0.02  # after six steps
    assert any("mean IoU on held-out strokes is" in problem for problem in report.problems)
    for strokes, message in (
        (held_out[:, :-1], r"found strokes of shape \(6, 149, 130\), expected \(6, 150, 130\)"),
        (np.zeros_like(held_out), "found no strokes"),
        (held_out * 2, r"found classes \[4\], expected those of the model"),
    ):
        with pytest.raises(StrokesError, match=message):
            distil_model(image, teacher, tiles=8, held_out=strokes, **QUICKLY)


def test_classes_found_without_strokes_are_distilled(image: np.ndarray) -> None:
    model = fit_classes(image, recipe=QUICK, clusters=6, classes=2)
    report = distil_model(image, model, tiles=8, **QUICKLY)
    assert report.student.classes == model.classes
    assert "class_weights" not in report.student.classifier.taught  # no class is weighted at first


def test_time_decides_on_the_number_of_tiles_once(image: np.ndarray, teacher: Model) -> None:
    first = distil_model(image, teacher, minutes=0.001, **QUICKLY)
    again = distil_model(image, teacher, minutes=0.001, **QUICKLY)
    assert first.tiles == again.tiles >= 10


def test_what_cannot_be_distilled_is_one_line(image: np.ndarray, teacher: Model) -> None:
    student = distil_model(image, teacher, tiles=8, **QUICKLY).student
    with pytest.raises(ModelError, match="found a student, expected a model of hrvol train or cluster"):
        distil_model(image, student)
    with pytest.raises(InputError, match=r"found 1 tile, expected at least 2"):
        distil_model(image[0, :64, :64], teacher, **QUICKLY)
    with pytest.raises(UsageError, match="tiles: found 1, expected 2 to 10,000"):
        distil_model(image, teacher, tiles=1)
    with pytest.raises(UsageError, match="size: found huge"):
        distil_model(image, teacher, size="huge")
    dark = np.full_like(image, 90)
    with pytest.raises(InputError, match="found no pixel of bright in 8 tiles, expected some of each class"):
        distil_model(dark, teacher, tiles=8)
    bad = image.astype(np.float32)
    bad[3, 70, 60] = np.nan
    with pytest.raises(InputError, match=r"found nan at z=3, y=70, x=60"):
        distil_model(bad, teacher, **QUICKLY)


def test_a_student_that_fails_the_check_needs_to_be_accepted(
    image: np.ndarray, teacher: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hrvol.distil.teach.GAP", -1.0)
    with pytest.raises(ModelError, match=r"fails the check: mean IoU with the teacher is .* or --accept it"):
        distil_model(image, teacher, tiles=8, size="small", steps=6)
    assert distil_model(image, teacher, tiles=8, **QUICKLY).problems
