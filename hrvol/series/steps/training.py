"""The steps tune and train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrvol.files import MODEL, FileKind, atomic_write, check_file
from hrvol.segment.model.model import save_model
from hrvol.series.identity import Inputs, Known, recipe_values, training_inputs
from hrvol.series.steps.recorded import Made, recorded_step
from hrvol.series.steps.requests import computing, pairs_of, storage_of
from hrvol.series.steps.step import Context
from hrvol.series.tasks import Task
from hrvol.training.train import train_model
from hrvol.training.tuning.tune import tune_recipe
from hrvol.volume.guard import keep_inputs

_RECIPE = FileKind("recipe", (b"# Chosen by hrvol tune",))


def _inputs(task: Task, known: Known) -> Inputs:
    return training_inputs(
        pairs_of(task), getattr(task.spec, "classes", None), storage_of(task.compute), known
    )


def _check(task: Task, kind: FileKind, overwrite: bool) -> Path:
    keep_inputs(task.output, *task.inputs, task.compute.weights)
    return check_file(task.output, kind, overwrite)


def _tune_settings(task: Task) -> dict[str, Any]:
    spec: Any = task.spec
    return {"recipe": recipe_values(task.recipe), "minutes": spec.minutes, "seed": spec.seed}


def _tune(task: Task, context: Context, overwrite: bool) -> Made:
    spec: Any = task.spec
    file = _check(task, _RECIPE, overwrite)
    tuned = tune_recipe(
        pairs_of(task),
        recipe=task.recipe,
        minutes=spec.minutes,
        seed=spec.seed,
        **computing(task),
        progress=context.progress,
    )
    with atomic_write(file, durable=True) as partial:
        partial.write_text(tuned.to_yaml(), encoding="utf-8")
    return Made((file,), {"why": tuned.why})


def _train_settings(task: Task) -> dict[str, Any]:
    spec: Any = task.spec
    classes = None if spec.classes is None else list(spec.classes)
    return {"recipe": recipe_values(task.recipe), "classes": classes, "seed": spec.seed}


def _train(task: Task, context: Context, overwrite: bool) -> Made:
    spec: Any = task.spec
    file = _check(task, MODEL, overwrite)
    model = train_model(
        pairs_of(task),
        recipe=task.recipe,
        classes=spec.classes,
        seed=spec.seed,
        **computing(task),
        progress=context.progress,
    )
    save_model(model, file)
    return Made((file,), {"classes": [info.name for info in model.classes]})


TUNE = recorded_step(_tune_settings, _inputs, _tune)
"""Choose a recipe."""

TRAIN = recorded_step(_train_settings, _inputs, _train)
"""Train a model."""
