"""Train and predict with kept features to the bits of ``hrvol train`` and ``hrvol segment``.

The code of training and of runs is called with a featuriser that finds the tokens of an image it has seen,
and with the features of stroke pixels of the last time. On a GPU the bits of features depend on the batch
size, so they may differ by rounding there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hrvol.features.featuriser import Featuriser
from hrvol.interactive.drawing import Drawn
from hrvol.interactive.lane import Gate
from hrvol.interactive.parts import TileParts, filtered, tokens_at
from hrvol.interactive.preview import RawPreview
from hrvol.interactive.region import Region
from hrvol.interactive.regions import blocks_in, on_grid
from hrvol.interactive.stroke_rows import Rows
from hrvol.progress import ProgressCallback
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import FeatureSpec
from hrvol.run.options import PredictOptions
from hrvol.run.predict import plane_probabilities
from hrvol.segment.crf import check_available
from hrvol.segment.model.model import Model
from hrvol.segment.strokes import choose_pixels
from hrvol.training.strokes import TrainingPair, check_context, stroke_blocks
from hrvol.training.tile_features import TileFeatures
from hrvol.training.train import fit_model
from hrvol.volume.grid.tiling import Tile, intersection
from hrvol.volume.volume import Volume

if TYPE_CHECKING:
    from torch import Tensor


class KeptFeaturiser(Featuriser):
    """A featuriser that keeps the tokens of images.

    Parameters
    ----------
    featuriser
        The featuriser.
    parts
        Where tokens are kept.
    gate
        Checked before each stripe and each pass of the network.
    """

    def __init__(self, featuriser: Featuriser, parts: TileParts, gate: Gate) -> None:
        super().__init__(featuriser.spec, featuriser.backbone, featuriser.device)
        self._parts, self._gate = parts, gate
        spec = featuriser.spec
        self._filters = parts.load(FeatureSpec(kind="classical", classical=spec.classical, input=spec.input))

    def stripes(
        self, image: NDArray[Any], inside: tuple[slice, slice], *, rows: int, batch_size: int = 4
    ) -> Iterator[tuple[slice, NDArray[Any] | Tensor]]:
        """Yield the features of the pixels of a region of an image, see :meth:`Featuriser.stripes`."""
        if self.device.type != "cpu":
            for rows_of, features in super().stripes(image, inside, rows=rows, batch_size=batch_size):
                self._gate.check()
                yield rows_of, features
            return
        top, bottom, columns = inside[0].start, inside[0].stop, inside[1]
        tokens = None
        if self.spec.uses_deep:
            tokens = self._parts.tokens(self.spec, image, self._gate, exact=True)
        values = filtered(self._filters, image) if self.spec.uses_classical else None
        buffer = torch.empty((min(rows, bottom - top), columns.stop - columns.start, len(self.channels)))
        for start in range(top, bottom, rows):
            self._gate.check()
            stripe = slice(start, min(start + rows, bottom))
            features = buffer[: stripe.stop - start]
            if tokens is not None:
                tokens.spread(stripe, columns, features[:, :, self.groups["deep"]])
            if values is not None:
                inside_of = torch.from_numpy(values[:, stripe, columns])
                features[:, :, self.groups["classical"]] = inside_of.permute(1, 2, 0)
            yield slice(start - top, stripe.stop - top), features.numpy()

    def at(self, image: NDArray[Any], y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.float32]:
        """Return the features ``(n, C)`` of pixels of an image, with the bits of a call."""
        features = np.empty((len(y), len(self.channels)), np.float32)
        if self.device.type != "cpu":
            features[:] = self(image)[:, y, x].numpy(force=True).T
            return features
        if self.spec.uses_deep:
            tokens = self._parts.tokens(self.spec, image, self._gate, exact=True)
            features[:, self.groups["deep"]] = tokens_at(tokens, y, x)
        if self.spec.uses_classical:
            features[:, self.groups["classical"]] = filtered(self._filters, image)[:, y, x].T
        return features


class ExactRows:
    """Features of the stroke pixels of the last training, by plane and tile."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, Any], Rows] = {}


@dataclass(frozen=True)
class KeptFeatures(TileFeatures):
    """Features of tiles, of which those of the pixels of the last training are kept.

    Attributes
    ----------
    last
        Features of the last training.
    now
        Those of this one.
    """

    last: ExactRows
    now: ExactRows

    def at(
        self, volume: Volume, z: int, tile: Tile, rows: NDArray[Any], columns: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Return the features ``(n, C)`` of some pixels of a tile of plane ``z``."""
        assert isinstance(self.featuriser, KeptFeaturiser)
        keys = np.asarray(rows, np.int64) * tile.window_shape[1] + columns
        kept = self.last.rows.get((z, tile.core))
        features = np.empty((len(keys), len(self.featuriser.channels)), np.float32)
        new = np.ones(len(keys), bool)
        if kept is not None:
            where, there = kept.find(keys)
            features[there] = kept.features[where[there]]
            new = ~there
        if new.any():
            features[new] = self.featuriser.at(self.image(volume, z, tile), rows[new], columns[new])
        self.now.rows[z, tile.core] = Rows(keys, features)  # in order, as training reads pixels
        return features


class ExactModels:
    """Trains models of the strokes that are drawn; each training reads only what is new.

    Parameters
    ----------
    parts
        Features of tiles.
    recipe
        The recipe.
    """

    def __init__(self, parts: TileParts, recipe: Recipe) -> None:
        self._parts, self._recipe = parts, recipe
        self._rows = ExactRows()
        self._last: tuple[int, Model] | None = None

    def featuriser(self, gate: Gate) -> KeptFeaturiser:
        """Return the featuriser of the recipe's features."""
        return KeptFeaturiser(self._parts.load(self._recipe.features), self._parts, gate)

    def train(self, drawn: Drawn, gate: Gate, progress: ProgressCallback | None = None) -> Model:
        """Return the model that :func:`hrvol.train_model` returns for these strokes.

        Raises
        ------
        StrokesError
            Fewer than two classes are drawn.
        Cancelled
            The gate was closed before.
        """
        if self._last is not None and self._last[0] == drawn.version:
            return self._last[1]
        spec, parts = self._recipe, self._parts
        pairs = [TrainingPair(parts.volume, drawn.strokes())]
        pixels = choose_pixels(
            stroke_blocks(pairs), spec.classifier.samples_per_class, spec.seed, source=drawn.source
        )
        featuriser = self.featuriser(gate)
        check_context(featuriser, [parts.volume], spec.tiles)
        now = ExactRows()
        features = KeptFeatures(featuriser, parts.window, spec.tiles, self._rows, now)

        def report(stage: str, done: int, total: int) -> None:
            gate.check()
            if progress is not None:
                progress(stage, done, total)

        model = fit_model(pairs, pixels, drawn.infos(), spec, features, device=parts.device, progress=report)
        self._rows, self._last = now, (drawn.version, model)
        return model

    def predict(self, region: Region, drawn: Drawn, model: Model, gate: Gate, threads: int) -> RawPreview:
        """Return the probabilities of a region that a run with the model computes before class weights.

        Raises
        ------
        MissingExtraError
            The recipe has a CRF, and the library for it is not installed.
        """
        if model.recipe.crf is not None:
            check_available()
        parts, step = self._parts, 2**region.level
        shape, seen = parts.volume.shape, (region.rows, region.columns)
        height, width = (-(-(s.stop - s.start) // step) for s in seen)
        total = np.zeros((len(model.classes), height, width), np.float32)
        featuriser = self.featuriser(gate)
        options = PredictOptions(crf=model.recipe.crf, threads=threads)
        for block in blocks_in(shape, parts.tiles, region.box):
            gate.check()
            box = intersection(block.core, region.box)
            assert box is not None
            grid = [
                on_grid(s.start - of.start, s.stop - s.start, step)
                for s, of in zip(box[1:], seen, strict=True)
            ]
            if grid[0] is None or grid[1] is None:
                continue
            plane = plane_probabilities(
                parts.volume, region.plane, block, box, model, featuriser, options
            )  # of all pixels: of some of them, the bits may differ
            (rows, to_rows), (columns, to_columns) = grid[0], grid[1]
            total[:, to_rows, to_columns] = plane[:, rows, columns]
        return RawPreview(
            region,
            step,
            model.classes,
            total,
            "recipe",
            True,
            True,
            drawn.version,
        )
