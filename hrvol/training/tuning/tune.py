"""A recipe chosen on the user's own strokes: cross-validation of candidates, the cheap ones first."""

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
from hrvol.errors import UsageError
from hrvol.features.filters.bank import grey_columns
from hrvol.files import text
from hrvol.progress import ProgressCallback, duration, renamed
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClassifierKind, ClassifierSpec, DeepSpec, FeatureKind, FeatureSpec
from hrvol.segment.pixel_classifier import Member, PixelClassifier
from hrvol.segment.strokes import Samples
from hrvol.training.strokes import TrainingPair, check_context, check_pairs, gather
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
from hrvol.training.tuning.cost import asking_seconds, on_trial
from hrvol.training.tuning.held_out import HeldOut, hold_out, mean_iou_of
from hrvol.volume.storage.location import located
from hrvol.volume.volume import open_labels, open_volume

LOG = logging.getLogger("hrvol.run")

AUTO = "auto"
"""In place of a recipe: choose_recipe one."""

CLASSIFIERS: tuple[ClassifierKind, ...] = ("vote", "forest", "logistic", "mlp")
"""Kinds tried on the best features, besides the recipe's own."""

_SURVIVORS = 2


@dataclass(frozen=True)
class TuningResult:
    """A recipe, and how it was chosen.

    Attributes
    ----------
    recipe
        To train with.
    rows
        All that was tried, the best first.
    why
        Why this one, in a sentence or two.
    notes
        What was held out, and what was not tried for want of time or hope: a line each.
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
        """Return what of the recipe differs from the defaults, as YAML, with the reason as a comment."""
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

    Classical features first, then deep ones and hybrids (of forests also the product of three) with tokens
    7 pixels apart, at the recipe's input scale, half of it and twice; other classifiers on the best of these;
    then what is best averaged over mirror images, and over quarter turns too. Of those that the folds cannot
    tell from the best, the cheapest is chosen; see :func:`hrvol.training.tuning.candidates.choose_recipe`.
    Forests on trial have 50 trees at most.

    Each tile is read, and each pixel seen, as in training. Only some tiles are: at least 4, and 1.2 for each
    minute, that show the most strokes of all classes and lie in many planes.

    Parameters
    ----------
    pairs
        Pairs of a volume and its strokes, as for :func:`hrvol.training.train.train_model`.
    recipe
        What is not varied is taken from it: window, tiles, network, block, filters, the classifier's
        settings, seed. A recipe, its file, or a preset's name; ``None`` for ``balanced``.
    minutes
        Time to take, about: what would take longer than is left, by what was measured so far, is not tried.
        So a slower machine may choose_recipe among fewer recipes. ``None``: no limit, and 24 tiles. Classical
        features and the first deep ones are always tried.
    seed
        Of the choice of tiles and pixels, of folds, and of fits. The recipe keeps its own. With the same
        strokes, seed and number of tiles, the scores of a recipe are the same bits, and of the same recipes
        tried the same is chosen.
    device
        Where features are made and classifiers fitted, ``cpu``, ``cuda`` or ``auto``: a GPU where torch sees
        one. What is held out is predicted on the CPU.
    weights_path, offline, storage_options, progress
        As for :func:`hrvol.training.train.train_model`.

    Returns
    -------
    TuningResult

    Raises
    ------
    InputError
        A volume or strokes cannot be used (:class:`StrokesError`: they do not fit, or have one class only).
    WeightsError
        The network's weights are not to be had.
    DeviceError
        A GPU is wanted, and there is none.
    """
    began = time.monotonic()
    base = Recipe.load(recipe)
    if not pairs:
        raise UsageError("tune: found no volumes, expected pairs of a volume and its strokes")
    where = devices.choose_device(device)
    drawn = [
        TrainingPair(
            open_volume(located(volume, storage_options)), open_labels(located(strokes, storage_options))
        )
        for volume, strokes in pairs
    ]
    check_pairs(drawn)
    held_out = hold_out(drawn, base, seed, 24 if minutes is None else max(4, round(1.2 * minutes)))
    LOG.info("tune: %s", where)
    trials = _Trials(
        held_out,
        base,
        seed,
        ends=math.inf if minutes is None else began + 60 * minutes,
        device=where.device,
        weights_path=text(weights_path),
        offline=offline,
        progress=progress,
    )
    _features_and_scales(trials)
    _classifiers(trials)
    _efforts(trials)
    choice = choose_recipe(trials.rows, base)
    rows = sorted(trials.rows, key=lambda row: -row.mean)
    return TuningResult(choice.chosen.recipe, tuple(rows), choice.why, (held_out.how, *trials.notes))


def _features_and_scales(trials: _Trials) -> None:
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


def _classifiers(trials: _Trials) -> None:
    """Try other classifiers on the best features."""
    best = trials.best().recipe
    for kind in CLASSIFIERS:
        if kind != best.classifier.kind and trials.affords_fits(f"{kind} classifier"):
            spec = best.classifier.model_copy(update={"kind": kind})
            trials.attempt([best.with_(classifier=spec, combine="concatenate")])


def _efforts(trials: _Trials) -> None:
    """Try what would be chosen, and the best besides, averaged over mirror images, and over turns too."""
    best, chosen = trials.best(), choose_recipe(trials.rows, trials.base).chosen
    if not interleaves(trials.base.features.deep):
        return
    deep = [row for row in trials.rows if row.recipe.features.uses_deep]
    if best not in deep and chosen not in deep:
        trials.notes.append("mirror images and turns not tried: classical features alone are ahead")
        return
    deep.sort(key=lambda row: (row is not chosen, -row.mean))
    survivors: dict[DeepSpec, list[Recipe]] = {}
    for row in deep[:_SURVIVORS]:
        survivors.setdefault(row.recipe.features.deep, []).append(row.recipe)
    for effort in VIEW_BUDGETS[1:]:
        for quick, recipes in survivors.items():
            more = effort.of(quick, quick.input_scale)
            if trials.affords(more):
                trials.attempt([recipe.with_(**{"features.deep": more}) for recipe in recipes])


class _Trials:
    """Tries recipes on the same pixels and folds; features and estimators are computed once.

    Attributes
    ----------
    rows, notes
        What was tried, in this order; and what was not.
    """

    def __init__(
        self,
        held_out: HeldOut,
        base: Recipe,
        seed: int,
        *,
        ends: float,
        device: str,
        weights_path: str | None,
        offline: bool,
        progress: ProgressCallback | None,
    ) -> None:
        self.base, self.rows, self.notes = base, list[Row](), list[str]()
        self._held_out, self._seed, self._ends, self._progress = held_out, seed, ends, progress
        self._device = device
        self._weights: dict[str, Any] = {"weights_path": weights_path, "offline": offline}
        self._columns: dict[DeepSpec | None, tuple[NDArray[np.float32], float]] = {}
        self._fitted: dict[tuple[Any, ...], PixelClassifier] = {}
        self._pace = self._fits = 0.0
        self._planned = self._done = 0

    def best(self) -> Row:
        """Return the row with the highest score, the first of equals."""
        return max(self.rows, key=lambda row: row.mean)

    def affords(self, deep: DeepSpec) -> bool:
        """Whether these deep features can be tried in the time left; if not, it is noted."""
        work = network_work(deep, self._held_out.side)
        return self._affords(", ".join(describe_deep(deep)), self._pace * work + self._fits)

    def affords_fits(self, what: str) -> bool:
        """Whether there is time left for fits as long as the last ones; if not, it is noted."""
        return self._affords(what, self._fits)

    def _affords(self, what: str, seconds: float) -> bool:
        left = self._ends - time.monotonic()
        if seconds > left:
            taking = f"it takes about {duration(seconds)}, and {duration(left)} are left"
            self.notes.append(f"{what} not tried: {taking}")
        return seconds <= left

    def attempt(self, recipes: Sequence[Recipe]) -> None:
        """Try recipes that share their features, and add a row for each."""
        for recipe in recipes:  # features first, so that the time of fits is theirs alone
            self._features(recipe.features)
        began = time.monotonic()
        self._planned += len(recipes) * self._held_out.tested
        self.rows += [self._row(recipe) for recipe in recipes]
        self._fits = max(self._fits, time.monotonic() - began)

    def _row(self, recipe: Recipe) -> Row:
        values, seconds = self._features(recipe.features)
        scores = []
        for fold in range(self._held_out.folds.count):
            _, test = self._held_out.folds.split(fold)
            if len(test):
                predicted = self._classifier(recipe, fold).predict(values[test], threads=cpus())
                scores.append(mean_iou_of(self._held_out, predicted, test))
                self._report(len(test))
        tried = self._classifier(recipe, fold)
        seconds += asking_seconds(tried, recipe.classifier, values, self._device)
        return Row(recipe, tuple(scores), 1e6 * seconds)

    def _report(self, pixels: int) -> None:
        self._done += pixels
        if self._progress is not None:
            self._progress("cross-validation", self._done, self._planned)

    def _features(self, spec: FeatureSpec) -> tuple[NDArray[np.float32], float]:
        """Return features ``(n, C)`` of the pixels, and the seconds that a pixel of a segmentation costs."""
        parts = [self._gathered(spec.deep)] if spec.uses_deep else []
        parts += [self._gathered(None)] if spec.uses_classical else []
        return np.concatenate([values for values, _ in parts], axis=1), sum(seconds for _, seconds in parts)

    def _gathered(self, deep: DeepSpec | None) -> tuple[NDArray[np.float32], float]:
        """Return deep features, or classical ones, and their cost; each is computed once."""
        from hrvol.features.featuriser import load_featuriser  # torch: only where features are made

        if deep in self._columns:
            return self._columns[deep]
        features = self.base.features
        spec = FeatureSpec(
            kind="classical" if deep is None else "deep",
            deep=features.deep if deep is None else deep,
            classical=features.classical,
        )
        featuriser = load_featuriser(spec, device=self._device, **self._weights)
        held_out, tiles = self._held_out, self.base.tiles
        check_context(featuriser, [pair.volume for pair in held_out.pairs], tiles)
        name = "classical" if deep is None else ", ".join(describe_deep(deep))
        began = time.monotonic()
        samples = gather(
            held_out.pairs,
            held_out.positions,
            featuriser,
            held_out.window,
            tiles,
            renamed(self._progress, stage=f"features of strokes: {name}"),
        )
        took = time.monotonic() - began
        if deep is not None:
            self._pace = took / network_work(deep, held_out.side)
        self._columns[deep] = samples.features, took / held_out.windows / held_out.pixels_per_window
        return self._columns[deep]

    def _classifier(self, recipe: Recipe, fold: int) -> PixelClassifier:
        """Return a recipe's classifier as trained without a fold.

        The product's members are the three classifiers that are tried anyway.
        """
        features = recipe.features
        if recipe.combine != "product":
            return self._fit(features, recipe.classifier, fold)
        parts: dict[str, PixelClassifier] = {}
        kinds: Iterable[FeatureKind] = ("classical", "deep", "hybrid")
        for kind in kinds:
            part = features.model_copy(update={"kind": kind})
            parts[kind] = self._fit(part, recipe.classifier, fold)
        deep, total = parts["deep"].n_features, parts["hybrid"].n_features
        columns = {"classical": slice(deep, total), "deep": slice(0, deep), "hybrid": slice(0, total)}
        members = tuple(
            Member(kind, columns[kind], part.members[0].estimator) for kind, part in parts.items()
        )
        return PixelClassifier(recipe.classifier, parts["hybrid"].classes, total, members)

    def _fit(self, features: FeatureSpec, spec: ClassifierSpec, fold: int) -> PixelClassifier:
        key = (features.kind, features.deep if features.uses_deep else None, spec, fold)
        if key not in self._fitted:
            values, _ = self._features(features)
            train, _ = self._held_out.folds.split(fold)
            labels = self._held_out.positions.labels[train]
            samples = Samples(values[train], labels, np.zeros(len(train), np.int32))
            self._fitted[key] = PixelClassifier.fit(
                samples,
                on_trial(spec),
                grey=self._grey(features),
                seed=self._seed,
                n_jobs=cpus(),
                device=self._device,
            )
        return self._fitted[key]

    def _grey(self, features: FeatureSpec) -> tuple[int, ...]:
        """Return the columns of grey values beside deep features, as a featuriser has them."""
        if features.kind != "hybrid":
            return ()
        deep, _ = self._gathered(features.deep)
        return grey_columns(features.classical, deep.shape[1])
