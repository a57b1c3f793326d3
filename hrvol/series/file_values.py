"""Values of a workflow file as a task has them: templates filled, paths resolved, sections combined."""

from __future__ import annotations

from hrvol.reading.explain import KeyPath
from hrvol.reading.region_text import parse_slices
from hrvol.recipe.recipe import PRESETS
from hrvol.series.options_spec import ComputeSpec, ReadingSpec, StepSpec, combined
from hrvol.series.templates import TemplateError, filled
from hrvol.series.volumes import SeriesVolume
from hrvol.series.workflow_file import Workflow
from hrvol.volume.storage.options import secrets_in

_AUTO = "auto"  # a recipe that is chosen on strokes; as in hrvol.training, which imports torch


class FileValues:
    """Takes values from a workflow file; errors have their line and column."""

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow

    def fill(self, keys: KeyPath, template: str, volume: SeriesVolume) -> str:
        """Return a template filled with the values of a volume."""
        try:
            return filled(template, volume.values)
        except TemplateError as error:
            raise self.workflow.error(keys, str(error)) from None

    def read_path(self, keys: KeyPath, template: str, volume: SeriesVolume) -> str:
        """Return a path that is read: a relative one begins in the folder of the file."""
        return self.workflow.resolved(self.fill(keys, template, volume))

    def write_path(self, keys: KeyPath, template: str, volume: SeriesVolume) -> str:
        """Return a path that is written: a relative one begins in the folder of the outputs."""
        return self.workflow.resolved(self.fill(keys, template, volume), self.workflow.out)

    def compute(self, spec: StepSpec) -> ComputeSpec:
        """Return where a step computes: its own options, else those of the file; files in them as paths."""
        options: ComputeSpec = combined(self.workflow.spec.options, spec.options)
        for name in secrets_in(options.storage_options):
            raise self.workflow.error(
                ("options", "storage_options"),
                f"found a secret, {name}, expected {name}: env:NAME, or storage_options_file",
            )
        names = ("scheduler_file", "scratch", "weights", "storage_options_file")
        paths = {name: self.workflow.resolved(path) for name in names if (path := getattr(options, name))}
        return options.model_copy(update=paths)

    def reading(self, volume: SeriesVolume) -> ReadingSpec:
        """Return how a volume is read."""
        reading: ReadingSpec = combined(self.workflow.spec.reading, volume.spec.reading)
        return reading

    def recipe(self, recipe: str | None) -> str | None:
        """Return a preset's name as it is, a file as a path."""
        if recipe is None or recipe in PRESETS or recipe == _AUTO:
            return recipe
        return self.workflow.resolved(recipe)

    def recipe_file(self, recipe: str | None) -> dict[str, str]:
        """Return a recipe as a path that is read, if it is one."""
        return {} if recipe is None or recipe in PRESETS or recipe == _AUTO else {"recipe": recipe}

    def roi(self, keys: KeyPath, roi: str | None, volume: SeriesVolume) -> str | None:
        """Return the region of a template, checked."""
        if roi is None:
            return None
        text = self.fill(keys, roi, volume)
        try:
            parse_slices(text)
        except ValueError as error:
            raise self.workflow.error(keys, str(error)) from None
        return text
