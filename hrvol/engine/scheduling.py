"""Who does which task: neighbours in the order of tasks go to the same worker as far as possible.

Each worker sweeps a contiguous part of the tasks, so that what neighbouring tasks share (chunks of input) is
decoded once. A worker that has finished its part takes the second half of the largest one left: a slow worker
holds nobody up.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

from hrvol.engine.spec import IN_FLIGHT, pause


class RangePartitioner:
    """Deals the numbers 0 to ``count - 1``; memory does not grow with them.

    Parameters
    ----------
    count
        How many tasks there are.
    """

    def __init__(self, count: int) -> None:
        self._free: list[range] = [range(count)] if count else []
        self._mine: dict[Hashable, range] = {}

    @property
    def left(self) -> int:
        """How many tasks were not dealt yet."""
        return sum(map(len, [*self._free, *self._mine.values()]))

    def share_out(self, workers: Sequence[Hashable]) -> None:
        """Split what nobody has begun evenly between these workers, in their order."""
        whole = [number for part in self._free for number in (part.start, part.stop)]
        if len(whole) != 2 or self._mine or not workers:
            return  # already begun: newcomers take halves
        start, stop = whole
        edges = [start + (stop - start) * i // len(workers) for i in range(len(workers) + 1)]
        self._mine = {worker: range(edges[i], edges[i + 1]) for i, worker in enumerate(workers)}
        self._free = []

    def next(self, worker: Hashable) -> int | None:
        """Return the next task of a worker, ``None`` where none is left for anyone."""
        part = self._mine.get(worker)
        if not part:
            part = self._take()
            if part is None:
                return None
        self._mine[worker] = part[1:]
        return part[0]

    def leave(self, worker: Hashable) -> None:
        """Note that a worker is gone; others take over its part."""
        part = self._mine.pop(worker, None)
        if part:
            self._free.append(part)

    def _take(self) -> range | None:
        if self._free:
            return self._free.pop(0)
        rich = max(self._mine, key=lambda worker: len(self._mine[worker]), default=None)
        if rich is None or not self._mine[rich]:
            return None
        part = self._mine[rich]
        middle = len(part) // 2
        self._mine[rich] = part[:middle]
        return part[middle:]


LOG = logging.getLogger("hrvol.run")

REFRESH = 2.0
"""Seconds between looks at which workers there are."""

NO_WORKERS = 60.0
"""Seconds without workers before that is said."""


@dataclass(frozen=True)
class Job:
    """A task under way: number, earlier failures, worker, and whether the worker is to run nothing else."""

    number: int
    failed: int
    worker: str
    exclusive: bool


class TaskQueue:
    """What is to be done by whom; bookkeeping.

    Parameters
    ----------
    count
        How many tasks there are.
    """

    def __init__(self, count: int) -> None:
        self._dealer = RangePartitioner(count)
        self._load: dict[str, list[Job]] = {}
        self._again: list[tuple[float, int, int, bool]] = []  # when, number, failures so far, exclusive
        self._seen = -1e9
        self._idle_since = time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be begun."""
        return not self._again and not self._dealer.left

    def refresh_is_due(self) -> bool:
        """Whether it is time to look which workers there are."""
        return time.monotonic() - self._seen >= REFRESH

    def knows(self, worker: str) -> bool:
        """Whether a worker was there at the last census."""
        return worker in self._load

    def refresh_workers(self, workers: Sequence[str]) -> None:
        """Note which workers there are."""
        self._seen = time.monotonic()
        if workers:
            self._idle_since = self._seen
        elif self._seen - self._idle_since > NO_WORKERS:
            LOG.warning("waiting for workers: there are none")
            self._idle_since = self._seen
        for worker in set(self._load) - set(workers):
            self._dealer.leave(worker)
            del self._load[worker]
        for worker in workers:
            self._load.setdefault(worker, [])
        self._dealer.share_out(list(self._load))

    def assign(self) -> Iterator[Job]:
        """Yield jobs for workers that have room."""
        now = time.monotonic()
        while self._again and self._again[0][0] <= now:
            when, number, failed, exclusive = heapq.heappop(self._again)
            worker = min(self._load, key=lambda name: len(self._load[name]), default=None)
            room = 0 if exclusive else IN_FLIGHT - 1
            if worker is None or len(self._load[worker]) > room or self._busy_with_exclusive(worker):
                heapq.heappush(self._again, (when, number, failed, exclusive))
                # The emptiest worker is left to run dry for it; the others go on.
                yield from self._deal(except_for=worker if exclusive else None)
                return
            yield self._charge(Job(number, failed, worker, exclusive))
        yield from self._deal()

    def release(self, job: Job) -> None:
        """Note that a job is no longer under way."""
        if job in self._load.get(job.worker, []):
            self._load[job.worker].remove(job)

    def requeue(self, job: Job, failed: int, *, exclusive: bool = False) -> None:
        """Note that a job's task has to be done again, after a pause if it failed."""
        wait = pause(failed) if failed > job.failed else 0.0
        heapq.heappush(self._again, (time.monotonic() + wait, job.number, failed, exclusive or job.exclusive))

    def _deal(self, except_for: str | None = None) -> Iterator[Job]:
        # One each in turn: a worker must not be given two before another has one.
        for room in range(IN_FLIGHT):
            for worker, jobs in self._load.items():
                if worker == except_for or len(jobs) > room or self._busy_with_exclusive(worker):
                    continue
                number = self._dealer.next(worker)
                if number is None:
                    return
                yield self._charge(Job(number, 0, worker, False))

    def _charge(self, job: Job) -> Job:
        self._load[job.worker].append(job)
        return job

    def _busy_with_exclusive(self, worker: str) -> bool:
        return any(job.exclusive for job in self._load[worker])
