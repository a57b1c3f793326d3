"""Who does which task: neighbours in the order of tasks go to the same worker as far as possible.

Each worker sweeps a contiguous part of the tasks, so that what neighbouring tasks share (chunks of input) is
decoded once. A worker that has finished its part takes the second half of the largest one left: a slow worker
holds nobody up.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


class Dealer:
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
