"""The option that adds a student to a model."""

from __future__ import annotations

import click

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
