"""Nothing is lost silently: runs that are killed, stopped, starved or harmed go on to the very same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import zarr
from fault_data import (
    ARRAYS,
    HARMS,
    Case,
    Cluster,
    Run,
    contents,
    copied,
    differing,
    harm,
    labels_are_zero,
    progress_of,
    shards,
    small_disk,
    wait_for,
)
from poison import POISONED, take

from hrvol.errors import BusyError, StoppedError
from hrvol.run import block as block_module
from hrvol.run import engine as engine_module
from hrvol.run import ledger as ledger_module
from hrvol.run.coarsen import coarsen
from hrvol.run.engine import TRIES, EngineSpec, open_engine
from hrvol.run.ledger import Ledger, lanes, sealed
from hrvol.run.pyramid import PyramidJob
from hrvol.run.status import run_status
from hrvol.run.stop import Stop
from hrvol.volume.labels import LabelStore
from hrvol.volume.location import Location
from hrvol.volume.records import Records

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    made = Case.make(tmp_path_factory.mktemp("case"))
    assert len(made.blocks) == 36
    assert set(ARRAYS) <= made.expected.keys()
    return made


@pytest.fixture(scope="module")
def unfinished(case):
    """An output that was stopped after 14 blocks, to be copied."""
    out = case.begin(case.folder / "unfinished.ome.zarr")
    assert 10 < progress_of(out)[0] < 20
    return out


def is_whole(out, case):
    """Assert that an output is complete, and bit for bit that of an uninterrupted run."""
    assert differing(contents(out), case.expected) == []
    assert contents(out)[""]["hrvol"]["complete"]
    assert run_status(out)["state"] == "complete"


def goes_on(out, case, log, *options):
    """Assert that the same command finishes an output."""
    with Run(case.command(out, *options), log) as run:
        assert run.wait() == 0, run.said
    is_whole(out, case)


# -- processes that die ----------------------------------------------------------------------------------


def test_workers_that_die_are_replaced_and_the_run_ends_well(case, tmp_path):
    out = tmp_path / "out.ome.zarr"
    with Run(case.command(out, engine="local"), tmp_path / "log") as run:
        wait_for(lambda: progress_of(out)[0] >= 1)
        run.workers()[0].kill()
        wait_for(lambda: progress_of(out)[0] >= 8)
        all_of_them = run.workers()
        for worker in all_of_them:
            worker.kill()
        wait_for(lambda: set(run.workers()) - set(all_of_them)).pop().kill()  # while it starts
        assert run.wait() == 0
        assert "Traceback" not in run.said
        wait_for(lambda: not run.workers(), 15)
    is_whole(out, case)


@pytest.mark.parametrize(
    "points",
    [(1, 2, 7, 20, 45, 80, 130), (3, 60, 400, "labels/hrvol/0/c/2", "labels/hrvol/1/c", "uncertainty/2/c")],
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
    assert 1 <= progress_of(out)[0] < 36
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
    monkeypatch.setattr(engine_module, "BACK_OFF", 0.01)
    predict_part, sizes = block_module.predict_part, []

    def starved(*arguments, batch_size, **options):
        if arguments[2].index == (1, 2, 0):
            sizes.append(batch_size)
            if batch_size > 1:
                raise MemoryError
        return predict_part(*arguments, batch_size=batch_size, **options)

    monkeypatch.setattr(block_module, "predict_part", starved)
    assert case.segment(tmp_path / "out.ome.zarr").failed == ()
    assert sizes == [4, 2, 1]
    is_whole(tmp_path / "out.ome.zarr", case)


# -- storage that fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HARMS)
@pytest.mark.parametrize("state", ["unfinished", "complete"])
def test_harmed_shards_are_found_and_made_again(case, unfinished, tmp_path, state, kind):
    out = copied(unfinished if state == "unfinished" else case.reference, tmp_path / "out.ome.zarr")
    harmed = [found[len(found) // 3] for array in ARRAYS if (found := shards(out, array))]
    assert len(harmed) == (5 if state == "complete" else 2)
    for path in harmed:
        harm(path, kind)
    case.segment(out)
    is_whole(out, case)


def test_what_came_of_a_harmed_block_is_made_again_too(case, tmp_path):
    """The block is harmed before the coarser levels are made of it, and that goes unnoticed at first."""
    out = tmp_path / "out.ome.zarr"
    with Run(case.command(out), tmp_path / "log", dies_at="labels/hrvol/1/zarr.json") as run:
        assert run.wait() == -signal.SIGKILL
    victim = out / "labels/hrvol/0/c/1/2/0"
    whole = victim.read_bytes()
    victim.unlink()
    job = PyramidJob(LabelStore(Location.of(out)))
    with Ledger(Location.of(out), len(case.blocks)) as ledger, open_engine(EngineSpec(), job) as engine:
        assert coarsen(engine, job.store, ledger)
    assert differing(contents(out), case.expected) != []
    case.segment(out)
    assert victim.read_bytes() == whole
    is_whole(out, case)


def test_an_output_that_lost_a_block_is_not_called_complete_meanwhile(case, tmp_path):
    out = copied(case.reference, tmp_path / "out.ome.zarr")
    harm(shards(out, ARRAYS[0])[5], "deleted")
    stop = Stop()
    stop.request()
    with pytest.raises(StoppedError):
        case.segment(out, stop=stop)
    status = run_status(out)
    assert (status["state"], status["done"], status["left"]) == ("stopped", 35, 1)
    case.segment(out)
    is_whole(out, case)


@pytest.mark.parametrize("kind", ["truncated", "deleted", "flipped"])
def test_harmed_records_of_the_ledger_cost_work_and_nothing_else(case, unfinished, tmp_path, kind):
    for source in (unfinished, case.reference):
        out = copied(source, tmp_path / source.name)
        records = sorted((out / "ledger").rglob("zarr.json"))
        assert len(records) > 2
        for seed, path in enumerate(records):
            harm(path, kind, seed)
        assert case.segment(out).failed == ()
        is_whole(out, case)


def test_a_harmed_shard_that_no_record_tells_of_is_named_and_then_made_again(case, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "BACK_OFF", 0.01)
    out = copied(case.reference, tmp_path / "out.ome.zarr")
    shutil.rmtree(out / "ledger")
    harm(out / "labels/hrvol/0/c/3/5/0", "truncated")
    report = case.segment(out)
    assert [failure.index for failure in report.failed] in ([], [(3, 5, 0)])
    assert labels_are_zero(out, case, [failure.index for failure in report.failed])
    assert case.segment(out).failed == ()
    is_whole(out, case)


def test_input_that_cannot_be_read_fails_exactly_the_blocks_that_need_it(case, tmp_path):
    chunk = (0, 5, 1)
    path = case.volume.joinpath("c", *map(str, chunk))
    needing, whole = case.readers(chunk), path.read_bytes()
    assert 2 < len(needing) < 10
    out = tmp_path / "out.ome.zarr"
    path.write_bytes(b"garbage")
    try:
        with Run(case.command(out), tmp_path / "log") as run:
            assert run.wait() == 1
            assert f"{len(needing)} of 36 blocks failed" in run.said.splitlines()[-1]
            assert "volume.zarr: cannot read" in run.said
        with Run(["status", str(out), "--json"], tmp_path / "status") as status:
            status.wait()
        found = json.loads(status.said)
        assert [tuple(failure["block"]) for failure in found["failures"]] == needing
        assert (found["state"], found["failed"], found["left"]) == ("failed", len(needing), 0)
        assert labels_are_zero(out, case, needing)
        certain = zarr.open_array(out / "probabilities/0", mode="r")[:].max(axis=0)
        assert not any(certain[block.core].any() for block in case.blocks if block.index in needing)
    finally:
        path.write_bytes(whole)
    goes_on(out, case, tmp_path / "log")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("kib", [60, 250], ids=["while it is made", "in the middle"])
def test_a_full_disk_ends_the_run_with_one_line(case, tmp_path, kib):
    with ExitStack() as stack:
        try:
            disk, filler = stack.enter_context(small_disk(tmp_path, kib))
        except OSError as error:
            pytest.skip(str(error))
        out = disk / "out.ome.zarr"
        with Run(case.command(out), tmp_path / "log") as run:
            assert run.wait() == 1
            assert "Traceback" not in run.said
            assert "No space left on device" in run.said.splitlines()[-1]
        filler.unlink()
        goes_on(out, case, tmp_path / "log")


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
    assert 5 <= progress_of(out)[0] < 36
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
    command = [Path(sys.executable).with_name("hrvol"), *case.command(out, engine="local", workers=1)]
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, start_new_session=True, preexec_fn=listen_to_interrupts
        )
    try:
        wait_for(lambda: progress_of(out)[0] >= 1)
        before, begun = progress_of(out)[0], time.monotonic()
        for number in signals:
            (os.killpg if group else os.kill)(process.pid, number)
            time.sleep(0.2)
        assert process.wait(30) == code
        assert time.monotonic() - begun < 20
    finally:
        process.kill()
    said = log.read_text()
    assert said.splitlines()[-1].endswith("blocks done; the same command goes on")
    assert f"stopped by {signals[0].name}" in said
    assert not any(noise in said for noise in ("Traceback", "distributed", "asyncio", "KeyboardInterrupt"))
    after = progress_of(out)[0]
    assert before <= after < 36
    if signals in ([signal.SIGUSR1], [signal.SIGINT]):
        assert after > before  # what was in progress was finished, even though Ctrl-C goes to workers, too
    goes_on(out, case, log)


def listen_to_interrupts():
    """Undo what a shell does to jobs in the background, whose children would ignore Ctrl-C too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# -- several at once --------------------------------------------------------------------------------------


def test_a_second_driver_is_refused_and_harms_nothing(case, tmp_path):
    out = tmp_path / "out.ome.zarr"
    with Run(case.command(out), tmp_path / "log") as run:
        wait_for(lambda: progress_of(out)[0] >= 1)
        run.send(signal.SIGSTOP)  # alive, but it takes its time
        for options in ({}, {"overwrite": True}, {"part": (1, 3)}):
            with pytest.raises(BusyError, match=rf"process {run.pid} is writing it"):
                case.segment(out, **options)
        run.send(signal.SIGCONT)
        assert run.wait() == 0
    is_whole(out, case)


def test_a_driver_that_was_given_up_finds_that_another_has_taken_over(case, tmp_path, monkeypatch):
    """It is suspended, as a laptop is, and the other one is on another machine."""
    monkeypatch.setattr(ledger_module, "PULSE", 0.1)
    out = tmp_path / "out.ome.zarr"
    with Run(case.command(out), tmp_path / "log") as run:
        wait_for(lambda: progress_of(out)[0] >= 1)
        run.send(signal.SIGSTOP)
        head = lanes(Location.of(out))["main"]
        Records(Location.of(out), read_only=False).put("ledger/main", sealed({**head, "host": "elsewhere"}))
        case.segment(out)
        is_whole(out, case)
        run.send(signal.SIGCONT)
        assert run.wait() == 1
        assert "has taken over" in run.said.splitlines()[-1]
    is_whole(out, case)
    assert case.segment(out).voxels == case.segment(case.reference).voxels


def test_parts_at_once_one_of_them_killed(case, tmp_path):
    out = tmp_path / "out.ome.zarr"
    parts = {k: ("--part", f"{k}/3") for k in (1, 2, 3)}
    with ExitStack() as stack:
        runs = {
            k: stack.enter_context(
                Run(case.command(out, *words), tmp_path / f"log{k}", dies_at=150 if k == 2 else None)
            )
            for k, words in parts.items()
        }
        assert {k: run.wait() for k, run in runs.items()} == {1: 0, 2: -signal.SIGKILL, 3: 0}
    assert 24 <= run_status(out)["done"] < 36
    goes_on(out, case, tmp_path / "log2", *parts[2])


def test_other_settings_are_refused_and_the_difference_is_named(case, unfinished, tmp_path):
    out = copied(unfinished, tmp_path / "out.ome.zarr")
    before = contents(out)
    words = [word for word in case.command(out) if word != "--uncertainty"]
    with Run(words, tmp_path / "log") as run:
        assert run.wait() == 1
        assert "outputs.uncertainty was true, now false" in run.said.splitlines()[-1]
    assert differing(contents(out), before) == []
    goes_on(out, case, tmp_path / "log")


def test_the_comparison_itself_sees_a_single_voxel(case, tmp_path):
    out = copied(case.reference, tmp_path / "out.ome.zarr")
    array = zarr.open_array(out / "probabilities/1", mode="r+")
    array[0, 0, 0, 0] = np.bitwise_xor(array[0, 0, 0, 0], 1)
    assert differing(contents(out), case.expected) == ["probabilities/1:values"]
