"""Options of the command distil, also taken by segment with ``--distil``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hrvol.cli.common.of_strokes import offset_option
from hrvol.cli.common.of_students import BACKEND
from hrvol.cli.common.options import (
    DEVICES,
    ENGINE,
    INPUT,
    STORAGE,
    WEIGHTS,
    Option,
    bundle,
    engine_of,
    weights_of,
)

if TYPE_CHECKING:
    from hrvol.distil.dimensions import Wish
    from hrvol.distil.options import DistilOptions
    from hrvol.run.options import RunOptions


def _distil_options(
    engine: str,
    scheduler_file: str | None,
    engine_options: dict[str, Any],
    workers: int | None,
    **values: Any,
) -> RunOptions:
    """Return the request of the command distil, which writes no labels."""
    from hrvol.run.options import InputOptions, RunOptions

    return RunOptions(
        engine_of(engine, scheduler_file, engine_options, workers, values["devices"]),
        values["device"],
        InputOptions(values["roi"], None, values["level"]),
        weights=weights_of(values["weights_path"], values["offline"]),
        storage_options=values["storage_options"],
        backend=values["backend"],
    )


def _distilling(
    minutes: float | None,
    tiles: int | None,
    size: str,
    distil_seed: int,
    volumetric: Wish,
    rarity: float,
    steps: int,
    accept: bool,
    held_out: str | None,
    **others: Any,
) -> DistilOptions:
    from hrvol.distil.options import DistilOptions
    from hrvol.volume.strokes.source import StrokesSource

    offset: tuple[int, int, int] | None = others["offset"]
    if offset is not None and held_out is None:
        raise click.UsageError("--offset is the place of held-out strokes: add --held-out")
    drawn = None if held_out is None else StrokesSource(held_out, offset)
    return DistilOptions(minutes, tiles, size, distil_seed, volumetric, rarity, steps, accept, drawn)


_DISTILLING = {
    "minutes": click.option(
        "--minutes",
        type=click.FloatRange(0, 10_000, min_open=True),
        help="Time for labelling tiles and training, about [10; on a GPU 2].",
    ),
    "tiles": click.option(
        "--tiles",
        type=click.IntRange(2, 10_000),
        help="Number of tiles to label, whatever the time it takes.",
    ),
    "size": click.option(
        "--size",
        type=click.Choice(["auto", "small", "medium", "large"]),
        default="auto",
        show_default=True,
        help="About 6, 22 and 48 kFLOP a voxel; auto: the smallest of those that agree best with the model.",
    ),
    "distil_seed": click.option(
        "--seed",
        "distil_seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Of the choice of tiles and of the training.",
    ),
    "volumetric": click.option(
        "--3d",
        "volumetric",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Whether the student sees neighbouring planes; auto: where they look like neighbours.",
    ),
    "rarity": click.option(
        "--rarity",
        type=click.FloatRange(0, 1),
        default=0.4,
        show_default=True,
        help="Multiply the odds of a class by this power of its share: rare classes, which come out too large"
        " where all are weighted evenly, become rarer; 0: as the model.",
    ),
    "steps": click.option(
        "--steps",
        type=click.IntRange(1, 1_000_000),
        default=800,
        show_default=True,
        help="Optimisation steps of each student.",
    ),
    "accept": click.option("--accept", is_flag=True, help="Write the student even if it fails the check."),
    "held_out": click.option(
        "--held-out",
        metavar="STROKES",
        help="Strokes that the model was not trained on: the check compares both models on them.",
    ),
    "offset": offset_option,
}
distilling_options = bundle("distilling", _distilling, _DISTILLING)
"""How a model is distilled, as one :class:`~hrvol.distil.options.DistilOptions`."""
_WHERE = {"roi": INPUT["roi"], "level": INPUT["level"]}
_DISTIL_RUN = ENGINE | DEVICES | _WHERE | STORAGE | WEIGHTS | BACKEND
distil_run_options = bundle("options", _distil_options, _DISTIL_RUN)
"""Where tiles are labelled, and which part of the volume they are from."""


@dataclass(frozen=True)
class FirstDistil:
    """The request of a command that distils before it segments.

    Attributes
    ----------
    options
        How the model is distilled.
    student
        File of the student; ``None``: beside the output.
    """

    options: DistilOptions
    student: str | None

    def file(self, output: str) -> Path:
        """Return the student's file for an output."""
        from hrvol.distil.student_file import student_file

        return student_file(output) if self.student is None else Path(self.student)


def _first_distil(distil: bool, student: str | None, **values: Any) -> FirstDistil | None:
    context = click.get_current_context()
    if distil:
        return FirstDistil(_distilling(**values), student)
    names = {"student", *values}
    for param in context.command.params:
        if param.name in names and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{param.opts[0]} is an option of the student: add --distil")
    return None


def _noted(option: Option, note: str) -> Option:
    """Return an option whose help begins with a note."""

    def decorate(command: Any) -> Any:
        decorated = option(command)
        added = decorated.__click_params__[-1]
        added.help = f"{note} {added.help}"
        return decorated

    return decorate


_FIRST = {
    "distil": click.option(
        "--distil",
        is_flag=True,
        help="Distil the model first, as hrvol distil does, and segment with the student: for large volumes."
        " A student that exists is used if it was made by the same request.",
    ),
    "student": click.option(
        "--student",
        metavar="FILE",
        help="(--distil) The student's file [OUT.student.hrvol beside a local output].",
    ),
    **{name: _noted(option, "(--distil)") for name, option in _DISTILLING.items()},
}
first_distil_options = bundle("first_distil", _first_distil, _FIRST)
"""Whether and how a model is distilled before a run, as one :class:`FirstDistil` or ``None``."""
