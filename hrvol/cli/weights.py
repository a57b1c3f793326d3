"""The commands weights: list, fetch and locate network weights."""

from __future__ import annotations

import click

from hrvol.cli.options import echo_table


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
    from hrvol.features.weights.registry import list_weights

    rows = [[known.name, known.licence, "yes" if known.cached else "no"] for known in list_weights()]
    echo_table(["network", "licence", "in the cache"], rows)


@weights.command("fetch")
@click.argument("name")
@click.option("--weights", "file", metavar="PATH", help="Take them from this file.")
@click.option("--offline", is_flag=True, help="Look on this machine only.")
def weights_fetch(name: str, file: str | None, offline: bool) -> None:
    """Put a network's weights into the cache, and print where."""
    from hrvol.features.weights.registry import fetch_weights

    click.echo(fetch_weights(name, offline=offline, path=file))


@weights.command("path")
@click.argument("name")
def weights_path(name: str) -> None:
    """Print the cached file of a network."""
    from hrvol.features.weights import registry as known

    click.echo(known.weights_path(name))
