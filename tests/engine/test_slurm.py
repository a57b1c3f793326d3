"""SLURM jobs: their script, and workers that start from it (here by a stand-in for sbatch that runs it)."""

import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
from distributed.utils import get_ip
from other_account import listening

from hrvol.engine import life
from hrvol.engine.check import check_engine
from hrvol.engine.dask_servers import ALLOCATOR
from hrvol.engine.engine import open_engine
from hrvol.engine.private import RunKeys
from hrvol.engine.slurm import slurm_cluster
from hrvol.engine.spec import IN_FLIGHT, EngineSpec
from hrvol.engine.task import configuration
from hrvol.errors import EngineError, HrvolError

OPTIONS = {"interface": "lo", "memory": "1GB", "walltime": "00:10:00"}
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
SQUEUE = """#!{python}
import os, sys
for job in sys.argv[sys.argv.index("--jobs") + 1].split(","):
    try:
        os.killpg(int(job), 0)
        print(job, "R")
    except ProcessLookupError:
        pass
"""


def describe_process(task):
    kept = all(os.environ.get(name) == value for name, value in ALLOCATOR.items())
    return task * configuration(), os.environ.get("OMP_NUM_THREADS"), os.getpid(), kept


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for SLURM's commands that run jobs on this machine."""
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL), ("squeue", SQUEUE)):
        (tmp_path / name).write_text(text.format(python=sys.executable))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    folders = [*map(str, Path(__file__).parents[:2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))  # for the workers to import this file


def test_workers_start_as_jobs(slurm):
    with open_engine(EngineSpec("slurm", 1, options=OPTIONS), 3) as engine:
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
    monkeypatch.setattr("hrvol.engine.slurm.JOB_SILENT", 1.0)
    caplog.set_level("WARNING")
    with open_engine(EngineSpec("slurm", 1, options=OPTIONS)) as engine:
        outcomes = list(engine.map_bounded(end_my_job, range(5)))
    assert all(outcome.ok for outcome in outcomes)
    assert Path("ended").exists()
    assert "submitting others" in caplog.text


@pytest.mark.parametrize("always", [False, True])
def test_a_job_that_slurm_refuses_once_is_submitted_again(slurm, monkeypatch, caplog, always):
    monkeypatch.setattr("hrvol.engine.slurm.JOB_SILENT", 0.5)
    monkeypatch.setattr("hrvol.engine.slurm.JOB_CHECK", 1.0)
    caplog.set_level("WARNING")
    refuse = "mv accept sbatch; " if not always else ""
    with open_engine(EngineSpec("slurm", 1, options=OPTIONS)) as engine:
        Path("sbatch").rename("accept")
        Path("sbatch").write_text(f"#!/bin/sh\n{refuse}echo 'sbatch: error: no controller' >&2; exit 1\n")
        Path("sbatch").chmod(0o755)
        outcomes = engine.map_bounded(end_my_job, range(5))
        if always:
            with pytest.raises(HrvolError, match=r"engine: slurm: sbatch: no controller \(3 times\)"):
                list(outcomes)
        else:
            assert all(outcome.ok for outcome in outcomes)
    assert "SLURM refused 1 jobs (no controller)" in caplog.text


def lose_my_worker(task):
    marker = Path("lost")
    if task == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpgid(0)


def test_a_job_whose_worker_is_restarted_for_long_is_not_replaced(slurm, monkeypatch, caplog):
    monkeypatch.setattr("hrvol.engine.slurm.JOB_SILENT", 0.1)
    with open_engine(EngineSpec("slurm", 1, options=OPTIONS)) as engine:
        outcomes = list(engine.map_bounded(lose_my_worker, range(3)))
    assert all(outcome.ok for outcome in outcomes)
    assert len({outcome.value for outcome in outcomes}) == 1  # of one job
    assert "submitting others" not in caplog.text


def test_paths_in_the_job_script_are_quoted(slurm, tmp_path):
    folder = tmp_path / "my data; touch it"
    folder.mkdir()
    keys = RunKeys.create().saved(folder)
    cluster = slurm_cluster(EngineSpec("slurm", 1, options={"interface": "lo"}), None, keys.security())
    try:
        words = shlex.split(cluster.job_script().strip().splitlines()[-1])
    finally:
        cluster.close()
    assert words[words.index("--tls-key") + 1] == str(folder / "key.pem")
    assert words[words.index("--tls-cert") + 1] == words[words.index("--tls-ca-file") + 1]
    assert words[0] == sys.executable


def stop_my_worker(task):
    marker = Path("stopped")
    if task == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return os.getpid()


def test_a_worker_of_a_job_that_is_stopped_is_started_again(slurm, monkeypatch, caplog):
    monkeypatch.setattr(life, "LIMITS", life.Limits(report=0.2, silent=4.0, first=60.0))
    with open_engine(EngineSpec("slurm", 1, options=OPTIONS)) as engine:
        outcomes = list(engine.map_bounded(stop_my_worker, range(4)))
    assert sorted(outcome.task for outcome in outcomes if outcome.ok) == list(range(4))
    assert len({outcome.value for outcome in outcomes}) == 2
    assert "no sign of life" in caplog.text


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


def test_importing_dask_jobqueue_leaves_the_handler_of_ctrl_c_alone(slurm, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "dask_jobqueue"]:
        monkeypatch.delitem(sys.modules, name)
    received = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        with open_engine(EngineSpec("slurm", 1, options=OPTIONS)):
            os.kill(os.getpid(), signal.SIGINT)
            deadline = time.monotonic() + 5
            while not received and time.monotonic() < deadline:
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGINT, before)
    assert received == [signal.SIGINT]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("sbatch", "message"),
    [
        ("echo 'sbatch: error: no such partition' >&2; exit 1", "sbatch: no such partition$"),
        ("echo all is well", "sbatch: ValueError: Could not parse job id"),
        ("sleep 30", "sbatch: no answer in 1 s"),
    ],
)
def test_jobs_that_slurm_does_not_accept_end_the_run_with_the_reason(slurm, monkeypatch, sbatch, message):
    monkeypatch.setattr("hrvol.engine.slurm.SUBMITTED_WITHIN", 1.0)
    Path("sbatch").write_text(f"#!/bin/sh\n{sbatch}\n")
    with pytest.raises(HrvolError, match=f"^engine: slurm: {message}") as error:
        open_engine(EngineSpec("slurm", 1, options=OPTIONS)).__enter__()
    assert "\n" not in str(error.value)
    assert not list(Path.cwd().glob(".hrvol-*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"no_such_option": 1},
            "^engine options: found no_such_option, expected account, .*queue, .*walltime, ",
        ),
        ({"interface": "no-such-interface"}, "^engine: slurm: .*no-such-interface"),
        ({"memory": "much"}, "^engine: slurm: .*much"),
        ({"cores": "many"}, "^engine: slurm: "),
    ],
)
def test_an_option_that_is_wrong_is_known_before_a_job_is_submitted(slurm, options, message):
    Path("sbatch").write_text("#!/bin/sh\ntouch called")
    spec = EngineSpec("slurm", 1, options=options)
    for start in (check_engine, lambda spec: open_engine(spec).__enter__()):
        with pytest.raises(HrvolError, match=message) as error:
            start(spec)
        assert "\n" not in str(error.value)
        assert not Path("called").exists()


@pytest.mark.parametrize("reason", ["Invalid account or account/partition combination", "nodes are down"])
def test_an_option_that_slurm_calls_invalid_is_known_before_a_job_is_submitted(slurm, reason):
    line = f'[ "$1" = --test-only ] && cat "$2" > seen && echo "sbatch: error: {reason}" >&2'
    Path("sbatch").write_text(f"#!/bin/sh\n{line}\nexit 1\n")
    spec = EngineSpec("slurm", 1, options={**OPTIONS, "queue": "nosuch"})
    if reason.startswith("Invalid"):
        with pytest.raises(EngineError, match=f"^engine: slurm: sbatch: {reason}$"):
            check_engine(spec)
    else:  # may pass
        check_engine(spec)
    assert "#SBATCH -p nosuch" in Path("seen").read_text()


@pytest.mark.parametrize(
    ("options", "host", "serves_http"),
    [
        ({}, get_ip(), False),
        ({"interface": "lo"}, "127.0.0.1", False),
        ({"interface": "lo", "scheduler_options": {"dashboard_address": "127.0.0.1:0"}}, "127.0.0.1", True),
    ],
)
def test_the_scheduler_listens_where_jobs_need_it_and_serves_http_on_request(
    slurm, options, host, serves_http
):
    before = listening(os.getpid())
    keys = RunKeys.create().saved(Path.cwd())
    cluster = slurm_cluster(EngineSpec("slurm", 1, options=options), None, keys.security())
    try:
        addresses = [address for address in listening(os.getpid()) if address not in before]
    finally:
        cluster.close()
    assert [place for place, _ in addresses] == [host] * (1 + serves_http)
