"""Options of runs with students."""

from __future__ import annotations

import click

from hrvol.segment.student.backend import BACKENDS

BACKEND = {
    "backend": click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        default="auto",
        show_default=True,
        help="What computes a student on the CPU: torch or openvino (pip install 'hrvol[cpu]'), in float32 or"
        " with products of bfloat16 numbers; auto is the fastest that is installed.",
    )
}
"""By the name of its value."""

COMPANION = {
    "companion": click.option(
        "--with",
        "companion",
        metavar="STUDENT.hrvol",
        help="Average the model's probabilities with those of its student (hrvol distil): can be better than"
        " either, where the volume is small enough for the model.",
    )
}
"""By the name of its value."""
