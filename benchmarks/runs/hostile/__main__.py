"""Hand hrvol damaged and hostile files and requests: ``python -m benchmarks.runs.hostile --record after``.

Each case makes a few small files, runs one command on them, and judges how it ends. The command is that of
the package in another checkout (``--tree``), so that two versions can be compared on the same cases; it
runs in a process that is forked from one that has imported everything, within 30 seconds. ``--record
before`` or ``after`` keeps the verdicts in ``benchmarks/runs/hostile.json``, and writes the page and the
table of the documentation from them.

``--case TITLE --keep FOLDER`` runs a single case, keeps its files, and prints the command that repeats it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[3]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=REPOSITORY, help="checkout whose package is run")
    parser.add_argument(
        "--record", choices=["before", "after"], help="keep the verdicts, write page and table"
    )
    parser.add_argument(
        "--group", action="append", help="only classes of input that contain this; repeatable"
    )
    parser.add_argument("--case", help="only cases whose class/name contains this")
    parser.add_argument("--keep", type=Path, help="folder for the files of the cases, which are kept")
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time")
    parser.add_argument("--list", action="store_true", help="only count the cases")
    parser.add_argument("--every", action="store_true", help="also cases that differ by key or value alone")
    parser.add_argument(
        "--table", action="store_true", help="only write page and table from the kept verdicts"
    )
    parser.add_argument("--slot", help=argparse.SUPPRESS)  # a process that does a share of the cases
    options = parser.parse_args(arguments)
    if options.slot:
        _slot(options)
        return
    if options.table:
        from benchmarks.runs.hostile.page import write

        write()
        return
    from benchmarks.runs.hostile.cases import all_cases

    cases = _chosen(all_cases(options.every), options)
    if options.list:
        groups = Counter(case.group for case in cases)
        print("\n".join(f"{count:5}  {group}" for group, count in groups.items()))
        print(f"{len(cases):5}  cases, {sum(case.generated for case in cases)} of them drawn at random")
        return
    began = time.monotonic()
    records = _run(options, len(cases))
    print(Counter(record["verdict"] for record in records), f"{time.monotonic() - began:.0f} s")
    if options.record:
        from benchmarks.runs.hostile.page import keep, write

        keep(options.record, options.tree, records, time.monotonic() - began)
        write()


def _chosen(cases: Sequence[Any], options: argparse.Namespace) -> list[Any]:
    return [
        case
        for case in cases
        if (not options.group or any(part in case.group for part in options.group))
        and (not options.case or options.case in case.title)
    ]


def _run(options: argparse.Namespace, count: int) -> list[dict[str, Any]]:
    """Run slots as processes of their own, and return their records."""
    jobs = max(1, min(options.jobs, count))
    with tempfile.TemporaryDirectory(prefix="hrvol-hostile-") as name:
        words = [sys.executable, "-m", "benchmarks.runs.hostile", "--tree", str(options.tree.resolve())]
        for group in options.group or ():
            words += ["--group", group]
        words += ["--every"] if options.every else []
        words += ["--case", options.case] if options.case else []
        words += ["--keep", str(options.keep.resolve())] if options.keep else []
        slots = [
            subprocess.Popen([*words, "--slot", f"{name}:{number}:{jobs}"], cwd=REPOSITORY)
            for number in range(jobs)
        ]
        try:
            codes = [slot.wait() for slot in slots]
        finally:
            for slot in slots:
                slot.kill()
        if any(codes):
            sys.exit("a slot failed")
        return [
            json.loads(line)
            for number in range(jobs)
            for line in (Path(name) / f"{number}.jsonl").read_text().splitlines()
        ]


def _slot(options: argparse.Namespace) -> None:
    from benchmarks.runs.hostile import runner, slot
    from benchmarks.runs.hostile.cases import all_cases

    folder, number, jobs = options.slot.rsplit(":", 2)
    work = Path(folder) / number if options.keep is None else options.keep / number
    base = work / "sound"
    base.mkdir(parents=True)
    # The modules of the checkout, not those beside this file; the benchmarks are imported already.
    runner.warm_up(options.tree, lambda: slot.prepare(base), work / "warm-up.log")
    cases = _chosen(all_cases(options.every), options)[int(number) :: int(jobs)]
    slot.run_cases(cases, slot.Slot(base, work, options.keep is not None), Path(folder) / f"{number}.jsonl")


if __name__ == "__main__":
    main()
