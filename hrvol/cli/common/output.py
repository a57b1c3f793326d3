"""What commands print: tables, JSON, results of runs, log messages."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hrvol.errors import BlockError, BusyError, OutputExistsError
from hrvol.files import json_text
from hrvol.text import printable

if TYPE_CHECKING:
    from hrvol.run.options import RunOptions
    from hrvol.run.report import SegmentReport

FAILURES_SHOWN = 5

_LINE = 100_000  # characters, so that results are whole and a hostile file does not fill the disk


def echo(text: object = "", err: bool = False) -> None:
    """Print one line; characters that a terminal obeys or hides, and line breaks in it, are escaped."""
    click.echo(printable(str(text), _LINE), err=err)


def echo_lines(text: str, err: bool = False) -> None:
    """Print a text of several lines, such as YAML; each is escaped as by :func:`echo`."""
    for line in text.split("\n"):
        echo(line, err)


def debugging() -> bool:
    """Whether ``HRVOL_DEBUG`` asks for all details."""
    return os.environ.get("HRVOL_DEBUG", "") not in ("", "0")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Show hrvol's own warnings as one line each, and none of other libraries, unless debugging.

    What matters of the others' is in hrvol's own messages. Warnings that ``-W`` or ``PYTHONWARNINGS`` ask for
    are shown.
    """
    if debugging():
        yield
        return
    root, own = logging.getLogger(), logging.getLogger("hrvol")
    silent, shown = logging.NullHandler(), _Echo()  # without a handler, logging would print to standard error
    root.addHandler(silent)
    own.addHandler(shown)
    asked = list(sys.warnoptions)
    try:
        with warnings.catch_warnings():
            if not asked:
                warnings.simplefilter("ignore")
                os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of worker processes
            yield
    finally:
        root.removeHandler(silent)
        own.removeHandler(shown)


@contextmanager
def suggest_fresh() -> Iterator[None]:
    """Add to the error of an existing output how to replace it."""
    try:
        yield
    except BusyError:  # another process writes it: nothing is replaced
        raise
    except OutputExistsError as error:
        if "it is not overwritten" in str(error):  # --fresh was given
            raise
        raise OutputExistsError(f"{error} (--fresh replaces an earlier output)") from None


class _Echo(logging.Handler):
    """Writes log messages to the present standard error, which a progress bar may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        echo(record.getMessage(), err=True)


@contextmanager
def news() -> Iterator[None]:
    """Show log messages, such as the chosen device, on standard error."""
    logger, handler = logging.getLogger("hrvol"), _Echo()
    before = logger.level
    silent = not any(isinstance(one, _Echo) for one in logger.handlers)
    if silent:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        if silent:
            logger.removeHandler(handler)


def check_blocks(report: SegmentReport, output: str) -> None:
    """List the failed blocks; raise a :class:`BlockError` if there are any."""
    if not report.failed:
        return
    for failure in report.failed[:FAILURES_SHOWN] if len(report.failed) > 1 else ():
        echo(f"block {failure.index} failed: {failure.reason}", err=True)
    if len(report.failed) > FAILURES_SHOWN:
        echo(f"... and {len(report.failed) - FAILURES_SHOWN} more", err=True)
    state = "is not complete" if report.blocks else "was not written"
    first = report.failed[0]
    raise BlockError(
        f"{len(report.failed)} of {report.blocks + len(report.failed)} blocks failed, {output} {state};"
        f" block {first.index}: {first.reason}"
    )


def echo_segmentation(report: SegmentReport, output: str) -> None:
    """Print class fractions, disagreement of tiles, and throughput of a segmentation."""
    from hrvol.progress import count, duration

    echo_table(["class", "share"], [[name, f"{100 * part:.2f} %"] for name, part in report.fractions.items()])
    if report.seams.pixels:
        echo(
            f"tiles disagree on {100 * report.seams.label_share:.2f} % of the pixels they share"
            f" (mean difference of probabilities: {report.seams.mean_probability_difference:.4f})"
        )
    if report.left:
        echo(f"{output}: this part is done; {report.left} blocks remain for other parts")
        return
    if report.before == report.voxels and not report.left:
        echo(f"{output}: is already complete")
        return
    fresh = report.voxels - report.before
    earlier = f", {count(report.before)} by earlier runs" if report.before else ""
    echo(
        f"{output}: {count(fresh)} voxels in {duration(report.seconds)}"
        f" ({count(report.voxels_per_s)} voxels/s){earlier}"
    )


def echo_json(values: Any) -> None:
    """Print values as JSON; NaN and infinity become null."""
    click.echo(json_text(values))


def echo_table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print a table: drawn on a terminal, else as plain columns for scripts.

    The first column holds text and is left-aligned; the others hold numbers and are right-aligned.
    """
    headers = [printable(header) for header in headers]
    rows = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        # Text, because rich would take brackets in names as markup.
        table = Table(title=None if title is None else Text(title))
        for position, header in enumerate(headers):
            table.add_column(Text(header), justify="right" if position else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    if title:
        echo(title)
    widths = [max(len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    for row in (headers, *rows):
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        echo("  ".join(cells).rstrip())


def score(value: float | None) -> str:
    """Return a score with three digits; a dash for none."""
    return "-" if value is None or value != value else f"{value:.3f}"


def confirm_fresh(output: str, options: RunOptions, yes: bool) -> None:
    """Ask for confirmation at a terminal before finished blocks are deleted."""
    if not options.output.overwrite or yes or not sys.stdin.isatty():
        return
    from hrvol.errors import InputError
    from hrvol.run.status import run_status

    try:
        status = run_status(output, storage_options=options.storage_options)
    except InputError:
        return
    click.confirm(
        f"{printable(output)}: {status['done']} of {status['total']} blocks are done. Start over?", abort=True
    )
