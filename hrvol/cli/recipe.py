"""The commands recipe: list presets, show a whole recipe, print the JSON schema of recipes."""

from __future__ import annotations

import click

from hrvol.cli.common.output import echo, echo_json, echo_lines


@click.group(no_args_is_help=False)
def recipe() -> None:
    """Show recipes, the settings of a segmentation.

    \b
    Examples:
        hrvol recipe list
        hrvol recipe show balanced > mine.yaml
        hrvol recipe show mine.yaml
        hrvol recipe schema > recipe.schema.json
    """  # noqa: D301 (click needs the escape)


@recipe.command("list")
def recipe_list() -> None:
    """List the presets, with one line on each."""
    from hrvol.recipe.recipe import SUMMARIES

    width = max(map(len, SUMMARIES))
    for name, summary in SUMMARIES.items():
        echo(f"{name:<{width}}  {summary}")


@recipe.command("show")
@click.argument("source", metavar="PRESET|FILE")
def recipe_show(source: str) -> None:
    """Print all settings of a preset or a recipe file, defaults included, as YAML.

    The output is a recipe file itself: keep the lines that you want to change.
    """
    from hrvol.recipe.recipe import Recipe

    echo_lines(Recipe.load(source).to_yaml().rstrip("\n"))


@recipe.command("schema")
def recipe_schema() -> None:
    """Print the JSON schema of recipe files, for editors and programs."""
    from hrvol.recipe.recipe import Recipe

    echo_json(Recipe.model_json_schema())
