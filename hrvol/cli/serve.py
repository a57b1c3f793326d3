"""The command serve: draw from another machine on a volume of this one."""

from __future__ import annotations

from typing import Any

import click

from hrvol.cli.common.options import recipe_compute_options
from hrvol.cli.common.output import echo, news
from hrvol.cli.common.reading import reads


@click.command()
@click.argument("volume")
@click.option(
    "--strokes",
    metavar="STROKES.ome.zarr",
    help="Where strokes are kept; created if it does not exist [VOLUME-strokes.ome.zarr next to the volume].",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port on 127.0.0.1; 0: a free one, which is printed.",
)
@click.option(
    "--token-file",
    metavar="FILE",
    help="File of the token, written with mode 0600 if it does not exist [a new token is printed].",
)
@click.option(
    "--cache",
    metavar="FOLDER",
    help="Folder of computed features, which sessions share [in the cache of the user].",
)
@click.option("--threads", type=click.IntRange(1), help="Threads of fits and predictions [one per core].")
@recipe_compute_options
@reads("volume")
def serve(
    volume: str,
    strokes: str | None,
    port: int,
    token_file: str | None,
    cache: str | None,
    threads: int | None,
    computing: dict[str, Any],
) -> None:
    """Serve a volume, its strokes and a session, to draw on it from another machine.

    The server accepts connections from this machine only, and only with the token. A laptop reaches it by an
    SSH tunnel, whose command is printed. The plugin of napari connects to it (Paint, Connect), or
    hrvol.connect in Python; the laptop needs neither the volume nor torch. --recipe is that of sessions for
    which the client chooses none [fast].

    \b
    Examples:
        hrvol serve volume.ome.zarr
        hrvol serve volume.ome.zarr --strokes strokes.ome.zarr --port 8765 --token-file ~/.hrvol-token

    Strokes are on the disk of this machine before the client forgets them. Ctrl-C ends the server. Started
    again with the same port and token file, clients continue.
    """  # noqa: D301 (click needs the escape)
    import getpass
    import socket
    import time

    from hrvol.errors import MissingExtraError
    from hrvol.volume.storage.location import Location

    try:
        from hrvol.interactive.serve.serve import Served
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise MissingExtraError(
            f"serve: found no package {error.name}, expected it: pip install 'hrvol[serve]'"
        ) from None
    from hrvol.interactive.serve.token import kept_token, new_token

    token = new_token() if token_file is None else kept_token(token_file)
    place = Location.of(volume, computing.pop("storage_options"))
    recipe = computing.pop("recipe") or "fast"
    options = computing | {"cache": cache, "threads": threads}
    with news(), Served(place, strokes, token, port=port, recipe=recipe, options=options) as served:
        host = f"{getpass.getuser()}@{socket.getfqdn()}"
        echo(f"volume   {place.url}")
        echo(f"strokes  {served.strokes}")
        echo(f"url      {served.url}")
        echo(f"token    {token if token_file is None else f'in {token_file}'}")
        echo(f"tunnel   ssh -N -L {served.port}:127.0.0.1:{served.port} {host}")
        while served.alive:
            time.sleep(0.2)
