"""All cases, in the order of their classes."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

from benchmarks.runs.hostile import (
    bombs,
    estimators,
    models,
    names,
    omes,
    other_estimators,
    outputs,
    paths,
    recipes,
    requests,
    services,
    strokes,
    tiff_texts,
    tiffs,
    volumes,
)
from benchmarks.runs.hostile.case import Case

MODULES = (
    *(models, estimators, other_estimators, recipes, strokes, volumes, omes, tiffs, tiff_texts, outputs),
    *(requests, paths, services, names, bombs),
)


MOST = 45
"""Cases of one kind that are kept of each class: odd values of keys, changed tags, odd names."""

_KINDS = (" = ", ": page ", ": drawn", ", terminal", ", pipe", " is ")


def all_cases(every: bool = False) -> list[Case]:
    """Return all cases; each title occurs once.

    Parameters
    ----------
    every
        Also those that differ from others by the key or the value alone; without them a part is drawn, always
        the same.
    """
    found = [case for module in MODULES for case in module.cases()]
    repeated = [title for title, count in Counter(case.title for case in found).items() if count > 1]
    if repeated:
        raise ValueError(f"cases of one title: {repeated}")
    return found if every else _thinned(found)


def _thinned(cases: Sequence[Case]) -> list[Case]:
    kinds: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        kind = next((kind for kind in _KINDS if kind in case.name), "")
        if kind and not case.generated:
            kinds.setdefault((case.group, kind), []).append(case)
    left_out = {
        case.title
        for some in kinds.values()
        for case in sorted(some, key=lambda case: zlib.crc32(case.title.encode()))[MOST:]
    }
    return [case for case in cases if case.title not in left_out]
