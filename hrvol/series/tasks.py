"""Plan a workflow: which tasks there are, what each reads and writes, and which others it needs."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from hrvol.series.options_spec import ComputeSpec, ReadingSpec, StepSpec
from hrvol.series.volumes import SeriesVolume

Paths = Mapping[str, str]


AS_IT_IS = ReadingSpec()
"""For volumes whose files lack nothing."""


@dataclass(frozen=True)
class Pair:
    """A volume, the strokes on it, how both are read, and the first voxel of strokes on a crop.

    ``converted``: the volume is an OME-Zarr image of the step ``convert``, which lacks nothing.
    """

    volume: str
    strokes: str
    reading: ReadingSpec = AS_IT_IS
    offset: tuple[int, int, int] | None = None
    converted: bool = False


@dataclass(frozen=True)
class Task:
    """One step for one volume, or for all.

    Attributes
    ----------
    id
        Unique name, of letters that files and shells accept: ``train``, ``segment.scan_1``.
    step
        Name of the step: that of the section in the file, with a number for exports but the first.
    volume
        Name of its volume; ``None`` if it is for several.
    spec
        Settings, with what differs for the volume.
    compute
        Where it computes.
    output
        What it writes.
    paths
        What else it reads or writes, by role: ``volume``, ``model``, ``recipe`` (if it is a file), ``truth``,
        ``labels``, ``mask``, ``companion``, ``held_out``; written are ``boxes`` and ``classes_model``.
    pairs
        Volumes and strokes of a training.
    recipe
        Preset or file.
    roi
        Region as text.
    url
        Where labels are published.
    reading
        How the volume is read, and what is drawn on it.
    converted
        Path of the volume if it is an image of the step ``convert``, which lacks nothing.
    needs
        Ids of tasks that come before.
    """

    id: str
    step: str
    volume: str | None
    spec: StepSpec
    compute: ComputeSpec
    output: str
    paths: Paths = field(default_factory=dict)
    pairs: tuple[Pair, ...] = ()
    recipe: str | None = None
    roi: str | None = None
    url: str | None = None
    reading: ReadingSpec = AS_IT_IS
    converted: str | None = None
    needs: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The step without a number."""
        return self.step.rstrip("0123456789")

    @property
    def outputs(self) -> tuple[str, ...]:
        """All that it writes."""
        return (self.output, *(self.paths[role] for role in WRITTEN if role in self.paths))

    @property
    def inputs(self) -> tuple[str, ...]:
        """All that it reads, besides the files of ``compute``."""
        read = [path for role, path in self.paths.items() if role not in WRITTEN and path != FOUND]
        return tuple(
            dict.fromkeys((*(path for pair in self.pairs for path in (pair.volume, pair.strokes)), *read))
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what workflow managers need, as JSON values; ``workers`` is null for all CPUs."""
        return {
            "id": self.id,
            "step": self.step,
            "volume": self.volume,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "needs": list(self.needs),
            "workers": 1 if self.kind in SMALL else self.compute.workers,
        }


FOUND = "auto"
"""In place of the path of a mask: the one that is found in the volume."""

WRITTEN = ("boxes", "classes_model")
"""Roles of paths that a task writes besides its output."""

SMALL = ("evaluate", "export")
"""Steps that take one CPU, or little more."""


def slug(text: str) -> str:
    """Return a text with letters only that files and shells accept."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text) or "_"


def slugs(names: Iterable[str]) -> dict[str, str]:
    """Return a different slug for each name."""
    found: dict[str, str] = {}
    taken: Counter[str] = Counter()
    for name in names:
        base = text = slug(name)
        while taken[text]:
            taken[base] += 1
            text = f"{base}-{taken[base]}"
        taken[text] += 1
        found[name] = text
    return found


def exists(path: str) -> bool:
    """Whether there is a file, a folder or, for a pattern, one that it fits; URLs count as there."""
    if "://" in path:
        return True
    place = path.partition("::")[0]
    return os.path.lexists(place) or (glob.has_magic(place) and bool(glob.glob(place)))


def normal(path: str) -> str:
    """Return a path in the form in which two are compared."""
    return path if "://" in path else os.path.abspath(path)


def selected(tasks: Iterable[Task], patterns: Iterable[str]) -> Iterator[Task]:
    """Yield the tasks whose ids fit one of some patterns (``*``, ``?``), in order."""
    wanted = tuple(patterns)
    for task in tasks:
        if any(fnmatchcase(task.id, pattern) for pattern in wanted):
            yield task


def groups_of(
    volumes: Iterable[SeriesVolume], outputs: Mapping[str, str]
) -> dict[str, tuple[SeriesVolume, ...]]:
    """Return the volumes that share an output, by the output."""
    groups: dict[str, list[SeriesVolume]] = {}
    for volume in volumes:
        groups.setdefault(outputs[volume.name], []).append(volume)
    return {output: tuple(members) for output, members in groups.items()}
