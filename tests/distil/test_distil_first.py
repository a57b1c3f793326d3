"""Segmenting with --distil: the student is made once, found again, and never mistaken for another one."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from click.testing import CliRunner
from run_data import QUICK, draw, make_volume

from hrvol.cli import main
from hrvol.distil.options import DistilOptions
from hrvol.distil.student_file import distil_into, student_file
from hrvol.engine.stop import Stop
from hrvol.errors import StoppedError
from hrvol.run.options import RunOptions
from hrvol.segment.model.model import load_model, save_model
from hrvol.training.train import train_model

QUICKLY = ("--tiles", "8", "--size", "small", "--steps", "6", "--accept")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A folder with a volume, a model, and what one command made of them."""
    folder = tmp_path_factory.mktemp("project")
    image, truth = make_volume(shape=(6, 150, 130))
    zarr.create_array(folder / "volume.zarr", data=image, chunks=(2, 75, 65))
    model = train_model([(image, draw(truth))], recipe=QUICK, classes=["dark", "bright"])
    save_model(model, folder / "model.hrvol")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HRVOL_CACHE_DIR", str(folder / "cache"))
        project = SimpleNamespace(folder=folder, image=image, model=model)
        project.result = run(project, *QUICKLY)
        yield project


def run(project: SimpleNamespace, *options: object, out: object = None, model: object = None) -> Any:
    """Run the command; the output and the model are those of the project unless given."""
    folder = project.folder
    words = ["segment", folder / "volume.zarr", out or folder / "labels.ome.zarr"]
    words += ["-m", model or folder / "model.hrvol", "--engine", "serial", "--distil", *options]
    result = CliRunner().invoke(main, [str(word) for word in words])
    return SimpleNamespace(code=result.exit_code, stdout=result.stdout, stderr=result.stderr)


def labels(path: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(path / "labels/hrvol/0", mode="r")[:])


def test_one_command_distils_and_segments(project: SimpleNamespace) -> None:
    result = project.result
    assert result.code == 0, result.stderr
    file = project.folder / "labels.student.hrvol"
    check, shares = result.stdout.index("2 tiles kept back"), result.stdout.index("share")
    assert check < result.stdout.index(f"{file}: small student of 8 tiles") < shares
    student = load_model(file)
    assert student.classifier.taught["request"] == {
        "minutes": None,
        "tiles": 8,
        "size": "small",
        "seed": 0,
        "volumetric": "auto",
        "rarity": 0.4,
        "steps": 6,
        "region": [[0, 6], [0, 150], [0, 130]],
    }
    recorded = zarr.open_group(project.folder / "labels.ome.zarr", mode="r").attrs["hrvol"]["model"]
    assert recorded["source"] == str(file)
    assert (labels(project.folder / "labels.ome.zarr") > 0).all()


def test_the_same_command_uses_the_student_and_resumes(project: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("labels.ome.zarr", "labels.student.hrvol"):
        source = project.folder / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, tmp_path / name)
    out = tmp_path / "labels.ome.zarr"
    shutil.rmtree(out / "labels/hrvol/0/c")  # as if lost
    before = (tmp_path / "labels.student.hrvol").stat().st_mtime_ns
    result = run(project, *QUICKLY, out=out)
    assert result.code == 0, result.stderr
    assert "found the student of this model and volume" in result.stderr
    assert "kept back" not in result.stdout
    assert (tmp_path / "labels.student.hrvol").stat().st_mtime_ns == before
    np.testing.assert_array_equal(labels(out), labels(project.folder / "labels.ome.zarr"))


def test_another_student_is_refused_and_replaced_on_demand(project: SimpleNamespace, tmp_path: Path) -> None:
    out, file = tmp_path / "labels.ome.zarr", tmp_path / "labels.student.hrvol"
    shutil.copyfile(project.folder / "labels.student.hrvol", file)
    other = tmp_path / "other.hrvol"
    exchanged = train_model(
        [(project.image, draw(3 - make_volume(shape=(6, 150, 130))[1]))], recipe=QUICK, classes=["a", "b"]
    )
    save_model(exchanged, other)
    for words, given, message in (
        ((*QUICKLY, "--rarity", "0"), None, "a student of another request (rarity was 0.4, now 0.0)"),
        (("--minutes", "3"), None, "a student of another request (minutes was null, now 3.0; tiles was 8"),
        ((*QUICKLY, "--roi", "0:4,:,:"), None, "a student of another request (region was [[0, 6], "),
        (QUICKLY, other, f"a student of another model ({project.folder / 'model.hrvol'})"),
    ):
        result = run(project, *words, out=out, model=given)
        assert result.code == 1
        assert f"{file}: found {message}" in result.stderr, result.stderr
        assert result.stderr.endswith("(--fresh replaces an earlier output)\n")
        assert not out.exists()
    result = run(project, *QUICKLY, "--fresh", "--yes", out=out, model=other)
    assert result.code == 0, result.stderr
    assert [info.name for info in load_model(file).classes] == ["a", "b"]
    save_model(project.model, file)  # no student
    result = run(project, *QUICKLY, out=out)
    assert "found no student, expected the student of" in result.stderr
    file.write_bytes(b"PK\3\4 damaged")
    assert run(project, *QUICKLY, out=out).code == 1
    file.write_text("a letter")
    result = run(project, *QUICKLY, "--fresh", out=out)
    assert "found no model, expected an earlier one; it is not overwritten" in result.stderr
    assert file.read_text() == "a letter"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--part", "1/2"), "--part needs a student that exists: run hrvol distil first"),
        (("--with", "s.hrvol"), "--distil segments with the student alone, --with beside the model"),
        (("--size", "huge"), "'huge' is not one of"),
    ],
)
def test_what_goes_with_no_distilling_is_wrong_usage(
    project: SimpleNamespace, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    result = run(project, *words, out=tmp_path / "out.zarr")
    assert result.code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    "words", [("--minutes", "3"), ("--3d", "off"), ("--accept",), ("--student", "s.hrvol"), ("--seed", "0")]
)
def test_options_of_the_student_need_distil(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, ["segment", "v.zarr", "out.zarr", "-m", "m.hrvol", *words])
    assert result.exit_code == 2
    assert f"{words[0]} is an option of the student: add --distil" in result.stderr


def test_the_run_is_checked_before_the_minutes(project: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "out.ome.zarr"
    student = project.folder / "labels.student.hrvol"
    for words, message in (
        (("--crf",), "found a CRF for the labels of a student"),
        (("--class-weight", "crack=0.5"), "crack"),
        (("--mask", project.folder / "none.zarr"), "none.zarr"),
        (("--model-is", student), "found a student, expected a model of hrvol train or cluster"),
        (("--student", project.folder / "volume.zarr/s.hrvol"), "is (or holds, or is inside) the input"),
        (("--student", out / "s.hrvol"), "is (or holds, or is inside) the output"),
        (("--student", tmp_path / "no/s.hrvol"), "no such folder"),
    ):
        given = words[1] if words[0] == "--model-is" else None
        result = run(project, *(() if given else words), "--minutes", "100", out=out, model=given)
        assert result.code in (1, 2)
        assert message in result.stderr, result.stderr
    result = run(project, "--minutes", "100", out="s3://bucket/out.ome.zarr")
    assert "found a URL, beside which no student is written; expected a file for it" in result.stderr
    shutil.copytree(project.folder / "labels.ome.zarr", out)
    result = run(project, "--minutes", "100", "--uncertainty", out=out)
    assert "outputs.uncertainty was false, now true" in result.stderr
    shutil.rmtree(out)
    out.mkdir()
    (out / "letter.txt").write_text("mine")
    assert "found no Zarr" in run(project, "--minutes", "100", out=out).stderr
    assert not list(tmp_path.glob("*.hrvol"))


def test_a_stopped_distillation_writes_no_file(project: SimpleNamespace, tmp_path: Path) -> None:
    stop = Stop()

    def progress(stage: str, done: int, total: int) -> None:
        if stage.startswith("train"):
            stop.request(signal.SIGTERM)

    wanted = DistilOptions(tiles=8, size="small", steps=6, seed=1, accept=True)
    given = (project.image, tmp_path / "out.zarr", project.folder / "model.hrvol", tmp_path / "s.hrvol")
    with pytest.raises(StoppedError, match="run the same command to resume"):
        distil_into(*given, wanted, RunOptions(), stop, progress)
    assert not list(tmp_path.iterdir())
    report = distil_into(*given, wanted, RunOptions())
    assert report is not None
    assert report.labelled == 0
    assert distil_into(*given, wanted, RunOptions()) is None


def test_the_file_is_named_after_the_output() -> None:
    names = {"a/labels.ome.zarr": "labels", "labels.zarr/": "labels", "file:///b/labels": "labels"}
    for out, name in names.items():
        assert re.fullmatch(rf"(a/|/b/)?{name}\.student\.hrvol", str(student_file(out)))
