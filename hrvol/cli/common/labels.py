"""The options that say which labels a run writes, and where."""

from __future__ import annotations

import click

LABELS = {
    "name": click.option("--name", metavar="NAME", help="Name of the labels in the output [hrvol]."),
    "into_input": click.option(
        "--into-input",
        is_flag=True,
        help="Write labels/NAME into VOLUME itself, a local OME-Zarr image, instead of OUT.ome.zarr.",
    ),
}
"""By the name of their value."""
