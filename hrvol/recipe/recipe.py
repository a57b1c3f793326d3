"""Recipes: everything that decides what a segmentation comes out as, in frozen, hashable specs.

A recipe is read from YAML or taken by a preset's name, checked once, and written whole into every
model file and every output, so that a result can always be made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from hrvol.errors import RecipeError
from hrvol.recipe.specs import (
    ClassifierSpec,
    ClusterSpec,
    Combine,
    CrfSpec,
    DeepSpec,
    FeatureSpec,
    IntensitySpec,
    Spec,
    TileSpec,
)

DEFAULT_BLOCK = 6
"""Whose tokens recipes take unless they say: of 12 blocks, at half the cost of the last."""

CLUSTER_BLOCK = 9
"""Whose tokens tell classes apart without strokes."""

BALANCED = DeepSpec(block=DEFAULT_BLOCK, offsets=2, flips=True)
"""The deep features of a recipe that says nothing of them."""


class Recipe(Spec):
    """All settings of a segmentation; every field has a default (the ``balanced`` preset)."""

    intensity: IntensitySpec = IntensitySpec()
    features: FeatureSpec = FeatureSpec(deep=BALANCED)
    combine: Combine = "concatenate"
    classifier: ClassifierSpec = ClassifierSpec()
    cluster: ClusterSpec = ClusterSpec()
    crf: CrfSpec | None = None
    tiles: TileSpec = TileSpec()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="before")
    @classmethod
    def _deep_section_that_does_not_say(cls, values: Any) -> Any:
        """What a recipe's ``deep`` section does not say is the default recipe's, not the bare network's."""
        features = values.get("features") if isinstance(values, Mapping) else None
        if not isinstance(features, Mapping):
            return values
        deep = features.get("deep", {})
        if not isinstance(deep, Mapping):
            return values
        kept: dict[str, Any] = {"block": BALANCED.block, "flips": BALANCED.flips}
        if deep.get("stride", "native") == "native" and deep.get("placement") != "stretch":
            kept["offsets"] = BALANCED.offsets
        return {**values, "features": {**features, "deep": {**kept, **deep}}}

    @model_validator(mode="after")
    def _product_needs_hybrid(self) -> Self:
        if self.combine == "product" and self.features.kind != "hybrid":
            raise ValueError(f"combine: product needs features.kind: hybrid, got {self.features.kind}")
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "recipe") -> Recipe:
        """Check a nested mapping.

        Parameters
        ----------
        values
            Nested mapping as in a recipe file; missing fields take their defaults.
        source
            Name of the file for error messages.

        Raises
        ------
        RecipeError
            A field is unknown or out of range; the message names it.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            where = (
                ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
                or "top level"
            )
            got = "" if isinstance(first["input"], Mapping) else f" (got {first['input']!r})"
            raise RecipeError(f"{source}: {where}: {first['msg']}{got}") from None

    @classmethod
    def load(cls, source: str | Path | Recipe | None = None) -> Recipe:
        """Return a recipe from a preset's name, a YAML file or a recipe; ``None`` is ``balanced``."""
        if isinstance(source, Recipe):
            return source
        if source is None:
            return PRESETS["balanced"]
        if str(source) in PRESETS:
            return PRESETS[str(source)]
        path = Path(source)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            names = ", ".join(PRESETS)
            raise RecipeError(
                f"{source}: no such recipe file ({error.strerror}); presets are {names}"
            ) from None
        except UnicodeDecodeError:
            raise RecipeError(f"{source}: not a text file; expected a YAML recipe") from None
        try:
            values = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise RecipeError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from None
        if not isinstance(values, dict):
            raise RecipeError(f"{source}: expected a mapping of recipe fields, found {type(values).__name__}")
        return cls.from_dict(values, str(source))

    def to_yaml(self) -> str:
        """Return the whole recipe as YAML that :meth:`load` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None)

    def with_(self, **changes: Any) -> Recipe:
        """Return a checked copy with fields changed, nested ones by dotted name."""
        values = self.to_dict()
        for name, value in changes.items():
            *path, leaf = name.split(".")
            place = values
            for part in path:
                place = place[part]
            place[leaf] = value.to_dict() if isinstance(value, Spec) else value
        return Recipe.from_dict(values)


def _presets() -> dict[str, Recipe]:
    paper_forest = ClassifierSpec(
        kind="forest", trees=200, max_features=2, max_depth=10, min_samples_leaf=1, grey_share=1
    )
    paper_deep = DeepSpec(
        stride=4,
        offsets=1,
        shifts=(1, 2),
        neighbourhood="moore",
        placement="stretch",
        interpolation="nearest",
    )
    return {
        "fast": Recipe(features=FeatureSpec(deep=DeepSpec(block=DEFAULT_BLOCK, offsets=2))),
        "balanced": Recipe(),
        "best": Recipe(features=FeatureSpec(deep=BALANCED.model_copy(update={"rotations": True}))),
        "paper": Recipe(features=FeatureSpec(deep=paper_deep), classifier=paper_forest),
        "classical": Recipe(features=FeatureSpec(kind="classical")),
        "deep": Recipe(features=FeatureSpec(kind="deep", deep=BALANCED)),
        # The paper speaks of cosine distances, its code takes Euclidean ones of unit vectors.
        "cas": Recipe(
            features=FeatureSpec(kind="deep", deep=DeepSpec(block=CLUSTER_BLOCK, offsets=2, flips=True)),
            cluster=ClusterSpec(position_degree=2, distance="euclidean"),
        ),
        "cas-volume": Recipe(
            features=FeatureSpec(kind="deep", deep=DeepSpec(block=CLUSTER_BLOCK, offsets=2)),
            cluster=ClusterSpec(position_degree=6, distance="euclidean"),
        ),
        "cas-paper": Recipe(
            features=FeatureSpec(kind="deep", deep=paper_deep.model_copy(update={"flips": "published"})),
            cluster=ClusterSpec(distance="euclidean"),
        ),
    }


PRESETS: dict[str, Recipe] = _presets()
"""Named recipes. ``balanced`` is the default; ``paper`` has the published settings.

Where classes are found without strokes, ``cas`` is the default for images of one tile, with flips, which
average out some of what tokens know of their position; ``cas-volume`` for larger ones: there the tiles must
agree, so what tells the position is taken off, at a quarter of the cost. ``cas-paper`` has the published
settings.
"""
