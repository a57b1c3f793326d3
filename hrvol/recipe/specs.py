"""The sections of a recipe: frozen, hashable groups of settings, each checked on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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

BATCH = 4
"""Images that the network sees at once, unless memory is short."""

WEKA_FILTERS: tuple[FilterName, ...] = ("gaussian", "sobel", "hessian", "difference_of_gaussians", "membrane")
"""The default set of Trainable Weka Segmentation, used by the paper (section 3.3)."""


class Spec(BaseModel):
    """A frozen, hashable group of settings that round-trips through a dict."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values only, ready for JSON or YAML."""
        return self.model_dump(mode="json")


class IntensitySpec(Spec):
    """How grey values become [0, 1]: one frozen window for the whole volume.

    ``window`` is ``auto`` (8-bit data: 0..255; others: the 0.1 and 99.9 percentiles of a stratified
    sample), ``dtype`` (the range of the integer type) or ``[lo, hi]`` in the volume's own units.
    ``percentiles`` overrides it with two percentiles of the sample, in 0..100.
    """

    window: Literal["auto", "dtype"] | tuple[float, float] = "auto"
    percentiles: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if isinstance(self.window, tuple) and not self.window[0] < self.window[1]:
            raise ValueError(f"window must be [low, high] with low < high, got {list(self.window)}")
        if self.percentiles is not None and not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles must rise within 0..100, got {list(self.percentiles)}")
        return self


class DeepSpec(Spec):
    """How features are taken from a frozen ViT and put on pixels (paper, section 3.1).

    Attributes
    ----------
    weights
        Name of the network, see ``hrvol weights list``.
    stride
        ``native`` (the patch size) or a smaller stride in pixels (overlapping patches).
    block
        Whose tokens: ``last``, a block number from 1, or several numbers (concatenated). The network's
        final norm is applied to each.
    offsets
        Interleaved sub-patch offsets per axis (with ``stride: native``): 4 gives 16 passes whose tokens
        fill one grid of spacing P/4.
    shifts
        Pixel distances whose shifted views are averaged (the published way).
    neighbourhood
        Directions of the shifts: ``moore`` (8) or ``von_neumann`` (4).
    flips
        ``true`` averages over the four mirror images; ``published`` uses the paper's list (identity,
        left-right, identity, up-down).
    rotations
        Averages over quarter turns; with ``flips: true`` over all eight symmetries of a square.
    placement
        ``aligned`` puts each token at the true centre of its patch; ``stretch`` stretches the token grid
        over the image, as published.
    interpolation
        Between tokens: ``bilinear`` or ``nearest``.
    input_scale
        The image is resized by this factor before the network sees it.
    precision
        Arithmetic of the network; features always come out in float32.
    """

    weights: str = "dinov2_vits14"
    stride: Literal["native"] | Annotated[int, Field(ge=1)] = "native"
    block: Literal["last"] | Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...] = "last"
    offsets: Annotated[int, Field(ge=1, le=16)] = 4
    shifts: tuple[Annotated[int, Field(ge=1)], ...] = ()
    neighbourhood: Literal["moore", "von_neumann"] = "moore"
    flips: bool | Literal["published"] = False
    rotations: bool = False
    placement: Literal["aligned", "stretch"] = "aligned"
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    input_scale: Annotated[float, Field(gt=0, le=8)] = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    @model_validator(mode="before")
    @classmethod
    def _offsets_only_where_they_apply(cls, values: Any) -> Any:
        """Strided and stretched recipes need not say ``offsets: 1``."""
        if isinstance(values, Mapping) and "offsets" not in values:
            strided = values.get("stride", "native") != "native"
            if strided or values.get("placement") == "stretch":
                return {**values, "offsets": 1}
        return values

    @model_validator(mode="after")
    def _one_way_to_density(self) -> Self:
        if self.stride != "native" and self.offsets != 1:
            raise ValueError(
                f"offsets: {self.offsets} needs stride: native; with stride: {self.stride} use 1"
            )
        if self.placement == "stretch" and self.offsets != 1:
            raise ValueError("placement: stretch cannot interleave; use offsets: 1")
        if self.placement == "stretch" and self.input_scale != 1:
            raise ValueError(f"placement: stretch needs input_scale: 1, got {self.input_scale}")
        if self.rotations and self.flips == "published":
            raise ValueError("rotations: true needs flips: true or false, got published")
        if isinstance(self.block, tuple) and not self.block:
            raise ValueError("block needs at least one number")
        return self


class ClassicalSpec(Spec):
    """Which classical filters, at which scales (pixels; doubling, as in Weka)."""

    filters: tuple[FilterName, ...] = WEKA_FILTERS
    sigmas: tuple[Annotated[float, Field(gt=0, le=64)], ...] = (1, 2, 4, 8, 16)

    @field_validator("filters")
    @classmethod
    def _not_empty(cls, value: tuple[FilterName, ...]) -> tuple[FilterName, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError(f"filters must be a list of different names, got {list(value)}")
        return value


class FeatureSpec(Spec):
    """Which features a pixel gets: ``deep``, ``classical`` or both (``hybrid``)."""

    kind: FeatureKind = "hybrid"
    deep: DeepSpec = DeepSpec()
    classical: ClassicalSpec = ClassicalSpec()

    @property
    def uses_deep(self) -> bool:
        """Whether the network is needed."""
        return self.kind != "classical"

    @property
    def uses_classical(self) -> bool:
        """Whether the filter bank is needed."""
        return self.kind != "deep"


class ClassifierSpec(Spec):
    """The pixel classifier. Fields that a kind does not know are ignored by it.

    Attributes
    ----------
    kind
        ``vote`` is the mean of a forest's and a logistic regression's probabilities.
    class_weight
        ``balanced`` weighs samples so that all classes count the same.
    samples_per_class
        Most labelled pixels of a class that are used; null: all.
    grey_share
        Where there are deep features besides, the share of a forest's trees that look at grey values
        themselves (the image, blurred or not, and sums along lines); below 1 a logistic regression does not
        look at them. They differ from plane to plane more than edges and textures do, and who has seen
        strokes on few planes trusts them too much. The other kinds always look at them.
    trees, max_features, max_depth, min_samples_leaf, learning_rate
        Of a forest, or of boosted trees.
    regularisation
        Strength of the penalty of linear models and of the MLP; null: 100 for logistic regression, which
        few strokes and hundreds of features need, 1 for the others.
    hidden, max_iter
        Of the MLP, and of its and the linear models' solvers.
    """

    kind: ClassifierKind = "vote"
    class_weight: Literal["balanced"] | None = "balanced"
    samples_per_class: Annotated[int, Field(ge=1)] | None = 10_000
    grey_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    # forest and boosting
    trees: Annotated[int, Field(ge=1)] = 200
    max_features: Literal["sqrt", "log2"] | int | float | None = "sqrt"
    max_depth: Annotated[int, Field(ge=1)] | None = None
    min_samples_leaf: Annotated[int, Field(ge=1)] = 2
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    # linear models and MLP
    regularisation: Annotated[float, Field(gt=0)] | None = None
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (100, 100, 100)
    max_iter: Annotated[int, Field(ge=1)] = 1000


class ClusterSpec(Spec):
    """How classes are found where nothing is drawn (paper, section 3.2, algorithm 2).

    Attributes
    ----------
    clusters
        Clusters C of the first, fine partition (k-means); ``merge`` or ``classes`` makes classes of them.
    samples
        Pixels that k-means and the attention of clusters are measured on, spread over ``sample_tiles`` tiles
        at most.
    sample_tiles
        Tiles that the network sees to find the clusters.
    merge
        Factor lambda on the semantic distance: below 1 merges less, above 1 merges more.
    classes
        Merge until so many classes are left, instead of up to the semantic distance.
    position_degree
        Degree of the polynomial over the window that is taken off deep features, because it tells where in
        the window a token lies and not what it shows; 0 leaves it in. Without it neighbouring tiles disagree.
    distance
        Between centroids: ``cosine``, or ``euclidean`` for features whose length has a meaning.
    bins, edge
        The semantic distance is the mode of the distances between foreground and background clusters:
        the ``lower`` or ``upper`` edge, or the ``centre``, of the fullest of so many equal bins. The
        published code takes 20 bins and the upper edge.
    """

    clusters: Annotated[int, Field(ge=2, le=4095)] = 80
    samples: Annotated[int, Field(ge=2)] = 50_000
    sample_tiles: Annotated[int, Field(ge=1)] = 16
    merge: Annotated[float, Field(gt=0)] = 1.0
    classes: Annotated[int, Field(ge=1)] | None = None
    position_degree: Annotated[int, Field(ge=0, le=12)] = 0
    distance: Literal["cosine", "euclidean"] = "cosine"
    bins: Annotated[int, Field(ge=1)] = 20
    edge: Literal["lower", "centre", "upper"] = "upper"

    @model_validator(mode="after")
    def _enough_clusters(self) -> Self:
        if self.classes is not None and self.classes > self.clusters:
            raise ValueError(
                f"classes: found {self.classes}, expected at most the number of clusters, {self.clusters}"
            )
        return self


class CrfSpec(Spec):
    """Dense CRF that draws labels towards edges of the image; defaults as in the paper's code.

    Attributes
    ----------
    sxy_gauss, sxy_bilateral
        Standard deviations in pixels of the smoothness and of the appearance kernel.
    srgb
        Standard deviation of the appearance kernel in grey values, of 0..255.
    compat_gauss, compat_bilateral
        Weights of the two kernels.
    iterations
        Of the mean-field inference.
    confidence
        How far labels without probabilities are trusted, in 0..1.
    """

    sxy_gauss: Annotated[float, Field(gt=0, le=1e4)] = 3
    sxy_bilateral: Annotated[float, Field(gt=0, le=1e4)] = 80
    srgb: Annotated[float, Field(gt=0, le=1e4)] = 13
    compat_gauss: Annotated[float, Field(ge=0, le=1e4)] = 10
    compat_bilateral: Annotated[float, Field(ge=0, le=1e4)] = 10
    iterations: Annotated[int, Field(ge=1)] = 10
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.6


class TileSpec(Spec):
    """How planes are cut: pixels and planes.

    ``core`` is the side of the square a tile owns, ``overlap`` the context read around it. A block, the
    unit of work and of storage, is ``planes`` planes of ``across`` x ``across`` tiles. These are blended over
    ``blend`` pixels on either side of their common face, so that at least ``overlap - blend`` pixels of
    context are left to every pixel that counts: by default 28, the reach of the default filters.
    """

    core: Annotated[int, Field(ge=64)] = 448
    overlap: Annotated[int, Field(ge=0)] = 35
    blend: Annotated[int, Field(ge=0)] = 7
    planes: Annotated[int, Field(ge=1)] = 64
    across: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _overlap_fits(self) -> Self:
        if 2 * self.overlap > self.core:
            raise ValueError(f"overlap {self.overlap} is more than half of core {self.core}")
        return self
