"""Scheduling: every task is assigned once, whatever the workers do, and neighbours stay together."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrvol.engine.scheduling import RangePartitioner

WORKERS = "abcd"
TURNS = st.lists(st.sampled_from(WORKERS), max_size=200)


def runs(numbers):
    """Return the number of runs of consecutive numbers in a sequence."""
    return sum(1 for i, n in enumerate(numbers) if i == 0 or n != numbers[i - 1] + 1)


def drain(partitioner, workers):
    """Let workers take turns until no task is left; return the tasks of each."""
    got = {worker: [] for worker in workers}
    while partitioner.left:
        for worker in workers:
            number = partitioner.next(worker)
            if number is not None:
                got[worker].append(number)
    return got


@given(
    count=st.integers(0, 120),
    events=st.lists(st.tuples(st.sampled_from(["next"] * 3 + ["leave", "share"]), st.sampled_from(WORKERS))),
    starts=st.sets(st.integers(1, 119), max_size=9),
)
def test_every_number_is_assigned_once_whatever_workers_join_and_leave(count, events, starts):
    partitioner, there, assigned = RangePartitioner(count, sorted(starts)), set(), []
    for event, worker in events:
        if event == "next":
            there.add(worker)
            left, number = partitioner.left, partitioner.next(worker)
            assert (number is None) == (left == 0)
            if number is not None:
                assigned.append(number)
                assert partitioner.left == left - 1
        elif event == "leave":
            there.discard(worker)
            partitioner.leave(worker)
        else:
            partitioner.share_out(sorted(there))
        assert len(assigned) + partitioner.left == count
    assigned += drain(partitioner, ["last"])["last"]
    assert sorted(assigned) == list(range(count))
    assert partitioner.next("a") is None


@given(count=st.integers(0, 200), workers=st.integers(1, 7))
def test_workers_of_equal_speed_get_equal_contiguous_shares(count, workers):
    partitioner = RangePartitioner(count)
    partitioner.share_out(range(workers))
    got = drain(partitioner, range(workers))
    sizes = [len(numbers) for numbers in got.values()]
    assert max(sizes) - min(sizes) <= 1
    own = count // workers  # the others may be taken from a neighbour
    assert all(runs(numbers[:own]) <= 1 for numbers in got.values())
    assert sorted(n for numbers in got.values() for n in numbers) == list(range(count))


@given(count=st.integers(1, 300), turns=TURNS)
def test_workers_get_few_long_runs_at_any_speed(count, turns):
    partitioner = RangePartitioner(count)
    partitioner.share_out(WORKERS)
    got = {worker: [] for worker in WORKERS}
    for worker in [*turns, *(WORKERS * count)]:
        number = partitioner.next(worker)
        if number is not None:
            got[worker].append(number)
    assert partitioner.left == 0
    # A worker can take half of the remaining range of another as often as that can be halved.
    limit = len(WORKERS) * (1 + math.log2(count + 1))
    assert sum(map(runs, got.values())) <= limit


def test_ranges_begin_with_groups_where_there_are_enough():
    groups = RangePartitioner(100, [30, 60, 90])
    groups.share_out(["a", "b"])
    assert [groups.next("a"), groups.next("b")] == [0, 60]
    for number in range(61, 100):
        assert groups.next("b") == number
    assert groups.next("b") == 30  # the group that is left, and not half of all
    few = RangePartitioner(100, [30])
    few.share_out(["a", "b", "c"])
    assert [few.next(worker) for worker in "abc"] == [0, 33, 66]


def test_a_slow_worker_delays_no_other():
    partitioner = RangePartitioner(100)
    partitioner.share_out(["slow", "fast"])
    assert partitioner.next("slow") == 0
    fast = [partitioner.next("fast") for _ in range(99)]
    assert sorted(fast) == list(range(1, 100))
    assert fast[:50] == list(range(50, 100))


def test_the_range_of_a_lost_worker_is_taken_over():
    partitioner = RangePartitioner(10)
    partitioner.share_out(["a", "b"])
    assert [partitioner.next("a"), partitioner.next("b")] == [0, 5]
    partitioner.leave("a")
    partitioner.leave("a")
    partitioner.leave("stranger")
    assert [partitioner.next("b") for _ in range(4)] == [6, 7, 8, 9]
    assert [partitioner.next("c") for _ in range(5)] == [1, 2, 3, 4, None]


@pytest.mark.parametrize("workers", [[], ["a"]])
def test_a_late_share_out_changes_nothing(workers):
    partitioner = RangePartitioner(6)
    assert partitioner.next("a") == 0
    partitioner.share_out(workers)
    assert drain(partitioner, ["a"]) == {"a": [1, 2, 3, 4, 5]}
