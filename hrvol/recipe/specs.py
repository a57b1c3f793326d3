"""The sections of a recipe: frozen, hashable groups of settings, each validated on its own.

The ``Attributes`` of a docstring are the descriptions of fields in the JSON schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from hrvol.recipe.spec import Spec, invalid

FilterName = Literal[
    "gaussian",
    "sobel",
    "hessian",
    "difference_of_gaussians",
    "membrane",
    "mean",
    "minimum",
    "maximum",
    "median",
    "bilateral",
    "derivatives",
    "structure",
    "entropy",
    "neighbours",
]

FeatureKind = Literal["deep", "classical", "hybrid"]

ClassifierKind = Literal["vote", "forest", "logistic", "ridge", "mlp", "boosting"]

Combine = Literal["concatenate", "product"]

MAX_TREES = 5000
"""Most trees of a forest."""

MAX_BOOSTED = 20_000
"""Most trees of boosting, which has one per class in each round; a model file holds no more."""

_Layer = Annotated[int, Field(ge=1, le=100)]

BATCH = 4
"""Images in a forward pass, unless memory is short."""

WEKA_FILTERS: tuple[FilterName, ...] = ("gaussian", "sobel", "hessian", "difference_of_gaussians", "membrane")
"""The default set of Trainable Weka Segmentation, used by the paper (section 3.3)."""


class IntensitySpec(Spec):
    """How grey values are scaled to 0..1: one intensity range for the whole volume.

    Attributes
    ----------
    window
        ``auto`` (8-bit data: 0..255; others: the 0.1 and 99.9 percentiles of a stratified sample), ``dtype``
        (the range of the integer type) or ``[low, high]`` in the volume's own units.
    percentiles
        Two percentiles of the sample, in 0..100, instead of ``window``.
    """

    window: Literal["auto", "dtype"] | tuple[float, float] = "auto"
    percentiles: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if isinstance(self.window, tuple) and not self.window[0] < self.window[1]:
            raise invalid(f"found {list(self.window)}, expected [low, high] with low < high", "window")
        if self.percentiles is not None and not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise invalid(
                f"found {list(self.percentiles)}, expected [low, high] with low < high within 0..100",
                "percentiles",
            )
        return self


class DeepSpec(Spec):
    """How features of a frozen ViT are computed and placed on pixels (paper, section 3.1).

    Attributes
    ----------
    weights
        Name of the network, see ``hrvol weights list``.
    stride
        ``native`` (the patch size) or a smaller stride in pixels (overlapping patches).
    block
        Layer that the tokens are taken from: ``last``, a number from 1, or several numbers (concatenated).
        The network's final norm is applied to each.
    offsets
        Interleaved sub-patch offsets per axis (with ``stride: native``): 4 makes 16 passes whose tokens
        form one grid, a quarter of the patch size apart.
    shifts
        Pixel distances whose shifted views are averaged (the published way).
    neighbourhood
        Directions of the shifts: ``moore`` (8) or ``von_neumann`` (4).
    flips
        ``true`` averages over the four mirror images; ``published`` uses the paper's list (identity,
        left-right, identity, up-down).
    rotations
        ``true`` averages over quarter turns; with ``flips: true`` over all eight symmetries of a square.
    weave
        With ``flips: true`` and ``offsets: 2``: passes of each view, instead of one at every pair of offsets.
        Mirror images at one pair of offsets have their tokens between each other's: together they form one
        grid, of which neighbours are averaged. ``1`` or ``2``; with ``rotations: true`` turned views, at the
        other pair, form a grid of their own. 0: all views are computed at all offsets.
    placement
        ``aligned`` puts each token at the true centre of its patch; ``stretch`` stretches the token grid
        over the image, as published.
    interpolation
        Interpolation between tokens: ``bilinear`` or ``nearest``.
    input_scale
        Factor by which the image is resized before it is passed to the network.
    precision
        Arithmetic of the network; features are float32 in any case.
    """

    weights: Annotated[str, Field(max_length=100)] = "dinov2_vits14"
    stride: Literal["native"] | Annotated[int, Field(ge=1, le=64)] = "native"
    block: Literal["last"] | _Layer | Annotated[tuple[_Layer, ...], Field(max_length=24)] = "last"
    offsets: Annotated[int, Field(ge=1, le=16)] = 4
    shifts: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(max_length=16)] = ()
    neighbourhood: Literal["moore", "von_neumann"] = "moore"
    flips: bool | Literal["published"] = False
    rotations: bool = False
    # Left out where it is 0, so that recipes from before it are written as they were.
    weave: Annotated[int, Field(ge=0, le=2, exclude_if=lambda passes: passes == 0)] = 0
    placement: Literal["aligned", "stretch"] = "aligned"
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    input_scale: Annotated[float, Field(ge=0.05, le=8)] = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    @model_validator(mode="before")
    @classmethod
    def _offsets_only_where_they_apply(cls, values: Any) -> Any:
        """Let strided and stretched recipes leave out ``offsets: 1``."""
        if isinstance(values, Mapping) and "offsets" not in values:
            strided = values.get("stride", "native") != "native"
            if strided or values.get("placement") == "stretch":
                return {**values, "offsets": 1}
        return values

    @model_validator(mode="after")
    def _one_way_to_density(self) -> Self:
        if self.stride != "native" and self.offsets != 1:
            raise invalid(
                f"found {self.offsets}, expected 1 with stride: {self.stride} (more needs stride: native)",
                "offsets",
            )
        if self.placement == "stretch" and self.offsets != 1:
            raise invalid(f"found {self.offsets}, expected 1 with placement: stretch", "offsets")
        if self.placement == "stretch" and self.input_scale != 1:
            raise invalid(f"found {self.input_scale}, expected 1 with placement: stretch", "input_scale")
        if self.rotations and self.flips == "published":
            raise invalid("found published, expected true or false with rotations: true", "flips")
        if self.weave:
            self._check_weave()
        if isinstance(self.block, tuple) and not self.block:
            raise invalid("found an empty list, expected at least one number", "block")
        return self

    def _check_weave(self) -> None:
        """Check that mirror images can form one grid."""
        needed = {
            "flips": (self.flips, True),
            "offsets": (self.offsets, 2),
            "shifts": (self.shifts, ()),
            "placement": (self.placement, "aligned"),
            "interpolation": (self.interpolation, "bilinear"),
        }
        for name, (found, expected) in needed.items():
            if found != expected:
                given = f"found {self.weave} with {name}: {json.dumps(found)}"
                raise invalid(f"{given}, expected {name}: {json.dumps(expected)}", "weave")


class ClassicalSpec(Spec):
    """Classical filters and their scales.

    Attributes
    ----------
    filters
        Names of filters.
    sigmas
        Scales in pixels; by default doubling, as in Weka.
    colour
        Of colour images: filters of the ``luminance``, or of red, green and blue each (``channels``), which
        are three times as many.
    """

    filters: tuple[FilterName, ...] = WEKA_FILTERS
    sigmas: Annotated[tuple[Annotated[float, Field(gt=0, le=64)], ...], Field(max_length=32)] = (
        1,
        2,
        4,
        8,
        16,
    )
    # Left out where it is the default, as are others below, so that recipes from before it are as they were.
    colour: Annotated[Literal["luminance", "channels"], Field(exclude_if=lambda how: how == "luminance")] = (
        "luminance"
    )

    @field_validator("filters")
    @classmethod
    def _not_empty(cls, value: tuple[FilterName, ...]) -> tuple[FilterName, ...]:
        if not value or len(set(value)) != len(value):
            raise invalid(f"found {list(value)}, expected a list of different names")
        return value


class FeatureSpec(Spec):
    """Features of a pixel.

    Attributes
    ----------
    kind
        ``deep`` (of the network), ``classical`` (of filters) or ``hybrid`` (both).
    deep
        Settings of the network's features.
    classical
        Settings of the filters.
    input
        What features are of: ``grey`` or ``colour`` images. Training sets it to what its volumes are.
    """

    kind: FeatureKind = "hybrid"
    deep: DeepSpec = DeepSpec()
    classical: ClassicalSpec = ClassicalSpec()
    input: Annotated[Literal["grey", "colour"], Field(exclude_if=lambda kind: kind == "grey")] = "grey"

    @property
    def uses_deep(self) -> bool:
        """Whether the network is needed."""
        return self.kind != "classical"

    @property
    def uses_classical(self) -> bool:
        """Whether the filter bank is needed."""
        return self.kind != "deep"

    @property
    def of_colour(self) -> bool:
        """Whether they are features of colour images."""
        return self.input == "colour"


class ClassifierSpec(Spec):
    """The pixel classifier. Fields that a kind does not use are ignored.

    Attributes
    ----------
    kind
        ``vote`` is the mean of the probabilities of a forest and a logistic regression.
    class_weight
        ``balanced`` weighs samples so that all classes count the same.
    samples_per_class
        Most labelled pixels of a class that are used; null: all.
    grey_share
        Share of a forest's trees that use grey values (the image, blurred or not, and sums along lines) where
        there are deep features, too; below 1 a logistic regression does not use them. Grey values differ more
        from plane to plane than edges and textures do, so a classifier trained on few planes relies on them
        too much. The other kinds always use them.
    trees
        Number of trees of a forest, or of boosting rounds.
    max_features
        Features tried at each split of a forest: ``sqrt``, ``log2``, a number, a share, or null for all.
    max_depth
        Most levels of a tree; null: no limit.
    min_samples_leaf
        Fewest samples in a leaf.
    learning_rate
        Shrinkage of boosted trees.
    regularisation
        Strength of the penalty of linear models and of the MLP; null: 100 for logistic regression, which
        few strokes and hundreds of features need, 1 for the others.
    hidden
        Sizes of the hidden layers of the MLP.
    max_iter
        Most iterations of the solvers of linear models and of the MLP.
    calibration
        ``temperature`` fits a temperature on strokes that are held out, and applies it to probabilities and
        uncertainty; labels stay. ``none``: probabilities are those of the classifier.
    """

    kind: ClassifierKind = "vote"
    class_weight: Literal["balanced"] | None = "balanced"
    samples_per_class: Annotated[int, Field(ge=1, le=10**8)] | None = 10_000
    grey_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    # forest and boosting
    trees: Annotated[int, Field(ge=1, le=MAX_TREES)] = 200
    max_features: (
        Literal["sqrt", "log2"]
        | Annotated[int, Field(ge=1, le=10**6)]
        | Annotated[float, Field(gt=0, le=10**6)]
        | None
    ) = "sqrt"
    max_depth: Annotated[int, Field(ge=1, le=10_000)] | None = None
    min_samples_leaf: Annotated[int, Field(ge=1, le=10**8)] = 2
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.1
    # linear models and MLP
    regularisation: Annotated[float, Field(ge=1e-12, le=1e12)] | None = None
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=2048)], ...], Field(max_length=8)] = (100, 100, 100)
    max_iter: Annotated[int, Field(ge=1, le=20_000)] = 1000
    # Left out at its default, so that recipes from before it are written as they were.
    calibration: Annotated[
        Literal["none", "temperature"], Field(exclude_if=lambda value: value == "none")
    ] = "none"


class ClusterSpec(Spec):
    """How classes are found without strokes (paper, section 3.2, algorithm 2).

    Attributes
    ----------
    clusters
        Clusters C of the first, fine partition (k-means); ``merge`` or ``classes`` merges them to classes.
    samples
        Pixels on which k-means and the attention of clusters are computed, of ``sample_tiles`` tiles at most.
    sample_tiles
        Most tiles that are passed through the network to find the clusters.
    merge
        Factor lambda on the semantic distance: below 1 merges less, above 1 merges more.
    classes
        Merge until this number of classes remains, instead of up to the semantic distance.
    position_degree
        Degree of the polynomial over a tile that is subtracted from deep features, because it encodes the
        position of a token and not the image's content; 0 subtracts nothing: neighbouring tiles disagree.
    distance
        Distance between centroids: ``cosine``, or ``euclidean`` for features whose length has a meaning.
    bins
        Number of equal bins of the histogram of distances between foreground and background clusters, whose
        mode is the semantic distance. The published code takes 20.
    edge
        Position of the mode in the fullest bin: ``lower``, ``centre`` or ``upper``. The published code takes
        the upper edge.
    """

    clusters: Annotated[int, Field(ge=2, le=4095)] = 80
    samples: Annotated[int, Field(ge=2, le=10**7)] = 50_000
    sample_tiles: Annotated[int, Field(ge=1, le=10_000)] = 16
    merge: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    classes: Annotated[int, Field(ge=1, le=4095)] | None = None
    position_degree: Annotated[int, Field(ge=0, le=12)] = 0
    distance: Literal["cosine", "euclidean"] = "cosine"
    bins: Annotated[int, Field(ge=1, le=10_000)] = 20
    edge: Literal["lower", "centre", "upper"] = "upper"

    @model_validator(mode="after")
    def _enough_clusters(self) -> Self:
        if self.classes is not None and self.classes > self.clusters:
            raise invalid(
                f"found {self.classes}, expected at most the number of clusters, {self.clusters}", "classes"
            )
        return self


class CrfSpec(Spec):
    """Dense CRF that moves borders of labels to edges of the image; defaults as in the paper's code.

    Attributes
    ----------
    sxy_gauss
        Standard deviation of the smoothness kernel in pixels.
    sxy_bilateral
        Standard deviation of the appearance kernel in pixels.
    srgb
        Standard deviation of the appearance kernel in grey values, of 0..255.
    compat_gauss
        Weight of the smoothness kernel.
    compat_bilateral
        Weight of the appearance kernel.
    iterations
        Iterations of the mean-field inference.
    confidence
        Not used; kept so that recipes and models of version 0.1.0 load.
    """

    sxy_gauss: Annotated[float, Field(gt=0, le=1e4)] = 3
    sxy_bilateral: Annotated[float, Field(gt=0, le=1e4)] = 80
    srgb: Annotated[float, Field(gt=0, le=1e4)] = 13
    compat_gauss: Annotated[float, Field(ge=0, le=1e4)] = 10
    compat_bilateral: Annotated[float, Field(ge=0, le=1e4)] = 10
    iterations: Annotated[int, Field(ge=1, le=1000)] = 10
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.6


class TileSpec(Spec):
    """How planes are divided into tiles and blocks.

    A block, the unit of work and of storage, is ``planes`` planes of ``across`` x ``across`` tiles. Every
    pixel has at least ``overlap - blend`` pixels of context: by default 28, the reach of the default filters.

    Attributes
    ----------
    core
        Side in pixels of the square that a tile labels.
    overlap
        Context in pixels that is read around the core.
    blend
        Pixels on either side of the common face of two tiles over which they are blended.
    planes
        Planes of a block.
    across
        Tiles of a block along y and along x.
    overlap_planes
        Planes of context that are read above and below a block: for students that see several planes.
    """

    core: Annotated[int, Field(ge=64, le=16_384)] = 448
    overlap: Annotated[int, Field(ge=0, le=8192)] = 35
    blend: Annotated[int, Field(ge=0, le=8192)] = 7
    planes: Annotated[int, Field(ge=1, le=100_000)] = 64
    across: Annotated[int, Field(ge=1, le=1000)] = 1
    overlap_planes: Annotated[int, Field(ge=0, le=1000, exclude_if=lambda value: value == 0)] = 0

    @model_validator(mode="after")
    def _overlap_fits(self) -> Self:
        if 2 * self.overlap > self.core:
            raise invalid(f"found {self.overlap}, expected at most half of core, {self.core // 2}", "overlap")
        return self
