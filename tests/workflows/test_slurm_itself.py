"""Engine slurm and array jobs on a real SLURM: TLS, other accounts, jobs that are cancelled or requeued."""

import os
import signal
import stat
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from fault_data import Case, is_whole, progress_of, wait_for
from flow_data import PATIENCE, WORKFLOWS, environment, status
from other_account import intrusions, listening, processes
from slurm_cluster import Slurm, missing

from hrvol.engine.check import check_engine
from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec
from hrvol.errors import EngineError

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "SLURM is here")
OPTIONS = {"interface": "lo", "memory": "500MB", "walltime": "00:10:00"}
TRAP = "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\nraise SystemExit(1)\n"


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A volume in six blocks."""
    made = Case.make(tmp_path_factory.mktemp("case"), shape=(2, 160, 88))
    assert made.reference
    return made


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    with Slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def here(slurm, tmp_path, monkeypatch):
    """The current folder, where jobs are submitted; it has modules that nothing may import."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "my data"
    folder.mkdir()
    for name in ("signal", "struct"):
        (folder / f"{name}.py").write_text(TRAP)
    monkeypatch.chdir(folder)
    for path in (tmp_path, folder):
        path.chmod(0o755)
    yield folder
    assert list(folder.glob("*.ran")) == []
    assert list(folder.glob(".hrvol-*")) == []  # keys


class Intruder:
    """Called with a run's progress: once another account tries its ports, and once a job is cancelled."""

    def __init__(self, slurm, folder):
        self.slurm, self.folder = slurm, folder
        self.addresses, self.got_in, self.modes, self.words, self.cancelled = [], None, {}, [], None

    def __call__(self, stage, done, total):
        if stage == "segment" and done and self.got_in is None:
            mine = [address for address in listening(os.getpid()) if address not in self.before]
            self.addresses = [*mine, *listening(*self.slurm.job_processes())]
            self.got_in = intrusions(self.addresses, self.folder)
            (keys,) = self.folder.glob(".hrvol-keys-*")
            self.modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()}
            self.modes["folder"] = stat.S_IMODE(keys.stat().st_mode)
            self.words = [word for one in processes(*self.slurm.job_processes()) for word in one.cmdline()]
        if stage == "segment" and done >= 0.4 * total and self.cancelled is None:
            (self.cancelled,) = self.slurm.jobs()
            self.slurm.run("scancel", self.cancelled)

    before = ()


def test_a_run_is_private_survives_a_cancelled_job_and_labels_as_one_process_does(
    case, slurm, here, monkeypatch, caplog
):
    monkeypatch.setattr("hrvol.engine.slurm.JOB_SILENT", 1.0)
    caplog.set_level("WARNING", "hrvol")
    intruder = Intruder(slurm, here)
    intruder.before = listening(os.getpid())
    case.segment(here / "out.ome.zarr", engine="slurm", workers=1, engine_options=OPTIONS, progress=intruder)
    is_whole(here / "out.ome.zarr", case)
    assert intruder.got_in == []
    assert {host for host, _ in intruder.addresses} == {"127.0.0.1"}
    assert len(intruder.addresses) == 3  # of the scheduler, a nanny, a worker
    assert intruder.modes == {"folder": 0o700, "certificate.pem": 0o600, "key.pem": 0o600}
    (scratch,) = {word for word in intruder.words if "/hrvol-" in word and "keys" not in word}
    assert not Path(scratch).exists()
    assert not any("PRIVATE KEY" in word for word in intruder.words)
    assert "submitting others" in caplog.text
    wait_for(lambda: not slurm.jobs(), 30)


def test_a_partition_that_slurm_does_not_have_is_known_before_anything_is_deleted(slurm, here):
    check_engine(EngineSpec("slurm", 1, options=OPTIONS))
    with pytest.raises(EngineError, match=r"engine: slurm: sbatch: .*nvalid partition"):
        check_engine(EngineSpec("slurm", 1, options={**OPTIONS, "queue": "nosuch"}))
    assert not slurm.jobs()


def test_an_interrupt_stops_a_run_and_its_jobs(case, slurm, here):
    out = here / "out.ome.zarr"
    words = [word for pair in OPTIONS.items() for word in ("--engine-option", "=".join(pair))]
    with (here / "log").open("w") as log:
        process = subprocess.Popen(
            ["hrvol", *case.command(out, *words, engine="slurm")],
            env=environment(**slurm.environment),
            stdout=log,
            stderr=log,
        )
        try:
            wait_for(lambda: progress_of(out)[0] or process.poll() is not None, PATIENCE)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130, (here / "log").read_text()
        finally:
            process.kill()
            process.wait()
    text = (here / "log").read_text()
    assert "Traceback" not in text
    assert "run the same command to resume" in text
    wait_for(lambda: not slurm.jobs(), 30)
    assert progress_of(out)[0] < len(case.blocks)
    case.segment(out)
    is_whole(out, case)


def test_an_array_job_is_requeued_at_its_time_limit_and_resumes(case, slurm, here):
    out = here / "out.ome.zarr"
    limits = ["--array=1-1", "--cpus-per-task=1", "--mem=500", "--time=00:10:00"]
    script = ["sbatch", "--parsable", *limits, str(WORKFLOWS / "slurm_array.sbatch")]
    words = [case.volume, out, case.model, "--probabilities", "--uncertainty", "--engine", "serial"]
    done = subprocess.run(
        [*script, *map(str, words), "--workers", "1"],
        env=environment(**slurm.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    job = f"{done.stdout.strip()}_1"
    wait_for(lambda: progress_of(out)[0], PATIENCE)
    (driver,) = status(out)["drivers"]
    with suppress(ProcessLookupError):
        os.kill(driver["pid"], signal.SIGSTOP)  # SLURM looks at the time limit once in 30 s
    before = progress_of(out)[0]
    assert before < len(case.blocks)
    slurm.run("scontrol", "update", f"JobId={job}", "EndTime=now")
    wait_for(lambda: slurm.state(job) != "RUNNING", 60)
    os.kill(driver["pid"], signal.SIGCONT)
    wait_for(lambda: slurm.state(job) == "PENDING", 30)
    slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    wait_for(lambda: not slurm.jobs(), PATIENCE)
    is_whole(out, case)
    (log,) = here.glob("hrvol-*.log")
    assert "stopped, requeued" in log.read_text()
    assert "DUE TO TIME LIMIT" in log.read_text()


def double(task):
    return 2 * task


def test_a_partition_that_does_not_exist_is_one_line(slurm, here):
    with (
        pytest.raises(EngineError, match=r"engine: slurm: sbatch: .*invalid partition") as error,
        open_engine(EngineSpec("slurm", 1, options={**OPTIONS, "queue": "gone"})),
    ):
        pass
    assert "\n" not in str(error.value)


def test_a_job_that_ends_before_its_worker_starts_ends_the_run(slurm, here, monkeypatch):
    monkeypatch.setattr("hrvol.engine.slurm.JOB_CHECK", 1.0)
    options = {**OPTIONS, "python": "/bin/false"}
    with (
        pytest.raises(EngineError, match=r"engine: slurm: job \d+ ended before a worker started: see slurm-"),
        open_engine(EngineSpec("slurm", 1, options=options)) as engine,
    ):
        list(engine.map_bounded(double, [1]))
