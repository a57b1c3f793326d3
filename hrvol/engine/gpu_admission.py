"""Admit only workers that have a GPU of their own."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from distributed import Client

from hrvol.errors import DeviceError, one_line

LOG = logging.getLogger("hrvol.run")


class GpuAdmission:
    """Admits workers that have a GPU of their own.

    Parameters
    ----------
    client
        Client of the scheduler.
    identify
        Returns the UUID of a worker's GPU; called in each worker.
    expected
        Number of workers to expect. It is an error if that many report no GPU while none has one.
    """

    def __init__(self, client: Client, identify: Callable[[], str], expected: int) -> None:
        self._client, self._identify, self._expected = client, identify, expected
        self._pending: dict[str, Any] = {}  # futures, by worker address
        self._slots: dict[str, GpuSlot] = {}
        self._refused: dict[str, str] = {}

    @property
    def waiting(self) -> bool:
        """Whether a worker has not reported its GPU yet."""
        return bool(self._pending)

    def admitted(self, workers: Sequence[str]) -> list[str]:
        """Return the workers that may run tasks, and query the GPU of new ones.

        Parameters
        ----------
        workers
            Addresses of all current workers.

        Raises
        ------
        DeviceError
            Two workers share a GPU, or no worker has one.
        """
        for tracked in (self._pending, self._slots):
            for lost in tracked.keys() - set(workers):
                del tracked[lost]
        for worker in workers:
            if worker not in self._pending and worker not in self._slots and worker not in self._refused:
                self._pending[worker] = self._query(worker)
        for worker, future in list(self._pending.items()):
            if future.status == "finished":
                with suppress(TimeoutError):  # the worker was lost meanwhile
                    self._slots[worker] = future.result(timeout=10)
                check_slots(self._slots)
            elif future.status == "error":
                self._refuse(worker, one_line(future.exception()))
            elif future.status == "pending":
                continue
            del self._pending[worker]
        return [worker for worker in workers if worker in self._slots]

    def _query(self, worker: str) -> Any:
        return self._client.submit(
            take_slot,
            self._identify,
            key=f"hrvol-slot-{uuid4().hex}",
            pure=False,
            workers=[worker],
            allow_other_workers=False,
        )

    def _refuse(self, worker: str, reason: str) -> None:
        self._refused[worker] = reason
        if not self._slots and len(self._refused) >= self._expected:
            raise DeviceError(f"{worker}: {reason}")
        LOG.warning("%s: worker gets no tasks: %s", worker, reason)


@dataclass(frozen=True)
class GpuSlot:
    """A worker's host name and the UUID of its GPU."""

    host: str
    uuid: str


def take_slot(identify: Callable[[], str]) -> GpuSlot:
    """Return the host of this process and the UUID of its GPU, from ``identify``."""
    return GpuSlot(socket.gethostname(), identify())


def check_slots(slots: Mapping[str, GpuSlot]) -> None:
    """Raise a :class:`DeviceError` that names two workers and their GPU if they share one.

    Parameters
    ----------
    slots
        By worker address.
    """
    worker_of: dict[GpuSlot, str] = {}
    for worker, slot in sorted(slots.items()):
        other = worker_of.setdefault(slot, worker)
        if other != worker:
            raise DeviceError(
                f"GPU {slot.uuid} of {slot.host}: found two workers, {other} and {worker};"
                " expected one for each GPU"
            )
