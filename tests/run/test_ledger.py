"""The ledger: what it says is what was written down, whoever wrote, whatever became of its files since."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hrvol.errors import BusyError
from hrvol.run import ledger as module
from hrvol.run.ledger import (
    DONE,
    FAILED,
    PENDING,
    PULSE,
    Ledger,
    LedgerState,
    check_free,
    entries,
    lanes,
    read_state,
    sealed,
    unsealed,
)
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.records import Records

COUNT = 40


@pytest.fixture
def place(tmp_path):
    return Location.of(tmp_path / "out.ome.zarr")


def write(place, numbers, lane="main"):
    with Ledger(place, COUNT, lane) as ledger:
        for number in numbers:
            ledger.mark_done(number, f"{number + 1:x}", voxels=number)


def segments(place, lane="main"):
    return sorted(path.parent.name for path in Path(place.url, "ledger", lane).glob("*/zarr.json"))


def test_what_is_written_down_is_read_by_anybody(place):
    with Ledger(place, COUNT, about={"engine": "serial"}) as ledger:
        ledger.mark_done(3, "ff", voxels=7)
        ledger.mark_failed(5, "cannot read")
        ledger.mark_part("labels/hrvol/1/0", "abc", "123")
    state = read_state(place, COUNT)
    assert state.of_block.tolist() == [{3: DONE, 5: FAILED}.get(n, PENDING) for n in range(COUNT)]
    assert (state.checksum[3], state.reasons) == (255, {5: "cannot read"})
    assert state.parts == {"labels/hrvol/1/0": ("abc", "123")}
    assert state.digest() == ledger.state.digest() != LedgerState(COUNT).digest()
    (head,) = lanes(place).values()
    assert (head["engine"], head["state"], head["pid"]) == ("serial", "ended", os.getpid())


def test_an_output_without_a_ledger_has_everything_left(place):
    assert not read_state(place, COUNT).of_block.any()
    assert lanes(place) == {}


def test_records_roll_over_and_a_later_run_begins_a_new_one(place, monkeypatch):
    monkeypatch.setattr(module, "SEGMENT", 4)
    write(place, range(10))
    assert segments(place) == ["000000", "000001", "000002"]
    write(place, range(10, 12))
    assert segments(place)[3:] == ["000003"]
    assert read_state(place, COUNT).of_block.tolist() == [DONE] * 12 + [PENDING] * 28
    assert [entry["voxels"] for entry in entries(place)] == list(range(12))


def test_records_of_many_classes_roll_over_by_their_size_and_large_ones_are_read(place, monkeypatch):
    counts = {str(value): 123_456 for value in range(1, 1501)}
    with Ledger(place, 600) as ledger:
        for number in range(100):
            ledger.mark_done(number, "1", counts=counts)
    assert 1 < len(segments(place)) < 20
    assert np.count_nonzero(read_state(place, 600).of_block) == 100
    monkeypatch.setattr(module, "SEGMENT_BYTES", 2**40)  # as version 0.1.0 wrote them
    monkeypatch.setattr(module, "FLUSH", 1000)
    with Ledger(place, 600) as ledger:
        for number in range(100, 600):
            ledger.mark_done(number, "1", counts=counts)
    assert np.count_nonzero(read_state(place, 600).of_block) == 600


def test_few_entries_share_a_record_and_wait_no_longer_than_a_moment(place, monkeypatch):
    monkeypatch.setattr(module, "FLUSH", 0.2)
    with Ledger(place, COUNT) as ledger:
        for number in range(5):
            ledger.mark_done(number, "1")
        deadline = time.monotonic() + 10
        while np.count_nonzero(read_state(place, COUNT).of_block) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert segments(place) == ["000000"]


STATES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([PENDING, DONE, FAILED])), max_size=25)


@given(runs=st.lists(STATES, min_size=1, max_size=4))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_two_entries_about_a_block_the_later_counts(tmp_path_factory, runs):
    place = Location.of(tmp_path_factory.mktemp("ledger") / "out.ome.zarr")
    last = {}
    for k, run in enumerate(runs):
        with Ledger(place, COUNT, lane=f"part-{k % 2 + 1}-of-2") as ledger:
            for number, state in run:
                last[number] = state
                if state == DONE:
                    ledger.mark_done(number, "1")
                elif state == FAILED:
                    ledger.mark_failed(number, "why")
                else:
                    ledger.mark_pending(number)
        assert ledger.state.of_block.tolist() == read_state(place, COUNT).of_block.tolist()
    state = read_state(place, COUNT)
    assert state.of_block.tolist() == [last.get(number, PENDING) for number in range(COUNT)]
    assert state.reasons.keys() == {number for number, state in last.items() if state == FAILED}


def test_a_clock_that_was_set_back_changes_nothing(place, monkeypatch):
    write(place, [4])
    with Ledger(place, COUNT) as ledger:
        ledger.mark_part("p", "before", "1")
    monkeypatch.setattr(module.time, "time", lambda now=time.time: now() - 3600)
    with Ledger(place, COUNT) as ledger:
        ledger.mark_pending(4)  # found to be harmed
        ledger.mark_part("p", "after", "2")
        assert ledger.state.of_block[4] == PENDING
    state = read_state(place, COUNT)
    assert (state.of_block[4], state.parts["p"]) == (PENDING, ("after", "2"))


def test_only_the_entry_that_counts_is_current(place):
    with Ledger(place, COUNT) as ledger:
        ledger.mark_done(1, "1")
        ledger.mark_pending(1)
        ledger.mark_done(1, "2")
        ledger.mark_done(2, "1")
        ledger.mark_failed(2, "why")
    state = read_state(place, COUNT)
    assert [entry["stamp"] for entry in entries(place) if state.current(entry)] == ["2"]


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_is_noticed_or_means_nothing(tmp_path_factory, at, bit):
    place = Location.of(tmp_path_factory.mktemp("ledger") / "out.ome.zarr")
    with Ledger(place, COUNT) as ledger:
        for number in range(3):
            ledger.mark_done(number, "12ab", voxels=9)
        ledger.mark_part("labels/hrvol/1/0", "abc", "123")
    before = list(entries(place))
    path = Path(place.url, "ledger", "main", "000000", "zarr.json")
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1 << bit
    path.write_bytes(data)
    assert list(entries(place)) in ([], before)


def test_a_damaged_record_is_reported_and_the_others_count(place, monkeypatch, caplog):
    monkeypatch.setattr(module, "SEGMENT", 4)
    write(place, range(10))
    path = Path(place.url, "ledger", "main", "000001", "zarr.json")
    whole = path.read_text()
    for text in (whole.replace('"voxels":5', '"voxels":6'), whole[:100], ""):
        path.write_text(text)
        caplog.clear()
        state = read_state(place, COUNT)
        assert np.flatnonzero(state.of_block).tolist() == [0, 1, 2, 3, 8, 9]
        assert "damaged record" in caplog.text
    path.unlink()
    assert np.flatnonzero(read_state(place, COUNT).of_block).tolist() == [0, 1, 2, 3, 8, 9]


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)))
def test_a_sealed_record_opens_after_a_journey_through_json(values):
    values.pop("seal", None)
    assert unsealed(json.loads(json.dumps(sealed(values)))) == values


# -- who may write -----------------------------------------------------------------------------------------


@dataclass
class Waits:
    """Takes the place of sleeping; does something meanwhile."""

    meanwhile: object = None
    seconds: float = 0.0

    def __call__(self, seconds):
        self.seconds += seconds
        if self.meanwhile is not None:
            self.meanwhile()


def put_head(place, lane="main", **changes):
    """Write the head of a lane as if its driver were somewhere else."""
    if lane not in lanes(place):
        write(place, [], lane)
    head = lanes(place)[lane]
    head |= {"state": "running", **changes}
    Records(place, read_only=False).put(f"ledger/{lane}", sealed(head))
    return head


def test_a_living_process_of_this_machine_keeps_others_out(place):
    with Ledger(place, COUNT), pytest.raises(BusyError, match=f"process {os.getpid()} is writing it"):
        Ledger(place, COUNT).__enter__()
    with Ledger(place, COUNT):
        pass


@pytest.mark.parametrize("changes", [{"pid": 2**22 + 1}, {"born": 1.0}], ids=["dead", "another now"])
def test_a_dead_process_of_this_machine_does_not(place, changes):
    put_head(place, **changes)
    waits = Waits()
    check_free(place, sleep=waits)
    assert waits.seconds == 0


def test_of_another_machine_a_pulse_is_waited_for(place):
    head = put_head(place, host="elsewhere")
    silent = Waits()
    check_free(place, sleep=silent)
    assert silent.seconds >= 2 * PULSE
    beating = Waits(lambda: put_head(place, host="elsewhere", pulse=head["pulse"] + 1))
    with pytest.raises(BusyError, match="on elsewhere is writing it"):
        check_free(place, sleep=beating)


@pytest.mark.parametrize("state", ["ended", "stopped"])
def test_who_said_goodbye_is_not_waited_for(place, state):
    put_head(place, host="elsewhere", state=state)
    waits = Waits()
    check_free(place, sleep=waits)
    assert waits.seconds == 0


@pytest.mark.parametrize(
    ("there", "wanted", "free"),
    [
        ("part-1-of-3", "part-2-of-3", True),
        ("part-1-of-3", "part-1-of-3", False),
        ("part-1-of-3", "part-2-of-4", False),
        ("part-1-of-3", "main", False),
        ("main", "part-1-of-3", False),
    ],
)
def test_parts_of_one_cut_may_be_written_at_once_and_nothing_else(place, there, wanted, free):
    with Ledger(place, COUNT, there):
        if free:
            check_free(place, wanted)
        else:
            with pytest.raises(BusyError):
                check_free(place, wanted)


def test_a_driver_gives_signs_of_life_and_says_goodbye(place, monkeypatch):
    monkeypatch.setattr(module, "PULSE", 0.05)
    with Ledger(place, COUNT):
        first = lanes(place)["main"]["pulse"]
        deadline = time.monotonic() + 10
        while lanes(place)["main"]["pulse"] < first + 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert lanes(place)["main"]["state"] == "running"
    with pytest.raises(ZeroDivisionError), Ledger(place, COUNT):
        1 / 0  # noqa: B018
    assert lanes(place)["main"]["state"] == "stopped"


def test_who_was_replaced_writes_nothing_any_more(place):
    old = Ledger(place, COUNT).__enter__()
    old.mark_done(1, "1")
    head = put_head(place, owner="another", host="elsewhere")
    old.mark_done(2, "1")
    for end in (old.flush, lambda: old.__exit__(None, None, None)):
        with pytest.raises(BusyError, match=r"process \d+ on elsewhere has taken over"):
            end()
    assert lanes(place)["main"] == head
    assert np.flatnonzero(read_state(place, COUNT).of_block).tolist() == [1]


def test_what_others_wrote_is_seen_after_a_refresh(place):
    with Ledger(place, COUNT, "part-1-of-2") as mine, Ledger(place, COUNT, "part-2-of-2") as other:
        mine.mark_done(1, "1")
        other.mark_done(2, "1")
        other.flush()
        assert mine.state.of_block[2] == PENDING
        mine.refresh()
        assert mine.state.of_block[[1, 2]].tolist() == [DONE, DONE]
