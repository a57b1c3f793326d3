"""A plan forecasts the run, leaves no files behind, and refuses runs that lack memory or disk space."""

import json
import os
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr
from click.testing import CliRunner
from run_data import QUICK, draw, make_volume

from hrvol.cli.plan import echo_plan
from hrvol.cli.plan import plan as command
from hrvol.engine.spec import EngineSpec
from hrvol.errors import BlockError, InputError, OtherRunError, OutputExistsError, ResourceError, UsageError
from hrvol.features.deep.gpu_memory import device_need
from hrvol.planning import estimate
from hrvol.planning.calibrate import measure
from hrvol.planning.gpu_memory import CUDA_BYTES, GpuNeed, free_gpu, gpu_need, tree_bytes
from hrvol.planning.plan import check_resources
from hrvol.planning.plan_run import plan_run
from hrvol.recipe.recipe import PRESETS
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import load_model, save_model
from hrvol.segment.student.lattice import WINDOW_BYTES
from hrvol.training.train import train_model
from hrvol.volume.volume import open_volume

SHORT = {"seconds": 0.5}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with a volume that has coarser levels, and a model."""
    folder = tmp_path_factory.mktemp("plan")
    image, truth = make_volume(shape=(5, 150, 300))
    zarr.create_array(folder / "volume.zarr", data=image, chunks=(4, 50, 70))
    mask = np.zeros(image.shape, np.uint8)
    mask[:2, :70, :100] = 1
    zarr.create_array(folder / "mask.zarr", data=mask)
    model = train_model([(image, draw(truth))], recipe=QUICK, classes=["matrix", "disc"])
    save_model(model, folder / "model.hrvol")
    return folder


@pytest.fixture
def given(project, tmp_path):
    """Volume, output and model."""
    return project / "volume.zarr", tmp_path / "out.ome.zarr", project / "model.hrvol"


def files_of(path):
    return [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"probabilities": True, "uncertainty": True},
        {"roi": (slice(1, 4), slice(50, 140), slice(0, 100))},
    ],
    ids=["labels", "everything", "region"],
)
def test_the_run_is_as_planned(given, tmp_path, options):
    before = sorted(tmp_path.rglob("*"))
    plan = plan_run(*given, **options, **SHORT)
    assert sorted(tmp_path.rglob("*")) == before
    report = segment_volume(*given, **options)
    files = files_of(given[1])
    assert plan.blocks == report.blocks
    assert plan.voxels == report.voxels
    assert (plan.read, plan.wanted) == (report.read, report.wanted)
    assert plan.files == len(files)
    assert plan.output_bytes == pytest.approx(sum(os.path.getsize(file) for file in files), rel=0.5)
    assert plan.worker_memory == pytest.approx(report.peak, rel=0.25)
    check_resources(plan)


def test_several_workers_are_tried_at_once(given):
    plan = plan_run(*given, engine="local", workers=2, **SHORT)
    assert (plan.engine, plan.workers) == ("local", 2)
    assert {count for count, _ in plan.by_workers} >= {1, 2}
    assert dict(plan.by_workers)[2] == pytest.approx(plan.seconds)
    each = plan.worker_memory - plan.shared_memory
    assert plan.memory_needed == 2 * each + plan.shared_memory + plan.driver_memory
    assert 0 < plan.shared_memory < plan.worker_memory / 2
    report = segment_volume(*given, engine="local", workers=2)
    assert plan.worker_memory == pytest.approx(report.peak, rel=0.25)
    assert plan.files == len(files_of(given[1]))


def test_json_has_all_figures(given):
    figures = json.loads(json.dumps(plan_run(*given, **SHORT).to_dict()))
    keys = figures.keys()
    assert {"seconds", "hours", "voxels_per_s", "read", "read_amplification", "worker_memory"} <= keys
    assert {"memory_needed", "memory_free", "output_bytes", "disk_free", "files", "by_workers"} <= keys
    assert figures["hours"] == pytest.approx(figures["seconds"] / 3600)
    assert figures["by_workers"] == [{"workers": 1, "seconds": pytest.approx(figures["seconds"])}]
    assert figures["shape"] == [5, 150, 300]
    for part in ("start_s", "segment_s", "pyramid_s", "block_s"):
        assert figures[part] > 0, part


def test_only_missing_blocks_are_planned(given):
    segment_volume(*given, part=(1, 3))
    held = files_of(given[1])
    plan = plan_run(*given, **SHORT)
    assert (plan.done, plan.blocks) == (15, 30)
    assert plan.check_s > 0
    assert files_of(given[1]) == held
    part = plan_run(*given, part=(2, 3), **SHORT)
    assert (part.done, part.blocks) == (0, 15)
    fresh = plan_run(*given, overwrite=True, **SHORT)
    assert (fresh.done, fresh.blocks) == (0, 45)
    assert files_of(given[1]) == held
    with pytest.raises(OtherRunError, match="uncertainty was false, now true"):
        plan_run(*given, uncertainty=True, **SHORT)


def test_a_complete_output_needs_no_blocks(given):
    segment_volume(*given)
    plan = plan_run(*given, **SHORT)
    assert (plan.blocks, plan.voxels, plan.segment_s, plan.worker_memory) == (0, 0, 0, 0)
    check_resources(plan)


def test_blocks_outside_a_mask_take_nothing(given, project, monkeypatch):
    paces = []

    def at_one_pace(*args, **kwargs):  # whatever else the machine does meanwhile
        result = measure(*args, **kwargs)
        paces.append(result.pace)
        return replace(result, pace=paces[0])

    monkeypatch.setattr(estimate, "measure", at_one_pace)
    plan = plan_run(*given, mask=project / "mask.zarr", **SHORT)
    report = segment_volume(*given, mask=project / "mask.zarr")
    assert plan.voxels == report.voxels == 2 * 70 * 100
    assert plan.files == pytest.approx(len(files_of(given[1])), abs=2)
    whole = plan_run(given[0], given[1].with_name("other.ome.zarr"), given[2], **SHORT)
    assert plan.segment_s < whole.segment_s / 2


def test_arrays_in_memory_can_be_planned_too(given):
    image = open_volume(given[0]).read()
    plan = plan_run(image, *given[1:], **SHORT)
    assert plan.read > plan.wanted == image.nbytes


def test_workers_on_other_machines_are_measured_here(given):
    options = {"memory": "1MB", "processes": 2}
    plan = plan_run(*given, engine="slurm", workers=1, engine_options=options, **SHORT)
    assert len(plan.by_workers) > 1
    assert plan.workers == 1
    assert plan.memory_free == 500_000
    assert any("not on those of the workers" in note for note in plan.notes)
    with pytest.raises(ResourceError, match="found 488 KiB free to a worker in a SLURM job, needed"):
        check_resources(plan)


@pytest.fixture(scope="module")
def roomy(project):
    return plan_run(project / "volume.zarr", project / "none.ome.zarr", project / "model.hrvol", **SHORT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"memory_free": 3 * 2**30, "memory_needed": 5 * 2**30, "workers": 2, "worker_memory": 2**31}
            | {"shared_memory": 2**29, "driver_memory": 0},
            r"memory: found 3 GiB free on this machine, needed 5 GiB for 2 workers \(one worker takes 2 GiB;"
            " 1 would fit",
        ),
        ({"disk_free": 1000}, "none.ome.zarr: found 1000 bytes free on its disk, needed [0-9.]+ KiB"),
        ({"files_free": 7}, r"none.ome.zarr: found room for 7 files on its disk, needed \d+"),
    ],
)
def test_too_little_memory_or_disk_is_refused(roomy, changes, message):
    check_resources(roomy)
    check_resources(replace(roomy, memory_free=None, disk_free=None, files_free=None))
    with pytest.raises(ResourceError, match=message):
        check_resources(replace(roomy, **changes))


def test_plans_for_the_cpu_do_not_mention_gpus(roomy, project, capsys):
    assert (roomy.gpu_needed, roomy.gpu_free) == (None, None)
    echo_plan(roomy)
    assert "GPU" not in capsys.readouterr().out
    model = load_model(project / "model.hrvol")
    assert gpu_need(EngineSpec("local"), model, free=pytest.fail) == GpuNeed()


def test_a_gpu_needs_room_for_features_cuda_and_trees(project):
    model = load_model(project / "model.hrvol")
    spec = EngineSpec(device="cuda")
    (member,) = model.classifier.members
    forest, _ = member.estimator.estimators_
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    assert tree_bytes(model) == nodes * (16 + 4)
    classical = device_need(model.recipe.features, (88, 88), None, batch=1, rows=64)
    assert gpu_need(spec, model, free=lambda spec: None) == GpuNeed(
        CUDA_BYTES + tree_bytes(model) + classical.total, None
    )
    beside = gpu_need(spec, model, free=lambda spec: None, companion=True)
    assert beside.needed == CUDA_BYTES + tree_bytes(model) + classical.total + WINDOW_BYTES
    deep = replace(model, recipe=PRESETS["best-0.1"])
    by_room = {free: gpu_need(spec, deep, free=lambda spec, free=free: free) for free in (None, 2**34, 2**30)}
    much, little = by_room[2**34], by_room[2**30]
    assert much.needed == by_room[None].needed  # an unknown GPU is taken to have room
    assert little.needed < much.needed - 500 * 2**20  # fewer images at once
    assert much.notes == ()


def test_a_gpu_that_is_too_small_is_warned_of(roomy, capsys):
    tight = GpuNeed(needed=3 * 2**30, free=2**30)
    assert tight.notes[0].startswith("GPU memory: found 1 GiB free, needed 3 GiB")
    assert GpuNeed(3 * 2**30, None).notes == GpuNeed(2**30, 2**30).notes == ()
    planned = replace(roomy, gpu_needed=tight.needed, gpu_free=None, notes=tight.notes)
    echo_plan(planned)
    check_resources(planned)  # a forecast alone refuses nothing
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {"GPU memory needed 3 GiB", "free there unknown", tight.notes[0]} <= set(lines)
    assert planned.to_dict()["gpu_needed"] == 3 * 2**30


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_the_memory_of_a_gpu_is_planned(given):
    plan = plan_run(*given, device="cuda", **SHORT)
    assert CUDA_BYTES < plan.gpu_needed < plan.gpu_free <= torch.cuda.mem_get_info()[1]
    assert (
        free_gpu(EngineSpec("cuda", devices=("0",), workers=1, device="cuda")) <= torch.cuda.mem_get_info()[1]
    )


@pytest.fixture
def tiny(tmp_path):
    """A disk of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a tiny disk")
    folder = tmp_path / "tiny"
    folder.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    if subprocess.run(made, check=False).returncode:
        pytest.skip("this root may not mount a tiny disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_too_small_is_refused(given, tiny):
    arguments = [str(given[0]), str(tiny / "out.ome.zarr"), "-m", str(given[2]), "--engine", "serial"]
    result = CliRunner().invoke(command, [*arguments, "--seconds", "0.5", "--probabilities"])
    assert isinstance(result.exception, ResourceError)
    assert "out.ome.zarr: found 64 KiB free on its disk, needed" in str(result.exception)
    assert "memory of a worker" in result.stdout  # the figures are printed nevertheless
    assert list(tiny.iterdir()) == []


@pytest.fixture
def sealed(tmp_path):
    """A folder that cannot be written, even by root: a file system mounted read-only."""
    folder = tmp_path / "sealed"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], check=False).returncode:
        pytest.skip("root may write everywhere here, and may not mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_an_output_that_cannot_be_written_is_refused_at_once(given, sealed):
    with pytest.raises(ResourceError, match=r"out.ome.zarr: cannot write into .*sealed \("):
        plan_run(given[0], sealed / "out.ome.zarr", given[2], **SHORT)


def test_an_occupied_output_is_refused_at_once(given, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"found a file at .*file, expected a folder"):
        plan_run(given[0], tmp_path / "file/out.ome.zarr", given[2], **SHORT)
    with pytest.raises(OutputExistsError, match="expected nothing there"):
        plan_run(given[0], tmp_path / "file", given[2], **SHORT)


def test_an_input_that_may_not_be_read_is_refused(given, request):
    chunk = given[1].with_name("volume.zarr")
    image = open_volume(given[0]).read()
    zarr.create_array(chunk, data=image, chunks=image.shape)
    if os.geteuid() == 0:
        # The folders of the tests are root's alone; those of torch may be too, hence device cpu.
        os.seteuid(65534)
        request.addfinalizer(lambda: os.seteuid(0))
    else:
        (chunk / "c/0/0/0").chmod(0)
    with pytest.raises(ResourceError, match="Permission denied"):
        plan_run(chunk, given[1], given[2], device="cpu", **SHORT)


def test_a_block_that_cannot_be_predicted_ends_the_plan_and_leaves_nothing(given, tmp_path):
    image = open_volume(given[0]).read().astype(np.float32)
    image[2, 75, 150:170] = np.nan
    image[:, 75, 1::7] = np.nan
    zarr.create_array(tmp_path / "holes.zarr", data=image)
    with pytest.raises((BlockError, InputError), match=r"holes\.zarr"):
        plan_run(tmp_path / "holes.zarr", given[1], given[2], **SHORT)
    assert [path.name for path in tmp_path.iterdir()] == ["holes.zarr"]


def test_impossible_requests_are_refused(given):
    with pytest.raises(UsageError, match="part: found 4/3"):
        plan_run(*given, part=(4, 3), **SHORT)
    with pytest.raises(UsageError, match="seconds: found 0"):
        plan_run(*given, seconds=0)
    with pytest.raises(UsageError, match=r"is .* the input"):
        plan_run(given[0], given[0], given[2], **SHORT)


def test_the_command_prints_tables_or_json(given):
    arguments = [*map(str, given[:2]), "-m", str(given[2]), "--engine", "serial", "--seconds", "0.5"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.exception
    for word in ("time", "voxels/s", "memory needed", "output", "files"):
        assert f"\n{word} " in result.stdout
    assert "45 blocks of 2 x 64 x 64" in result.stdout
    result = CliRunner().invoke(command, [*arguments, "--json"])
    printed = json.loads(result.stdout)
    assert printed["blocks"] == 45
    assert not given[1].exists()
