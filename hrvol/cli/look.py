"""Commands that show things: info, weights, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hrvol.cli.options import (
    FAILURES_SHOWN,
    echo_json,
    echo_table,
    json_option,
    place_options,
    score,
    storage_option,
)


@click.command()
@click.argument("path")
@storage_option
@json_option
def info(path: str, storage_options: dict[str, Any], as_json: bool) -> None:
    """Say what a volume, labels or a model is.

    \b
    Examples:
        hrvol info volume.ome.zarr
        hrvol info labels.ome.zarr --json
        hrvol info phases.hrvol
    """  # noqa: D301 (click needs the escape)
    from hrvol.run.describe import describe

    values = describe(path, storage_options=storage_options)
    if as_json:
        echo_json(values)
        return
    width = max(len(name) for name in values)
    for name, value in values.items():
        if value is not None:
            click.echo(f"{name.replace('_', ' '):<{width}}  {_in_words(value)}")


def _in_words(value: Any) -> str:
    """Return a JSON value as a person would write it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(part)}" for name, part in value.items())
    if isinstance(value, list):
        if all(isinstance(part, int) for part in value):
            return " x ".join(str(part) for part in value)
        return ", ".join(_in_words(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


@click.command()
@click.argument("store", metavar="OUT.ome.zarr")
@storage_option
@json_option
def status(store: str, storage_options: dict[str, Any], as_json: bool) -> None:
    """Say how far a run is, also while it goes on.

    \b
    Examples:
        hrvol status labels.ome.zarr
        watch -n 60 hrvol status s3://bucket/labels.ome.zarr
    """  # noqa: D301 (click needs the escape)
    from hrvol.run.progress import count, duration
    from hrvol.run.status import run_status

    values = run_status(store, storage_options=storage_options)
    if as_json:
        echo_json(values)
        return
    total, done = values["total"], values["done"]
    click.echo(f"{store}: {values['state']}, {100 * done // max(total, 1)} %")
    click.echo(f"blocks  {done} of {total} done, {values['failed']} failed, {values['left']} left")
    if values["voxels_per_s"]:
        left = f", {duration(values['eta_s'])} left" if values["left"] else ""
        click.echo(f"rate    {count(values['voxels_per_s'])} voxels/s{left}")
    for driver in values["drivers"]:
        if driver["state"] in ("running", "lost"):
            where = f"process {driver['pid']} on {driver['host']}, engine {driver['engine']}"
            click.echo(
                f"driver  {driver['lane']}: {driver['state']}, {where}, seen {driver['seen_s']:.0f} s ago"
            )
    for failure in values["failures"][:FAILURES_SHOWN]:
        click.echo(f"failed  block {tuple(failure['block'])}: {failure['reason']}")
    if len(values["failures"]) > FAILURES_SHOWN:
        click.echo(f"        and {len(values['failures']) - FAILURES_SHOWN} more (--json has them all)")


@click.command()
@click.argument("image", metavar="IMAGE.ome.zarr")
@place_options
@storage_option
def pyramid(
    image: str,
    engine: str,
    scheduler_file: str | None,
    engine_options: dict[str, Any],
    workers: int | None,
    storage_options: dict[str, Any],
) -> None:
    """Add coarser levels to an OME-Zarr image that has none, for viewers.

    \b
    Example:
        hrvol pyramid volume.ome.zarr --workers 8
    """  # noqa: D301 (click needs the escape)
    from hrvol.run.progress import display
    from hrvol.run.pyramid import build_pyramid
    from hrvol.run.stop import stop_signals

    with stop_signals(ends=True) as stop, display() as progress:
        levels = build_pyramid(
            image,
            engine=engine,
            workers=workers,
            scheduler_file=scheduler_file,
            engine_options=engine_options,
            storage_options=storage_options,
            stop=stop,
            progress=progress,
        )
    click.echo(f"{image}: {levels} levels")


@click.group(no_args_is_help=False)
def weights() -> None:
    """Fetch and find the weights of networks.

    \b
    Examples:
        hrvol weights list
        hrvol weights fetch dinov2_vits14
        hrvol weights path dinov2_vits14
    """  # noqa: D301 (click needs the escape)


@weights.command("list")
def weights_list() -> None:
    """List the networks that recipes may name."""
    from hrvol.features.weights import list_weights

    rows = [[known.name, known.licence, "yes" if known.cached else "no"] for known in list_weights()]
    echo_table(["network", "licence", "in the cache"], rows)


@weights.command("fetch")
@click.argument("name")
@click.option("--weights", "file", metavar="PATH", help="Take them from this file.")
@click.option("--offline", is_flag=True, help="Look on this machine only.")
def weights_fetch(name: str, file: str | None, offline: bool) -> None:
    """Put a network's weights into the cache, and print where."""
    from hrvol.features.weights import fetch_weights

    click.echo(fetch_weights(name, offline=offline, path=file))


@weights.command("path")
@click.argument("name")
def weights_path(name: str) -> None:
    """Print the cached file of a network."""
    from hrvol.features import weights as known

    click.echo(known.weights_path(name))


@click.command()
@click.option(
    "--out",
    default="hrvol-demo",
    show_default=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where to put the volume, the models, the results and the pictures.",
)
@click.option("--classical-only", is_flag=True, help="Leave the network out: needs no weights.")
@click.option("--weights", "file", metavar="PATH", help="Take the network's weights from this file.")
@click.option("--offline", is_flag=True, help="Look for network weights on this machine only.")
def demo(out: Path, classical_only: bool, file: str | None, offline: bool) -> None:
    """Segment a synthetic battery electrode, from strokes to pictures, in a few minutes.

    Makes a volume with particles, pores, binder and cracks, draws strokes on two of its planes, trains a
    classifier on classical filters and one on filters and network features, segments the whole volume with
    both, and compares them with the truth.

    \b
    Example:
        hrvol demo --out /tmp/hrvol-demo
    """  # noqa: D301 (click needs the escape)
    from hrvol.run.demo import run_demo
    from hrvol.run.progress import display

    with display() as progress:
        report = run_demo(
            out, classical_only=classical_only, weights_path=file, offline=offline, progress=progress
        )
    names = list(next(iter(report.scores.values()))["iou"])
    rows = [
        [method, *(score(figures["iou"][name]) for name in names), score(figures["miou"])]
        for method, figures in report.scores.items()
    ]
    echo_table(["features", *names, "mIoU"], rows, title="IoU with the truth, over the whole volume")
    click.echo("")
    for picture in report.pictures:
        click.echo(f"picture: {picture}")
    click.echo("\nWhat to try next:")
    for line in report.commands:
        click.echo(f"  {line}")
