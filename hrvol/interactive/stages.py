"""The stages of a preview, coarse to fine: filters, a fast network, the recipe's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hrvol.interactive.results import StageName
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import DeepSpec, FeatureSpec

_FAST_OFFSETS = 2


@dataclass(frozen=True)
class Stage:
    """Features from which a preview is made.

    Attributes
    ----------
    name
        ``filters``, ``fast`` or ``recipe``.
    features
        The features.
    """

    name: StageName
    features: FeatureSpec


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """Return the stages of a recipe, the coarsest first; the last one has the recipe's own features."""
    features = recipe.features
    last = Stage("recipe", features)
    if not features.uses_deep:
        return (last,)
    filters = Stage("filters", features.model_copy(update={"kind": "classical", "deep": DeepSpec()}))
    fast = features.model_copy(update={"deep": fast_features(features.deep)})
    if fast == features:
        return filters, last
    return filters, Stage("fast", fast), last


def fast_features(deep: DeepSpec) -> DeepSpec:
    """Return deep features of the same network, layer and scale that take four passes at most."""
    offsets = min(deep.offsets, _FAST_OFFSETS) if deep.stride == "native" else _FAST_OFFSETS
    woven: dict[str, Any] = {"flips": True, "weave": 1} if offsets == _FAST_OFFSETS else {}
    return DeepSpec(
        weights=deep.weights,
        block=deep.block,
        offsets=offsets,
        input_scale=deep.input_scale,
        precision=deep.precision,
        **woven,
    )
