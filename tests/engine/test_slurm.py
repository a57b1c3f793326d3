"""SLURM jobs: their script, and workers that start from it (here by a stand-in for sbatch that runs it)."""

import os
import signal
import sys
from pathlib import Path

import pytest

from hrvol.engine.dask_clusters import ALLOCATOR, slurm_cluster
from hrvol.engine.engine import open_engine
from hrvol.engine.private import RunKeys
from hrvol.engine.spec import IN_FLIGHT, EngineSpec
from hrvol.engine.task import configuration

SBATCH = """#!{python}
import subprocess, sys
script = open(sys.argv[-1]).read()  # a copy, as SLURM takes one: the file is deleted soon
process = subprocess.Popen(["bash", "-c", script], start_new_session=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job", process.pid)
"""
SCANCEL = """#!{python}
import os, signal, sys
try:
    os.killpg(int(sys.argv[-1]), signal.SIGTERM)
except ProcessLookupError:
    pass
"""


def describe_process(task):
    kept = all(os.environ.get(name) == value for name, value in ALLOCATOR.items())
    return task * configuration(), os.environ.get("OMP_NUM_THREADS"), os.getpid(), kept


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for SLURM's commands that run jobs on this machine."""
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text.format(python=sys.executable))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    ours = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{os.path.dirname(__file__)}{os.pathsep}{ours}")  # to import the task


def test_workers_start_as_jobs(slurm):
    options = {"interface": "lo", "memory": "1GB", "walltime": "00:10:00"}
    with open_engine(EngineSpec("slurm", 1, options=options), 3) as engine:
        outcomes = list(engine.map_bounded(describe_process, range(5)))
    assert sorted(o.value[0] for o in outcomes) == [0, 3, 6, 9, 12]
    assert {o.value[1] for o in outcomes} == {"1"}
    assert os.getpid() not in {o.value[2] for o in outcomes}
    assert all(o.value[3] for o in outcomes)


def end_my_job(task):
    marker = Path("ended")  # in the folder that the jobs run in
    if task == 2 and not marker.exists():
        marker.touch()
        os.killpg(os.getpgid(0), signal.SIGKILL)
    return os.getpid()


def test_a_job_that_ends_is_replaced(slurm, monkeypatch, caplog):
    monkeypatch.setattr("hrvol.engine.dask_engine.JOB_SILENT", 1.0)
    caplog.set_level("WARNING")
    options = {"interface": "lo", "memory": "1GB", "walltime": "00:10:00"}
    with open_engine(EngineSpec("slurm", 1, options=options)) as engine:
        outcomes = list(engine.map_bounded(end_my_job, range(5)))
    assert all(outcome.ok for outcome in outcomes)
    assert Path("ended").exists()
    assert "submitting others" in caplog.text


def test_the_job_script_requests_the_options(slurm):
    options = {"interface": "lo", "cores": 8, "memory": "32GB", "queue": "cpu", "account": "beamtime"}
    keys = RunKeys.create().saved(Path.cwd())
    cluster = slurm_cluster(EngineSpec("slurm", 1, options=options), None, keys.security())
    try:
        script = cluster.job_script()
    finally:
        cluster.close()
    for line in ("#SBATCH -p cpu", "#SBATCH -A beamtime", "#SBATCH --cpus-per-task=8", "#SBATCH --mem=30G"):
        assert line in script
    command = script.strip().splitlines()[-1].split()
    assert command[command.index("--nworkers") + 1] == "8"
    last = len(command) - 1 - command[::-1].index("--nthreads")
    assert command[last + 1] == str(IN_FLIGHT)
    assert command[len(command) - command[::-1].index("--memory-limit")] == "0"
