"""What several commands share: options, values in their own notation, tables."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from hrvol.errors import BlockError, OutputExistsError

if TYPE_CHECKING:
    from hrvol.run.report import SegmentReport


FAILURES_SHOWN = 5

F = TypeVar("F", bound=Callable[..., Any])

Roi = tuple[slice, ...]
"""``(y, x)`` or ``(z, y, x)`` slices; an open end is ``None``."""


def parse_roi(ctx: click.Context, param: click.Parameter, value: str | None) -> Roi | None:
    """Return the slices of ``z0:z1,y0:y1,x0:x1``; ``:`` or an empty end means all of an axis."""
    if value is None:
        return None
    parts = value.split(",")
    if len(parts) not in (2, 3):
        raise click.BadParameter(f"found {value!r}, expected z0:z1,y0:y1,x0:x1 (or y0:y1,x0:x1 for an image)")
    slices = []
    for part in parts:
        start, colon, stop = (end.strip() for end in part.partition(":"))
        if not colon or not all(end.isdecimal() for end in (start, stop) if end):
            raise click.BadParameter(f"found {part!r} in {value!r}, expected start:stop in voxels")
        low, high = int(start or 0), int(stop) if stop else None
        if high is not None and high <= low:
            raise click.BadParameter(f"found {part!r} in {value!r}, expected start < stop")
        slices.append(slice(low, high))
    return tuple(slices)


def parse_names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Return names that have commas between."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"found an empty name in {value!r}, expected names with commas between")
    return names


@contextmanager
def suggest_fresh() -> Iterator[None]:
    """Say how to replace an output that is in the way."""
    try:
        yield
    except OutputExistsError as error:
        raise OutputExistsError(f"{error} (--fresh replaces an earlier output)") from None


def weights_options(command: F) -> F:
    """Add ``--weights`` and ``--offline``."""
    command = click.option("--offline", is_flag=True, help="Look for network weights on this machine only.")(
        command
    )
    return click.option(
        "--weights",
        "weights_path",
        metavar="PATH",
        help="Take the network's weights from this file instead of the cache.",
    )(command)


class _Echo(logging.Handler):
    """Writes what hrvol tells to standard error, wherever that is by then: a progress bar moves it."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


@contextmanager
def news() -> Iterator[None]:
    """Show what is told on the way, such as the device that was chosen, a line each on standard error."""
    logger, handler = logging.getLogger("hrvol"), _Echo()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where features are made; auto: on a GPU where there is one for this engine. It says which.",
)


def parse_devices(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Return numbers or UUIDs of GPUs that have commas between."""
    names = parse_names(ctx, param, value)
    for name in names or ():
        if not name.isdecimal() and not name.startswith(("GPU-", "MIG-")):
            raise click.BadParameter(f"found {name!r}, expected numbers or UUIDs of GPUs, such as 0,2")
    return names


def engine_options(command: F) -> F:
    """Add where blocks are labelled, and what is written besides labels."""
    for option in (
        click.option(
            "--devices",
            callback=parse_devices,
            metavar="0,2,...",
            help="GPUs that engine cuda uses, as in CUDA_VISIBLE_DEVICES [all].",
        ),
        device_option,
        click.option(
            "--uncertainty", is_flag=True, help="Also write how unsure the labels are (uint8, 0 = sure)."
        ),
        click.option(
            "--probabilities", is_flag=True, help="Also write each class's probability (uint8, 255 = 1)."
        ),
        place_options,
    ):
        command = option(command)
    return command


def place_options(command: F) -> F:
    """Add where work is done."""
    for option in (
        click.option(
            "--workers",
            type=click.IntRange(1),
            help="Worker processes of local [one per CPU] or cuda [one per GPU], or jobs of slurm [1].",
        ),
        click.option(
            "--engine-option",
            "engine_options",
            multiple=True,
            metavar="KEY=VALUE",
            callback=parse_pairs,
            help="For slurm, e.g. queue=gpu, gpus=4 (or cores=8), walltime=08:00:00, memory=32GB;"
            " may be repeated.",
        ),
        click.option(
            "--scheduler-file",
            metavar="FILE",
            help="Work on the Dask cluster whose scheduler wrote this file.",
        ),
        click.option(
            "--engine",
            default="local",
            show_default=True,
            metavar="NAME|ADDRESS",
            help="serial: in this process; local: worker processes on this machine; cuda: one for each of its"
            " GPUs; slurm: SLURM jobs; or the address of a Dask scheduler (tcp://host:8786). The labels are"
            " the same (on GPUs: but for rounding).",
        ),
    ):
        command = option(command)
    return command


def input_options(command: F) -> F:
    """Add what of the volume is worked on."""
    for option in (
        click.option(
            "--level",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Resolution of a multiscale volume, 0 the finest; the output is as large as that.",
        ),
        click.option(
            "--mask",
            metavar="MASK",
            help="Label only voxels where this volume is not 0 (of the same shape).",
        ),
        roi_option,
    ):
        command = option(command)
    return command


def fresh_options(command: F) -> F:
    """Add how to begin anew."""
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask whether --fresh is meant."),
        click.option("--fresh", is_flag=True, help="Begin anew where an output is; else it is gone on with."),
    ):
        command = option(command)
    return command


def parse_part(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Return the numbers of ``k/n``."""
    if value is None:
        return None
    k, slash, n = value.partition("/")
    if not slash or not (k.isdecimal() and n.isdecimal()) or not 1 <= int(k) <= int(n):
        raise click.BadParameter(f"found {value!r}, expected k/n with k from 1 to n, such as 3/8")
    return int(k), int(n)


def parse_pairs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, Any]:
    """Return the mapping of ``key=value`` options."""
    from hrvol.volume.storage.location import parse_options

    return parse_options(value)


def confirm_fresh(output: str, options: dict[str, Any], yes: bool) -> None:
    """Ask a person at a terminal before blocks that are done are thrown away."""
    if yes or not sys.stdin.isatty():
        return
    from hrvol.errors import InputError
    from hrvol.run.status import run_status

    try:
        status = run_status(output, storage_options=options)
    except InputError:
        return
    click.confirm(f"{output}: {status['done']} of {status['total']} blocks are done. Begin anew?", abort=True)


def cluster_options(command: F) -> F:
    """Add how classes are found where nothing is drawn, and which of their objects get boxes."""
    for option in (
        click.option("--seed", type=click.IntRange(0), help="Overrides the recipe's seed (0)."),
        click.option(
            "--min-size",
            type=click.IntRange(1),
            default=200,
            show_default=True,
            help="Voxels (pixels in an image) of the smallest object that gets a box.",
        ),
        click.option("--classes", type=click.IntRange(1), metavar="N", help="Merge until so many are left."),
        click.option(
            "--merge",
            type=click.FloatRange(0, min_open=True),
            metavar="LAMBDA",
            help="Below 1 merges less, above 1 more [1].",
        ),
        click.option("--clusters", type=click.IntRange(2), help="Clusters to merge classes from [80]."),
    ):
        command = option(command)
    return command


def one_way_to_merge(merge: float | None, classes: int | None) -> None:
    """Refuse both ``--merge`` and ``--classes``."""
    if merge is not None and classes is not None:
        raise click.UsageError("--merge goes up to a distance and --classes to a number: choose one")


crf_option = click.option(
    "--crf",
    is_flag=True,
    help="Refine with a dense CRF (extra crf): smooth edges, but fine phases may vanish.",
)

recipe_option = click.option(
    "--recipe",
    metavar="FILE|PRESET",
    help="A recipe file (YAML), or fast, balanced (default of train), best, paper, classical, deep,"
    " cas (default of cluster and detect), cas-volume, cas-paper.",
)

roi_option = click.option(
    "--roi",
    callback=parse_roi,
    metavar="z0:z1,y0:y1,x0:x1",
    help="Work on this region only, in voxels; ':' is a whole axis. E.g. 0:64,:,100:500.",
)

storage_option = click.option(
    "--storage-option",
    "storage_options",
    multiple=True,
    callback=parse_pairs,
    metavar="KEY=VALUE",
    help="For the file system of URLs, e.g. endpoint_url=http://host:9000, anon=true; may be repeated.",
)

classes_option = click.option(
    "--classes", callback=parse_names, metavar="a,b,c", help="Names of classes 1, 2, ... in order."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def check_blocks(report: SegmentReport, output: str) -> None:
    """Name the blocks that failed, and raise a :class:`BlockError` if there are any."""
    if not report.failed:
        return
    for failure in report.failed[:FAILURES_SHOWN] if len(report.failed) > 1 else ():
        click.echo(f"block {failure.index} failed: {failure.reason}", err=True)
    if len(report.failed) > FAILURES_SHOWN:
        click.echo(f"... and {len(report.failed) - FAILURES_SHOWN} more", err=True)
    state = "is not complete" if report.blocks else "was not written"
    first = report.failed[0]
    raise BlockError(
        f"{len(report.failed)} of {report.blocks + len(report.failed)} blocks failed, {output} {state};"
        f" block {first.index}: {first.reason}"
    )


def echo_segmentation(report: SegmentReport, output: str) -> None:
    """Print what a segmentation found, how far tiles agreed, and how fast it was."""
    from hrvol.progress import count, duration

    echo_table(["class", "share"], [[name, f"{100 * part:.2f} %"] for name, part in report.fractions.items()])
    if report.seams.pixels:
        click.echo(f"tiles disagree on {100 * report.seams.label_share:.2f} % of the pixels they share")
    if report.left:
        click.echo(f"{output}: this part is done; {report.left} blocks are left to other parts")
        return
    if report.before == report.voxels and not report.left:
        click.echo(f"{output}: was complete already")
        return
    fresh = report.voxels - report.before
    earlier = f", {count(report.before)} by earlier runs" if report.before else ""
    click.echo(
        f"{output}: {count(fresh)} voxels in {duration(report.seconds)}"
        f" ({count(report.voxels_per_s)} voxels/s){earlier}"
    )


def echo_json(values: Any) -> None:
    """Print values as JSON; NaN becomes null."""
    click.echo(json.dumps(_plain(values), indent=2))


def _plain(values: Any) -> Any:
    """Return plain JSON values of nested mappings, sequences, arrays and numbers."""
    if isinstance(values, dict):
        return {str(key): _plain(value) for key, value in values.items()}
    if hasattr(values, "tolist"):
        return _plain(values.tolist())
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    if isinstance(values, float) and values != values:
        return None
    return values


def echo_table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print a table: drawn on a terminal, else plain columns that scripts can split.

    The first column is text, the others are numbers and stand to the right.
    """
    if sys.stdout.isatty():
        table = Table(title=title)
        for position, header in enumerate(headers):
            table.add_column(header, justify="right" if position else "left")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    if title:
        click.echo(title)
    widths = [max(len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    for row in (headers, *rows):
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        click.echo("  ".join(cells).rstrip())


def score(value: float | None) -> str:
    """Return a score with three digits; a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.3f}"


fresh_option = click.option("--fresh", is_flag=True, help="Replace earlier files.")


def pairs_of(data: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return pairs of a volume and its strokes; refuse an odd number of paths."""
    if len(data) % 2:
        raise click.UsageError(
            f"found {len(data)} paths, expected pairs: VOLUME STROKES [VOLUME STROKES ...]"
        )
    return list(zip(data[::2], data[1::2], strict=True))
