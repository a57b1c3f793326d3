"""Match recipes and models with what volumes are: grey or colour."""

from __future__ import annotations

from collections.abc import Sequence

from hrvol.errors import InputError
from hrvol.recipe.recipe import Recipe
from hrvol.segment.model.model import Model
from hrvol.segment.student.student import StudentClassifier
from hrvol.volume.volume import Volume, expect_grey

STUDENTS = "students see grey only"
"""Why students are not made of colour."""


def recipe_for(recipe: Recipe, volumes: Sequence[Volume]) -> Recipe:
    """Return a recipe whose features are of what volumes are: ``features.input`` is set to it.

    Parameters
    ----------
    recipe
        The recipe; one of colour is refused for grey volumes.
    volumes
        All grey, or all colour.

    Raises
    ------
    InputError
        Some are grey and others colour, or grey where the recipe is of colour.
    """
    first = volumes[0]
    for volume in volumes[1:]:
        if volume.colour != first.colour:
            raise InputError(
                f"{volume.source}: found a {_kind(volume)} volume, expected a {_kind(first)} one as"
                f" {first.source}"
            )
    if recipe.features.of_colour and not first.colour:
        raise InputError(
            f"{first.source}: found a grey volume, expected red, green and blue, of which the recipe's"
            " features are (features.input: colour)"
        )
    return recipe.with_(**{"features.input": "colour"}) if first.colour else recipe


def check_input(model: Model, volume: Volume) -> None:
    """Raise an :class:`InputError` if a model of grey volumes meets a colour one, or the other way round."""
    if isinstance(model.classifier, StudentClassifier):
        expect_grey(volume, STUDENTS)
    if not model.recipe.features.of_colour:
        expect_grey(volume, f"{model.source} was trained on grey")
    elif not volume.colour:
        raise InputError(
            f"{volume.source}: found a grey volume, expected red, green and blue: {model.source} was trained"
            " on colour"
        )


def _kind(volume: Volume) -> str:
    return "colour" if volume.colour else "grey"
