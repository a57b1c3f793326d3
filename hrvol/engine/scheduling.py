"""Assign tasks to workers so that neighbouring tasks go to the same worker as far as possible.

Each worker runs a contiguous range of tasks, so that data which neighbouring tasks share (chunks of input) is
decoded once. A worker that has finished its range takes the second half of the largest remaining one, so
that a slow worker delays nothing else.
"""

from __future__ import annotations

import heapq
import logging
import time
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from hrvol.arrays import even_edges, nearest
from hrvol.engine.spec import IN_FLIGHT, pause

LOG = logging.getLogger("hrvol.run")

REFRESH = 2.0
"""Seconds between updates of the list of workers."""

NO_WORKERS = 60.0
"""Seconds without workers before a warning."""


class RangePartitioner:
    """Assigns the numbers 0 to ``count - 1`` to workers; memory does not grow with their number.

    Parameters
    ----------
    count
        Number of tasks.
    starts
        Numbers of tasks, in order, at which ranges rather begin: before them, tasks share more data.
    """

    def __init__(self, count: int, starts: Sequence[int] = ()) -> None:
        self._starts = starts
        self._unowned: list[range] = [range(count)] if count else []
        self._range_of: dict[Hashable, range] = {}

    @property
    def left(self) -> int:
        """Number of tasks not assigned yet."""
        return sum(map(len, [*self._unowned, *self._range_of.values()]))

    def share_out(self, workers: Sequence[Hashable]) -> None:
        """Split the tasks evenly between workers, in their order; no effect once tasks were assigned."""
        bounds = [number for numbers in self._unowned for number in (numbers.start, numbers.stop)]
        if len(bounds) != 2 or self._range_of or not workers:
            return  # already started: newcomers take halves
        start, stop = bounds
        inside = [number - start for number in self._between(start, stop)]
        edges = [start + edge for edge in even_edges(stop - start, len(workers), inside)]
        self._range_of = {worker: range(edges[i], edges[i + 1]) for i, worker in enumerate(workers)}
        self._unowned = []

    def next(self, worker: Hashable) -> int | None:
        """Return the next task of a worker; ``None`` if every task is assigned."""
        numbers = self._range_of.get(worker)
        if not numbers:
            numbers = self._acquire_range()
            if numbers is None:
                return None
        self._range_of[worker] = numbers[1:]
        return numbers[0]

    def leave(self, worker: Hashable) -> None:
        """Remove a lost worker; others take over its range."""
        numbers = self._range_of.pop(worker, None)
        if numbers:
            self._unowned.append(numbers)

    def _between(self, start: int, stop: int) -> Sequence[int]:
        """Return the starts that divide a range."""
        return self._starts[bisect_right(self._starts, start) : bisect_left(self._starts, stop)]

    def _acquire_range(self) -> range | None:
        if self._unowned:
            return self._unowned.pop(0)
        donor = max(self._range_of, key=lambda worker: len(self._range_of[worker]), default=None)
        if donor is None or not self._range_of[donor]:
            return None
        numbers = self._range_of[donor]
        inside = self._between(numbers.start, numbers.stop)
        start = nearest(numbers.start + len(numbers) // 2, inside)
        middle = len(numbers) // 2 if start is None else start - numbers.start
        self._range_of[donor] = numbers[:middle]
        return numbers[middle:]


@dataclass(frozen=True)
class Job:
    """A task in flight.

    Attributes
    ----------
    number
        Index of the task.
    failed
        How often it failed before.
    worker
        Address of its worker.
    exclusive
        Whether the worker runs nothing else meanwhile.
    """

    number: int
    failed: int
    worker: str
    exclusive: bool


class TaskQueue:
    """Tracks which tasks are pending, in flight, or to be tried again, and on which worker.

    Parameters
    ----------
    count, starts
        As of a :class:`RangePartitioner`.
    """

    def __init__(self, count: int, starts: Sequence[int] = ()) -> None:
        self._partitioner = RangePartitioner(count, starts)
        self._in_flight: dict[str, list[Job]] = {}  # by worker
        self._retries: list[tuple[float, int, int, bool]] = []  # heap: when, number, failures, exclusive
        self._refreshed = -1e9
        self._idle_since = time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether no task is left to start."""
        return not self._retries and not self._partitioner.left

    def refresh_is_due(self) -> bool:
        """Return whether the list of workers is out of date."""
        return time.monotonic() - self._refreshed >= REFRESH

    def knows(self, worker: str) -> bool:
        """Return whether a worker was alive at the last refresh."""
        return worker in self._in_flight

    def refresh_workers(self, workers: Sequence[str]) -> None:
        """Update the list of workers."""
        self._refreshed = time.monotonic()
        if workers:
            self._idle_since = self._refreshed
        elif self._refreshed - self._idle_since > NO_WORKERS:
            LOG.warning("waiting for workers: none is connected")
            self._idle_since = self._refreshed
        for worker in set(self._in_flight) - set(workers):
            self._partitioner.leave(worker)
            del self._in_flight[worker]
        for worker in workers:
            self._in_flight.setdefault(worker, [])
        self._partitioner.share_out(list(self._in_flight))

    def assign(self) -> Iterator[Job]:
        """Yield jobs for workers that have room: retries that are due, then new tasks."""
        now = time.monotonic()
        while self._retries and self._retries[0][0] <= now:
            when, number, failed, exclusive = heapq.heappop(self._retries)
            worker = min(self._in_flight, key=lambda name: len(self._in_flight[name]), default=None)
            limit = 0 if exclusive else IN_FLIGHT - 1
            if worker is None or len(self._in_flight[worker]) > limit or self._runs_exclusive(worker):
                heapq.heappush(self._retries, (when, number, failed, exclusive))
                # An exclusive retry waits until its worker has no tasks left; the others get new ones.
                yield from self._assign_new(except_for=worker if exclusive else None)
                return
            yield self._start(Job(number, failed, worker, exclusive))
        yield from self._assign_new()

    def release(self, job: Job) -> None:
        """Remove a job that is no longer in flight."""
        if job in self._in_flight.get(job.worker, []):
            self._in_flight[job.worker].remove(job)

    def requeue(self, job: Job, failed: int, *, exclusive: bool = False) -> None:
        """Schedule another try of a job's task, after a pause if it failed."""
        wait = pause(failed) if failed > job.failed else 0.0
        retry = (time.monotonic() + wait, job.number, failed, exclusive or job.exclusive)
        heapq.heappush(self._retries, retry)

    def _assign_new(self, except_for: str | None = None) -> Iterator[Job]:
        # Breadth first: no worker gets a second task before every worker has one.
        for limit in range(IN_FLIGHT):
            for worker, jobs in self._in_flight.items():
                if worker == except_for or len(jobs) > limit or self._runs_exclusive(worker):
                    continue
                number = self._partitioner.next(worker)
                if number is None:
                    return
                yield self._start(Job(number, 0, worker, False))

    def _start(self, job: Job) -> Job:
        self._in_flight[job.worker].append(job)
        return job

    def _runs_exclusive(self, worker: str) -> bool:
        return any(job.exclusive for job in self._in_flight[worker])
