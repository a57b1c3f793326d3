"""Which device is chosen and why; workers that share a GPU or have none; GPUs that have no memory left."""

import socket
from functools import partial

import numpy as np
import pytest
import torch
import zarr
from gpu_tasks import (
    always_out_of_memory,
    die_once,
    gpu_of_the_first,
    meet,
    out_of_memory_once,
    own_gpu,
    predict_with_a_full_gpu,
    process_id,
    shared_gpu,
)
from run_data import QUICK, make_volume

from hrvol.device import check_gpu, choose_device, device_failure, gpus, this_gpu
from hrvol.engine import spec as spec_module
from hrvol.engine.engine import open_engine
from hrvol.engine.gpu_admission import GpuSlot, check_slots
from hrvol.engine.placement import place
from hrvol.engine.spec import EngineSpec
from hrvol.errors import DeviceError, UsageError
from hrvol.run import run_blocks as sweep_module
from hrvol.run.extract_features import extract_features
from hrvol.run.job import ModelSource
from hrvol.run.resume import differences
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import save_model
from hrvol.training.train import train_model

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def none():
    return ()


def two():
    return ("NVIDIA A", "NVIDIA B")


def not_called():
    raise AssertionError("called although not needed")


# -- choice of a device --------------------------------------------------------------------------------------


def test_auto_is_a_gpu_if_there_is_one_and_names_it():
    assert str(choose_device("auto", two, tuple)) == "device: cuda (NVIDIA A, the first of 2)"
    chosen = choose_device("auto", none)
    assert chosen.device == "cpu"
    assert "sees no GPU" in chosen.why
    assert choose_device("cpu", not_called).device == "cpu"
    assert choose_device("cuda", two).device == "cuda"
    without = choose_device("auto", two, lambda: ("cupy", "cuml"))  # as after a plain installation
    assert str(without) == "device: cpu (NVIDIA A needs cupy, cuml too: pip install 'hrvol[gpu]')"
    with pytest.raises(
        DeviceError, match=r"device: cuda: torch .* sees no GPU.*; expected one, or device: cpu"
    ):
        choose_device("cuda", none)
    with pytest.raises(UsageError, match="device: expected auto, cpu, cuda, got 'gpu'"):
        choose_device("gpu", two)


@pytest.mark.parametrize(
    ("spec", "requested", "device"),
    [
        (EngineSpec(), "auto", "cuda"),
        (EngineSpec(), "cpu", "cpu"),
        (EngineSpec("local", 4), "auto", "cpu"),
        (EngineSpec("local", 1), "cuda", "cuda"),
        (EngineSpec("cuda"), "auto", "cuda"),
        (EngineSpec("cuda"), "cuda", "cuda"),
        (EngineSpec("slurm"), "auto", "cpu"),
        (EngineSpec("slurm"), "cuda", "cuda"),
        (EngineSpec("slurm", options={"gpus": 4}), "auto", "cuda"),
        (EngineSpec("slurm", options={"worker_command": "dask_cuda.cli"}), "auto", "cuda"),
        (EngineSpec("slurm", options={"gpus": 4}), "cpu", "cpu"),
        (EngineSpec("tcp://head:8786"), "auto", "cpu"),
        (EngineSpec("tcp://head:8786"), "cuda", "cuda"),
        (EngineSpec("serial", scheduler_file="scheduler.json"), "cuda", "cuda"),
        (EngineSpec("cuda", scheduler_file="scheduler.json"), "auto", "cpu"),
    ],
)
def test_workers_compute_on_what_their_engine_is_for(spec, requested, device):
    placed, choice = place(spec, requested, two, tuple)
    assert placed.device == choice.device == device
    assert choice.why
    assert spec.serial or placed.gpu_identifier is (this_gpu if device == "cuda" else None)


def test_engine_cuda_has_a_worker_for_each_gpu():
    assert place(EngineSpec("cuda"), "auto", two)[0].workers == 2
    chosen = EngineSpec("cuda", devices=("0", "2", "5"))
    assert place(chosen, "auto", two)[0].workers == chosen.count == 3
    assert place(chosen, "auto", two)[0].limited(1).devices == ("0", "2", "5")
    assert chosen.limited(2).count == 2
    with pytest.raises(UsageError, match="workers: found 3, expected 2 at most, one for each GPU"):
        place(EngineSpec("cuda", 3), "auto", two)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EngineSpec("local", 2, devices=("0",)), "devices: only engine: cuda has any, found 0"),
        (lambda: EngineSpec("cuda", devices=("1", "1")), "devices: found 1,1, expected each GPU once"),
        (lambda: place(EngineSpec("cuda"), "cpu", two), "expected engine: local"),
        (lambda: place(EngineSpec("local", 2), "cuda", two), "would share one GPU"),
        (lambda: place(EngineSpec("local"), "cuda", two), "would share one GPU"),
        (lambda: place(EngineSpec("slurm"), "tpu", two), "got 'tpu'"),
    ],
)
def test_incompatible_engine_and_device_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()


@no_gpu
def test_a_missing_gpu_is_an_error_before_anything_is_written(tmp_path, data, model):
    image, _, strokes = data
    for options in (
        {"device": "cuda"},
        {"engine": "cuda"},
        {"engine": "local", "workers": 1, "device": "cuda"},
    ):
        with pytest.raises(DeviceError, match="sees no GPU"):
            segment_volume(image, tmp_path / "out.ome.zarr", model, **options)
    with pytest.raises(DeviceError, match="sees no GPU"):
        train_model([(image, strokes)], recipe=QUICK, device="cuda")
    with pytest.raises(DeviceError, match="sees no GPU"):
        extract_features(image, tmp_path / "features.zarr", recipe=QUICK, device="cuda")
    with pytest.raises(DeviceError, match=socket.gethostname()):
        check_gpu()
    assert list(tmp_path.iterdir()) == []


@no_gpu
def test_a_job_for_gpus_fails_in_a_process_without_one_instead_of_falling_back(tmp_path, model):
    """Sent to a worker without the checks of the driver."""
    save_model(model, tmp_path / "model.hrvol")
    tools = ModelSource(str(tmp_path / "model.hrvol"), "digest", device="cuda")
    with open_engine(EngineSpec("local", 1)) as engine:
        (outcome,) = engine.map_bounded(load, [tools])
    assert "sees no GPU" in outcome.error
    assert (outcome.fatal, outcome.again) == (True, False)


def load(tools):
    tools.load()


def test_the_chosen_device_is_logged_and_stored_and_an_output_has_one_device(tmp_path, model, caplog):
    caplog.set_level("INFO", "hrvol.run")
    image, _ = make_volume()
    out = tmp_path / "out.ome.zarr"
    segment_volume(image, out, model, device="cpu")
    assert "device: cpu (as requested)" in caplog.messages
    attributes = zarr.open_group(out, mode="r").attrs["hrvol"]
    assert attributes["device"] == "cpu"
    assert list(differences(attributes, {**attributes, "device": "cuda"})) == ['device was "cpu", now "cuda"']


# -- one GPU for each worker -----------------------------------------------------------------------------


def test_two_workers_on_one_gpu_are_named_with_it():
    slots = {"tcp://a:1": GpuSlot("node1", "GPU-1"), "tcp://a:2": GpuSlot("node1", "GPU-2")}
    check_slots(slots)
    check_slots({**slots, "tcp://b:1": GpuSlot("node2", "GPU-1")})
    with pytest.raises(DeviceError, match=r"GPU GPU-2 of node1: found two .*, tcp://a:2 and tcp://a:3"):
        check_slots({**slots, "tcp://a:3": GpuSlot("node1", "GPU-2")})


def test_workers_with_a_gpu_each_share_the_work_also_after_one_was_replaced(tmp_path):
    with open_engine(EngineSpec("local", 2, identify=own_gpu)) as engine:
        here = tmp_path / "here"
        here.mkdir()
        outcomes = list(engine.map_bounded(meet, [here] * 4))
        assert len({outcome.value for outcome in outcomes}) == 2
        assert all(outcome.ok for outcome in engine.map_bounded(die_once, [tmp_path / "died", None]))


def test_workers_that_share_a_gpu_are_refused():
    with (
        open_engine(EngineSpec("local", 2, identify=shared_gpu)) as engine,
        pytest.raises(DeviceError, match=r"GPU GPU-5e7 of .*: found two workers, tls://.* and tls://"),
    ):
        list(engine.map_bounded(process_id, range(50)))


def test_a_worker_without_a_gpu_is_left_out_and_logged(tmp_path, caplog):
    with open_engine(EngineSpec("local", 2, identify=partial(gpu_of_the_first, tmp_path))) as engine:
        outcomes = list(engine.map_bounded(process_id, range(12)))
    assert len({outcome.value for outcome in outcomes}) == 1
    assert "worker gets no tasks: no GPU for me" in caplog.text


@no_gpu
def test_no_worker_with_a_gpu_is_an_error_with_its_reason():
    with (
        open_engine(EngineSpec("local", 1, device="cuda")) as engine,
        pytest.raises(DeviceError, match=r"tls://.*: device: cuda: torch .* sees no GPU"),
    ):
        list(engine.map_bounded(process_id, range(3)))


@pytest.mark.gpu
@on_gpu
def test_the_uuid_of_a_gpu_is_that_of_nvml():
    import pynvml

    pynvml.nvmlInit()
    uuid = this_gpu().removeprefix("GPU-")
    all_of_them = [
        pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(i))
        for i in range(pynvml.nvmlDeviceGetCount())
    ]
    assert f"GPU-{uuid}" in all_of_them
    assert len(gpus()) == torch.cuda.device_count()


# -- a GPU without memory --------------------------------------------------------------------------------


def labels(out):
    return zarr.open_array(out / "labels" / "hrvol" / "0", mode="r")[:]


def raised(module, name, text="", base=RuntimeError):
    """An error of a library that is not here."""
    return type(name, (base,), {"__module__": module})(text)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (torch.OutOfMemoryError("Tried to allocate 2 GiB"), "the GPU had no memory left"),
        (raised("cupy.cuda.memory", "OutOfMemoryError"), "the GPU had no memory left"),
        (
            MemoryError("std::bad_alloc: out_of_memory: CUDA error at: cuda_async"),
            "the GPU had no memory left",
        ),
        (RuntimeError("CUDA error: out of memory"), "the GPU had no memory left"),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), "the GPU failed"),
        (raised("cupy_backends.cuda.api.runtime", "CUDARuntimeError", "launch failure"), "the GPU failed"),
        (MemoryError("Unable to allocate 3 GiB for an array"), None),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), None),
        (raised("other", "OutOfMemoryError"), None),
    ],
)
def test_a_gpu_without_memory_is_recognised_by_the_type_of_the_error(error, failure):
    assert device_failure(error) == failure
    with pytest.raises(ValueError, match="predicting") as outer:
        raise ValueError("predicting failed") from error
    assert device_failure(outer.value) == failure


def test_a_process_whose_gpu_was_full_runs_nothing_more_and_costs_its_other_task_no_try(tmp_path, caplog):
    with open_engine(EngineSpec("local", 1)) as engine:
        tasks = [(tmp_path, number) for number in range(8)]
        outcomes = {o.task[1]: o for o in engine.map_bounded(out_of_memory_once, tasks)}
        after = [o.value for o in engine.map_bounded(process_id, range(2))]
    broken = int((tmp_path / "broken").read_text())
    assert [outcomes[n].ok for n in range(8)] == [True] * 8
    assert {n: outcomes[n].tries for n in range(8)} == {n: 1 + (n == 3) for n in range(8)}
    assert outcomes[0].value == broken
    assert broken not in {outcomes[3].value, outcomes[4].value, *after}
    assert len({outcome.value for outcome in outcomes.values()}) == 2
    assert "its GPU failed: starting another process" in caplog.text


def test_a_run_in_which_a_gpu_was_full_once_gives_the_same_bits(tmp_path, model, monkeypatch):
    image = make_volume()[0][:4]
    segment_volume(image, tmp_path / "whole.ome.zarr", model)
    monkeypatch.setattr(sweep_module, "predict_block", partial(predict_with_a_full_gpu, tmp_path))
    report = segment_volume(image, tmp_path / "out.ome.zarr", model, engine="local", workers=1)
    assert (report.failed, report.blocks) == ((), 18)
    np.testing.assert_array_equal(labels(tmp_path / "out.ome.zarr"), labels(tmp_path / "whole.ome.zarr"))
    broken = (tmp_path / "broken").read_text()
    done = [line.split(maxsplit=1) for line in (tmp_path / "done").read_text().splitlines()]
    again = [(process, block) for process, block in done if not block.endswith(" 0")]
    assert [block for _, block in again] == ["(1, 0, 0) 1"]
    assert again[0][0] != broken
    assert len({block for _, block in done}) == 18


@pytest.mark.parametrize("spec", [EngineSpec(), EngineSpec("local", 1)], ids=["serial", "local"])
def test_a_task_too_large_for_every_gpu_fails_with_that_reason(spec, monkeypatch):
    monkeypatch.setattr(spec_module, "BACK_OFF", 0.01)
    with open_engine(spec) as engine:
        outcomes = {o.task: o for o in engine.map_bounded(always_out_of_memory, [0, 1, 2], tries=2)}
    reason = "the GPU had no memory left (OutOfMemoryError: Out of memory allocating 2,147,483,648 bytes)"
    assert outcomes[0].error == reason
    assert (outcomes[0].tries, outcomes[0].broken, outcomes[0].fatal) == (2, True, False)
    assert [(outcomes[n].ok, outcomes[n].tries) for n in (1, 2)] == [(True, 1)] * 2
