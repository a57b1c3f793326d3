"""What a worker needs to predict any block of a run, and what it keeps between blocks."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hrvol.backend import TORCH
from hrvol.device import check_gpu
from hrvol.errors import ModelError
from hrvol.features.weights.source import WeightsSource
from hrvol.recipe.specs import TileSpec
from hrvol.run.options import PredictOptions
from hrvol.segment.model.model import Model, check_weights, model_bytes, read_model, read_model_bytes
from hrvol.segment.student.block_lattice import reach_of
from hrvol.segment.student.lattice import Lattice
from hrvol.segment.student.student import StudentClassifier
from hrvol.volume.cache_plan import CachePlan
from hrvol.volume.chunk_cache import ChunkUses, chunk_uses
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.grid.tiling import Block, Box, block_shape, hull, windows_box
from hrvol.volume.ome.labels import LabelStore
from hrvol.volume.volume import Volume

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser
    from hrvol.segment.student.runner import StudentRunner

MODEL_FILE = "model"
"""Name of the model's copy in an output."""

COMPANION_FILE = "companion"
"""Name of the copy of its companion."""


@dataclass(frozen=True)
class ModelSource:
    """Which model and weights to load.

    Attributes
    ----------
    model_file, model_sha256
        The model's file and its digest. No process loads a file with another digest: the file may be
        replaced during a run.
    weights
        Where the network's weights come from.
    device
        Where features are computed: ``cpu``, or ``cuda``, the GPU of the process.
    model_copy
        The driver's own copy of the model for the workers of its machine; ``None`` without workers. Workers
        of other machines read the file, or the copy that the output keeps.
    kept_as
        Name of the copy that the output keeps.
    backend
        What computes the network of the model, resolved.
    """

    model_file: str
    model_sha256: str
    weights: WeightsSource = WeightsSource()
    device: str = "cpu"
    model_copy: str | None = None
    kept_as: str = MODEL_FILE
    backend: str = TORCH

    def load(self, store: LabelStore | None = None) -> tuple[Model, Featuriser | StudentRunner]:
        """Return the model and what computes it, loaded on first use and cached by this process.

        That is its featuriser; or, for a student, its network, which needs no other weights.

        Parameters
        ----------
        store
            The output, which may keep a copy of the model.

        Raises
        ------
        ModelError
            The model is damaged, was replaced since the run began and no copy is left, or was made with
            other weights or other features than its recipe names.
        WeightsError
            The network's weights could not be obtained.
        DeviceError
            The device is a GPU, and this process has none; or the backend is not installed here.
        """
        if self.device == "cuda":
            check_gpu()
        with _models_lock:
            model = _models.get(self.model_sha256)
        if model is None:
            model = read_model(self._model_bytes(store), self.model_file)
            keep_model(self.model_sha256, model)
        if isinstance(model.classifier, StudentClassifier):
            from hrvol.segment.student.runner import load_runner  # torch: only where it computes

            return model, load_runner(model.classifier, self.device, self.backend)
        from hrvol.features.featuriser import load_featuriser

        spec = model.recipe.features
        featuriser = load_featuriser(
            spec,
            device=self.device,
            weights_path=self.weights.path,
            offline=self.weights.offline,
            backend=self.backend,
        )
        check_weights(model, featuriser.weights_sha256, self.weights.path or spec.deep.weights)
        if featuriser.channels != model.channels:
            raise ModelError(
                f"{model.source}: found {len(model.channels)} channels, expected the"
                f" {len(featuriser.channels)} of its recipe, from {featuriser.channels[0]} to"
                f" {featuriser.channels[-1]}"
            )
        return model, featuriser

    def _model_bytes(self, store: LabelStore | None) -> bytes:
        """Return the bytes of the model that the run began with, wherever they are."""
        problem = None
        for file in filter(None, (self.model_copy, self.model_file)):
            try:
                data = read_model_bytes(file)
            except ModelError as error:
                problem = error
                continue
            if (digest := _sha256(data)) == self.model_sha256:
                return data
            problem = ModelError(
                f"{file}: found a model with SHA-256 {digest}, expected {self.model_sha256} as when the run"
                " began; put that model back, or label into another output"
            )
        copy = None if store is None else store.read_file(self.kept_as)
        if copy is not None and _sha256(copy) == self.model_sha256:
            return copy
        assert problem is not None
        raise problem


@dataclass(frozen=True)
class Companion:
    """A student whose probabilities are averaged with those of a run's model.

    Attributes
    ----------
    source
        The student.
    lattice
        Its windows: those of :func:`hrvol.segment.student.block_lattice.block_lattice`.
    """

    source: ModelSource
    lattice: Lattice


@dataclass(frozen=True)
class SegmentJob:
    """What a worker needs to predict any block of a run; plain data, sent to each worker once.

    Attributes
    ----------
    volume, store
        Where to read and where to write.
    model_source
        The model and the weights.
    predicting
        How blocks are predicted, and what is written besides labels.
    region
        Only this box of the volume is computed.
    tiles
        Tiles of the run: those of the model's recipe, or for a student those of the volume.
    mask
        Only voxels where it is not 0 are labelled; of the volume's shape.
    lattice
        The windows of a student; ``None`` for other models.
    companion
        A student that predicts beside the model; ``None``: none.
    cache, mask_cache
        Where a worker keeps decoded chunks of the volume, and of the mask.
    """

    volume: Volume
    store: LabelStore
    model_source: ModelSource
    predicting: PredictOptions
    region: Box
    tiles: TileSpec
    mask: Volume | None = None
    lattice: Lattice | None = None
    companion: Companion | None = None
    cache: CachePlan = CachePlan()
    mask_cache: CachePlan = CachePlan(0)

    @property
    def grid(self) -> BlockGrid:
        """The blocks of the volume, and what each of them reads."""
        shape, reach = self.volume.shape, (0, 0, 0)
        if self.companion is not None:
            reach = reach_of(self.companion.lattice, block_shape(shape, self.tiles))
        return BlockGrid(shape, self.tiles, self.volume.chunks, reach)

    @property
    def key(self) -> str:
        """What identifies how its input is read."""
        return f"{self.volume.source} {self.volume.shape} {self.region} {self.tiles} {self.companion}"

    def reads(self, block: Block) -> Box:
        """Return the box of the volume that a block is computed from."""
        box = windows_box(block, self.volume.shape, self.tiles)
        return box if self.companion is None else hull(box, self.companion.lattice.reads(block.core))

    def uses(self) -> ChunkUses:
        """Count the blocks that read each chunk of the volume."""
        volume = self.volume
        return chunk_uses(self.grid, volume.chunks, self.region).along(volume.axes)

    def mask_uses(self) -> ChunkUses | None:
        """Count the blocks that read each chunk of the mask; ``None`` without one."""
        mask = self.mask
        return None if mask is None else chunk_uses(self.mask_grid, mask.chunks, self.region).along(mask.axes)

    @property
    def mask_grid(self) -> BlockGrid:
        """The same blocks, and what each of them reads of a mask: its own voxels."""
        shape, chunks = self.volume.shape, None if self.mask is None else self.mask.chunks
        return BlockGrid(shape, self.tiles, chunks, sides=block_shape(shape, self.tiles))


_models: dict[str, Model] = {}  # at most one student and one other: a process serves one run at a time

_models_lock = threading.Lock()


def keep_model(sha256: str, model: Model) -> None:
    """Cache a model for the blocks that this process will predict, instead of the last one of its kind."""
    student = isinstance(model.classifier, StudentClassifier)
    with _models_lock:
        for digest, other in list(_models.items()):
            if isinstance(other.classifier, StudentClassifier) == student:
                del _models[digest]
        _models[sha256] = model


@dataclass(frozen=True)
class ModelContent:
    """A model file as it was read once: all of a run uses these bytes.

    Attributes
    ----------
    file
        The file, or where one would be that a model in memory was saved to.
    data
        Its bytes.
    sha256
        Their digest.
    model
        The model.
    """

    file: Path
    data: bytes = field(repr=False)
    sha256: str
    model: Model = field(repr=False)

    @classmethod
    def of(cls, model: str | Path | Model) -> ModelContent:
        """Read a model's file, or make the bytes of a model in memory.

        Raises
        ------
        ModelError
            There is no such file, or it cannot be read.
        """
        if isinstance(model, Model):
            file, data = Path(model.source), model_bytes(model)
        else:
            file, data = Path(model), read_model_bytes(model)
        digest = _sha256(data)
        found = model if isinstance(model, Model) else read_model(data, str(model))
        keep_model(digest, found)
        return cls(file, data, digest, found)

    def source(
        self,
        weights: WeightsSource,
        device: str,
        stack: ExitStack,
        *,
        workers: bool,
        kept_as: str = MODEL_FILE,
    ) -> ModelSource:
        """Return the source for the processes of a run.

        ``stack`` holds the copy of a model that ``workers`` read, or that has no file; ``kept_as`` is the
        name of the one that the output keeps.
        """
        copy = None
        if workers or not self.file.is_file():
            with suppress(OSError):  # a full disk: the file itself is left
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hrvol-"))
                copy = str(Path(folder) / "model.hrvol")
                Path(copy).write_bytes(self.data)
        return ModelSource(str(self.file.resolve()), self.sha256, weights, device, copy, kept_as)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
