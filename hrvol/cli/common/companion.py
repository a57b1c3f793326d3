"""The option that adds a student to a model."""

from __future__ import annotations

import click

COMPANION = {
    "companion": click.option(
        "--with",
        "companion",
        metavar="STUDENT.hrvol",
        help="Average the model's probabilities with those of a student of it (hrvol distil): best of all for"
        " volumes that are small enough for the model.",
    )
}
"""By the name of its value."""
