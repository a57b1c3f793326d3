"""Recipes to try: what is varied of a recipe, what each costs, which of them to take, and how to write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClassifierKind, Combine, DeepSpec, FeatureKind


@dataclass(frozen=True)
class ViewBudget:
    """How much the network does for a pixel.

    Attributes
    ----------
    spacing
        Pixels of the volume between interleaved tokens, about.
    flips, rotations
        Whether features are averaged over the four mirror images, and these over quarter turns.
    """

    spacing: float
    flips: bool = False
    rotations: bool = False

    def of(self, deep: DeepSpec, scale: float) -> DeepSpec:
        """Return deep features at an input scale with this effort."""
        offsets = int(np.clip(round(_PATCH / (scale * self.spacing)), 1, _PATCH))
        views = {"flips": self.flips, "rotations": self.rotations}
        return deep.model_copy(update={"input_scale": scale, "offsets": offsets, **views})


VIEW_BUDGETS = (ViewBudget(7), ViewBudget(7, flips=True), ViewBudget(7, flips=True, rotations=True))
"""Those of ``fast``, ``balanced`` and ``best``."""

SCALES = (0.5, 2.0)
"""Other input scales than the recipe's own, as factors."""

TIE = 0.005
"""A difference in mIoU that no one would see."""

_KINDS: tuple[tuple[FeatureKind, Combine], ...] = (
    ("deep", "concatenate"),
    ("hybrid", "concatenate"),
    ("hybrid", "product"),
)

_PATCH, _CHANNELS = 14, 384

_CLASSIFIER: Mapping[ClassifierKind, float] = {
    "logistic": 1,
    "ridge": 1,
    "mlp": 2,
    "forest": 3,
    "vote": 4,
    "boosting": 5,
}


@dataclass(frozen=True)
class Row:
    """A recipe that was tried.

    Attributes
    ----------
    recipe
        All settings.
    scores
        Mean IoU over classes of the held-out pixels of each fold, 0..1.
    microseconds
        What a pixel of a segmentation costs with it, measured on this machine: features and prediction.
    """

    recipe: Recipe
    scores: tuple[float, ...]
    microseconds: float

    @property
    def name(self) -> str:
        """What is special about the recipe, in words."""
        return describe(self.recipe)

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return float(np.mean(self.scores))

    @property
    def spread(self) -> float:
        """Standard deviation of the scores over folds; 0 of a single one."""
        return _deviation(np.asarray(self.scores))


@dataclass(frozen=True)
class RecipeChoice:
    """The recipe to take, one that scored better, if any, and the difference that the folds cannot tell."""

    chosen: Row
    best: Row
    margin: float

    @property
    def why(self) -> str:
        """The reason, in a sentence."""
        chosen, best = self.chosen, self.best
        found = f"{chosen.name}: mIoU {chosen.mean:.3f} on held-out strokes"
        if chosen is best:
            return f"{found}, the best of what was tried, at {chosen.microseconds:.0f} us per pixel."
        return (
            f"{found}, at {chosen.microseconds:.0f} us per pixel; {best.name} has {best.mean:.3f} at"
            f" {best.microseconds:.0f} us, {best.mean - chosen.mean:.3f} more, and the folds cannot tell"
            f" less than {self.margin:.3f}."
        )


def choose_recipe(rows: Sequence[Row], base: Recipe) -> RecipeChoice:
    """Return the cheapest of the recipes that are as good as the best.

    First it is decided whether to keep the input scale and the classifier of ``base``. Others have to be
    better by two standard errors of the difference: strokes tell little of edges, which coarse tokens blur,
    strokes on few planes little of what differs from plane to plane, which a vote stands best, and the best
    of many is so by luck, too.

    Of what is left a recipe is as good as the best if its mean score is less by at most :data:`TIE`, or by
    one standard error if it costs half as much at most: what is probably better is worth a little more. Folds
    are paired: one that is hard for all recipes says nothing about which is better. What is cheap is decided
    by :func:`price`, because seconds would let noise decide.
    """
    best = _best(rows)
    margin = 0.0
    for level in range(_away(best.recipe, base) + 1):
        near = [row for row in rows if _away(row.recipe, base) <= level]
        if near:
            leader = _best(near)
            lost, margin = _lost(best, leader, 2)
            if lost <= margin:
                break
    tied = []
    for row in near:
        cost = price(row.recipe)
        lost, error = _lost(leader, row, int(2 * cost <= price(leader.recipe)))
        if lost <= error:
            tied.append((_away(row.recipe, base), cost, -row.mean, row, error))
    *_, chosen, error = min(tied, key=lambda entry: entry[:3])
    return RecipeChoice(chosen, best, margin) if chosen is leader else RecipeChoice(chosen, leader, error)


def _best(rows: Sequence[Row]) -> Row:
    """Return the row with the highest score; of equals, the cheapest."""
    return min(rows, key=lambda row: (-row.mean, price(row.recipe)))


def _lost(best: Row, row: Row, errors: int) -> tuple[float, float]:
    """Return by how much a row is behind, and what counts as nothing: so many standard errors, or a tie."""
    lost = np.subtract(best.scores, row.scores)
    return float(lost.mean()), max(TIE, errors * _deviation(lost) / len(lost) ** 0.5)


def _away(recipe: Recipe, base: Recipe) -> int:
    """Return how many of input scale and classifier are others than those of ``base``."""
    features = recipe.features
    elsewhere = features.uses_deep and features.deep.input_scale != base.features.deep.input_scale
    return elsewhere + (recipe.classifier.kind != base.classifier.kind)


def describe(recipe: Recipe) -> str:
    """Return what is varied of a recipe in words, e.g. ``hybrid, scale 0.5, 8 x 8 offsets, forest``."""
    deep = recipe.features.deep
    words: list[str] = [recipe.features.kind]
    if recipe.features.uses_deep:
        words += describe_deep(deep)
    kind = recipe.classifier.kind
    return ", ".join([*words, f"product of {kind}s" if recipe.combine == "product" else kind])


def describe_deep(deep: DeepSpec) -> list[str]:
    """Return what is varied of deep features in words."""
    dense = f"{deep.offsets} x {deep.offsets} offsets" if deep.stride == "native" else f"stride {deep.stride}"
    scale = [f"scale {deep.input_scale:g}"] if deep.input_scale != 1 else []
    views = [word for word, wanted in (("mirrored", deep.flips), ("turned", deep.rotations)) if wanted]
    return [*scale, dense, *([" and ".join(views)] if views else [])]


def interleaves(deep: DeepSpec) -> bool:
    """Whether effort and scale of deep features may be varied: those of published settings may not."""
    published = bool(deep.shifts) or deep.flips == "published"
    return deep.stride == "native" and deep.placement == "aligned" and not published


def of_kind(
    base: Recipe, kind: FeatureKind, combine: Combine = "concatenate", deep: DeepSpec | None = None
) -> Recipe:
    """Return a recipe with another kind of features, and other deep ones unless they are ``None``."""
    changes: dict[str, Any] = {"features.kind": kind, "combine": combine}
    return base.with_(**changes, **({} if deep is None else {"features.deep": deep}))


def kinds_with(base: Recipe, deep: DeepSpec) -> list[Recipe]:
    """Return recipes with all kinds of features that hold these deep ones; of forests also the product."""
    product = base.classifier.kind == "forest" or base.combine == "product"
    return [of_kind(base, kind, combine, deep) for kind, combine in _KINDS if product or combine != "product"]


def network_work(deep: DeepSpec, side: int) -> float:
    """Return the work of the network on a window, in tokens; attention makes each dearer among many.

    Parameters
    ----------
    deep
        Settings. Shifts are not counted, as no two recipes that are tried differ in them.
    side
        Of the window, pixels.
    """
    per_pass = (side * deep.input_scale / (_PATCH if deep.stride == "native" else deep.stride)) ** 2
    views = (1, 4, 8)[bool(deep.flips) + deep.rotations]
    return float(views * deep.offsets**2 * per_pass * (1 + per_pass / (6 * _CHANNELS)))


def price(recipe: Recipe) -> float:
    """Return what a pixel costs, in microseconds on two cores, roughly; only the order counts.

    The same whatever the device: what is chosen is not to depend on where it was tried.
    """
    side = recipe.tiles.core + 2 * recipe.tiles.overlap
    features = recipe.features
    cost = 4 + 600 * network_work(features.deep, side) / side**2 if features.uses_deep else 0.0
    cost += 2 if features.uses_classical else 0
    return float(cost + _CLASSIFIER[recipe.classifier.kind] * (3 if recipe.combine == "product" else 1))


def short_yaml(recipe: Recipe, comment: str) -> str:
    """Return what of a recipe differs from the defaults, as YAML that :meth:`Recipe.load` reads back.

    Parameters
    ----------
    recipe
        The recipe.
    comment
        One or more lines to go before it.
    """
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    changed = _difference(recipe.to_dict(), Recipe().to_dict())
    if not changed:
        return head + "# All settings are the defaults (preset balanced).\n{}\n"
    return head + str(yaml.safe_dump(changed, sort_keys=False, default_flow_style=False))


def _difference(values: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    changed = {}
    for name, value in values.items():
        other = default[name]
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            if part := _difference(value, other):
                changed[name] = part
        elif value != other:
            changed[name] = value
    return changed


def _deviation(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
