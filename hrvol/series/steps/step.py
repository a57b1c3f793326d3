"""What a step is, and what it is called with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hrvol.engine.stop import Stop
from hrvol.progress import ProgressCallback
from hrvol.series.tasks import Task

DONE, TODO, UNFINISHED, STALE, WAITING = "done", "to do", "unfinished", "out of date", "waits"
"""States of a task before it runs."""


@dataclass(frozen=True)
class Context:
    """What all steps are called with.

    Attributes
    ----------
    out
        Folder of the outputs.
    fresh
        Whether outputs that are out of date are replaced.
    stop
        Request to stop.
    progress
        Progress callback.
    """

    out: Path
    fresh: bool = False
    stop: Stop = field(default_factory=Stop)
    progress: ProgressCallback | None = None


@dataclass(frozen=True)
class Status:
    """State of a task, and the reason where it is out of date or unfinished."""

    state: str
    reason: str = ""


@dataclass(frozen=True)
class Result:
    """Result of a task.

    Attributes
    ----------
    computed
        Whether anything was computed: an output that is complete is left as it is.
    seconds
        Time that the step took, all runs together.
    values
        Figures for the table, as JSON values: ``voxels``, ``fractions``, ``miou``.
    """

    computed: bool
    seconds: float = 0.0
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A kind of step.

    Attributes
    ----------
    status
        Returns the state of a task; writes nothing, and computes nothing that takes long.
    run
        Does a task, or finds it done.
    """

    status: Callable[[Task, Context], Status]
    run: Callable[[Task, Context], Result]
