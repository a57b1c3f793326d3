"""A plan of a model shows what students of it would cost; a plan before distilling takes one in its place."""

import json
from dataclasses import replace

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from run_data import QUICK, draw, make_volume
from student_data import FLAT, student_model

from hrvol.cli import main
from hrvol.distil.options import DistilOptions
from hrvol.planning import students as module
from hrvol.planning.plan_run import plan_run
from hrvol.planning.students import dimensions, plan_students, planned_student
from hrvol.run.options import InputOptions, RunOptions
from hrvol.segment.model.model import load_model, model_bytes, save_model
from hrvol.segment.student.lattice import lattice_of
from hrvol.segment.student.spec import student_spec
from hrvol.training.train import train_model
from hrvol.volume.grid.tiling import whole
from hrvol.volume.volume import open_volume

SHORT = {"seconds": 0.3}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    image, truth = make_volume(shape=(5, 150, 300))
    zarr.create_array(folder / "volume.zarr", data=image, chunks=(4, 50, 70))
    save_model(train_model([(image, draw(truth))], recipe=QUICK, classes=["a", "b"]), folder / "model.hrvol")
    return folder


def test_students_stand_beside_a_model(project, tmp_path, monkeypatch):
    given = project / "volume.zarr", tmp_path / "out.ome.zarr", project / "model.hrvol"
    tasks = []

    def kept(task, plan, *others):
        tasks.append((task, plan))
        return plan_students(task, plan, *others)

    monkeypatch.setattr(module, "plan_students", kept)
    plan = plan_run(*given, **SHORT)
    small, medium = plan.students
    assert (small.size, medium.size) == ("small", "medium")
    assert 5 < small.kflop < medium.kflop < 25
    assert 0 < small.network_s < medium.network_s
    assert small.worker_memory < medium.worker_memory
    assert 360 < small.distil_s < medium.distil_s
    assert plan.machinery_s > 0
    figures = json.loads(json.dumps(plan.to_dict()))["students"]
    assert [entry["size"] for entry in figures] == ["small", "medium"]
    assert figures[0]["hours"] == pytest.approx(small.seconds / 3600)
    assert figures[0]["estimated"] is True
    (task, measured), constant = tasks[0], 1e-6
    monkeypatch.setattr(module, "_measure", lambda *arguments: constant)
    once, other = plan_students(task, measured)
    lattice = lattice_of((5, 150, 300), student_spec("small"), 1, 2)
    window = np.prod(
        [c + 2 * h for c, h in zip(lattice.cell, student_spec("small").network_halo, strict=True)]
    )
    cells = np.prod([-(-n // c) for n, c in zip(lattice.shape, lattice.cell, strict=True)])
    assert once.network_s == pytest.approx(constant * window * cells / np.prod(lattice.shape))
    assert other.network_s == once.network_s
    ten, _ = plan_students(task, replace(measured, voxels=10 * measured.voxels))
    fixed = measured.start_s + measured.pyramid_s
    assert ten.seconds - fixed == pytest.approx(10 * (once.seconds - fixed))
    # What is done with the model is to be done again.
    begun, _ = plan_students(task, replace(measured, blocks=15, done=30))
    assert begun.seconds - fixed == pytest.approx(3 * (once.seconds - fixed))
    assert plan_students(task, replace(measured, blocks=0, voxels=0)) == ()


def test_students_and_companions_have_no_second_table(project, tmp_path):
    image = make_volume(shape=(5, 150, 300))[0]
    teacher = load_model(project / "model.hrvol")
    student = replace(student_model(FLAT, (1, 2)), classes=teacher.classes)
    assert plan_run(image, tmp_path / "out", student, **SHORT).students == ()
    assert plan_run(image, tmp_path / "out", teacher, companion=student, **SHORT).students == ()


def test_the_command_prints_both(project, tmp_path):
    words = ["plan", project / "volume.zarr", tmp_path / "o.zarr", "-m", project / "model.hrvol"]
    result = CliRunner().invoke(main, [*map(str, words), "--engine", "serial", "--seconds", "0.3"])
    assert result.exit_code == 0, result.output
    assert "with a student, estimated" in result.stdout
    assert result.stdout.index("voxels/s") < result.stdout.index("before that: to distil it")
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_distilling_is_of_a_student(project, tmp_path):
    words = ["segment", project / "volume.zarr", tmp_path / "o.zarr", "-m", project / "model.hrvol"]
    words += ["--engine", "serial", "--distil", "--dry-run", "--size", "small", "--minutes", "7"]
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "measured with a small one of random weights. Distilling takes about 7 min more." in result.stdout
    assert "  for 1 blocks of 5 x 150 x 300" in result.stdout  # of the student's tiles
    assert "with a student" not in result.stdout
    assert not list(tmp_path.iterdir())


def test_the_stand_in_is_always_the_same(project):
    teacher = load_model(project / "model.hrvol")
    image = make_volume(shape=(5, 150, 300))[0]
    options = RunOptions(input=InputOptions(roi=(slice(0, 4), slice(0, 99), slice(0, 99))))
    model, remark = planned_student(image, teacher, DistilOptions(), options)
    again, _ = planned_student(image, teacher, DistilOptions(), options)
    assert model_bytes(model) == model_bytes(again)
    assert model.classes == teacher.classes
    assert "a medium one of random weights (auto may choose another size)" in remark


def test_what_a_student_sees_is_that_of_the_volume():
    planes = np.random.default_rng(0).random((30, 26, 20)).repeat(10, 1).repeat(10, 2)
    alike = np.repeat(planes[:1], 30, 0) + planes / 1e3
    for values, sees in ((alike, "volume"), (planes, "planes")):
        volume = open_volume(values)
        assert dimensions(volume, whole(volume.shape)) == sees
        assert dimensions(volume, whole(volume.shape), "off") == "planes"


def test_a_large_cell_is_measured_in_part():
    spec = student_spec("large")
    cell = module._smaller((1, 2048, 1536), spec)
    assert all(side % 16 == 0 for side in cell[1:])
    assert np.prod([side + 2 * h for side, h in zip(cell, spec.halo, strict=True)]) <= module._WINDOW
    assert module._smaller((1, 128, 64), spec) == (1, 128, 64)
