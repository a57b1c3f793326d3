"""A student with random weights: what one of a model will cost, before there is one."""

from __future__ import annotations

from dataclasses import replace

import torch

from hrvol.segment.model.model import Model
from hrvol.segment.student.network import StudentNetwork, folded, network_arrays
from hrvol.segment.student.spec import StudentSpec
from hrvol.segment.student.student import StudentClassifier, channel_names


def stand_in(teacher: Model, spec: StudentSpec) -> Model:
    """Return a student of a teacher's classes whose weights are random; the same ones each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = StudentNetwork(spec, len(teacher.classes))
    values = tuple(info.value for info in teacher.classes)
    return replace(
        teacher,
        recipe=teacher.recipe.with_(crf=None),
        classifier=StudentClassifier(spec, values, network_arrays(folded(network))),
        weights_sha256=None,
        channels=channel_names(spec),
        source=f"student of {teacher.source}",
    )
