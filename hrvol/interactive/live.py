"""Previews while strokes are drawn: quick classifiers on the best features that are at hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo
from hrvol.interactive.drawing import Drawn
from hrvol.interactive.lane import Gate
from hrvol.interactive.live_classifier import PER_CLASS, Basis, LiveClassifier
from hrvol.interactive.parts import DeepPart, FilterPart, TileParts, TileValues
from hrvol.interactive.preview import RawPreview
from hrvol.interactive.region import Region
from hrvol.interactive.regions import RegionPart, TileKey, count_tiles, on_grid, region_parts, tile_ranges
from hrvol.interactive.results import ORDER, StageName
from hrvol.interactive.stages import Stage
from hrvol.interactive.stroke_rows import StrokeRows
from hrvol.recipe.recipe import Recipe
from hrvol.run.predict import PartView
from hrvol.segment.strokes import StrokePixels

_SHARE = 0.5  # of the stroke pixels of each class: with fewer of them a coarser stage shows more

COARSE = 2
"""Step of the first preview of changed strokes."""

_MANY = 2**19  # pixels of a view above which the first preview is coarser still


@dataclass(frozen=True, eq=False)
class Fitted:
    """A classifier of a stage.

    Attributes
    ----------
    stage
        The stage.
    classifier
        The classifier.
    known
        Pixels that it was fitted on, of all that were chosen.
    """

    stage: Stage
    classifier: LiveClassifier
    known: int


@dataclass(frozen=True, eq=False)
class _Predicted:
    """Probabilities of a tile, and the classifier and features that they are from."""

    source: tuple[Fitted, DeepPart | None, FilterPart | None]
    probabilities: NDArray[np.float32]


class LivePreviews:
    """Makes previews from features in memory; computes none.

    Parameters
    ----------
    parts
        Features of tiles.
    stages
        Stages, the coarsest first.
    recipe
        The recipe.
    threads
        Threads of fits and predictions.

    Attributes
    ----------
    stages
        The stages.
    rows, rows_of_quality
        Features of the stroke pixels of previews, and of those of cross-validations.
    """

    def __init__(self, parts: TileParts, stages: Sequence[Stage], recipe: Recipe, threads: int) -> None:
        self._parts, self.stages, self._recipe, self._threads = parts, tuple(stages), recipe, threads
        self.rows, self.rows_of_quality = StrokeRows(parts), StrokeRows(parts)
        self._lock = threading.RLock()
        self._fitted: dict[tuple[StageName, int], Fitted] = {}
        self._bases: dict[StageName, Basis] = {}
        self._chosen: tuple[int, StrokePixels] | None = None
        self._predicted: dict[int, dict[Any, _Predicted]] = {}  # of the last preview of each step

    def pixels(self, drawn: Drawn) -> StrokePixels:
        """Return the stroke pixels that previews are trained on."""
        if self._chosen is None or self._chosen[0] != drawn.version:
            cap = self._recipe.classifier.samples_per_class
            most = PER_CLASS if cap is None else min(cap, PER_CLASS)
            self._chosen = drawn.version, drawn.choose(most, self._recipe.seed)
        return self._chosen[1]

    def features(self, stage: Stage, drawn: Drawn) -> NDArray[np.float32]:
        """Return the features ``(m, C)`` of a stage of those stroke pixels that have them."""
        return self.rows.collect(stage, self.pixels(drawn))[0]

    def missing(self, stage: Stage, drawn: Drawn) -> tuple[TileKey, ...]:
        """Return the tiles whose stroke pixels have no features of a stage yet."""
        return self.rows.collect(stage, self.pixels(drawn))[2]

    def fit(self, stage: Stage, drawn: Drawn, gate: Gate) -> Fitted | None:
        """Return the classifier of a stage, or ``None`` if the features of too few pixels are known."""
        gate.check()  # not below: work that is held must not keep others from fitting
        with self._lock:
            return self._fit(stage, drawn)

    def _fit(self, stage: Stage, drawn: Drawn) -> Fitted | None:
        pixels = self.pixels(drawn)
        features, known, _ = self.rows.collect(stage, pixels)
        count = int(known.sum())
        last = self._fitted.get((stage.name, drawn.version))
        if last is not None and last.known == count:
            return last
        basis = self._bases.get(stage.name)
        if not _enough(pixels.labels, known, 0.0) or (stage.features.uses_deep and basis is None):
            return None
        featuriser = self._parts.load(stage.features)
        classifier = LiveClassifier.fit(
            features,
            pixels.labels[known],
            featuriser.groups,
            basis,
            self._recipe.classifier,
            grey=featuriser.grey,
            seed=self._recipe.seed,
            threads=self._threads,
        )
        fitted = Fitted(stage, classifier, count)
        self._fitted = {key: each for key, each in self._fitted.items() if key[1] == drawn.version}
        self._fitted[stage.name, drawn.version] = fitted
        return fitted

    def usable(self, drawn: Drawn) -> tuple[Stage, ...]:
        """Return the stages that enough stroke pixels have features of, the best first.

        Without such a stage, the one with the most.
        """
        labels = self.pixels(drawn).labels
        shares = []
        for stage in reversed(self.stages):
            known = self.rows.collect(stage, self.pixels(drawn))[1]
            if _enough(labels, known, 0.0):
                shares.append((stage, known))
        enough = tuple(stage for stage, known in shares if _enough(labels, known, _SHARE))
        if enough or not shares:
            return enough
        return (max(shares, key=lambda entry: int(entry[1].sum()))[0],)

    def make(
        self, region: Region, drawn: Drawn, gate: Gate, publish: Callable[[RawPreview], object]
    ) -> RawPreview | None:
        """Make previews of a region, coarse to fine.

        Parameters
        ----------
        region
            Inside of the volume.
        drawn
            Strokes of at least two classes.
        gate
            Checked between steps.
        publish
            Called with each preview.

        Returns
        -------
        RawPreview or None
            The last one; ``None`` if no tile has features yet.
        """
        shape, tiles = self._parts.volume.shape, self._parts.tiles
        rows, columns = tile_ranges(shape, tiles, region)
        seen = [
            key
            for key in self._parts.visited  # others have no features
            if key[0] == region.plane and key[1] in rows and key[2] in columns
        ]
        for stage in self.stages:
            for key in seen:
                self.note_basis(stage, key)
        chosen = self._choose(seen, self.usable(drawn))
        if not chosen:
            return None
        parts = tuple(region_parts(shape, tiles, region, chosen))
        infos = drawn.infos()
        last = None
        for step in steps_of(region):
            last = self._preview(region, parts, chosen, step, drawn, infos, gate)
            if last is None:
                return None
            gate.check()
            publish(last)
        return last

    def note_basis(self, stage: Stage, key: TileKey) -> None:
        """Fit the components of deep features of a stage to a tile, unless there are any."""
        if stage.features.uses_deep and stage.name not in self._bases:
            values = self._parts.get(stage, key)
            if values is not None:
                self._bases[stage.name] = Basis.of(values)

    def _choose(
        self, keys: Sequence[TileKey], stages: Sequence[Stage]
    ) -> dict[TileKey, tuple[Stage, TileValues]]:
        """Return the best stage that each tile has features of, if any, and the features."""
        chosen: dict[TileKey, tuple[Stage, TileValues]] = {}
        for key in keys:
            for stage in stages:
                if stage.features.uses_deep and stage.name not in self._bases:
                    continue
                values = self._parts.get(stage, key)
                if values is not None:
                    chosen[key] = stage, values
                    break
        return chosen

    def _preview(
        self,
        region: Region,
        parts: Sequence[RegionPart],
        chosen: dict[TileKey, tuple[Stage, TileValues]],
        step: int,
        drawn: Drawn,
        infos: tuple[ClassInfo, ...],
        gate: Gate,
    ) -> RawPreview | None:
        height, width = (-(-(s.stop - s.start) // step) for s in (region.rows, region.columns))
        total = np.zeros((len(infos), height, width), np.float32)
        names = set()
        complete = len(chosen) == count_tiles(self._parts.volume.shape, self._parts.tiles, region)
        predicted: dict[Any, _Predicted] = {}
        for part in parts:
            for key, view in zip(part.keys, part.views, strict=True):
                stage, values = chosen[key]
                fitted = self.fit(stage, drawn, gate)
                if fitted is None or len(fitted.classifier.classes) != len(infos):
                    complete = False
                    continue
                gate.check()
                where = sampled(view, part, region, step)
                if where is None:
                    continue
                names.add(fitted.stage.name)
                name = view.tile.core, region.bounds
                last = self._predicted.get(step, {}).get(name)
                source = fitted, values.deep, values.filters
                if last is not None and last.source == source:
                    proba = last.probabilities
                else:
                    proba = fitted.classifier.predict(values, *where.window, gate, threads=self._threads)
                predicted[name] = _Predicted(source, proba)
                for k in range(len(infos)):
                    total[(k, *where.out)] += where.weight * proba[..., k]
        if not names:
            return None
        self._predicted[step] = predicted
        sums = total.sum(axis=0)
        np.divide(total, sums, out=total, where=sums > 0)
        return RawPreview(
            region, step, infos, total, min(names, key=ORDER.index), False, complete, drawn.version
        )


@dataclass(frozen=True, eq=False)
class Sampled:
    """Pixels of a tile's window on the grid of a preview.

    Attributes
    ----------
    window
        The pixels, as slices of the window.
    out
        Where they are in the preview.
    weight
        Their blend weights.
    """

    window: tuple[slice, slice]
    out: tuple[slice, slice]
    weight: NDArray[np.float32]


def sampled(view: PartView, part: RegionPart, region: Region, step: int) -> Sampled | None:
    """Return the pixels of a tile that are on the grid of a preview, or ``None``."""
    window, out, picks = [], [], []
    spans = zip(view.in_window, view.in_part, part.box[1:], (region.rows, region.columns), strict=True)
    for in_window, in_part, box, seen in spans:
        grid = on_grid(box.start + in_part.start - seen.start, in_part.stop - in_part.start, step)
        if grid is None:
            return None
        window.append(slice(in_window.start + grid[0].start, in_window.stop, step))
        out.append(grid[1])
        picks.append(grid[0])
    return Sampled((window[0], window[1]), (out[0], out[1]), view.weight[picks[0], picks[1]])


def steps_of(region: Region) -> tuple[int, ...]:
    """Return the steps of the previews of a region, coarse to fine."""
    last: int = 2**region.level
    pixels = (region.rows.stop - region.rows.start) * (region.columns.stop - region.columns.start)
    coarse = COARSE * last * (2 if pixels > _MANY * last**2 else 1)
    return (coarse, last) if pixels > 2**14 else (last,)


def _enough(labels: NDArray[np.uint16], known: NDArray[np.bool_], share: float) -> bool:
    """Whether at least two classes are drawn, and more than a share of the pixels of each are known."""
    values = np.unique(labels)
    return len(values) > 1 and all(known[labels == value].mean() > share for value in values)
