"""The driver's desk: which task is to be done by which worker, and what has to wait; without Dask."""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hrvol.run.clusters import IN_FLIGHT
from hrvol.run.deal import Dealer
from hrvol.run.engine import pause

LOG = logging.getLogger("hrvol.run")

CENSUS = 2.0
"""Seconds between looks at which workers there are."""

LONELY = 60.0
"""Seconds without workers before that is said."""


@dataclass(frozen=True)
class Job:
    """A task under way: its number, how often it failed before, on which worker, and whether alone there."""

    number: int
    failed: int
    worker: str
    alone: bool


class Desk:
    """What is to be done by whom; bookkeeping.

    Parameters
    ----------
    count
        How many tasks there are.
    """

    def __init__(self, count: int) -> None:
        self._dealer = Dealer(count)
        self._load: dict[str, list[Job]] = {}
        self._again: list[tuple[float, int, int, bool]] = []  # when, number, failures so far, alone
        self._seen = -1e9
        self._idle_since = time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be begun."""
        return not self._again and not self._dealer.left

    def census_is_due(self) -> bool:
        """Whether it is time to look which workers there are."""
        return time.monotonic() - self._seen >= CENSUS

    def knows(self, worker: str) -> bool:
        """Whether a worker was there at the last census."""
        return worker in self._load

    def take_census(self, workers: Sequence[str]) -> None:
        """Note which workers there are."""
        self._seen = time.monotonic()
        if workers:
            self._idle_since = self._seen
        elif self._seen - self._idle_since > LONELY:
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
            when, number, failed, alone = heapq.heappop(self._again)
            worker = min(self._load, key=lambda name: len(self._load[name]), default=None)
            room = 0 if alone else IN_FLIGHT - 1
            if worker is None or len(self._load[worker]) > room or self._lonely(worker):
                heapq.heappush(self._again, (when, number, failed, alone))
                # The emptiest worker is left to run dry for it; the others go on.
                yield from self._deal(except_for=worker if alone else None)
                return
            yield self._charge(Job(number, failed, worker, alone))
        yield from self._deal()

    def release(self, job: Job) -> None:
        """Note that a job is no longer under way."""
        if job in self._load.get(job.worker, []):
            self._load[job.worker].remove(job)

    def put_back(self, job: Job, failed: int, *, alone: bool = False) -> None:
        """Note that a job's task has to be done again, after a pause if it failed."""
        wait = pause(failed) if failed > job.failed else 0.0
        heapq.heappush(self._again, (time.monotonic() + wait, job.number, failed, alone or job.alone))

    def _deal(self, except_for: str | None = None) -> Iterator[Job]:
        # One each in turn: a worker must not be given two before another has one.
        for room in range(IN_FLIGHT):
            for worker, jobs in self._load.items():
                if worker == except_for or len(jobs) > room or self._lonely(worker):
                    continue
                number = self._dealer.next(worker)
                if number is None:
                    return
                yield self._charge(Job(number, 0, worker, False))

    def _charge(self, job: Job) -> Job:
        self._load[job.worker].append(job)
        return job

    def _lonely(self, worker: str) -> bool:
        return any(job.alone for job in self._load[worker])
