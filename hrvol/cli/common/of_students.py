"""Options of runs: what computes networks on the CPU, and students beside a model."""

from __future__ import annotations

import click

from hrvol.backend import BACKENDS

BACKEND = {
    "backend": click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        default="auto",
        show_default=True,
        help="What computes networks on the CPU: torch or openvino (pip install 'hrvol[cpu]'), in float32 or"
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
