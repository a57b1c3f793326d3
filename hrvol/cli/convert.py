"""The command convert: write a volume of any format as an OME-Zarr image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hrvol.cli.common.options import (
    ENGINE,
    PART,
    SCRATCH,
    STORAGE,
    bundle,
    engine_of,
    roi_option,
)
from hrvol.cli.common.output import echo, news, suggest_fresh
from hrvol.cli.common.reading import reads
from hrvol.reading.region_text import whole_number

if TYPE_CHECKING:
    from hrvol.run.convert.convert_volume import ConvertReport
    from hrvol.run.convert.options import ConvertOptions


def _sides(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Return two or three whole numbers above 0."""
    if value is None:
        return None
    numbers = tuple(whole_number(part.strip()) or 0 for part in value.split(","))
    if len(numbers) not in (2, 3) or min(numbers) < 1:
        raise click.BadParameter(f"found {value!r}, expected whole numbers above 0: z,y,x (y,x for an image)")
    return numbers


def _convert_options(
    engine: str,
    scheduler_file: str | None,
    engine_options: dict[str, Any],
    workers: int | None,
    **values: Any,
) -> ConvertOptions:
    """Return the request of the command; its values by the names of the options."""
    from hrvol.run.convert.options import ConvertOptions, ImageOptions

    return ConvertOptions(
        engine_of(engine, scheduler_file, engine_options, workers),
        ImageOptions(
            values["ome_zarr"],
            values["chunks"],
            values["shards"],
            values["compression"],
            values["uint8"],
            values["pyramid"],
        ),
        values["roi"],
        values["level"],
        values["part"],
        values["scratch"],
        values["verify"],
        values["fresh"],
        values["storage_options"],
    )


_IMAGE = {
    "ome_zarr": click.option(
        "--ome-zarr",
        type=click.Choice(["0.5", "0.4"]),
        default="0.5",
        show_default=True,
        help="Version of OME-Zarr: 0.5 (Zarr 3, with shards) or 0.4 (Zarr 2).",
    ),
    "chunks": click.option(
        "--chunks",
        callback=_sides,
        metavar="z,y,x",
        help="Voxels of a chunk [64,64,64; of an image 256,256].",
    ),
    "shards": click.option(
        "--shards",
        callback=_sides,
        metavar="z,y,x",
        help="Voxels of a shard, a multiple of a chunk [64,512,512; of an image 2048,2048].",
    ),
    "compression": click.option(
        "--compression",
        metavar="NAME[:LEVEL]",
        help="zstd, gzip, blosc-zstd or blosc-lz4 (both shuffle bytes: for more than 8 bits), none [zstd].",
    ),
    "uint8": click.option(
        "--uint8",
        is_flag=False,
        flag_value="auto",
        metavar="[LOW,HIGH]",
        help="Map these grey values, or percentiles of a sample (0.1%,99.9%), to 0 to 255; values are kept"
        " without it.",
    ),
    "pyramid": click.option(
        "--pyramid",
        type=click.Choice(["mean", "mode", "none"]),
        default="mean",
        show_default=True,
        help="How coarser levels are computed; mode is for labels.",
    ),
    "roi": roi_option,
    "level": click.option(
        "--level",
        type=click.IntRange(0, 63),
        default=0,
        show_default=True,
        help="Resolution to read of a multiscale volume, 0 the finest.",
    ),
    "verify": click.option(
        "--verify", is_flag=True, help="Read input and output again, and compare the checksums of all blocks."
    ),
    "fresh": click.option("--fresh", is_flag=True, help="Delete an earlier output instead of resuming it."),
}

convert_options = bundle("options", _convert_options, _IMAGE | ENGINE | SCRATCH | PART | STORAGE)


@click.command()
@click.argument("volume", metavar="IN")
@click.argument("output", metavar="OUT.ome.zarr")
@convert_options
@reads("volume")
def convert(volume: str, output: str, options: ConvertOptions) -> None:
    """Convert a volume of any format to an OME-Zarr image with coarser levels.

    IN is anything that hrvol reads: a folder of images, TIFF, HDF5, MRC, RAW, Zarr, ... Type, voxel size and
    unit are kept. A stopped or killed run is resumed by the same command. Ctrl-C stops after the blocks in
    progress, a second Ctrl-C at once. OUT is an image when all is done.

    \b
    Examples:
        hrvol convert slices/ volume.ome.zarr
        hrvol convert scan.h5::/exchange/data volume.ome.zarr --workers 8 --verify
        hrvol convert scan.raw volume.ome.zarr --raw-shape 2000,4096,4096 --raw-dtype uint16
        hrvol convert scan.tif small.ome.zarr --uint8 0.1%,99.9% --roi 100:600,:,:
        hrvol convert volume.ome.zarr old.ome.zarr --ome-zarr 0.4
    """  # noqa: D301 (click needs the escape)
    if options.part is not None and options.overwrite:
        raise click.UsageError("--fresh would delete the blocks of other parts: delete the output first")
    from hrvol.cli.common.progress import display
    from hrvol.engine.stop import stop_signals
    from hrvol.run.convert.convert_volume import convert as run_convert

    with news(), suggest_fresh(), stop_signals(ends=True) as stop, display() as progress:
        report = run_convert(volume, output, options, stop, progress)
    _check_blocks(report, output)
    _echo(report, output)


def _check_blocks(report: ConvertReport, output: str) -> None:
    """Raise an error that names the first failed block, if there is one."""
    from hrvol.errors import BlockError

    if report.failed:
        first = report.failed[0]
        raise BlockError(
            f"{len(report.failed)} blocks failed, {output} is not complete;"
            f" block {first.index}: {first.reason}"
        )


def _echo(report: ConvertReport, output: str) -> None:
    """Print what was converted."""
    from hrvol.progress import count, duration

    if not report.complete:
        echo(f"{output}: this part is done; {report.left} blocks remain for other parts")
        return
    if report.window is not None:
        low, high = report.window
        echo(f"grey values {low:g} to {high:g} became 0 to 255")
    fresh = report.voxels - report.before
    if fresh:
        earlier = f", {count(report.before)} by earlier runs" if report.before else ""
        read = f", input decoded {report.read_amplification:.2f} times" if report.read else ""
        echo(
            f"{output}: {count(fresh)} voxels in {duration(report.seconds)}"
            f" ({count(report.voxels_per_s)} voxels/s){earlier}{read}"
        )
    else:
        echo(f"{output}: is already complete")
    shape = " x ".join(map(str, report.shape))
    echo(f"{output}: {shape} {report.dtype}, {report.levels} levels")
    if report.verified:
        echo(f"{output}: {report.verified} blocks are equal to the input")
