"""Workers that are asked for their GPU before they are given tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from distributed import Client

from hrvol.errors import DeviceError
from hrvol.run.devices import Seat, check_seats, take_seat
from hrvol.run.task import one_line

LOG = logging.getLogger("hrvol.run")


class Reception:
    """Admits workers that have a GPU of their own.

    Parameters
    ----------
    client
        Of the scheduler.
    identify
        Called in each worker, returns the UUID of its GPU.
    expected
        How many workers there will be. Where so many have no GPU, and none has one, that is an error.
    """

    def __init__(self, client: Client, identify: Callable[[], str], expected: int) -> None:
        self._client, self._identify, self._expected = client, identify, expected
        self._asked: dict[str, Any] = {}
        self._seats: dict[str, Seat] = {}
        self._refused: dict[str, str] = {}

    @property
    def waiting(self) -> bool:
        """Whether a worker has not answered yet."""
        return bool(self._asked)

    def admitted(self, workers: Sequence[str]) -> list[str]:
        """Return which of the workers there are may be given tasks, and ask the others.

        Parameters
        ----------
        workers
            The addresses of all there are.

        Raises
        ------
        DeviceError
            Two workers are on one GPU, or none has any.
        """
        for known in (self._asked, self._seats):
            for gone in known.keys() - set(workers):
                del known[gone]
        for worker in workers:
            if worker not in self._asked and worker not in self._seats and worker not in self._refused:
                self._asked[worker] = self._ask(worker)
        for worker, answer in list(self._asked.items()):
            if answer.status == "finished":
                with suppress(TimeoutError):  # the worker is gone again
                    self._seats[worker] = answer.result(timeout=10)
                check_seats(self._seats)
            elif answer.status == "error":
                self._refuse(worker, one_line(answer.exception()))
            elif answer.status == "pending":
                continue
            del self._asked[worker]
        return [worker for worker in workers if worker in self._seats]

    def _ask(self, worker: str) -> Any:
        return self._client.submit(
            take_seat,
            self._identify,
            key=f"hrvol-seat-{uuid4().hex}",
            pure=False,
            workers=[worker],
            allow_other_workers=False,
        )

    def _refuse(self, worker: str, reason: str) -> None:
        self._refused[worker] = reason
        if not self._seats and len(self._refused) >= self._expected:
            raise DeviceError(f"{worker}: {reason}")
        LOG.warning("%s: is given no work: %s", worker, reason)
