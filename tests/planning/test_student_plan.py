"""A plan forecasts the run of a student: time, memory, what is read and what is written."""

import os

import numpy as np
import pytest
import zarr
from student_data import BESIDE, CUBIC, FLAT, MIXED, grey, student_model

import hrvol.segment.student.lattice as lattice_module
from hrvol.engine.spec import EngineSpec
from hrvol.planning.gpu_memory import CUDA_BYTES, gpu_need
from hrvol.planning.plan_run import plan_run
from hrvol.planning.trial_block import TrialBlock
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import save_model
from hrvol.segment.student.lattice import WINDOW_BYTES

SHAPE = (13, 300, 100)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "volume.zarr"
    zarr.create_array(path, data=grey(SHAPE), chunks=(4, 50, 70))
    return path


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(lattice_module, "LONGEST", 64)
    monkeypatch.setattr(lattice_module, "DEEPEST", 8)
    monkeypatch.setattr(lattice_module, "BLOCK_VOXELS", 2**13)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (FLAT, {}),
        (BESIDE, {"probabilities": True, "uncertainty": True}),
        (MIXED, {"probabilities": True}),
        (CUBIC, {"roi": (slice(2, 11), slice(10, 200), slice(5, 100))}),
    ],
    ids=["2D", "2.5D", "3D", "a region of 3D"],
)
def test_the_run_is_as_planned(small, volume, tmp_path, spec, options):
    save_model(student_model(spec), tmp_path / "m.hrvol")
    given = volume, tmp_path / "out.ome.zarr", tmp_path / "m.hrvol"
    plan = plan_run(*given, **options, seconds=0.3)
    assert not given[1].exists()
    report = segment_volume(*given, **options)
    files = [os.path.join(top, name) for top, _, names in os.walk(given[1]) for name in names]
    assert (plan.blocks, plan.voxels) == (report.blocks, report.voxels)
    assert plan.blocks > 2
    assert plan.files == len(files)
    assert plan.output_bytes == pytest.approx(sum(os.path.getsize(file) for file in files), rel=0.5)
    assert plan.worker_memory == pytest.approx(report.peak, rel=0.25)
    assert plan.read == pytest.approx(report.read, rel=0.3)
    assert plan.segment_s > 0


def test_a_masked_run_is_planned(small, volume, tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[9:12, 150:250, 20:60] = 1
    plan = plan_run(volume, tmp_path / "out", student_model(MIXED), mask=mask, seconds=0.1)
    assert 0 < plan.voxels < np.prod(SHAPE) / 4


def test_planes_are_tried_in_whole_cells_from_the_middle_of_a_block(small, volume, tmp_path, monkeypatch):
    tried = []
    groups = TrialBlock.groups.fget
    monkeypatch.setattr(
        TrialBlock,
        "groups",
        property(lambda block: tried.append((block.box[0], groups(block))) or groups(block)),
    )
    roi = (slice(3, 13), slice(0, 300), slice(0, 100))
    plan_run(volume, tmp_path / "out", student_model(MIXED), roi=roi, seconds=0.01)
    for planes, found in tried:
        assert sorted(k for group in found for k in group) == list(range(planes.stop - planes.start))
        assert planes.stop - planes.start >= 5
        assert (planes.start + found[0].start) % 8 == 0 or found[0].start == 0


def test_a_gpu_has_to_hold_a_window():
    need = gpu_need(EngineSpec("cuda", 1, device="cuda"), student_model(), lambda spec: 2**33)
    assert need.needed == CUDA_BYTES + WINDOW_BYTES
