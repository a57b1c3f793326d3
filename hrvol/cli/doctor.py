"""The command that says what this machine is fit for: doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hrvol.cli.options import echo_json, json_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hrvol.doctor.health import Capability

_WORDS = {"ok": ("OK", "green"), "missing": ("missing", "yellow"), "problem": ("problem", "red")}


@click.command()
@json_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Say what is installed, whether it works, and what each engine and extra still needs.

    Imports everything once, in another process: half a minute at most.

    \b
    Examples:
        hrvol doctor
        hrvol doctor --json

    The exit code is 0 where the engines of the CPU work and nothing that is installed is broken, else 1;
    what is optional may be missing.
    """  # noqa: D301 (click needs the escape)
    from hrvol.doctor.examine import examine

    health = examine()
    if as_json:
        echo_json(health.to_dict())
    else:
        names = [check.name for check in health.checks]
        width = max(map(len, names + [one.name for one in (*health.engines, *health.extras)]))
        for check in health.checks:
            _echo(check.state, check.name, width, check.found, check.remedy)
        for title, abilities in (("engines", health.engines), ("extras", health.extras)):
            click.echo(f"\n{title}")
            _echo_abilities(abilities, width)
    context.exit(0 if health.healthy else 1)


def _echo_abilities(abilities: Sequence[Capability], width: int) -> None:
    for one in abilities:
        state = "missing" if one.missing else "ok"
        _echo(state, one.name, width, ", ".join(one.missing) or "ready", one.remedy)


def _echo(state: str, name: str, width: int, found: str, remedy: str | None) -> None:
    word, colour = _WORDS[state]
    said = f"{click.style(f'{word:<7}', fg=colour)}  {name:<{width}}  {found}"
    click.echo(said if remedy is None or state == "ok" else f"{said}: {remedy}")
