"""Engine cuda and SLURM jobs with GPUs: options of dask-cuda, and behaviour that needs no GPU."""

import ast
import importlib.util
import os
import re
import sys
import zipfile
from collections import Counter
from pathlib import Path

import click
import numpy as np
import pytest
import torch
import zarr
from contract.wheels import wheel
from gpu_tasks import environment, out_of_memory_once, own_gpu

from hrvol.engine.dask_servers import ALLOCATOR
from hrvol.engine.engine import open_engine
from hrvol.engine.placement import place
from hrvol.engine.private import RunKeys
from hrvol.engine.slurm import slurm_cluster
from hrvol.engine.spec import EngineSpec
from hrvol.errors import MissingExtraError
from hrvol.features.deep.backbone import random_backbone
from hrvol.recipe.recipe import Recipe
from hrvol.run.segment import segment_volume
from hrvol.training.train import train_model

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]
DEEP = Recipe.from_dict(
    {
        "features": {"kind": "deep", "deep": {"block": 1, "offsets": 1, "flips": False}},
        "classifier": {"trees": 5, "samples_per_class": 300},
        "tiles": {"core": 64, "overlap": 14, "planes": 1},
    }
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights, which other processes can read too."""
    file = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(random_backbone("dinov2_vits14").net.state_dict(), file)
    return file


def labels(out):
    return zarr.open_array(out / "labels" / "hrvol" / "0", mode="r")[:]


# -- one load of the network per worker ------------------------------------------------------------------

# Runs in every Python process that starts: notes when it opens the weights.
WATCH = """
import os, sys

def watch(event, arguments):
    if event == "open" and str(arguments[0]) == {file!r} and not watching:
        watching.append(True)
        with open({log!r}, "a") as log:
            log.write(str(os.getpid()) + "\\n")
        watching.clear()

watching = []
sys.addaudithook(watch)
"""


def test_a_worker_loads_the_network_once_although_two_blocks_are_under_way(
    weights, data, tmp_path, monkeypatch, own_forkserver
):
    image, strokes = (data[i][:4, :92, :92] for i in (0, 2))
    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path / "cache"))
    model = train_model([(image, strokes)], recipe=DEEP, weights_path=weights)
    log = tmp_path / "opened"
    (tmp_path / "sitecustomize.py").write_text(WATCH.format(file=str(weights), log=str(log)))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    out = tmp_path / "out.ome.zarr"
    report = segment_volume(image, out, model, engine="local", workers=1, weights_path=weights)
    assert report.blocks == 4
    opened = Counter(log.read_text().split())
    assert str(os.getpid()) not in opened
    assert list(opened.values()) == [1]


# -- engine cuda -----------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("dask_cuda") is not None, reason="dask-cuda is here")
def test_without_dask_cuda_the_extra_is_named():
    with (
        pytest.raises(MissingExtraError, match=r"engine: cuda needs dask-cuda .*pip install 'hrvol\[gpu\]'"),
        open_engine(EngineSpec("cuda", 1, devices=("0",))),
    ):
        pass


@pytest.mark.skipif(importlib.util.find_spec("dask_cuda") is None, reason="dask-cuda is not installed")
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_dask_cuda_starts_and_replaces_processes_also_without_a_gpu(tmp_path, monkeypatch):
    """All but the GPU is real: dask-cuda does not detect one, and workers report a made-up one."""
    monkeypatch.setenv("DASK_CUDA_TEST_DISABLE_DEVICE_SPECIFIC", "1")
    tasks = [(tmp_path, number) for number in range(6)]
    (tmp_path / "here").mkdir()
    with open_engine(EngineSpec("cuda", 2, devices=("4", "2"), identify=own_gpu)) as engine:
        started = {o.value for o in engine.map_bounded(environment, [tmp_path / "here"] * 4)}
        full = {o.task[1]: o for o in engine.map_bounded(out_of_memory_once, tasks)}
    kept = ("expandable_segments:True", ALLOCATOR["MALLOC_TRIM_THRESHOLD_"])
    assert started == {("4,2", *kept), ("2,4", *kept)}
    assert {n: (o.ok, o.tries) for n, o in full.items()} == {n: (True, 1 + (n == 3)) for n in range(6)}
    assert full[3].value != int((tmp_path / "broken").read_text())


def process_and_gpu(task):
    """Which process, the variable that gives it its GPU, and that GPU."""
    from hrvol.device import this_gpu

    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"], this_gpu()


@pytest.mark.parametrize("_", [pytest.param(0, marks=on_gpu)])
def test_each_gpu_has_a_process_of_its_own(_):
    spec, _ = place(EngineSpec("cuda"), "auto")
    with open_engine(spec) as engine:
        assert engine.workers == torch.cuda.device_count()
        outcomes = engine.map_bounded(process_and_gpu, range(20 * engine.workers))
        workers = {outcome.value for outcome in outcomes}
    assert len({process for process, _, _ in workers}) == engine.workers
    assert len({uuid for _, _, uuid in workers}) == engine.workers


@pytest.mark.parametrize("_", [pytest.param(0, marks=on_gpu)])
def test_engine_cuda_labels_as_one_process_with_a_gpu_does(_, weights, data, tmp_path):
    image, _, strokes = data
    model = train_model([(image, strokes)], recipe=DEEP, weights_path=weights)
    for name, options in (("one", {"device": "cuda"}), ("all", {"engine": "cuda"})):
        segment_volume(image, tmp_path / name, model, weights_path=weights, **options)
    np.testing.assert_array_equal(labels(tmp_path / "one"), labels(tmp_path / "all"))


# -- SLURM jobs with GPUs --------------------------------------------------------------------------------


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands that take jobs and do nothing."""
    for name, text in (("sbatch", "echo Submitted batch job 7"), ("scancel", "true")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)


def job_script(device="auto", **options):
    """The script of a job, without machine-specific paths and addresses."""
    spec, _ = place(EngineSpec("slurm", 1, options={"interface": "lo", **options}), device)
    Path("FOLDER").mkdir()
    cluster = slurm_cluster(spec, None, RunKeys.create().saved(Path("FOLDER")).security())
    try:
        script = cluster.job_script()
    finally:
        cluster.close()
    return re.sub(r"tls://\S+:\d+", "ADDRESS", script.replace(sys.executable, "python"))


SCRIPT = """#!/usr/bin/env bash

#SBATCH -J dask-worker
#SBATCH -p gpu
#SBATCH -n 1
#SBATCH --cpus-per-task=32
#SBATCH --mem=239G
#SBATCH -t 08:00:00
#SBATCH --gpus-per-node=4
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-33554432}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-268435456}"
export PYTORCH_CUDA_ALLOC_CONF="${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}"
export PYTHONSAFEPATH=1
mkdir -p "${TMPDIR:-/tmp}"
HRVOL_SCRATCH=$(mktemp -d -p "${TMPDIR:-/tmp}" hrvol-XXXXXXXX) || exit 1
trap 'rm -rf "$HRVOL_SCRATCH"' EXIT
python -m dask_cuda.cli ADDRESS --name dummy-name --nthreads 1 --memory-limit 59.60GiB --death-timeout 60\
 --local-directory "$HRVOL_SCRATCH" --nthreads 2 --memory-limit 0\
 --worker-class hrvol.engine.dask_servers.PrivateWorker --rmm-async --interface lo --protocol tls://\
 --tls-ca-file FOLDER/certificate.pem --tls-cert FOLDER/certificate.pem --tls-key FOLDER/key.pem
"""


def test_the_job_script_is_this(slurm):
    pytest.importorskip("dask_jobqueue")
    script = job_script(gpus=4, queue="gpu", walltime="08:00:00")
    assert script == SCRIPT


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"gpus": 1}, ["--gpus-per-node=1"]),
        ({"gpus": 2, "job_extra_directives": ["--qos=high"]}, ["--gpus-per-node=2", "--qos=high"]),
        ({"gpus": 2, "job_extra_directives": ["--gres=gpu:a100:2"]}, ["--gres=gpu:a100:2"]),
        ({"worker_command": "dask_cuda.cli", "cores": 2, "memory": "10GB"}, ["--gpus-per-node=1"]),
    ],
)
def test_a_job_requests_gpus_once_and_the_other_options(slurm, options, expected):
    pytest.importorskip("dask_jobqueue")
    script = job_script(**options)
    directives = [word for word in re.findall(r"^#SBATCH (\S+)$", script, re.MULTILINE) if "=" in word]
    assert [word for word in directives if not word.startswith(("--cpus", "--mem"))] == expected
    assert "-m dask_cuda.cli " in script


def test_the_workflow_requests_the_same(slurm):
    pytest.importorskip("dask_jobqueue")
    file = Path(__file__).parents[2] / "workflows" / "slurm_gpu.py"
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("slurm_gpu", file))
    module.__spec__.loader.exec_module(module)
    assert job_script("cuda", queue="gpu", walltime="08:00:00", **module.gpu_job(4)) == SCRIPT


def test_a_job_may_start_its_workers_otherwise(slurm):
    pytest.importorskip("dask_jobqueue")
    script = job_script("cuda", gpus=1, worker_command="distributed.cli.dask_worker", processes=1)
    assert "--rmm-async" not in script
    assert "--gpus-per-node=1" in script


def test_jobs_without_gpus_are_as_before(slurm):
    pytest.importorskip("dask_jobqueue")
    script = job_script("cpu", cores=2)
    assert "dask_cuda" not in script
    assert "--gpus" not in script
    assert "PYTORCH" not in script


def worker_command():
    """The command of the wheel's ``dask_cuda.cli``, with its own options, that does nothing.

    Without CUDA the module cannot be imported: bodies of functions, and everything but the options of click,
    are left out.
    """
    with zipfile.ZipFile(wheel("dask_cuda")) as archive:
        cli, utils = (archive.read(f"dask_cuda/{name}.py").decode() for name in ("cli", "utils"))
    choice = next(
        node for node in ast.parse(utils).body if getattr(node, "name", "") == "CommaSeparatedChoice"
    )
    kept = [ast.parse("import click\nfrom distributed.preloading import validate_preload_argv"), choice]
    for node in ast.parse(cli).body:
        if isinstance(node, ast.Assign) and "click." in ast.unparse(node.value):
            kept.append(node)
        elif isinstance(node, ast.FunctionDef) and node.name in ("cuda", "worker"):
            node.body = [ast.parse("pass").body[0]]
            kept.append(node)
    space = {}
    exec("\n".join(map(ast.unparse, kept)), space)
    return space["worker"]


def parse(command, words):
    """Return the parameters that a command parses from its arguments."""
    context = command.make_context("worker", list(words))
    return context.params


@pytest.mark.parametrize("gpus", [1, 4])
def test_dask_cuda_knows_every_option_of_the_job(slurm, gpus):
    pytest.importorskip("dask_jobqueue")
    last = job_script(gpus=gpus).strip().splitlines()[-1]
    words = last.split()[3:]
    parsed = parse(worker_command(), words)
    assert parsed["scheduler"] == "ADDRESS"
    assert parsed["preload_argv"] == ()  # unknown options
    assert (parsed["nthreads"], parsed["memory_limit"], parsed["rmm_async"]) == (2, "0", True)
    assert parsed["interface"] == "lo"
    assert parsed["rmm_pool_size"] is None
    assert not parsed["enable_cudf_spill"]


@pytest.mark.parametrize("word", ["--rmm-asynchronous", "--no-such-option"])
def test_an_option_that_dask_cuda_does_not_know_is_found(word):
    with pytest.raises(click.ClickException):
        parse(worker_command(), ["ADDRESS", word])
