"""Dealing: every task goes to somebody once, whatever the workers do, and neighbours stay together."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrvol.engine.scheduling import RangePartitioner

WORKERS = "abcd"
ASKING = st.lists(st.sampled_from(WORKERS), max_size=200)


def runs(numbers):
    """How many runs of consecutive numbers a sequence is made of."""
    return sum(1 for i, n in enumerate(numbers) if i == 0 or n != numbers[i - 1] + 1)


def drain(dealer, workers):
    """Let workers take turns until nothing is left; returns what each got."""
    got = {worker: [] for worker in workers}
    while dealer.left:
        for worker in workers:
            number = dealer.next(worker)
            if number is not None:
                got[worker].append(number)
    return got


@given(
    count=st.integers(0, 120),
    events=st.lists(st.tuples(st.sampled_from(["ask"] * 3 + ["leave", "share"]), st.sampled_from(WORKERS))),
)
def test_every_number_is_dealt_once_whatever_workers_come_and_leave(count, events):
    dealer, there, dealt = RangePartitioner(count), set(), []
    for what, worker in events:
        if what == "ask":
            there.add(worker)
            left, number = dealer.left, dealer.next(worker)
            assert (number is None) == (left == 0)
            if number is not None:
                dealt.append(number)
                assert dealer.left == left - 1
        elif what == "leave":
            there.discard(worker)
            dealer.leave(worker)
        else:
            dealer.share_out(sorted(there))
        assert len(dealt) + dealer.left == count
    dealt += drain(dealer, ["last"])["last"]
    assert sorted(dealt) == list(range(count))
    assert dealer.next("a") is None


@given(count=st.integers(0, 200), workers=st.integers(1, 7))
def test_workers_of_one_speed_get_equal_contiguous_shares(count, workers):
    dealer = RangePartitioner(count)
    dealer.share_out(range(workers))
    got = drain(dealer, range(workers))
    sizes = [len(numbers) for numbers in got.values()]
    assert max(sizes) - min(sizes) <= 1
    own = count // workers  # what is more than that may be taken from a neighbour
    assert all(runs(numbers[:own]) <= 1 for numbers in got.values())
    assert sorted(n for numbers in got.values() for n in numbers) == list(range(count))


@given(count=st.integers(1, 300), asking=ASKING)
def test_whatever_their_speeds_workers_get_few_long_runs(count, asking):
    dealer = RangePartitioner(count)
    dealer.share_out(WORKERS)
    got = {worker: [] for worker in WORKERS}
    for worker in [*asking, *(WORKERS * count)]:
        number = dealer.next(worker)
        if number is not None:
            got[worker].append(number)
    assert dealer.left == 0
    # Each worker can take half of what is left of another as often as that can be halved.
    limit = len(WORKERS) * (1 + math.log2(count + 1))
    assert sum(map(runs, got.values())) <= limit


def test_a_slow_worker_holds_nobody_up():
    dealer = RangePartitioner(100)
    dealer.share_out(["slow", "fast"])
    assert dealer.next("slow") == 0
    fast = [dealer.next("fast") for _ in range(99)]
    assert sorted(fast) == list(range(1, 100))
    assert fast[:50] == list(range(50, 100))


def test_what_a_lost_worker_had_before_it_is_taken_over():
    dealer = RangePartitioner(10)
    dealer.share_out(["a", "b"])
    assert [dealer.next("a"), dealer.next("b")] == [0, 5]
    dealer.leave("a")
    dealer.leave("a")
    dealer.leave("stranger")
    assert [dealer.next("b") for _ in range(4)] == [6, 7, 8, 9]
    assert [dealer.next("c") for _ in range(5)] == [1, 2, 3, 4, None]


@pytest.mark.parametrize("workers", [[], ["a"]])
def test_a_share_out_in_the_middle_changes_nothing(workers):
    dealer = RangePartitioner(6)
    assert dealer.next("a") == 0
    dealer.share_out(workers)
    assert drain(dealer, ["a"]) == {"a": [1, 2, 3, 4, 5]}
