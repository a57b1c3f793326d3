"""The sections of a workflow file that name steps; their keys are the options of the commands."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hrvol.recipe.spec import Spec, invalid
from hrvol.series.convert_spec import ConvertSpec
from hrvol.series.options_spec import Level, Name, Names, Offset, ReadingSpec, StepSpec, Text

_Seed = Annotated[int, Field(ge=0, lt=2**32)]

_Factor = Annotated[float, Field(gt=0, le=1e12)]


class PairSpec(Spec):
    """A volume that is only trained on.

    Attributes
    ----------
    volume
        Path or URL of the volume.
    strokes
        Path or URL of its strokes.
    offset
        First voxel (z, y, x) of strokes on a crop.
    reading
        How it is read, where that differs from the ``reading`` of the file.
    """

    volume: Text
    strokes: Text
    offset: Offset | None = None
    reading: ReadingSpec = ReadingSpec()


class _OnStrokes(StepSpec):
    strokes: Text | None = None
    pairs: Annotated[tuple[PairSpec, ...], Field(max_length=10_000)] = ()


class TuneSpec(_OnStrokes):
    """Choose a recipe on strokes, as ``hrvol tune`` does. Training uses it unless it names another one.

    Attributes
    ----------
    strokes
        Template of the strokes of a volume; volumes without such a file are left out.
    pairs
        Further volumes and their strokes, which are only trained on.
    output
        The recipe file to write.
    recipe
        Preset or file that gives the settings that are not varied; null: ``balanced``.
    minutes
        Approximate time.
    seed
        Seed of folds and fits.
    """

    output: Text = "recipe.yaml"
    recipe: Text | None = None
    minutes: Annotated[float, Field(ge=0, le=10_000)] = 5.0
    seed: _Seed = 0


class TrainSpec(_OnStrokes):
    """Train a model on strokes, as ``hrvol train`` does.

    Attributes
    ----------
    strokes
        Template of the strokes of a volume; volumes without such a file are left out.
    pairs
        Further volumes and their strokes, which are only trained on.
    output
        The model file to write. With a placeholder there is a model for each value of it, trained on the
        strokes of its volumes.
    recipe
        Preset, recipe file, or ``auto``; null: the recipe of the step ``tune``, else ``balanced``.
    classes
        Names of classes 1, 2, ...
    seed
        Overrides the recipe's seed.
    """

    output: Text = "model.hrvol"
    recipe: Text | None = None
    classes: Names | None = None
    seed: _Seed | None = None


class DistilSpec(StepSpec):
    """Distil a student, as ``hrvol distil`` does; volumes are then segmented with it.

    Attributes
    ----------
    output
        The student's file to write. Without a placeholder there is one student for all volumes.
    on
        Name of the volume that this one student is distilled on; null: the first one.
    model
        Template of the teacher's file; null: the model of ``train`` or ``cluster``.
    minutes
        Time for labelling tiles and training; null: 10, on a GPU 2.
    tiles
        Number of tiles to label, whatever the time it takes.
    size
        Size of the student; ``auto``: the smallest of those that agree best with the model.
    seed
        Of the choice of tiles and of the training.
    volumetric
        Whether the student sees neighbouring planes (``--3d``).
    rarity
        Power of the shares of classes that their odds are multiplied by.
    steps
        Optimisation steps of each student.
    accept
        Write the student even if it fails the check.
    held_out
        Template of strokes that the model was not trained on, for the check.
    roi
        Take tiles from this region only: ``z0:z1,y0:y1,x0:x1``, or a template of it.
    level
        Resolution of a multiscale volume, 0 the finest.
    """

    output: Text = "{name}.student.hrvol"
    on: Name | None = None
    model: Text | None = None
    minutes: Annotated[float, Field(gt=0, le=10_000)] | None = None
    tiles: Annotated[int, Field(ge=2, le=10_000)] | None = None
    size: Literal["auto", "small", "medium", "large"] = "auto"
    seed: _Seed = 0
    volumetric: Literal["auto", "on", "off"] = "auto"
    rarity: Annotated[float, Field(ge=0, le=1)] = 0.4
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 800
    accept: bool = False
    held_out: Text | None = None
    roi: Text | None = None
    level: Level = 0


class _Labels(StepSpec):
    output: Text = "{name}.ome.zarr"
    probabilities: bool = False
    uncertainty: bool = False
    crf: bool = False
    roi: Text | None = None
    mask: Text | None = None
    level: Level = 0


class SegmentSpec(_Labels):
    """Segment volumes, as ``hrvol segment`` does.

    Attributes
    ----------
    output
        The OME-Zarr to write, a path or URL.
    model
        Template of the model's file; null: that of ``distil``, else of ``train``, else of ``cluster``.
    companion
        Template of a student's file whose probabilities are averaged with the model's (``--with``).
    name
        Name of the labels in the output.
    class_weights
        Factors of classes by name or number: below 1 a class becomes rarer.
    fractions
        Measured volume fractions of the classes, in order or by name.
    backend
        What computes a student on the CPU.
    probabilities, uncertainty
        Whether to write them besides the labels.
    crf
        Refine with a dense CRF.
    roi
        Label this region only: ``z0:z1,y0:y1,x0:x1``, or a template of it.
    mask
        Template of a mask: only voxels where it is not 0 are labelled; ``auto``: all but the background.
    level
        Resolution of a multiscale volume, 0 the finest.
    """

    model: Text | None = None
    companion: Text | None = None
    name: Name = "hrvol"
    class_weights: dict[str, _Factor] = Field(default_factory=dict)
    fractions: dict[str, float] | tuple[float, ...] | None = None
    backend: Literal["auto", "torch", "openvino", "openvino-bf16"] = "auto"


class ClusterSpec(_Labels):
    """Find classes without strokes and label volumes, as ``hrvol cluster`` does.

    Volumes that this step is not for are segmented with its model, if it writes one.

    Attributes
    ----------
    output
        The OME-Zarr to write, a path or URL.
    recipe
        Preset or recipe file; null: ``cas``, or ``cas-volume`` for planes larger than one tile.
    clusters, merge, classes, seed
        Override these of the recipe.
    boxes
        CSV file of boxes around foreground objects to write.
    min_size
        Voxels of the smallest object that gets a box.
    model
        Model file to write, to segment other volumes with; the step is then for one volume.
    probabilities, uncertainty
        Whether to write them besides the labels.
    crf
        Refine with a dense CRF.
    roi
        Label this region only: ``z0:z1,y0:y1,x0:x1``, or a template of it.
    mask
        Template of a mask: only voxels where it is not 0 are labelled; ``auto``: all but the background.
    level
        Resolution of a multiscale volume, 0 the finest.
    """

    recipe: Text | None = None
    clusters: Annotated[int, Field(ge=2, le=4095)] | None = None
    merge: Annotated[float, Field(gt=0, le=1e6)] | None = None
    classes: Annotated[int, Field(ge=1, le=4095)] | None = None
    seed: _Seed | None = None
    boxes: Text | None = None
    min_size: Annotated[int, Field(ge=1, le=2**40)] = 200
    model: Text | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.merge is not None and self.classes is not None:
            raise invalid("found a number beside merge, expected only one of them", "classes")
        return self


class EvaluateSpec(StepSpec):
    """Compare labels with a ground truth, as ``hrvol evaluate`` does.

    Attributes
    ----------
    truth
        Template of the ground truth of a volume; volumes without such a file are left out.
    offset
        First voxel (z, y, x) of a ground truth of a crop.
    output
        The JSON file to write.
    match
        First match the predicted classes to the true ones.
    classes
        Names of classes 1, 2, ...
    """

    truth: Text | None = None
    offset: Offset | None = None
    output: Text = "{name}.scores.json"
    match: bool = False
    classes: Names | None = None


class ExportSpec(StepSpec):
    """Write labels in the formats of other programs, as ``hrvol export`` does.

    Attributes
    ----------
    output
        File or folder to write; its suffix is the format.
    format
        Name of the format; null: by the suffix.
    what
        What is exported.
    per_class
        Write a mask per class.
    mesh
        Write a mesh per class.
    only
        Names or values of the classes of masks, meshes and probabilities.
    level
        Resolution of the source, 0 the finest.
    roi
        Export this region only: ``z0:z1,y0:y1,x0:x1``, or a template of it.
    compress
        Whether to compress; null: labels and masks.
    memory
        GiB for voxels; null: a quarter of what is free, at most 4.
    url
        Template of the address at which the labels are published, for the state of neuroglancer.
    """

    output: Text
    format: Text | None = None
    what: Literal["labels", "image", "probabilities", "uncertainty"] = "labels"
    per_class: bool = False
    mesh: Literal["stl", "ply"] | None = None
    only: Names | None = None
    level: Level = 0
    roi: Text | None = None
    compress: bool | None = None
    memory: Annotated[float, Field(gt=0, le=1e6)] | None = None
    url: Text | None = None


class StepsSpec(Spec):
    """What is done, in this order; steps that are left out are not.

    Attributes
    ----------
    convert
        Convert volumes to OME-Zarr.
    tune
        Choose a recipe on strokes.
    train
        Train a model on strokes.
    cluster
        Find classes without strokes.
    distil
        Distil a student of the model.
    segment
        Segment volumes.
    evaluate
        Compare labels with a ground truth.
    export
        Write labels in other formats: one section, or a list of several.
    """

    convert: ConvertSpec | None = None
    tune: TuneSpec | None = None
    train: TrainSpec | None = None
    cluster: ClusterSpec | None = None
    distil: DistilSpec | None = None
    segment: SegmentSpec | None = None
    evaluate: EvaluateSpec | None = None
    export: Annotated[tuple[ExportSpec, ...], Field(max_length=100)] = ()
