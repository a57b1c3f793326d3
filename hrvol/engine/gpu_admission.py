"""Workers that are asked for their GPU before they are given tasks."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from distributed import Client

from hrvol.engine.task import one_line
from hrvol.errors import DeviceError

LOG = logging.getLogger("hrvol.run")


class GpuAdmission:
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
        self._slots: dict[str, GpuSlot] = {}
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
        for known in (self._asked, self._slots):
            for gone in known.keys() - set(workers):
                del known[gone]
        for worker in workers:
            if worker not in self._asked and worker not in self._slots and worker not in self._refused:
                self._asked[worker] = self._ask(worker)
        for worker, answer in list(self._asked.items()):
            if answer.status == "finished":
                with suppress(TimeoutError):  # the worker is gone again
                    self._slots[worker] = answer.result(timeout=10)
                check_slots(self._slots)
            elif answer.status == "error":
                self._refuse(worker, one_line(answer.exception()))
            elif answer.status == "pending":
                continue
            del self._asked[worker]
        return [worker for worker in workers if worker in self._slots]

    def _ask(self, worker: str) -> Any:
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
        LOG.warning("%s: is given no work: %s", worker, reason)


@dataclass(frozen=True)
class GpuSlot:
    """The machine that a worker is on, and the UUID of the GPU that it computes on."""

    host: str
    uuid: str


def take_slot(identify: Callable[[], str]) -> GpuSlot:
    """Return where this process is, and on which GPU, as ``identify`` tells."""
    return GpuSlot(socket.gethostname(), identify())


def check_slots(slots: Mapping[str, GpuSlot]) -> None:
    """Refuse workers that share a GPU; the :class:`DeviceError` names them and it.

    Parameters
    ----------
    slots
        By the workers' addresses.
    """
    taken: dict[GpuSlot, str] = {}
    for worker, slot in sorted(slots.items()):
        other = taken.setdefault(slot, worker)
        if other != worker:
            raise DeviceError(
                f"GPU {slot.uuid} of {slot.host}: found two workers on it, {other} and {worker};"
                " expected one for each GPU"
            )
