"""Record which blocks of an output are done, in the output itself, so that any run can be resumed.

The ledger is made of small records (:mod:`hrvol.volume.storage.records`) beside the labels, so it works
wherever the output does, on a disk or in a bucket::

    OUT.ome.zarr/ledger/<lane>          the driver, its start, and a heartbeat
    OUT.ome.zarr/ledger/<lane>/000000   results of blocks, up to SEGMENT entries each
    OUT.ome.zarr/ledger/<lane>/000001   ...

A *lane* has one writer, the driver of a run: ``main``, or ``part-2-of-8`` where several drivers share the
work. A block is recorded only after its shards are on the disk, with a checksum of them, so that later damage
is detected when the run is resumed. Blocks without a record are computed again, and so are those in a record
that does not match its own checksum.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import numpy as np
import psutil
from numpy.typing import NDArray

from hrvol.errors import BusyError
from hrvol.run.ledger_entries import DONE, FAILED, MAIN, PENDING, Entry, is_lane, valid_entries, valid_head
from hrvol.text import printable
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.records import Records, sealed, unsealed

LEDGER = "ledger"

SEGMENT = 512
"""Entries per record: a bucket sees one small object more for so many blocks."""

SEGMENT_BYTES = 2**20
"""Bytes of entries after which a record is closed earlier: with 1,000 classes an entry has 13 kB."""

MOST_REASON = 2000
"""Most characters of the reason of a failure."""

FLUSH = 1.0
"""Longest delay of an entry, in seconds: entries are written together."""

PULSE = 10.0
"""Seconds between two heartbeats of a driver."""

_REQUESTED_AT_ONCE = 16

Sleep = Callable[[float], None]


class LedgerState:
    """State of every block according to a ledger; 17 bytes a block.

    Attributes
    ----------
    of_block
        ``(n,)`` uint8: :data:`PENDING`, :data:`DONE` or :data:`FAILED`, by number of block.
    checksum
        ``(n,)`` uint64: checksum of a finished block's shards.
    at
        ``(n,)`` float64: time of the record, in seconds since the epoch.
    reasons
        Reasons of failures, by number of block.
    parts
        Finished parts of coarser levels: the :meth:`digest` of the blocks they were built from, and a
        checksum of their bytes.
    """

    def __init__(self, count: int) -> None:
        self.of_block: NDArray[np.uint8] = np.zeros(count, np.uint8)
        self.checksum: NDArray[np.uint64] = np.zeros(count, np.uint64)
        self.at: NDArray[np.float64] = np.zeros(count, np.float64)
        self.reasons: dict[int, str] = {}
        self.parts: dict[str, tuple[str, str]] = {}
        self._parts_at: dict[str, float] = {}

    def take(self, entry: Mapping[str, Any]) -> None:
        """Add an entry; of two entries for one block the later one counts."""
        when = float(entry["at"])
        if "part" in entry:
            if when >= self._parts_at.get(entry["part"], when):
                self.parts[entry["part"]] = entry["of"], entry["stamp"]
                self._parts_at[entry["part"]] = when
            return
        number = int(entry["block"])
        if not 0 <= number < len(self.of_block) or when < self.at[number]:
            return
        self.of_block[number], self.at[number] = entry["state"], when
        self.checksum[number] = int(entry.get("stamp", "0"), 16)
        self.reasons.pop(number, None)
        if entry["state"] == FAILED:
            self.reasons[number] = printable(entry["reason"], MOST_REASON)

    def current(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry records a finished block, and is the latest one for it."""
        if entry.get("state") != DONE:
            return False
        number = int(entry["block"])
        inside = number < len(self.of_block)
        return bool(inside and self.of_block[number] == DONE and self.at[number] == entry["at"])

    def moment(self, entry: Mapping[str, Any]) -> float:
        """Return the time of a new entry: now, but later than the entry that it replaces."""
        if "part" in entry:
            last = self._parts_at.get(entry["part"], 0.0)
        else:
            last = float(self.at[int(entry["block"])])
        return max(round(time.time(), 3), round(last + 0.001, 3))

    def digest(self) -> str:
        """Return a digest of the state of all blocks."""
        found = blake2b(self.of_block.tobytes(), digest_size=8)
        found.update(self.checksum.tobytes())
        return found.hexdigest()


def lanes(location: Location) -> dict[str, Entry]:
    """Return the head of each lane, by its name: its present or last driver."""
    records = Records(location)
    names = _lanes(records)
    heads = (valid_head(unsealed(head)) for head in records.get_all(f"{LEDGER}/{name}" for name in names))
    return {name: head for name, head in zip(names, heads, strict=True) if head is not None}


def entries(location: Location) -> Iterator[Entry]:
    """Yield all entries of all lanes, holding one record in memory at a time; several of a bucket."""
    records = Records(location)
    for lane in _lanes(records):
        names = records.children(f"{LEDGER}/{lane}")
        at_once = _REQUESTED_AT_ONCE if location.path is None else 1
        for start in range(0, len(names), at_once):
            paths = [f"{LEDGER}/{lane}/{name}" for name in names[start : start + at_once]]
            for record in records.get_all(paths) if at_once > 1 else map(records.get, paths):
                yield from valid_entries(unsealed(record))


def _lanes(records: Records) -> list[str]:
    return [name for name in records.children(LEDGER) if is_lane(name)]


def read_state(location: Location, count: int) -> LedgerState:
    """Read the ledger of an output with ``count`` blocks; without one, all blocks are pending."""
    state = LedgerState(count)
    for entry in entries(location):
        state.take(entry)
    return state


def check_free(location: Location, lane: str = MAIN, sleep: Sleep = time.sleep) -> None:
    """Raise :class:`BusyError` if a conflicting driver is writing.

    A driver on this machine is looked up by its process; one on another machine by its next heartbeat.

    Parameters
    ----------
    location
        Of the output.
    lane
        The lane to be written.
    sleep
        Function that waits for a number of seconds.

    Raises
    ------
    BusyError
        Another driver is writing.
    """
    rivals = {
        name: head
        for name, head in lanes(location).items()
        if head["state"] == "running" and _excludes(lane, name)
    }
    remote = {}
    for name, head in rivals.items():
        if head["host"] != socket.gethostname():
            remote[name] = head
        elif _alive(head):
            raise BusyError(f"{location}: process {head['pid']} is writing it, on this machine")
    if not remote:
        return
    sleep(2.5 * PULSE)
    now = lanes(location)
    for name, head in remote.items():
        if now.get(name, {}).get("pulse") != head["pulse"]:
            raise BusyError(f"{location}: process {head['pid']} on {head['host']} is writing it")


class Ledger:
    """The lane of one driver, to be used in a ``with`` statement; the one writer of it.

    Parameters
    ----------
    location
        Of the output.
    count
        Number of blocks.
    lane
        Of this driver.
    about
        What the head of the lane records besides: engine, workers, ...

    Attributes
    ----------
    state
        State recorded by all lanes when this one started, and by this one since.
    """

    def __init__(
        self,
        location: Location,
        count: int,
        lane: str = MAIN,
        about: Mapping[str, Any] | None = None,
        sleep: Sleep = time.sleep,
    ) -> None:
        self._location, self._count, self._lane, self._sleep = location, count, lane, sleep
        self._records = Records(location, read_only=False)
        self._path = f"{LEDGER}/{lane}"
        self._head: Entry = {
            **(about or {}),
            "owner": uuid4().hex,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "born": psutil.Process().create_time(),
            "began": time.time(),
            "at": time.time(),
            "pulse": 0,
            "state": "running",
        }
        self._entries: list[Entry] = []  # of the record that is being filled
        self._bytes = 0
        self._segment = 0
        self._unwritten = False
        self._written = 0.0
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="hrvol-ledger", daemon=True)
        self.state = LedgerState(count)

    def __enter__(self) -> Self:
        check_free(self._location, self._lane, self._sleep)
        if self._records.get(LEDGER) is None:  # otherwise it has the record of the output's metadata
            self._records.put(LEDGER, {})  # without it Zarr libraries warn of a folder that is no group
        self.state = read_state(self._location, self._count)
        names = self._records.children(self._path)
        self._segment = 1 + max((int(name) for name in names if name.isdecimal()), default=-1)
        self._records.put(self._path, sealed(self._head))
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._heart.join()
        self._head["state"] = "ended" if kind is None else "stopped"
        try:
            self.flush()
            self._pulse()
        except (OSError, BusyError):
            if kind is None:
                raise

    def finished(self) -> Iterator[Entry]:
        """Yield the latest entries of finished blocks, of all lanes."""
        self.flush()
        return (entry for entry in entries(self._location) if self.state.current(entry))

    def objects_of(self, numbers: Container[int]) -> dict[int, list[str]]:
        """Return the recorded checksums of single objects of finished blocks, by number of block."""
        found = {}
        for entry in self.finished():
            if entry["block"] in numbers:
                found[entry["block"]] = entry["objects"]
        return found

    def mark_done(self, number: int, checksum: str, **report: Any) -> None:
        """Record that a block is done: its shards are stored and have this checksum."""
        self._add({"block": number, "state": DONE, "stamp": checksum, **report})

    def mark_failed(self, number: int, reason: str) -> None:
        """Record that a block failed."""
        self._add({"block": number, "state": FAILED, "reason": printable(reason, MOST_REASON)})

    def mark_pending(self, number: int) -> None:
        """Record that a block has to be computed again."""
        self._add({"block": number, "state": PENDING})

    def mark_part(self, name: str, of: str, checksum: str) -> None:
        """Record that a part of a coarser level was built from blocks in the state with the digest ``of``.

        ``checksum`` is that of its stored bytes; empty strings mark it as pending.
        """
        self._add({"part": name, "of": of, "stamp": checksum})

    def refresh(self) -> None:
        """Read the records that other lanes have written since."""
        with self._lock:
            self.flush()
            self.state = read_state(self._location, self._count)

    def flush(self) -> None:
        """Write delayed entries.

        Raises
        ------
        BusyError
            Another driver has taken over, because this one was silent for long or started at the same time.
        """
        with self._lock:
            if not self._unwritten:
                return
            self._put(f"{self._path}/{self._segment:06d}", {"entries": self._entries})
            self._unwritten, self._written = False, time.monotonic()
            if self._full():
                self._segment, self._entries, self._bytes = self._segment + 1, [], 0

    def _full(self) -> bool:
        return len(self._entries) >= SEGMENT or self._bytes >= SEGMENT_BYTES

    def _add(self, entry: Entry) -> None:
        with self._lock:
            entry["at"] = self.state.moment(entry)
            self._entries.append(entry)
            self._bytes += len(json.dumps(entry))
            self._unwritten = True
            self.state.take(entry)
            if self._full() or time.monotonic() - self._written >= FLUSH:
                self.flush()

    def _pulse(self) -> None:
        with self._lock:
            self._head |= {"pulse": self._head["pulse"] + 1, "at": time.time()}
            self._put(self._path, self._head)

    def _put(self, path: str, values: Entry) -> None:
        """Write a record of this lane, if this driver still owns it."""
        head = valid_head(unsealed(self._records.get(self._path))) or self._head
        if head["owner"] != self._head["owner"]:
            raise BusyError(f"{self._location}: process {head['pid']} on {head['host']} has taken over")
        self._records.put(path, sealed(values))

    def _beat(self) -> None:
        """Write heartbeats and delayed entries."""
        while not self._over.wait(min(FLUSH, PULSE)):
            with suppress(OSError, BusyError):  # the driver sees it when it writes itself
                with self._lock:
                    if time.monotonic() - self._written >= FLUSH:
                        self.flush()
                if time.time() - self._head["at"] >= PULSE:
                    self._pulse()


def _excludes(lane: str, other: str) -> bool:
    """Whether two lanes must not be written at the same time: parts k/n of the same n may be."""
    both = [lane, other]
    same_n = all(name != MAIN for name in both) and len({name.rpartition("-")[2] for name in both}) == 1
    return lane == other or not same_n


def _alive(head: Mapping[str, Any]) -> bool:
    """Whether the process that wrote a head on this machine is still running."""
    try:
        return bool(abs(psutil.Process(head["pid"]).create_time() - head["born"]) < 1)
    except psutil.Error:
        return False
