"""Let one client draw at a time, and make each of its changes once, in order."""

from __future__ import annotations

import secrets
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence

from hrvol.errors import BusyError
from hrvol.interactive.wire.limits import LEASE_SECONDS
from hrvol.volume.drawing_store.store import DrawingStore

_CLIENTS = 64  # whose numbers are known

_VERSIONS = 10_000


class DetachedError(Exception):
    """The client does not draw, or does not know what others drew: it has to attach again."""


class Pen:
    """Who draws.

    Parameters
    ----------
    store
        The strokes.
    """

    def __init__(self, store: DrawingStore) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._client = self._lineage = ""
        self._seen = 0.0
        self._received: OrderedDict[str, int] = OrderedDict()
        self._versions: list[int] = []  # of the store, after the changes of the client
        self._numbers: list[int] = []

    def attach(self, client: str, received: int) -> tuple[str, int]:
        """Let a client draw.

        Parameters
        ----------
        client
            Its name.
        received
            Number of its last change that it knows to be stored; counts where nothing is known of it.

        Returns
        -------
        tuple
            The lineage: another text than before if others may have changed the strokes; and the number of
            the last change of the client that was made.

        Raises
        ------
        BusyError
            Another client draws.
        ResourceError
            Changes cannot be written at present.
        """
        with self._lock:
            present = time.monotonic() - self._seen < LEASE_SECONDS
            if self._client not in ("", client) and present:
                raise BusyError(
                    f"{self._store.source}: found another client that draws, expected it to end first"
                )
            if client != self._client:
                self._client, self._lineage = client, secrets.token_hex(16)
                self._versions, self._numbers = [], []
            self._seen = time.monotonic()
            known = self._received[client] = max(received, self._received.get(client, 0))
            self._received.move_to_end(client)
            while len(self._received) > _CLIENTS:
                self._received.popitem(last=False)
            lineage = self._lineage
        self._store.sync()  # what a client knows to be stored is on the disk
        return lineage, known

    def check(self, client: str, lineage: str) -> None:
        """Raise a :class:`DetachedError` unless a client draws."""
        with self._lock:
            if not client or (client, lineage) != (self._client, self._lineage):
                raise DetachedError
            self._seen = time.monotonic()

    def release(self, client: str) -> None:
        """Let others draw."""
        with self._lock:
            if client == self._client:
                self._client = ""

    def draw(self, client: str, lineage: str, first: int, changes: Sequence[Sequence[bytes]]) -> int:
        """Make changes, and return the number of the last one once all are on the disk.

        Parameters
        ----------
        client, lineage
            Who draws.
        first
            Number of the first change; those that were made before are left out.
        changes
            Records of each.

        Raises
        ------
        StrokesError
            A change is damaged; those before it were made.
        DetachedError
            Another client draws, or changes are missing.
        ResourceError
            They are made, but cannot be written at present.
        """
        with self._lock:
            self.check(client, lineage)
            received = self._received[client]
            if first > received + 1:
                raise DetachedError
            for number, records in enumerate(changes, start=first):
                if number <= self._received[client]:
                    continue
                change = self._store.repeat(records)
                self._received[client] = number
                self._versions.append(change.version)
                self._numbers.append(number)
            del self._versions[:-_VERSIONS], self._numbers[:-_VERSIONS]
            last = self._received[client]
        self._store.sync()
        return last

    def received(self, client: str) -> int:
        """Return the number of the last change of a client that was made."""
        with self._lock:
            return self._received.get(client, 0)

    def number_of(self, version: int) -> int:
        """Return the number of the client's last change that a version of the strokes has."""
        with self._lock:
            at = bisect_right(self._versions, version)
            if at:
                return self._numbers[at - 1]
            return self._numbers[0] - 1 if self._numbers else self._received.get(self._client, 0)
