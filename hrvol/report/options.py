"""What a report shows besides what an output records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvol.errors import UsageError
from hrvol.text import is_name, printable

LONGEST_TITLE = 200
"""Most characters of a title."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows besides what the output records.

    Attributes
    ----------
    volume
        The grey volume: path, URL or array; ``None``: the recorded one, if it is there and unchanged.
    model
        File of the model; ``None``: the recorded one, if it is there and unchanged, or the output's copy.
    measurement
        Folder or file of ``hrvol measure``.
    truth
        Ground truth.
    surfaces
        Names or numbers of classes whose surfaces are drawn; empty: the rarest.
    title
        Of the page; ``None``: the name of the output.
    seed
        Of the draws of intervals.
    """

    volume: Any = None
    model: str | Path | None = None
    measurement: str | Path | None = None
    truth: Any = None
    surfaces: tuple[str, ...] = ()
    title: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.title is not None and not (0 < len(self.title) <= LONGEST_TITLE and is_name(self.title)):
            raise UsageError(
                f"title: found {printable(self.title, 60)!r}, expected 1 to {LONGEST_TITLE} characters"
            )
