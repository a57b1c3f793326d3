"""Serial and local engines behave alike: same outcomes, bounded work, failures reported."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import dask
import pytest

from hrvol.engine import spec as spec_module
from hrvol.engine.dask_engine import DaskEngine
from hrvol.engine.dask_servers import ALLOCATOR
from hrvol.engine.engine import open_engine
from hrvol.engine.spec import IN_FLIGHT, TRIES, EngineSpec
from hrvol.engine.stop import Stop
from hrvol.engine.task import attempt, configuration, tick
from hrvol.errors import HrvolError, InputError, ModelError, UsageError


def double(task):
    tick([task, 1])
    return configuration()["factor"] * task


def fail_on_three(task):
    if task == 3:
        raise InputError(f"volume.zarr: found NaN in\nblock {task}")
    if task == 4:
        raise ZeroDivisionError("no reason")
    return task


def die_on_three(task):
    if task == 3:
        os._exit(1)
    return task


def process_id(task):
    time.sleep(0.05)
    return os.getpid()


@pytest.fixture(scope="module")
def local():
    with open_engine(EngineSpec("local", 2), {"factor": 2}) as engine:
        yield engine


@pytest.fixture(params=["serial", "local"])
def engine(request):
    if request.param == "local":
        yield request.getfixturevalue("local")
    else:
        with open_engine(EngineSpec(), {"factor": 2}) as serial:
            yield serial


def test_every_task_comes_back_once_with_the_configuration_seen_in_the_task(engine):
    outcomes = list(engine.map_bounded(double, range(20)))
    assert sorted((o.task, o.value) for o in outcomes) == [(n, 2 * n) for n in range(20)]
    assert all(o.ok for o in outcomes)


def test_no_tasks_is_no_outcomes(engine):
    assert list(engine.map_bounded(double, [])) == []


def test_ticks_arrive_from_inside_the_tasks(engine):
    seen = []
    list(engine.map_bounded(double, range(5), on_tick=seen.append))
    deadline = time.monotonic() + 5
    while len(seen) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sorted(list(s) for s in seen) == [[n, 1] for n in range(5)]


def test_a_failing_task_is_an_outcome_with_its_reason_and_the_others_run(engine, monkeypatch):
    monkeypatch.setattr(spec_module, "BACK_OFF", 0.1)
    outcomes = {o.task: o for o in engine.map_bounded(fail_on_three, range(6))}
    assert {task for task, o in outcomes.items() if o.ok} == {0, 1, 2, 5}
    assert outcomes[3].error == "volume.zarr: found NaN in block 3"
    assert outcomes[4].error == "ZeroDivisionError: no reason"
    assert "fail_on_three" in outcomes[4].details
    assert outcomes[3].value is None


class Watched(Sequence):
    """Numbers that remember how often they were looked up."""

    def __init__(self, count):
        self.count, self.taken = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        self.taken.append(i)
        return i


def test_tasks_are_taken_only_when_there_is_room(engine):
    tasks = Watched(50)
    done = 0
    for _ in engine.map_bounded(double, tasks):
        done += 1
        # each is looked up when it starts and when it ends
        assert len(set(tasks.taken)) <= done + IN_FLIGHT * engine.workers
    assert done == 50


def test_local_engine_works_in_other_processes(local):
    pids = {o.value for o in local.map_bounded(process_id, range(12))}
    assert os.getpid() not in pids
    assert len(pids) == 2


def allocator(task):
    return {name: os.environ.get(name) for name in ALLOCATOR}


def test_workers_keep_freed_memory_for_a_while(monkeypatch, own_forkserver):
    name = "MALLOC_TRIM_THRESHOLD_"
    monkeypatch.setenv(name, "12345678")  # the environment overrides the default
    with open_engine(EngineSpec("local", 1)) as engine:
        (outcome,) = engine.map_bounded(allocator, [0])
    assert outcome.value == {**ALLOCATOR, name: "12345678"}


def test_serial_configuration_ends_with_the_engine():
    with open_engine(EngineSpec(), {"factor": 5}):
        assert configuration() == {"factor": 5}
    assert configuration() is None


def test_a_lost_worker_fails_its_task_and_the_run_continues(capfd):
    with DaskEngine(EngineSpec("local", 1)) as engine:
        outcomes = {o.task: o for o in engine.map_bounded(die_on_three, [0, 1, 2, 3])}
        assert [outcomes[n].value for n in range(3)] == [0, 1, 2]
        assert not outcomes[3].ok
        assert f"died {TRIES} times" in outcomes[3].error
        after = list(engine.map_bounded(process_id, [0]))
    assert after[0].ok
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "broken",
    [
        "raise OSError('libcuda.so.1 is not there')",
        "import distributed\n\n"
        "async def start(self):\n    raise OSError('libcuda.so.1 is not there')\n\n"
        "distributed.Worker.start_unsafe = start",
    ],
    ids=["made", "started"],
)
def test_workers_that_never_start_end_the_run_with_the_reason(broken, tmp_path):
    preload = tmp_path / "broken.py"
    preload.write_text(broken)
    with (
        dask.config.set({"distributed.worker.preload": [str(preload)]}),
        pytest.raises(HrvolError, match=r"^engine: local: no worker process starts: OSError: libcuda.so.1"),
        open_engine(EngineSpec("local", 1)) as engine,
    ):
        list(engine.map_bounded(double, [1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pbs", None), "engine"),
        (("local", 0), "workers"),
        (("serial", 3), "serial"),
        (("local", 2, None, {"queue": "gpu"}), "options"),
    ],
)
def test_invalid_specifications_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        EngineSpec(*arguments)


def fail_twice(task):
    if attempt() < 2:
        raise OSError(f"try {attempt()}")
    return attempt()


def test_a_task_is_tried_again_after_growing_pauses(engine, monkeypatch):
    monkeypatch.setattr(spec_module, "BACK_OFF", 0.1)
    start = time.monotonic()
    outcomes = list(engine.map_bounded(fail_twice, range(3)))
    assert [(o.value, o.tries) for o in outcomes] == [(2, 3)] * 3
    assert time.monotonic() - start >= 0.1 + 0.4
    (failed,) = engine.map_bounded(fail_twice, [0], tries=2)
    assert (failed.error, failed.tries) == ("OSError: try 1", 2)


def fill_disk(task):
    raise OSError(errno.ENOSPC, "No space left on device")


def refuse(task):
    raise ModelError("phases.hrvol: found other weights") if task else InputError("found NaN")


def test_permanent_failures_are_not_tried_again(engine):
    (full,) = engine.map_bounded(fill_disk, [0])
    assert (full.fatal, full.tries) == (True, 1)
    outcomes = {o.task: o for o in engine.map_bounded(refuse, [0, 1])}
    assert (outcomes[0].again, outcomes[0].fatal, outcomes[0].tries) == (False, False, 1)
    assert outcomes[1].fatal


def test_once_stopped_no_other_task_starts(engine):
    stop, tasks = Stop(), Watched(100)
    done = []
    for outcome in engine.map_bounded(process_id, tasks, stop=stop):
        done.append(outcome.task)
        stop.request()
    assert len(set(tasks.taken)) == len(done) <= 1 + IN_FLIGHT * engine.workers


def alive_in_group(group):
    """Processes of a group that are not zombies, from /proc."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                pids.append(stat.parent.name)
    return pids


def listen_to_interrupts():
    """Restore SIGINT, which a shell makes background jobs and their children ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_ends_the_workers_at_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from hrvol.engine.engine import EngineSpec, open_engine\n"
        "from hrvol.engine.task import tick\n"
        "def sleep(task):\n"
        "    tick('started')\n"
        "    time.sleep(300)\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        with open_engine(EngineSpec('local', 2)) as engine:\n"
        "            list(engine.map_bounded(sleep, [1, 2, 3], on_tick=lambda m: print(m, flush=True)))\n"
        "    except KeyboardInterrupt:\n"
        "        raise SystemExit(130)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=listen_to_interrupts,
    )
    try:
        assert process.stdout.readline() == "started\n"
        start = time.monotonic()
        os.killpg(process.pid, 2)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert time.monotonic() - start < 20
    assert "Traceback" not in errors
    deadline = time.monotonic() + 10  # multiprocessing's own helper ends a little later
    while alive_in_group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive_in_group(process.pid) == []
