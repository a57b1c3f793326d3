"""Nothing is lost silently: runs whose processes die or are stopped go on to the very same bits."""

import signal
import time

import pytest
from fault_data import (
    Cluster,
    Run,
    goes_on,
    is_whole,
    progress_of,
    wait_for,
)
from poison import POISONED, take

from hrvol.engine import spec as spec_module
from hrvol.engine.engine import open_engine
from hrvol.engine.life import Limits
from hrvol.engine.spec import TRIES, EngineSpec
from hrvol.run import block as block_module

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


# -- processes that die ----------------------------------------------------------------------------------


def test_workers_that_die_are_replaced_and_the_run_ends_well(case, tmp_path):
    out = tmp_path / "out.ome.zarr"
    with Run(case.command(out, engine="local"), tmp_path / "log") as run:
        wait_for(lambda: progress_of(out)[0] >= 1)
        run.workers()[0].kill()
        wait_for(lambda: progress_of(out)[0] >= 5)
        all_of_them = run.workers()
        for worker in all_of_them:
            worker.kill()
        wait_for(lambda: set(run.workers()) - set(all_of_them)).pop().kill()  # while it starts
        assert run.wait() == 0
        assert "Traceback" not in run.said
        wait_for(lambda: not run.workers(), 15)
    is_whole(out, case)


def test_a_worker_that_is_stopped_is_replaced_and_the_run_ends_well(case, tmp_path):
    out = tmp_path / "out.ome.zarr"
    limits = Limits(report=0.2, silent=3.0)
    with Run(case.command(out, engine="local", workers=1), tmp_path / "log", limits=limits) as run:
        wait_for(lambda: progress_of(out)[0] >= 1)
        (worker,) = run.workers()
        worker.suspend()
        assert run.wait() == 0
        (line,) = [line for line in run.said.splitlines() if "no sign of life" in line]
        assert line.endswith("starting another worker")
        wait_for(lambda: not run.workers(), 15)
    is_whole(out, case)


@pytest.mark.parametrize(
    "points",
    [(1, 2, 7, 20, 45, 80, 130), (3, 60, 200, "labels/hrvol/0/c/1", "labels/hrvol/1/c", "uncertainty/2/c")],
    ids=["creation", "blocks and coarser levels"],
)
def test_a_driver_killed_while_it_writes_is_gone_on_with(case, tmp_path, points):
    out = tmp_path / "out.ome.zarr"
    for point in points:
        with Run(case.command(out), tmp_path / "log", dies_at=point) as run:
            assert run.wait() == -signal.SIGKILL, run.said
    goes_on(out, case, tmp_path / "log")
    assert not list(out.rglob("*.partial"))


def test_a_killed_driver_leaves_no_worker_behind(case, tmp_path):
    out = tmp_path / "out.ome.zarr"
    with Run(case.command(out, engine="local"), tmp_path / "log") as run:
        wait_for(lambda: progress_of(out)[0] >= 1)
        assert len(run.workers()) == 2
        assert run.kill() == []
    assert 1 <= progress_of(out)[0] < 18
    goes_on(out, case, tmp_path / "log")


def test_a_task_that_kills_its_worker_is_set_aside_and_its_neighbours_are_done():
    with open_engine(EngineSpec("local", 1)) as engine:
        outcomes = {o.task: o for o in engine.map_bounded(take, range(8))}
    culprit = outcomes.pop(POISONED)
    assert sorted(o.value for o in outcomes.values() if o.ok) == [0, 1, 2, 4, 5, 6, 7]
    assert culprit.tries == TRIES
    assert f"died {TRIES} times" in culprit.error


def test_what_cannot_start_a_worker_is_begun_anew():
    with open_engine(EngineSpec("local", 1)) as engine:
        outcomes = engine.map_bounded(take, [0, 1, 2, 4, 5])
        assert next(outcomes).ok
        (nanny,) = engine._cluster.workers.values()
        engine._cluster.sync(nanny.close)  # as it does itself after a failure
        assert sorted(o.value for o in outcomes if o.ok)[-1] == 5


def test_a_block_that_runs_out_of_memory_is_tried_with_smaller_batches(case, tmp_path, monkeypatch):
    monkeypatch.setattr(spec_module, "BACK_OFF", 0.01)
    predict_part, sizes = block_module.predict_part, []

    def starved(*arguments, **keywords):
        if arguments[2].index == (1, 2, 0):
            sizes.append(arguments[6].batch_size)
            if sizes[-1] > 1:
                raise MemoryError
        return predict_part(*arguments, **keywords)

    monkeypatch.setattr(block_module, "predict_part", starved)
    assert case.segment(tmp_path / "out.ome.zarr").failed == ()
    assert sizes == [4, 2, 1]
    is_whole(tmp_path / "out.ome.zarr", case)


# -- clusters ---------------------------------------------------------------------------------------------


def test_a_cluster_that_loses_a_worker_and_then_its_scheduler(case, tmp_path):
    out = tmp_path / "out.ome.zarr"
    with (
        Cluster(tmp_path) as cluster,
        Run(case.command(out, engine=cluster.address), tmp_path / "log") as run,
    ):
        wait_for(lambda: progress_of(out)[0] >= 1)
        cluster.workers[0].kill()
        before = progress_of(out)[0]
        wait_for(lambda: progress_of(out)[0] >= before + 4)
        cluster.scheduler.kill()
        begun = time.monotonic()
        assert run.wait() == 75
        assert time.monotonic() - begun < 30
        assert "the Dask scheduler was lost" in run.said
        assert "Traceback" not in run.said
    assert 5 <= progress_of(out)[0] < 18
    goes_on(out, case, tmp_path / "log")


# -- being stopped ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signals", "group", "code"),
    [
        ([signal.SIGUSR1], False, 75),
        ([signal.SIGTERM], True, 75),
        ([signal.SIGINT], True, 130),
        ([signal.SIGINT, signal.SIGINT], True, 130),
    ],
    ids=["SIGUSR1", "SIGTERM to all", "Ctrl-C", "Ctrl-C twice"],
)
def test_signals_end_a_run_in_order(case, tmp_path, signals, group, code):
    out, log = tmp_path / "out.ome.zarr", tmp_path / "log"
    with Run(case.command(out, engine="local", workers=1), log) as run:  # a session and group of its own
        wait_for(lambda: progress_of(out)[0] >= 1)
        before, begun = progress_of(out)[0], time.monotonic()
        for number in signals:
            run.send(number, group=group)
            time.sleep(0.2)
        assert run.wait(30) == code
        assert time.monotonic() - begun < 20
        said = run.said
    assert said.splitlines()[-1].endswith("blocks done; run the same command to resume")
    assert f"stopped by {signals[0].name}" in said
    assert not any(noise in said for noise in ("Traceback", "distributed", "asyncio", "KeyboardInterrupt"))
    after = progress_of(out)[0]
    assert before <= after < 18
    if signals in ([signal.SIGUSR1], [signal.SIGINT]):
        assert after > before  # what was in progress was finished, even though Ctrl-C goes to workers, too
    goes_on(out, case, log)
