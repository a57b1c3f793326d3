"""The report that a command writes beside its output, and options to place it or to leave it out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.common.options import bundle
from hrvol.cli.common.output import echo

if TYPE_CHECKING:
    from hrvol.run.report import SegmentReport

SWITCH = "HRVOL_REPORT"
"""Environment variable: with ``0``, commands write a report only where ``--report`` asks for it."""


@dataclass(frozen=True)
class ReportChoice:
    """Where the report of a run is written.

    Attributes
    ----------
    path
        ``*.html``; ``None``: beside the output, if that is on this machine.
    wanted
        Whether to write it.
    """

    path: str | None = None
    wanted: bool = True

    def __post_init__(self) -> None:
        if self.path is not None and not self.wanted:
            raise click.UsageError("--report FILE and --no-report: choose one")
        if self.path is not None and Path(self.path).suffix.lower() != ".html":
            raise click.UsageError(f"--report: found {self.path}, expected a name that ends in .html")

    def page(self, output: str) -> Path | None:
        """Return the file of an output's report, or ``None``."""
        if self.path is not None:
            return Path(self.path)
        if not self.wanted or "://" in output or os.environ.get(SWITCH) == "0":
            return None
        place = Path(output)
        return place.with_name(f"{place.name.partition('.')[0] or place.name}-report.html")


def _choice(report_path: str | None, no_report: bool) -> ReportChoice:
    return ReportChoice(report_path, not no_report)


report_choice = bundle(
    "reporting",
    _choice,
    {
        "report_path": click.option(
            "--report",
            "report_path",
            metavar="FILE.html",
            help="Write the report of the run to this file [OUT-report.html, if OUT is on this machine].",
        ),
        "no_report": click.option("--no-report", is_flag=True, help="Write no report."),
    },
)


def write_run_report(
    choice: ReportChoice, output: str, run: SegmentReport, storage_options: Mapping[str, Any] | None
) -> None:
    """Write the report of a run whose blocks were all computed or have failed.

    A report of an earlier state of the output is replaced; one of the present state, and that of an output
    of another name, stay. If it cannot be written, that is a warning: the labels of the run are there.
    """
    page = choice.page(output)
    computed = run.voxels != run.before or bool(run.failed)
    if page is None or run.left or not run.blocks or (page.exists() and not computed):
        return
    from hrvol.cli.common.progress import display
    from hrvol.errors import HrvolError
    from hrvol.report.options import ReportOptions
    from hrvol.report.write_report import report

    try:
        with display() as progress:
            report(output, page, ReportOptions(), _is_of(page, output), storage_options, progress)
    except (HrvolError, OSError) as error:
        echo(f"hrvol: warning: the report was not written: {error}", err=True)
        return
    echo(f"{page}: the report")


def _is_of(page: Path, output: str) -> bool:
    """Whether there is a report of an output of this name, by the figures beside the page."""
    try:
        values = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    found = values.get("output") if isinstance(values, dict) else None
    return isinstance(found, str) and Path(found).name == Path(output).name
