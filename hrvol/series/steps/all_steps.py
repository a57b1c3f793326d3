"""All steps by the name of their section in a workflow file."""

from __future__ import annotations

from collections.abc import Mapping

from hrvol.series.steps.converting import CONVERT
from hrvol.series.steps.labelling import CLUSTER, DISTIL, SEGMENT
from hrvol.series.steps.results import EVALUATE, EXPORT
from hrvol.series.steps.step import Step
from hrvol.series.steps.training import TRAIN, TUNE

STEPS: Mapping[str, Step] = {
    "convert": CONVERT,
    "tune": TUNE,
    "train": TRAIN,
    "cluster": CLUSTER,
    "distil": DISTIL,
    "segment": SEGMENT,
    "evaluate": EVALUATE,
    "export": EXPORT,
}
