"""Nothing is lost silently: harmed files, full disks, several drivers; and then the very same bits."""

import json
import os
import shutil
import signal
from contextlib import ExitStack

import numpy as np
import pytest
import zarr
from fault_data import (
    ARRAYS,
    HARMS,
    Run,
    contents,
    copied,
    differing,
    goes_on,
    harm,
    is_whole,
    labels_are_zero,
    progress_of,
    shards,
    small_disk,
    wait_for,
)

from hrvol.engine import spec as spec_module
from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec
from hrvol.engine.stop import Stop
from hrvol.errors import BusyError, StoppedError
from hrvol.run import ledger as ledger_module
from hrvol.run.ledger import Ledger, lanes, sealed
from hrvol.run.pyramid.build_pyramid import PyramidJob
from hrvol.run.pyramid.pyramid_levels import build_levels
from hrvol.run.status import run_status
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.records import Records

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


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
        assert build_levels(engine, job.store, ledger)
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
    assert (status["state"], status["done"], status["left"]) == ("stopped", 17, 1)
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
    monkeypatch.setattr(spec_module, "BACK_OFF", 0.01)
    out = copied(case.reference, tmp_path / "out.ome.zarr")
    shutil.rmtree(out / "ledger")
    harm(out / "labels/hrvol/0/c/1/5/0", "truncated")
    report = case.segment(out)
    assert [failure.index for failure in report.failed] in ([], [(1, 5, 0)])
    assert labels_are_zero(out, case, [failure.index for failure in report.failed])
    assert case.segment(out).failed == ()
    is_whole(out, case)


def test_input_that_cannot_be_read_fails_exactly_the_blocks_that_need_it(case, tmp_path):
    chunk = (0, 3, 1)
    path = case.volume.joinpath("c", *map(str, chunk))
    needing, whole = case.readers(chunk), path.read_bytes()
    assert 2 < len(needing) < 10
    out = tmp_path / "out.ome.zarr"
    path.write_bytes(b"garbage")
    try:
        with Run(case.command(out), tmp_path / "log") as run:
            assert run.wait() == 1
            assert f"{len(needing)} of 18 blocks failed" in run.said.splitlines()[-1]
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
    assert 12 <= run_status(out)["done"] < 18
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
