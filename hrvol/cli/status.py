"""The command status: show how far a run is."""

from __future__ import annotations

from typing import Any

import click

from hrvol.cli.common.options import json_option, storage_option
from hrvol.cli.common.output import FAILURES_SHOWN, echo, echo_json

QUIET = 300.0
"""Seconds without a finished block from which this is shown."""


@click.command()
@click.argument("store", metavar="OUT.ome.zarr")
@storage_option
@json_option
def status(store: str, storage_options: dict[str, Any], as_json: bool) -> None:
    """Show the progress of a run, also while it is running.

    \b
    Examples:
        hrvol status labels.ome.zarr
        watch -n 60 hrvol status s3://bucket/labels.ome.zarr
    """  # noqa: D301 (click needs the escape)
    from hrvol.progress import count, duration
    from hrvol.run.status import run_status

    values = run_status(store, storage_options=storage_options)
    if as_json:
        echo_json(values)
        return
    total, done = values["total"], values["done"]
    echo(f"{store}: {values['state']}, {100 * done // max(total, 1)} %")
    echo(f"blocks  {done} of {total} done, {values['failed']} failed, {values['left']} left")
    if values["voxels_per_s"]:
        left = f", {duration(values['eta_s'])} left" if values["left"] else ""
        echo(f"rate    {count(values['voxels_per_s'])} voxels/s{left}")
    if (values["quiet_s"] or 0) > QUIET:
        echo(f"quiet   no block has finished for {duration(values['quiet_s'])}")
    for driver in values["drivers"]:
        if driver["state"] in ("running", "lost"):
            where = f"process {driver['pid']} on {driver['host']}, engine {driver['engine']}"
            echo(f"driver  {driver['lane']}: {driver['state']}, {where}, seen {driver['seen_s']:.0f} s ago")
    for failure in values["failures"][:FAILURES_SHOWN]:
        echo(f"failed  block {tuple(failure['block'])}: {failure['reason']}")
    if len(values["failures"]) > FAILURES_SHOWN:
        echo(f"        and {len(values['failures']) - FAILURES_SHOWN} more (--json has them all)")
