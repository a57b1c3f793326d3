"""Define recipes, the settings that determine the result of a segmentation, and read them from YAML.

A recipe is validated once and stored, with all defaults, in every model file and every output, so that a
result can be reproduced.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from hrvol.errors import RecipeError
from hrvol.reading.bounded import read_file
from hrvol.reading.explain import Locate, explain
from hrvol.recipe.marked_yaml import parse_mapping
from hrvol.recipe.spec import Spec, invalid
from hrvol.recipe.specs import (
    ClassifierSpec,
    ClusterSpec,
    Combine,
    CrfSpec,
    DeepSpec,
    FeatureSpec,
    IntensitySpec,
    TileSpec,
)
from hrvol.text import printable

_FILE_BYTES = 2**16  # which take a second to parse; a recipe with all settings has 2 kB

DEFAULT_BLOCK = 6
"""Default layer of the tokens: the sixth of 12 costs half of the last."""

CLUSTER_BLOCK = 9
"""Layer of the tokens for finding classes without strokes."""

BALANCED = DeepSpec(block=DEFAULT_BLOCK, offsets=2, flips=True, rotations=True, weave=1)
"""Default deep features of a recipe."""

MIRRORED = DeepSpec(block=DEFAULT_BLOCK, offsets=2, flips=True)
"""Those of recipes with settings that exclude woven views, or from before there were any."""


class Recipe(Spec):
    """All settings of a segmentation; every field has a default (the ``balanced`` preset).

    Attributes
    ----------
    intensity
        Scaling of grey values.
    features
        Features of a pixel.
    combine
        ``concatenate`` deep and classical features, or multiply the probabilities of a classifier of each and
        one of both (``product``; needs ``features.kind: hybrid``).
    classifier
        Classifier of pixels, trained on strokes.
    cluster
        Settings for finding classes without strokes.
    crf
        Refinement of labels by a dense CRF; null: none.
    tiles
        Tiles and blocks.
    seed
        Seed of all random numbers.
    """

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
    def _complete_deep_section(cls, values: Any) -> Any:
        """Complete ``features.deep`` with the defaults of recipes, which are not those of ``DeepSpec``."""
        features = values.get("features") if isinstance(values, Mapping) else None
        if not isinstance(features, Mapping):
            return values
        deep = features.get("deep", {})
        if not isinstance(deep, Mapping):
            return values
        views = BALANCED if _may_weave(deep) else MIRRORED
        defaults: dict[str, Any] = {"block": views.block, "flips": views.flips}
        defaults |= {"rotations": views.rotations, "weave": views.weave}
        if deep.get("stride", "native") == "native" and deep.get("placement") != "stretch":
            defaults["offsets"] = views.offsets
        return {**values, "features": {**features, "deep": {**defaults, **deep}}}

    @model_validator(mode="after")
    def _product_needs_hybrid(self) -> Self:
        if self.combine == "product" and self.features.kind != "hybrid":
            raise invalid(
                f"found product with features.kind: {self.features.kind}, expected concatenate"
                " (product needs features.kind: hybrid)",
                "combine",
            )
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "recipe") -> Recipe:
        """Validate a nested mapping.

        Parameters
        ----------
        values
            Nested mapping as in a recipe file; missing fields take their defaults.
        source
            Name of the mapping for error messages.

        Raises
        ------
        RecipeError
            A key is unknown, or a value is of the wrong type or out of range. The message has the key path,
            the value found and the values expected, or the nearest key.
        """
        return cls._validated(values, source, None)

    @classmethod
    def load(cls, source: str | Path | Recipe | None = None) -> Recipe:
        """Return a recipe from a preset's name, a YAML file or a recipe; ``None`` is ``balanced``.

        Raises
        ------
        RecipeError
            There is no such preset or file, or the file is no valid recipe. The message starts with
            ``file:line:column``, counted from 1.
        """
        if isinstance(source, Recipe):
            return source
        if source is None:
            return PRESETS["balanced"]
        if str(source) in PRESETS:
            return PRESETS[str(source)]
        if not os.path.lexists(source):
            near = difflib.get_close_matches(str(source), PRESETS, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise RecipeError(
                f"{printable(str(source), 1000)}: no such recipe file or preset; {hint}presets are"
                f" {', '.join(PRESETS)}"
            )
        content = read_file(source, _FILE_BYTES, "a recipe file or preset", RecipeError)
        return cls.from_yaml(content, str(source))

    @classmethod
    def from_yaml(cls, content: bytes, source: str = "recipe") -> Recipe:
        """Return the recipe of the content of a YAML file.

        Raises
        ------
        RecipeError
            It is no valid recipe; the message starts with ``source:line:column``, counted from 1.
        """
        mapping = parse_mapping(content, source)
        return cls._validated(
            mapping.values, source, lambda path, of_key: mapping.position(path, of_key=of_key)
        )

    @classmethod
    def _validated(cls, values: Mapping[str, Any], source: str, locate: Locate | None) -> Recipe:
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise RecipeError(explain(error, cls, source, locate)) from None

    def to_yaml(self) -> str:
        """Return the whole recipe as YAML that :meth:`load` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None)

    def with_(self, **changes: Any) -> Recipe:
        """Return a validated copy with fields changed, nested ones by dotted name."""
        values = self.to_dict()
        for name, value in changes.items():
            *path, leaf = name.split(".")
            section = values
            for key in path:
                section = section[key]
            section[leaf] = value.to_dict() if isinstance(value, Spec) else value
        return Recipe.from_dict(values)


def _may_weave(deep: Mapping[str, Any]) -> bool:
    """Return whether views are woven by default beside these settings.

    Recipes that were completed before there were woven views have ``offsets`` and no ``weave``.
    """
    woven = {"stride": "native", "flips": True, "placement": "aligned", "interpolation": "bilinear"}
    if any(deep.get(name, value) != value for name, value in woven.items()) or deep.get("shifts"):
        return False
    return bool(deep.get("weave", "offsets" not in deep))


def _with(deep: DeepSpec) -> Recipe:
    return Recipe(features=FeatureSpec(deep=deep))


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
        "fast": _with(BALANCED.model_copy(update={"rotations": False})),
        "balanced": Recipe(),
        "best": _with(BALANCED.model_copy(update={"weave": 2})),
        "fast-0.1": _with(MIRRORED.model_copy(update={"flips": False})),
        "balanced-0.1": _with(MIRRORED),
        "best-0.1": _with(MIRRORED.model_copy(update={"rotations": True})),
        "paper": Recipe(features=FeatureSpec(deep=paper_deep), classifier=paper_forest),
        "classical": Recipe(features=FeatureSpec(kind="classical")),
        # Woven, deep features alone lose small precipitates (super1 in benchmarks/quality/presets.md).
        "deep": Recipe(features=FeatureSpec(kind="deep", deep=MIRRORED)),
        # The paper describes cosine distances; its code uses Euclidean distances of unit vectors.
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
        "dinov3": _with(BALANCED.model_copy(update={"weights": "dinov3_vits16"})),
        "dino-saw": _with(BALANCED.model_copy(update={"weights": "dinosaw_vits14_alibi"})),
    }


PRESETS: dict[str, Recipe] = _presets()
"""Named recipes. ``balanced`` is the default; ``paper`` and ``cas-paper`` have the published settings.

Of those for classes without strokes, ``cas`` is the default for images of one tile: its flips average out
some of the tokens' information on position. ``cas-volume`` is for larger images, where tiles must agree: it
subtracts that information, at a quarter of the cost. ``dinov3`` and ``dino-saw`` differ from ``balanced`` by
their network; their quality was not measured.
"""

SUMMARIES: dict[str, str] = {
    "fast": "filters and network, mirror images woven to tokens 7 px apart, 4 passes per tile",
    "balanced": "as fast, averaged over quarter turns, 8 passes (the default)",
    "best": "as balanced, each view twice, 16 passes",
    "fast-0.1": "fast of version 0.1: 4 offsets, 4 passes",
    "balanced-0.1": "balanced of version 0.1: four mirror images at 4 offsets, 16 passes",
    "best-0.1": "best of version 0.1: quarter turns, too, 32 passes",
    "paper": "published settings: tokens 4 px apart, 17 passes, a forest; slow",
    "classical": "filters only: needs no network",
    "deep": "as balanced-0.1, without filters",
    "cas": "classes without strokes, for images of one tile",
    "cas-volume": "classes without strokes, for larger images and volumes",
    "cas-paper": "classes without strokes, published settings; slow",
    "dinov3": "as balanced, with DINOv3 ViT-S/16 (its licence must be accepted); not measured",
    "dino-saw": "as balanced, with dino-saw ViT-S/14, without positional embedding; not measured",
}
"""One line on each preset."""
