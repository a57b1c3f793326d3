"""Workers that are stopped, or stuck in a file system, do not hold their tasks for ever."""

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fault_data import Cluster

from hrvol.engine import life
from hrvol.engine import spec as spec_module
from hrvol.engine.engine import open_engine
from hrvol.engine.life import LifeWatch, Limits, Reporter
from hrvol.engine.spec import EngineSpec
from hrvol.engine.task import computing

QUICK = Limits(report=0.2, silent=3.0, first=60.0, idle=2.0, factor=1.0)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Watched:
    """A watch whose clock is moved by hand, a second at a time; what it finds is kept."""

    def __init__(self, **limits):
        self.clock = Clock()
        self.watch = LifeWatch(Limits(**limits), self.clock)
        self.found = []

    def sleep(self, seconds, step=1.0, alive=(), works=()):
        for _ in range(round(seconds / step)):
            self.clock.now += step
            for name in (*alive, *works):
                self.watch.report(name, "w", works=name in works)
            self.found += [task.name for task in self.watch.overdue()]
        return self.found


def test_a_worker_that_reports_nothing_is_silent():
    watched = Watched(silent=60)
    watched.watch.submitted("a", "w")
    watched.watch.report("a", "w", works=True)
    watched.watch.submitted("b", "w")  # waits in the worker for a thread
    assert watched.sleep(55, alive=["a"]) == []
    assert watched.sleep(55) == []
    assert sorted(watched.sleep(10)) == ["a", "b"]
    assert watched.watch.report("a", "w", works=True) is False  # nothing is expected of it any more


def test_a_worker_that_has_not_reported_yet_has_more_time():
    watched = Watched(silent=60, first=1000)
    watched.watch.submitted("a", "w")
    assert watched.sleep(900) == []  # packages are imported
    assert watched.sleep(110) == ["a"]


def test_a_task_that_waits_for_a_thread_of_its_worker_is_not_late():
    watched = Watched(silent=60, first=100, idle=100)
    watched.watch.submitted("a", "w")
    watched.watch.submitted("b", "w")
    assert watched.sleep(2000, works=["a"]) == []


def test_the_first_tasks_have_more_time_than_the_others():
    watched = Watched(first=1000, idle=100)
    for name in "ab":
        watched.watch.submitted(name, "w")
        watched.watch.report(name, "w", works=True)
    assert watched.sleep(900, alive="ab") == []  # a model is loaded
    assert watched.watch.ended("a") == "w"
    watched.watch.succeeded()
    assert watched.sleep(1, alive="b") == ["b"]


def test_the_limit_follows_the_longest_time_that_a_task_did_nothing_and_went_on():
    watched = Watched(first=1000, idle=100, factor=10)
    watched.watch.succeeded()
    watched.watch.submitted("a", "w")
    watched.watch.report("a", "w", works=True)
    watched.sleep(80, alive="a")  # a slow disk
    watched.sleep(1, works="a")
    assert watched.sleep(790, alive="a") == []
    assert watched.sleep(40, alive="a") == ["a"]


def test_time_in_which_the_driver_was_stopped_does_not_count():
    watched = Watched(silent=60, idle=60)
    watched.watch.succeeded()
    watched.watch.submitted("a", "w")
    watched.watch.report("a", "w", works=True)
    assert watched.sleep(36000, step=3600) == []  # ten times a lid closed for an hour
    assert watched.sleep(70) == ["a"]


def test_a_task_works_if_it_uses_the_cpu_or_waits_for_its_turn():
    reports = {"busy": [], "idle": [], "waiting": []}
    reporter, over, held = Reporter(), threading.Event(), threading.Event()

    def busy():
        while not over.is_set():
            sum(range(1000))

    def idle():
        with computing():
            held.set()
            over.wait()

    def waiting():
        held.wait()
        with computing():
            pass

    def task(name, function):
        with reporter.running(name, 0.1, reports[name].append):
            function()

    threads = [threading.Thread(target=task, args=(f.__name__, f)) for f in (busy, idle, waiting)]
    for thread in threads:
        thread.start()
    time.sleep(0.8)
    over.set()
    for thread in threads:
        thread.join()
    assert all(seen[0] for seen in reports.values())  # it has started
    assert all(reports["busy"][2:])
    assert all(reports["waiting"][2:])
    assert not any(reports["idle"][2:])


@pytest.mark.parametrize("computes", [True, False])
def test_threads_of_a_library_work_for_the_only_task_that_does_not_wait(computes):
    reports, over, held = [], threading.Event(), threading.Event()
    reporter = Reporter()

    def compute():
        while not over.is_set():
            sum(range(1000))

    def wait():
        held.wait()
        with reporter.running("other", 0.1, lambda works: None), computing():
            pass

    threads = [threading.Thread(target=compute)] * computes + [threading.Thread(target=wait)]
    with reporter.running("task", 0.1, reports.append), computing():
        for thread in threads:
            thread.start()
        held.set()
        time.sleep(0.8)
        over.set()
    for thread in threads:
        thread.join()
    assert reports[0]
    assert sum(reports[2:]) >= 4 if computes else not any(reports[2:])


# -- with workers -----------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(life, "LIMITS", QUICK)
    monkeypatch.setattr(spec_module, "BACK_OFF", 0.1)
    return str(tmp_path / "marker")


def stop_once(task):
    number, marker = task
    if number == 3 and not Path(marker).exists():
        Path(marker).write_text(str(os.getpid()))
        time.sleep(0.5)  # so that its first report arrives: before that, a worker has an hour
        os.kill(os.getpid(), signal.SIGSTOP)
    return os.getpid()


def read_a_pipe_once(task):
    number, marker = task
    if number == 3 and not Path(marker).exists():
        os.mkfifo(marker)
        Path(marker).read_bytes()  # nobody ever writes to it, as on a file system that does not answer
    return os.getpid()


@pytest.mark.parametrize("function", [stop_once, read_a_pipe_once])
def test_a_worker_without_a_sign_of_life_is_killed_and_started_again(function, quick, caplog):
    tasks = [(number, quick) for number in range(6)]
    with open_engine(EngineSpec("local", 1)) as engine:
        outcomes = {o.task[0]: o for o in engine.map_bounded(function, tasks)}
    assert sorted(outcomes) == list(range(6))
    assert all(o.ok for o in outcomes.values())
    assert outcomes[3].tries == 2
    assert len({o.value for o in outcomes.values()}) == 2
    (line,) = [record.message for record in caplog.records if "another worker" in record.message]
    assert "\n" not in line


def never_return(task):
    if task[0] == 1:
        Path(task[1]).read_bytes()


def test_a_task_that_is_stuck_at_each_try_fails_with_the_reason(quick):
    os.mkfifo(quick)
    with open_engine(EngineSpec("local", 1)) as engine:
        done, outcome = engine.map_bounded(never_return, [(0, quick), (1, quick)], tries=2)
    assert done.ok
    assert not outcome.ok
    assert outcome.tries == 2
    assert outcome.error.startswith("it did nothing for ")


@pytest.mark.faults
def test_a_stopped_worker_of_a_running_cluster_is_set_aside_until_it_goes_on(
    quick, tmp_path, monkeypatch, caplog
):
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (here, here.parent, *sys.path))))
    with (
        Cluster(tmp_path) as cluster,
        open_engine(EngineSpec(cluster.address)) as engine,
    ):
        tasks = [(number, quick) for number in range(6)]
        outcomes = engine.map_bounded(stop_once, tasks)
        seen = [outcome for outcome in outcomes if outcome.ok]
        assert sorted(outcome.task[0] for outcome in seen) == list(range(6))  # each of them once
        stopped = int(Path(quick).read_text())
        assert stopped not in {outcome.value for outcome in seen if outcome.task[0] == 3}
        assert "it gets no other tasks until it resumes" in caplog.text
        (other,) = {worker.pid for worker in cluster.workers} - {stopped}
        assert {o.value for o in engine.map_bounded(stop_once, tasks)} == {other}
        os.kill(stopped, signal.SIGCONT)
        deadline = time.monotonic() + 20
        used = set()
        while stopped not in used and time.monotonic() < deadline:
            used |= {o.value for o in engine.map_bounded(stop_once, tasks)}
        assert used == {other, stopped}


def test_limits_are_generous():
    assert replace(life.LIMITS, report=10.0, silent=300.0, first=3600.0, idle=900.0) == life.LIMITS
