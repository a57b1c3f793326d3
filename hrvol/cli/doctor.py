"""The command doctor: check this installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hrvol.cli.common.options import json_option
from hrvol.cli.common.output import echo_json
from hrvol.text import printable

if TYPE_CHECKING:
    from hrvol.doctor.health import Health

_WORDS = {"ok": ("OK", "green"), "missing": ("missing", "yellow"), "problem": ("problem", "red")}


@click.command()
@json_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Check packages, GPUs, weights, disk and memory, and list what each engine and extra lacks.

    Imports every package once, in another process: this takes half a minute at most.

    \b
    Examples:
        hrvol doctor
        hrvol doctor --json

    The exit code is 0 if the engines of the CPU work and nothing that is installed is broken, else 1.
    Optional packages may be missing.
    """  # noqa: D301 (click needs the escape)
    from hrvol.doctor.examine import examine

    health = examine()
    if as_json:
        echo_json(health.to_dict())
    else:
        _echo_health(health)
    context.exit(0 if health.healthy else 1)


def _echo_health(health: Health) -> None:
    capabilities = (*health.engines, *health.extras)
    width = max(map(len, [*(check.name for check in health.checks), *(one.name for one in capabilities)]))
    for check in health.checks:
        _echo(check.state, check.name, width, check.found, check.remedy)
    for title, group in (("engines", health.engines), ("extras", health.extras)):
        click.echo(f"\n{title}")
        for one in group:
            state = "missing" if one.missing else "ok"
            _echo(state, one.name, width, ", ".join(one.missing) or "ready", one.remedy)
    problems = [check.name for check in health.checks if check.state == "problem"]
    ready = [engine.name for engine in health.engines if not engine.missing]
    if problems:
        click.echo(f"\nProblems: {', '.join(problems)}. The lines above have a remedy where one is known.")
    else:
        click.echo(f"\nNo problems. Engines that are ready: {', '.join(ready)}. Try it: hrvol demo")


def _echo(state: str, name: str, width: int, found: str, remedy: str | None) -> None:
    word, colour = _WORDS[state]
    found = printable(found, 2000)
    line = f"{click.style(f'{word:<7}', fg=colour)}  {name:<{width}}  {found}"
    click.echo(line if remedy is None or state == "ok" else f"{line}; to fix: {printable(remedy, 2000)}")
