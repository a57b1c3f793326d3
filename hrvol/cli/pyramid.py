"""The command pyramid: add coarser levels to an image."""

from __future__ import annotations

from typing import Any

import click

from hrvol.cli.options import place_options, storage_option


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
    from hrvol.cli.progress import display
    from hrvol.engine.stop import stop_signals
    from hrvol.run.build_pyramid import build_pyramid

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
