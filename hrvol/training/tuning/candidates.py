"""Candidate recipes: vary one, estimate costs, choose by scores and costs, write the choice as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from hrvol.recipe.recipe import MIRRORED, Recipe
from hrvol.recipe.specs import ClassifierKind, Combine, DeepSpec, FeatureKind, FeatureSpec


@dataclass(frozen=True)
class ViewBudget:
    """How many views of a tile the network computes.

    Attributes
    ----------
    spacing
        Approximate distance of interleaved tokens, in pixels of the volume.
    flips, rotations
        Whether features are averaged over the four mirror images, and these over quarter turns.
    weave
        Passes of each mirror image where they can be woven: where two offsets have that distance. Else all
        views are computed at all offsets.
    """

    spacing: float
    flips: bool = False
    rotations: bool = False
    weave: int = 0

    def of(self, deep: DeepSpec, scale: float) -> DeepSpec:
        """Return settings of deep features with these views at an input scale."""
        offsets = int(np.clip(round(_PATCH / (scale * self.spacing)), 1, _PATCH))
        views: dict[str, Any] = {"flips": self.flips, "rotations": self.rotations, "weave": 0}
        if self.weave and offsets == _WOVEN:
            views |= {"flips": True, "weave": self.weave}
        return deep.model_copy(update={"input_scale": scale, "offsets": offsets, **views})


VIEW_BUDGETS = (
    ViewBudget(7, weave=1),
    ViewBudget(7, flips=True, rotations=True, weave=1),
    ViewBudget(7, flips=True, rotations=True, weave=2),
)
"""The views of the presets ``fast``, ``balanced`` and ``best``."""

SCALES = (0.5, 2.0)
"""Factors of the recipe's own input scale that are tried besides it."""

TIE = 0.005
"""A negligible difference in mIoU."""

_KINDS: tuple[tuple[FeatureKind, Combine], ...] = (
    ("deep", "concatenate"),
    ("hybrid", "concatenate"),
    ("hybrid", "product"),
)

_PATCH, _CHANNELS = 14, 384

_WOVEN = 2
"""Offsets along an axis of woven views."""

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
    """Scores and cost of a candidate.

    Attributes
    ----------
    recipe
        All settings.
    scores
        Mean IoU over classes of the held-out pixels of each fold, 0..1.
    microseconds
        Measured time per pixel of a segmentation on this machine: features and prediction.
    """

    recipe: Recipe
    scores: tuple[float, ...]
    microseconds: float

    @property
    def name(self) -> str:
        """The settings that candidates differ in, in words."""
        return describe(self.recipe)

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return float(np.mean(self.scores))

    @property
    def spread(self) -> float:
        """Standard deviation of the scores over folds; 0 for a single fold."""
        return _deviation(np.asarray(self.scores))


@dataclass(frozen=True)
class RecipeChoice:
    """The chosen candidate, the better one it was preferred to (if any), and the insignificant difference."""

    chosen: Row
    best: Row
    margin: float

    @property
    def why(self) -> str:
        """The reason, in a sentence."""
        chosen, best = self.chosen, self.best
        result = f"{chosen.name}: mIoU {chosen.mean:.3f} on held-out strokes"
        if chosen is best:
            return f"{result}, the best of all candidates, at {chosen.microseconds:.0f} us per pixel."
        return (
            f"{result}, at {chosen.microseconds:.0f} us per pixel; {best.name} has {best.mean:.3f} at"
            f" {best.microseconds:.0f} us, {best.mean - chosen.mean:.3f} more, which is within the"
            f" margin of {self.margin:.3f}."
        )


def choose_recipe(rows: Sequence[Row], base: Recipe) -> RecipeChoice:
    """Choose the cheapest of the candidates that score as well as the best.

    First decide whether to keep the input scale and the classifier of ``base``: others must be better by two
    standard errors of the difference. Strokes show little of edges, which coarse tokens blur; strokes on few
    planes show little of the differences between planes, which a vote tolerates best; and the best of many
    candidates is partly lucky.

    A remaining candidate scores as well as the best if its mean is lower by at most :data:`TIE`, or by one
    standard error if it costs at most half as much. Differences are taken fold by fold, because a fold may be
    hard for all candidates. Costs are those of :func:`price`: measured times would make the choice depend on
    noise.
    """
    best = _best(rows)
    margin = 0.0
    for level in range(_changes(best.recipe, base) + 1):
        near = [row for row in rows if _changes(row.recipe, base) <= level]
        if near:
            leader = _best(near)
            deficit, margin = _deficit(best, leader, 2)
            if deficit <= margin:
                break
    tied = []
    for row in near:
        cost = price(row.recipe)
        deficit, error = _deficit(leader, row, int(2 * cost <= price(leader.recipe)))
        if deficit <= error:
            tied.append((_changes(row.recipe, base), cost, -row.mean, row, error))
    *_, chosen, error = min(tied, key=lambda entry: entry[:3])
    return RecipeChoice(chosen, best, margin) if chosen is leader else RecipeChoice(chosen, leader, error)


def _best(rows: Sequence[Row]) -> Row:
    """Return the row with the highest score; of equals, the cheapest."""
    return min(rows, key=lambda row: (-row.mean, price(row.recipe)))


def _deficit(best: Row, row: Row, errors: int) -> tuple[float, float]:
    """Return how much lower a row scores, and the insignificant difference: ``errors`` standard errors."""
    differences = np.subtract(best.scores, row.scores)
    margin = errors * _deviation(differences) / len(differences) ** 0.5
    return float(differences.mean()), max(TIE, margin)


def _changes(recipe: Recipe, base: Recipe) -> int:
    """Return how many of input scale and classifier differ from ``base``."""
    features = recipe.features
    scaled = features.uses_deep and features.deep.input_scale != base.features.deep.input_scale
    return scaled + (recipe.classifier.kind != base.classifier.kind)


def describe(recipe: Recipe) -> str:
    """Describe the settings that candidates differ in, e.g. ``hybrid, scale 0.5, 8 x 8 offsets, forest``."""
    deep = recipe.features.deep
    words: list[str] = [recipe.features.kind]
    if recipe.features.uses_deep:
        words += describe_deep(deep)
    kind = recipe.classifier.kind
    return ", ".join([*words, f"product of {kind}s" if recipe.combine == "product" else kind])


def describe_deep(deep: DeepSpec) -> list[str]:
    """Describe the settings of deep features that candidates differ in."""
    dense = f"{deep.offsets} x {deep.offsets} offsets" if deep.stride == "native" else f"stride {deep.stride}"
    dense = ("woven", "woven twice")[deep.weave - 1] if deep.weave else dense
    scale = [f"scale {deep.input_scale:g}"] if deep.input_scale != 1 else []
    views = [word for word, averaged in (("mirrored", deep.flips), ("turned", deep.rotations)) if averaged]
    return [*scale, dense, *([" and ".join(views)] if views else [])]


def interleaves(deep: DeepSpec) -> bool:
    """Whether views and scale of deep features may be varied; those of published settings may not."""
    published = bool(deep.shifts) or deep.flips == "published"
    return deep.stride == "native" and deep.placement == "aligned" and not published


def of_kind(
    base: Recipe, kind: FeatureKind, combine: Combine = "concatenate", deep: DeepSpec | None = None
) -> Recipe:
    """Return a recipe with another kind of features, and other deep features unless these are ``None``."""
    changes: dict[str, Any] = {"features.kind": kind, "combine": combine}
    return base.with_(**changes, **({} if deep is None else {"features.deep": deep}))


def kinds_with(base: Recipe, deep: DeepSpec) -> list[Recipe]:
    """Return candidates with all kinds of features that include these deep ones."""
    product = base.classifier.kind == "forest" or base.combine == "product"
    return [of_kind(base, kind, combine, deep) for kind, combine in _KINDS if product or combine != "product"]


def network_work(deep: DeepSpec, side: int) -> float:
    """Estimate the work of the network on a tile, in tokens; attention adds a term quadratic in tokens.

    Parameters
    ----------
    deep
        Settings of deep features. Shifts are not counted: candidates do not differ in them.
    side
        Side of the tile, context included, in pixels.
    """
    per_pass = (side * deep.input_scale / (_PATCH if deep.stride == "native" else deep.stride)) ** 2
    views = (1, 4, 8)[bool(deep.flips) + deep.rotations]
    each = deep.weave or deep.offsets**2
    return float(views * each * per_pass * (1 + per_pass / (6 * _CHANNELS)))


def price(recipe: Recipe) -> float:
    """Estimate the cost per pixel in microseconds on two cores, roughly; only the order matters.

    It is the same on every device, so that the choice does not depend on the machine.
    """
    side = recipe.tiles.core + 2 * recipe.tiles.overlap
    features = recipe.features
    cost = 4 + 600 * network_work(features.deep, side) / side**2 if features.uses_deep else 0.0
    cost += 2 if features.uses_classical else 0
    return float(cost + _CLASSIFIER[recipe.classifier.kind] * (3 if recipe.combine == "product" else 1))


def short_yaml(recipe: Recipe, comment: str) -> str:
    """Return the settings that differ from the defaults, as YAML that :meth:`Recipe.load` reads back.

    Parameters
    ----------
    recipe
        The recipe.
    comment
        One or more lines, written before it.
    """
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    woven = bool(recipe.features.deep.weave)
    default = Recipe() if woven else Recipe(features=FeatureSpec(deep=MIRRORED))
    changed = _difference(recipe.to_dict(), default.to_dict())
    if not woven:
        changed = {**changed, "features": {**changed.get("features", {})}}
        changed["features"]["deep"] = {**changed["features"].get("deep", {}), "weave": 0}
    if not changed:
        return head + "# All settings are the defaults (preset balanced).\n{}\n"
    return head + str(yaml.safe_dump(changed, sort_keys=False, default_flow_style=False))


def _difference(values: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    changed = {}
    for name, value in values.items():
        other = default.get(name)  # left out at its default
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            if nested := _difference(value, other):
                changed[name] = nested
        elif value != other:
            changed[name] = value
    return changed


def _deviation(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
