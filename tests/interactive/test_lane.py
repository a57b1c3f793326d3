"""Work in the background: newest wins, held and cancelled work."""

import os
import sys
import threading
import time
from concurrent.futures import CancelledError

import pytest

from hrvol.interactive.lane import Cancelled, Gate, Lane


@pytest.fixture
def lane():
    made = Lane("test")
    yield made
    made.close()


def until(gate, event):
    while not event.is_set():
        gate.check()
        time.sleep(0.005)
    return "done"


def test_newer_work_of_a_kind_cancels_older(lane):
    never, begun = threading.Event(), threading.Event()

    def first(gate):
        begun.set()
        return until(gate, never)

    older = lane.submit("a", first)
    assert begun.wait(5)
    waiting = lane.submit("a", lambda gate: 1)
    other = lane.submit("b", lambda gate: 2)
    newest = lane.submit("a", lambda gate: 3)
    assert (newest.result(5), other.result(5)) == (3, 2)
    assert older.cancelled
    assert waiting.cancelled
    with pytest.raises(CancelledError):
        older.result(0)


def test_work_that_has_begun_may_be_left_to_end(lane):
    end, begun = threading.Event(), threading.Event()

    def first(gate):
        begun.set()
        return until(gate, end)

    older = lane.submit("a", first)
    assert begun.wait(5)
    waiting = lane.submit("a", lambda gate: 1, restart=False)
    newest = lane.submit("a", lambda gate: 2, restart=False)
    end.set()
    assert older.result(5) == "done"
    assert newest.result(5) == 2
    assert waiting.cancelled


def test_held_work_waits_and_can_be_cancelled():
    hold = threading.Event()
    hold.set()
    gate = Gate([hold])
    passed = threading.Event()

    def work():
        try:
            gate.check()
        except Cancelled:
            passed.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert not passed.wait(0.05)
    gate.cancel()
    assert passed.wait(5)
    thread.join()
    Gate([threading.Event()]).check()


def test_errors_are_reported_and_work_continues():
    errors = []
    lane = Lane("test", errors.append)
    ticket = lane.submit("a", lambda gate: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ticket.result(5)
    done = []
    after = lane.submit("a", lambda gate: 5)
    after.on_done(done.append)
    assert after.result(5) == 5
    lane.close()
    assert [type(error) for error in errors] == [ZeroDivisionError]
    assert done == [after]
    assert lane.submit("a", lambda gate: 6).cancelled  # closed


def test_a_lane_is_busy_while_work_waits_or_runs(lane):
    end = threading.Event()
    ticket = lane.submit("a", lambda gate: until(gate, end))
    assert lane.busy.is_set()
    end.set()
    ticket.result(5)
    for _ in range(500):
        if not lane.busy.is_set():
            break
        time.sleep(0.01)
    assert not lane.busy.is_set()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no priorities of threads")
def test_work_that_yields_has_a_lower_priority(lane):
    def priority(gate):
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    yielding = Lane("slow", yields=True)
    assert yielding.submit("a", priority).result(5) > lane.submit("a", priority).result(5)
    yielding.close()
