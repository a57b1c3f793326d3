"""Choose a recipe by cross-validation on strokes: candidates are tried in rising order of cost."""

from __future__ import annotations

import logging
import math
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol import device as devices
from hrvol.device import cpus
from hrvol.features.filters.bank import grey_columns
from hrvol.features.weights.source import WeightsSource
from hrvol.progress import ProgressCallback, duration, renamed
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClassifierKind, ClassifierSpec, DeepSpec, FeatureKind, FeatureSpec
from hrvol.segment.pixel_classifier import Member, PixelClassifier
from hrvol.segment.strokes import Samples
from hrvol.training.colour import recipe_for
from hrvol.training.strokes import check_context, check_data, gather, open_pairs
from hrvol.training.tile_features import TileFeatures, load_features
from hrvol.training.tuning.candidates import (
    SCALES,
    VIEW_BUDGETS,
    Row,
    choose_recipe,
    describe_deep,
    interleaves,
    kinds_with,
    network_work,
    of_kind,
    short_yaml,
)
from hrvol.training.tuning.cost import predict_seconds, trial_spec
from hrvol.training.tuning.held_out import HeldOut, hold_out, mean_iou_of

LOG = logging.getLogger("hrvol.run")

AUTO = "auto"
"""In place of a recipe: choose one by cross-validation."""

CLASSIFIERS: tuple[ClassifierKind, ...] = ("vote", "forest", "logistic", "mlp")
"""Kinds tried on the best features, besides the recipe's own."""

_SURVIVORS = 2


@dataclass(frozen=True)
class TuningResult:
    """The chosen recipe, and how it was chosen.

    Attributes
    ----------
    recipe
        The recipe to train with.
    rows
        All candidates that were tried, the best first.
    why
        Why this one was chosen, in a sentence or two.
    notes
        What was held out, and which candidates were not tried and why: a line each.
    """

    recipe: Recipe
    rows: tuple[Row, ...]
    why: str
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> Row:
        """The row of the recipe."""
        return next(row for row in self.rows if row.recipe == self.recipe)

    def to_yaml(self) -> str:
        """Return the settings that differ from the defaults as YAML, with the reason as a comment."""
        return short_yaml(self.recipe, "\n".join(textwrap.wrap(f"Chosen by hrvol tune. {self.why}", 100)))


def tune_recipe(
    pairs: Sequence[tuple[Any, Any]],
    *,
    recipe: str | Path | Recipe | None = None,
    minutes: float | None = 5.0,
    seed: int = 0,
    device: str = "auto",
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> TuningResult:
    """Choose a recipe by cross-validation on strokes.

    Tried are, in this order: classical features; deep and hybrid features (of forests also the product of
    three) with tokens 7 pixels apart, at the recipe's input scale, half of it and twice; other classifiers on
    the best features; the best candidates averaged over mirror images, and over quarter turns too. The
    cheapest of those that score as well as the best is chosen, see
    :func:`hrvol.training.tuning.candidates.choose_recipe`. Forests have at most 50 trees here.

    Features are computed as in training, but only on some tiles: at least 4, and 1.2 per minute, which have
    the most stroke pixels of all classes and lie in many planes.

    Parameters
    ----------
    pairs
        Pairs of a volume and its strokes, as for :func:`hrvol.train_model`.
    recipe
        Gives all settings that are not varied: intensity window, tiles, network, block, filters, the
        classifier's settings, seed. A recipe, its file, or a preset's name; ``None`` for ``balanced``.
    minutes
        Approximate time to take: a candidate that would exceed it, judging by those before, is not tried, so
        that a slower machine may choose among fewer. ``None``: no limit, and 24 tiles. Classical features and
        the first deep ones are always tried.
    seed
        Seed of the choice of tiles and pixels, of folds, and of fits; the recipe keeps its own. Same strokes,
        seed and number of tiles give bit-for-bit identical scores, and the same candidates the same choice.
    device
        Where features are computed and classifiers fitted, ``cpu``, ``cuda`` or ``auto``: a GPU if torch
        finds one. Held-out pixels are predicted on the CPU.
    weights_path, offline, storage_options, progress
        As for :func:`hrvol.train_model`.

    Returns
    -------
    TuningResult

    Raises
    ------
    InputError
        A volume or strokes cannot be used (:class:`StrokesError`: shapes differ, or there is one class only).
    WeightsError
        Network weights could not be obtained or do not match the model.
    DeviceError
        ``cuda`` is requested, and there is no GPU.
    """
    began = time.monotonic()
    base = Recipe.load(recipe)
    check_data(pairs, "tune")
    choice = devices.choose_device(device)
    most_tiles = 24 if minutes is None else max(4, round(1.2 * minutes))
    opened = open_pairs(pairs, storage_options)
    base = recipe_for(base, [pair.volume for pair in opened])
    held_out = hold_out(opened, base, seed, most_tiles)
    LOG.info("tune: %s", choice)
    trials = _Trials(
        held_out,
        base,
        seed,
        deadline=math.inf if minutes is None else began + 60 * minutes,
        device=choice.device,
        weights=WeightsSource.of(weights_path, offline),
        progress=progress,
    )
    _try_features_and_scales(trials)
    _try_classifiers(trials)
    _try_views(trials)
    result = choose_recipe(trials.rows, base)
    rows = sorted(trials.rows, key=lambda row: -row.mean)
    return TuningResult(result.chosen.recipe, tuple(rows), result.why, (held_out.description, *trials.notes))


def _try_features_and_scales(trials: _Trials) -> None:
    """Try every kind of features, at several scales where the recipe allows it."""
    base = trials.base
    trials.attempt([of_kind(base, "classical")])
    deep, scale = base.features.deep, base.features.deep.input_scale
    quick = VIEW_BUDGETS[0].of(deep, scale) if interleaves(deep) else deep
    trials.attempt(kinds_with(base, quick))
    if not interleaves(deep):
        return
    for factor in SCALES:
        other = VIEW_BUDGETS[0].of(deep, min(8.0, scale * factor))
        if trials.affords(other):
            trials.attempt(kinds_with(base, other))


def _try_classifiers(trials: _Trials) -> None:
    """Try other classifiers on the best features."""
    best = trials.best().recipe
    for kind in CLASSIFIERS:
        if kind != best.classifier.kind and trials.affords_fits(f"{kind} classifier"):
            spec = best.classifier.model_copy(update={"kind": kind})
            trials.attempt([best.with_(classifier=spec, combine="concatenate")])


def _try_views(trials: _Trials) -> None:
    """Try the current choice, and the best besides, averaged over mirror images, and over turns too."""
    best, chosen = trials.best(), choose_recipe(trials.rows, trials.base).chosen
    if not interleaves(trials.base.features.deep):
        return
    deep = [row for row in trials.rows if row.recipe.features.uses_deep]
    if best not in deep and chosen not in deep:
        trials.notes.append("mirror images and turns not tried: classical features alone score best")
        return
    deep.sort(key=lambda row: (row is not chosen, -row.mean))
    survivors: dict[DeepSpec, list[Recipe]] = {}
    for row in deep[:_SURVIVORS]:
        survivors.setdefault(row.recipe.features.deep, []).append(row.recipe)
    for views in VIEW_BUDGETS[1:]:
        for quick, recipes in survivors.items():
            more = views.of(quick, quick.input_scale)
            if trials.affords(more):
                trials.attempt([recipe.with_(**{"features.deep": more}) for recipe in recipes])


class _Trials:
    """Scores recipes on the same pixels and folds; features and estimators are computed once.

    Attributes
    ----------
    rows, notes
        The candidates tried, in this order, and a line for each that was not.
    """

    def __init__(
        self,
        held_out: HeldOut,
        base: Recipe,
        seed: int,
        *,
        deadline: float,
        device: str,
        weights: WeightsSource,
        progress: ProgressCallback | None,
    ) -> None:
        self.base, self.rows, self.notes = base, list[Row](), list[str]()
        self._held_out, self._seed, self._deadline, self._progress = held_out, seed, deadline, progress
        self._device, self._weights = device, weights
        self._columns: dict[DeepSpec | None, tuple[NDArray[np.float32], float]] = {}
        self._fitted: dict[tuple[Any, ...], PixelClassifier] = {}
        self._seconds_per_work = self._seconds_of_fits = 0.0
        self._planned = self._done = 0

    def best(self) -> Row:
        """Return the row with the highest score, the first of equals."""
        return max(self.rows, key=lambda row: row.mean)

    def affords(self, deep: DeepSpec) -> bool:
        """Whether there is time to try these deep features; if not, a note is added."""
        work = network_work(deep, self._held_out.side)
        return self._affords(
            ", ".join(describe_deep(deep)), self._seconds_per_work * work + self._seconds_of_fits
        )

    def affords_fits(self, name: str) -> bool:
        """Whether there is time for fits as long as the longest so far; if not, a note is added."""
        return self._affords(name, self._seconds_of_fits)

    def _affords(self, name: str, seconds: float) -> bool:
        left = self._deadline - time.monotonic()
        if seconds > left:
            self.notes.append(
                f"{name} not tried: it takes about {duration(seconds)}, and {duration(left)} are left"
            )
        return seconds <= left

    def attempt(self, recipes: Sequence[Recipe]) -> None:
        """Try recipes that share their features, and add a row for each."""
        for recipe in recipes:  # features first, so that the time of fits does not include them
            self._features(recipe.features)
        began = time.monotonic()
        self._planned += len(recipes) * self._held_out.tested
        self.rows += [self._row(recipe) for recipe in recipes]
        self._seconds_of_fits = max(self._seconds_of_fits, time.monotonic() - began)

    def _row(self, recipe: Recipe) -> Row:
        values, seconds = self._features(recipe.features)
        scores = []
        for fold in range(self._held_out.folds.count):
            _, test = self._held_out.folds.split(fold)
            if len(test):
                predicted = self._classifier(recipe, fold).predict(values[test], threads=cpus())
                scores.append(mean_iou_of(self._held_out, predicted, test))
                self._report(len(test))
        classifier = self._classifier(recipe, fold)
        seconds += predict_seconds(classifier, recipe.classifier, values, self._device)
        return Row(recipe, tuple(scores), 1e6 * seconds)

    def _report(self, pixels: int) -> None:
        self._done += pixels
        if self._progress is not None:
            self._progress("cross-validation", self._done, self._planned)

    def _features(self, spec: FeatureSpec) -> tuple[NDArray[np.float32], float]:
        """Return the features ``(n, C)`` of the pixels, and their cost per pixel in seconds."""
        groups = [self._computed(spec.deep)] if spec.uses_deep else []
        groups += [self._computed(None)] if spec.uses_classical else []
        return np.concatenate([values for values, _ in groups], axis=1), sum(seconds for _, seconds in groups)

    def _computed(self, deep: DeepSpec | None) -> tuple[NDArray[np.float32], float]:
        """Return deep features, or classical ones for ``None``, and their cost; each is computed once."""
        if deep in self._columns:
            return self._columns[deep]
        spec = FeatureSpec(
            kind="classical" if deep is None else "deep",
            deep=self.base.features.deep if deep is None else deep,
            classical=self.base.features.classical,
            input=self.base.features.input,
        )
        featuriser = load_features(spec, self._device, self._weights)
        held_out, tiles = self._held_out, self.base.tiles
        check_context(featuriser, [pair.volume for pair in held_out.pairs], tiles)
        name = "classical" if deep is None else ", ".join(describe_deep(deep))
        began = time.monotonic()
        samples = gather(
            held_out.pairs,
            held_out.pixels,
            TileFeatures(featuriser, held_out.window, tiles),
            renamed(self._progress, stage=f"features of strokes: {name}"),
        )
        seconds = time.monotonic() - began
        if deep is not None:
            self._seconds_per_work = seconds / network_work(deep, held_out.side)
        self._columns[deep] = samples.features, seconds / held_out.tiles / held_out.pixels_per_tile
        return self._columns[deep]

    def _classifier(self, recipe: Recipe, fold: int) -> PixelClassifier:
        """Return a recipe's classifier, trained without a fold.

        The members of a product are the three classifiers that are tried anyway.
        """
        features = recipe.features
        if recipe.combine != "product":
            return self._fit(features, recipe.classifier, fold)
        fitted: dict[str, PixelClassifier] = {}
        kinds: Iterable[FeatureKind] = ("classical", "deep", "hybrid")
        for kind in kinds:
            spec = features.model_copy(update={"kind": kind})
            fitted[kind] = self._fit(spec, recipe.classifier, fold)
        deep, total = fitted["deep"].n_features, fitted["hybrid"].n_features
        columns = {"classical": slice(deep, total), "deep": slice(0, deep), "hybrid": slice(0, total)}
        members = tuple(
            Member(kind, columns[kind], classifier.members[0].estimator)
            for kind, classifier in fitted.items()
        )
        return PixelClassifier(recipe.classifier, fitted["hybrid"].classes, total, members)

    def _fit(self, features: FeatureSpec, spec: ClassifierSpec, fold: int) -> PixelClassifier:
        key = (features.kind, features.deep if features.uses_deep else None, spec, fold)
        if key not in self._fitted:
            values, _ = self._features(features)
            train, _ = self._held_out.folds.split(fold)
            labels = self._held_out.pixels.labels[train]
            samples = Samples(values[train], labels, np.zeros(len(train), np.int32))
            self._fitted[key] = PixelClassifier.fit(
                samples,
                trial_spec(spec),
                grey=self._grey(features),
                seed=self._seed,
                n_jobs=cpus(),
                device=self._device,
            )
        return self._fitted[key]

    def _grey(self, features: FeatureSpec) -> tuple[int, ...]:
        """Return the columns of grey values beside deep features, as a featuriser numbers them."""
        if features.kind != "hybrid":
            return ()
        deep, _ = self._computed(features.deep)
        return grey_columns(features.classical, deep.shape[1], colour=features.of_colour)
