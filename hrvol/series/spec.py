"""A workflow file: volumes, steps, and what both share; frozen, validated with positions as recipes are."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from hrvol.recipe.spec import Spec, invalid
from hrvol.series.convert_spec import ConvertSpec
from hrvol.series.options_spec import ComputeSpec, Name, Offset, ReadingSpec, Text
from hrvol.series.step_specs import ClusterSpec, DistilSpec, EvaluateSpec, SegmentSpec, StepsSpec


class VolumeSpec(Spec):
    """A volume, or several with a glob, and what differs for it.

    Attributes
    ----------
    path
        Path, URL, or glob (``**`` for any folders). With a plain ``name`` it is one volume as it stands.
    name
        Name in the table and in templates; with placeholders a template. Null: the file name without suffix.
    strokes
        Strokes of this volume, for ``tune`` and ``train``.
    strokes_offset
        First voxel (z, y, x) of strokes on a crop.
    truth
        Ground truth of this volume, for ``evaluate``.
    values
        Values of further placeholders.
    reading
        How it is read, where that differs from the ``reading`` of the file.
    convert, distil, cluster, segment, evaluate
        Settings of these steps that differ for this volume.
    """

    path: Text
    name: Name | None = None
    strokes: Text | None = None
    strokes_offset: Offset | None = None
    truth: Text | None = None
    values: Annotated[dict[str, str], Field(max_length=1000)] = Field(default_factory=dict)
    reading: ReadingSpec = ReadingSpec()
    convert: ConvertSpec | None = None
    distil: DistilSpec | None = None
    cluster: ClusterSpec | None = None
    segment: SegmentSpec | None = None
    evaluate: EvaluateSpec | None = None


class SeriesSpec(Spec):
    """A workflow over many volumes.

    Attributes
    ----------
    volumes
        A path, a glob, a table (CSV), a list of these and of sections, or a mapping of names to paths or
        sections.
    out
        Folder of the outputs; their relative paths begin here.
    options
        Options of all steps.
    reading
        How volumes are read whose files lack something.
    steps
        What is done.
    table
        File for the table at the end, CSV or JSON by its suffix; null: none.
    """

    volumes: Annotated[tuple[VolumeSpec, ...], Field(max_length=100_000)]
    out: Text = "results"
    options: ComputeSpec = ComputeSpec()
    reading: ReadingSpec = ReadingSpec()
    steps: StepsSpec
    table: Text | None = None

    @model_validator(mode="after")
    def _labels_come_from_a_step(self) -> Self:
        steps = self.steps
        if steps.segment is None and steps.cluster is None:
            for name in ("evaluate", "export"):
                if getattr(steps, name):
                    raise invalid(f"found {name} alone, expected segment or cluster too", "steps")
        if not steps.model_fields_set:
            raise invalid("found no step, expected some", "steps")
        return self
