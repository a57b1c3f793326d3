"""Read damaged files for a while: ``python -m benchmarks.runs.fuzz --minutes 20``.

The strategies are those of ``tests/fuzz``, with other seeds each time. A reader has to return, or to raise
an error of hrvol whose message is one printable line, within seconds and without gigabytes. What fails is
shrunk, printed, and saved in a folder; copy it to ``tests/corpus/<reader>/`` and mend the reader.

Each batch runs in a process of its own, so that a crash or a hang is a failure too. The last bytes that
were read are in the folder then.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import multiprocessing
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))  # shares the strategies of the tests
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "fuzz"))

from damages import READERS, fails
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

BATCH = 300
"""Examples of a process."""

LIMIT = 600
"""Seconds of a batch, after which the reader hangs."""


def batch(name: str, number: int, folder: str, count: int) -> None:
    """Read some damaged files; save the smallest one that fails."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        reader = READERS[name](Path(place))
        last = Path(folder) / f"last-{name}{reader.suffix}"

        @seed(number)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )
        @given(st.data())
        def reads(data: Any) -> None:
            damaged = data.draw(reader.damaged)
            last.write_bytes(damaged)  # before it is read: reading may end the process
            problem = fails(reader, damaged, Path(place))
            if problem is not None:
                raise AssertionError(problem)

        try:
            reads()
        except AssertionError as error:
            kept = last.read_bytes()
            digest = hashlib.sha256(kept).hexdigest()[:8]
            (Path(folder) / f"{name}-{digest}{reader.suffix}").write_bytes(kept)
            print(f"{name}, seed {number}: {error}\n  {kept[:200]!a}", flush=True)
            sys.exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--reader", choices=list(READERS), action="append", help="only these; repeatable")
    parser.add_argument("--seed", type=int, help="of the first batch [drawn]")
    parser.add_argument("--folder", type=Path, default=Path("fuzz-failures"), help="for what fails")
    parser.add_argument("--examples", type=int, default=BATCH, help="of a batch")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    names, number = options.reader or list(READERS), options.seed
    number = random.SystemRandom().randrange(10**9) if number is None else number
    fork = multiprocessing.get_context("fork")
    done: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    end = time.monotonic() + 60 * options.minutes
    while time.monotonic() < end:
        name = names[done.total() % len(names)]
        process = fork.Process(target=batch, args=(name, number, str(options.folder), options.examples))
        process.start()
        process.join(LIMIT)
        if process.exitcode is None:
            process.kill()
            process.join()
        if process.exitcode not in (0, 1):
            print(f"{name}, seed {number}: the process hung or crashed ({process.exitcode})", flush=True)
        done[name] += 1
        failed[name] += process.exitcode != 0
        number += 1
    for name in names:
        print(
            f"{name}: {done[name] * options.examples} examples, {failed[name]} of {done[name]} batches failed"
        )
    sys.exit(1 if failed.total() else 0)


if __name__ == "__main__":
    main()
