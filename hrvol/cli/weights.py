"""The commands weights: list, fetch, locate and verify network weights."""

from __future__ import annotations

import click

from hrvol.cli.common.output import echo, echo_table
from hrvol.errors import WeightsError


@click.group(no_args_is_help=False)
def weights() -> None:
    """Fetch, find and verify the weights of networks.

    \b
    Examples:
        hrvol weights list
        hrvol weights fetch dinov2_vits14
        hrvol weights fetch dinov3_vits16 --accept-licence
        hrvol weights path dinov2_vits14
        hrvol weights verify
    """  # noqa: D301 (click needs the escape)


@weights.command("list")
def weights_list() -> None:
    """List the networks that recipes may name, and the licences of their weights."""
    from hrvol.features.weights.registry import list_weights

    infos = list_weights()
    rows = [[info.name, info.licence, "yes" if info.cached else "no"] for info in infos]
    echo_table(["network", "licence", "in the cache"], rows)
    for licence, url in sorted({(info.licence, info.licence_url) for info in infos if info.licence_url}):
        echo(
            f"To be accepted before a download (hrvol weights fetch NAME --accept-licence): {licence}, {url}"
        )


@weights.command("fetch")
@click.argument("name")
@click.option("--weights", "file", metavar="PATH", help="Use this file.")
@click.option("--offline", is_flag=True, help="Search this machine only.")
@click.option(
    "--accept-licence",
    is_flag=True,
    help="Accept the licence of weights that ask for it before a download (hrvol weights list shows it).",
)
def weights_fetch(name: str, file: str | None, offline: bool, accept_licence: bool) -> None:
    """Store a network's weights in the cache, and print the file's path (standard error: their licence)."""
    from hrvol.features.weights.registry import fetch_weights, weights_info

    info = weights_info(name)
    echo(f"{name}: {', '.join(filter(None, (info.licence, info.licence_url)))}", err=True)
    click.echo(fetch_weights(name, offline=offline, path=file, accept_licence=accept_licence))


@weights.command("path")
@click.argument("name")
def weights_path(name: str) -> None:
    """Print the path of a network's cached file."""
    from hrvol.features.weights import registry

    click.echo(registry.weights_path(name))


@weights.command("verify")
@click.argument("name", required=False)
@click.pass_context
def weights_verify(context: click.Context, name: str | None) -> None:
    """Compare cached weights, of one network or all, with their recorded digests.

    The exit code is 1 if a file is missing, damaged or changed.
    """
    from hrvol.features.weights.cache import cache_dir, cached_files, verify_file
    from hrvol.features.weights.registry import weights_path

    files = cached_files() if name is None else [weights_path(name)]
    if not files:
        echo(f"no weights in {cache_dir()}")
    failed = False
    for file in files:
        try:
            echo(f"OK       {file.stem}  SHA-256 {verify_file(file)}")
        except WeightsError as error:
            failed = True
            echo(f"problem  {file.stem}  {' '.join(str(error).split())}")
    context.exit(1 if failed else 0)
