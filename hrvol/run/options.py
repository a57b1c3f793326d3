"""The request of a run as frozen objects, built at the public functions and the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.backend import check_name
from hrvol.device import DeviceChoice
from hrvol.engine.placement import place
from hrvol.engine.spec import EngineSpec
from hrvol.features.weights.source import WeightsSource
from hrvol.files import text
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import BATCH, CrfSpec
from hrvol.run.ledger_entries import check_part
from hrvol.segment.class_weights import ClassWeights
from hrvol.volume.ome.metadata import DEFAULT_LABELS
from hrvol.volume.region import Region

MIN_SIZE = 200
"""Voxels of the smallest object that gets a box (the paper's code: more than 200 pixels)."""


@dataclass(frozen=True)
class InputOptions:
    """What of a volume is labelled.

    Attributes
    ----------
    roi
        ``(z, y, x)`` slices in voxels; ``None``: everything.
    mask
        Path, URL or array of the volume's shape: only voxels where it is not 0 are labelled. ``auto``: where
        there is material.
    level
        Resolution of a multiscale volume, 0 the finest.
    """

    roi: Region | None = None
    mask: Any = None
    level: int = 0


@dataclass(frozen=True)
class OutputOptions:
    """What is written.

    Attributes
    ----------
    name
        Of the labels in the output.
    probabilities, uncertainty
        Whether to write them besides the labels.
    crf
        Whether to refine each tile with a dense CRF.
    overwrite
        Whether to delete an earlier output and start over.
    part
        ``(k, n)``: only the k-th of n parts of the blocks, from 1.
    class_weights
        Factors or fractions of classes, by which their probabilities are shifted.
    into_input
        Whether the output is inside of the volume, as its labels.
    """

    name: str = DEFAULT_LABELS
    probabilities: bool = False
    uncertainty: bool = False
    crf: bool = False
    overwrite: bool = False
    part: tuple[int, int] | None = None
    class_weights: ClassWeights = ClassWeights()
    into_input: bool = False

    def __post_init__(self) -> None:
        check_part(self.part)


@dataclass(frozen=True)
class ClusterOptions:
    """How classes are found without strokes.

    Attributes
    ----------
    recipe
        A recipe, its file, or a preset's name; ``None``: by the size of the volume.
    clusters, merge, classes, seed
        Override the recipe's ``cluster.clusters``, ``cluster.merge``, ``cluster.classes`` and ``seed``.
    """

    recipe: str | Path | Recipe | None = None
    clusters: int | None = None
    merge: float | None = None
    classes: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class ClusterFiles:
    """What is written besides the labels of a clustered volume.

    Attributes
    ----------
    boxes
        CSV file of the objects' boxes.
    min_size
        Voxels of the smallest object that gets a box.
    model
        File of the model.
    """

    boxes: str | Path | None = None
    min_size: int = MIN_SIZE
    model: str | Path | None = None


@dataclass(frozen=True)
class PredictOptions:
    """How a block is predicted.

    Attributes
    ----------
    probabilities, uncertainty
        Whether to return them besides the labels.
    crf
        Refine the probabilities of each tile with a CRF.
    threads
        Threads that share the classifier's work within one block.
    batch_size
        Images per pass of the network; fewer need less memory.
    class_factors
        Factors of the classes' probabilities in order of value, see
        :func:`hrvol.segment.class_weights.weighted`; ``None``: none.
    companion
        Returns the probabilities ``(K, y, x)`` float32 of the k-th plane of the block by another model, which
        are averaged with the model's; called with ascending k. Set by the worker of a block.
    temperature
        Of probabilities and uncertainty; labels do not depend on it.
    """

    probabilities: bool = False
    uncertainty: bool = False
    crf: CrfSpec | None = None
    threads: int = 1
    batch_size: int = BATCH
    class_factors: tuple[float, ...] | None = None
    companion: Callable[[int], NDArray[np.float32]] | None = field(default=None, repr=False, compare=False)
    temperature: float = 1.0


@dataclass(frozen=True)
class RunOptions:
    """Everything a run is requested to do, besides its volume, output and model.

    Attributes
    ----------
    engine
        Where blocks are computed.
    device
        ``cpu``, ``cuda`` or ``auto``.
    input, output
        What is labelled, and what is written.
    weights
        Where the network's weights come from.
    storage_options
        Keywords of the fsspec file system of URLs.
    companion
        A student, or its file, whose probabilities are averaged with the model's; ``None``: none.
    backend
        What computes networks on the CPU: see :func:`hrvol.backend.choose_backend`.
    scratch
        Folder on a local disk of the workers for decoded chunks beyond the usual memory; ``None``: none.
    drift
        Whether to compare some tiles with the training pixels of the model first.
    """

    engine: EngineSpec = EngineSpec()
    device: str = "auto"
    input: InputOptions = InputOptions()
    output: OutputOptions = OutputOptions()
    weights: WeightsSource = WeightsSource()
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)  # may hold secrets
    companion: Any = field(default=None, repr=False)
    backend: str = "auto"
    scratch: str | Path | None = None
    drift: bool = True

    def __post_init__(self) -> None:
        check_name(self.backend)

    def placed(self) -> tuple[RunOptions, DeviceChoice]:
        """Return the same with the engine's device settled, and why it is that one."""
        spec, choice = place(self.engine, self.device)
        return replace(self, engine=spec), choice


def engine_spec(
    engine: str,
    workers: int | None = None,
    scheduler_file: str | Path | None = None,
    engine_options: Mapping[str, Any] | None = None,
    devices: Sequence[str] | None = None,
) -> EngineSpec:
    """Return the engine that the keywords of public functions name; parameters as for them."""
    return EngineSpec(
        engine,
        workers,
        text(scheduler_file),
        dict(engine_options or {}),
        tuple(devices or ()),
        imports=("hrvol.engine.dask_engine", "hrvol.run.predict", "hrvol.features.featuriser"),
    )
