"""The command pyramid: add coarser levels to an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.common.options import engine_options, storage_option
from hrvol.cli.common.output import echo

if TYPE_CHECKING:
    from hrvol.engine.spec import EngineSpec


@click.command()
@click.argument("image", metavar="IMAGE.ome.zarr")
@engine_options
@storage_option
def pyramid(image: str, engine: EngineSpec, storage_options: dict[str, Any]) -> None:
    """Add coarser levels to an OME-Zarr image that has none, for viewers.

    \b
    Example:
        hrvol pyramid volume.ome.zarr --workers 8
    """  # noqa: D301 (click needs the escape)
    from hrvol.cli.common.progress import display
    from hrvol.engine.stop import stop_signals
    from hrvol.run.pyramid.build_pyramid import add_levels
    from hrvol.volume.storage.location import Location

    with stop_signals(ends=True) as stop, display() as progress:
        location = Location.of(image, storage_options)
        levels = add_levels(location, engine, stop=stop, progress=progress)
    echo(f"{image}: {levels} levels")
