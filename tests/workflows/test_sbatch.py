"""The SLURM scripts: their directives, and how they end when SLURM ends them."""

import os
import re
import signal
import subprocess
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest
import zarr
from flow_data import (
    PATIENCE,
    WORKFLOWS,
    block_files,
    environment,
    executable,
    prepare,
    status,
    tool,
    wait_for,
)

import hrvol

SCRIPTS = ["slurm_array.sbatch", "slurm_gpu.sbatch"]
MODEL = "phases.hrvol"

# In place of hrvol: creates a file once it handles signals, and stops on them as hrvol does.
LISTENER = """#!/bin/bash
trap 'echo USR1 >> signals; exit 75' USR1
trap 'echo TERM >> signals; exit 75' TERM
touch listening
while true; do sleep 0.05; done
"""

# sbatch runs a copy of a job script beside this process, scancel ends it with all that it started.
SBATCH = """#!/bin/bash
if [ "$1" = --test-only ]; then exit 0; fi
cp "$1" "$1.copy"
setsid bash "$1.copy" > job.log 2>&1 < /dev/null &
echo $! >> jobs
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill -TERM -- "-$1"
"""


class Slurm:
    """Runs job scripts as SLURM does: bash, SLURM's variables set, and its commands within reach.

    squeue prints ``state``; the arguments of squeue and scontrol are recorded in files.
    """

    def __init__(self, folder):
        self.programs = folder / "programs"
        names = ("state", "queries", "requeued")
        self.state, self.queries, self.requeued = (folder / name for name in names)
        self.state.write_text("RUNNING None")
        self.requeued.touch()
        self.program("squeue", f"#!/bin/sh\necho $* >> {self.queries}\ncat {self.state}\n")
        self.program("scontrol", f"#!/bin/sh\necho $* >> {self.requeued}\n")
        self.processes = []

    def program(self, name, text):
        executable(self.programs / name, text)

    def start(self, script, folder, *words, task=2, restarts=0):
        variables = {
            "SLURM_SUBMIT_DIR": str(WORKFLOWS),
            "SLURM_JOB_ID": "9" if "array" in script else "7",
            "SLURM_ARRAY_JOB_ID": "7",
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_COUNT": "2",
            "SLURM_CPUS_PER_TASK": "1",
            "SLURM_RESTART_COUNT": str(restarts),
        }
        command = ["bash", str(WORKFLOWS / script), *words]
        process = subprocess.Popen(
            command, cwd=folder, env=environment(self.programs, **variables), start_new_session=True
        )
        self.processes.append(process)
        return process


@pytest.fixture
def slurm(tmp_path):
    slurm = Slurm(tmp_path)
    yield slurm
    for process in slurm.processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a volume, a model, and the labels that one process makes."""
    folder = tmp_path_factory.mktemp("slurm")
    prepare(folder)
    pair = folder / "a.tif", folder / "strokes.tif"
    hrvol.save_model(hrvol.train_model([pair], recipe=folder / "recipe.yaml"), folder / MODEL)
    hrvol.segment_volume(folder / "a.tif", folder / "whole.ome.zarr", folder / MODEL)
    return folder


def assert_equal_to_one_run(out):
    whole = out.parent / "whole.ome.zarr"
    made, expected = (zarr.open_array(path / "labels" / "hrvol" / "0", mode="r")[:] for path in (out, whole))
    np.testing.assert_array_equal(made, expected)
    assert status(out)["state"] == "complete"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_sound_shell(script):
    subprocess.run(["bash", "-n", WORKFLOWS / script], check=True)
    done = subprocess.run([tool("shellcheck"), WORKFLOWS / script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_requests_a_warning_and_requeueing(script):
    text = (WORKFLOWS / script).read_text()
    directives = re.findall(r"^#SBATCH (--[a-z-]+)(?:=(\S+))?", text, re.MULTILINE)
    options = dict(directives)
    assert options["--signal"] == "B:USR1@300"
    assert "--requeue" in options
    assert options["--open-mode"] == "append"


def test_a_part_that_is_warned_is_requeued_and_all_parts_equal_one_run(folder, slurm):
    out, words = folder / "parts.ome.zarr", ["a.tif", "parts.ome.zarr", MODEL]
    process = slurm.start("slurm_array.sbatch", folder, *words, task=1)
    wait_for(lambda: len(block_files(out)) >= 4, process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(PATIENCE) == 75
    assert slurm.requeued.read_text() == "requeue 7_1\n"
    then = status(out)
    assert 4 <= then["done"] < then["total"] / 2
    # The other parts run without worker processes: the last option counts.
    serial = [*words, "--engine", "serial", "--workers", "1"]
    for task in (2, 1):
        assert slurm.start("slurm_array.sbatch", folder, *serial, task=task).wait(PATIENCE) == 0
    assert_equal_to_one_run(out)
    assert slurm.requeued.read_text() == "requeue 7_1\n"


def test_the_driver_submits_a_job_of_its_own_and_ends_it(folder, slurm):
    pytest.importorskip("dask_jobqueue")
    slurm.program("sbatch", SBATCH)
    slurm.program("scancel", SCANCEL)
    words = ["a.tif", "driven.ome.zarr", MODEL, "--cpu", "1", "--jobs", "1", "--interface", "lo"]
    assert slurm.start("slurm_gpu.sbatch", folder, *words).wait(PATIENCE) == 0
    assert_equal_to_one_run(folder / "driven.ome.zarr")
    (job,) = (int(line) for line in (folder / "jobs").read_text().split())
    end = time.monotonic() + PATIENCE
    while psutil.pid_exists(job):
        assert time.monotonic() < end, "the job is still there"
        time.sleep(0.1)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize(
    ("state", "restarts", "back"),
    [
        ("RUNNING None", 0, True),  # warned
        ("COMPLETING TimeLimit", 3, True),  # the warning came too late
        ("COMPLETING None", 0, False),  # cancelled
        ("RUNNING None", 50, False),  # no progress
    ],
)
def test_which_jobs_are_requeued(script, number, state, restarts, back, tmp_path, slurm):
    """The shell's part of it, with a program that stops as hrvol does; other tests stop the real one."""
    for name in ("hrvol", "python"):
        slurm.program(name, LISTENER)
    slurm.state.write_text(state)
    process = slurm.start(script, tmp_path, "a", "b", "c", restarts=restarts)
    wait_for((tmp_path / "listening").exists, process)
    process.send_signal(number)
    assert process.wait(PATIENCE) == 75
    assert (tmp_path / "signals").read_text() == number.name.removeprefix("SIG") + "\n"
    job = "7_2" if "array" in script else "7"
    assert f"--job {job} " in slurm.queries.read_text()
    assert slurm.requeued.read_text() == (f"requeue {job}\n" if back else "")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("code", [0, 1, 2, 130, 137])
def test_a_job_that_ends_by_itself_is_not_requeued(script, code, tmp_path, slurm):
    for name in ("hrvol", "python"):
        slurm.program(name, f"#!/bin/sh\nexit {code}\n")
    assert slurm.start(script, tmp_path, "a", "b", "c").wait(PATIENCE) == code
    assert slurm.requeued.read_text() == ""


def test_an_array_without_its_arguments_ends_with_a_usage_error(tmp_path, slurm):
    assert slurm.start("slurm_array.sbatch", tmp_path, "a").wait(PATIENCE) == 2
