"""Draw three principal components of features as colours, the same for all planes of all volumes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.device import choose_device
from hrvol.errors import InputError, UsageError
from hrvol.explore.planes import LOOK_RECIPE, find_plane, is_plain, name_of, read_plane, unit_windows
from hrvol.features.projection import Projection, fit_projection
from hrvol.features.weights.source import WeightsSource
from hrvol.figures.overlays import MOST_ROWS, ComponentRow, draw_components, thin
from hrvol.files import atomic_write, check_picture
from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.recipe import Recipe
from hrvol.segment.positions import PositionField
from hrvol.training.colour import recipe_for
from hrvol.training.position_field import part_of, position_field
from hrvol.training.sampling import sample_pixels
from hrvol.training.strokes import check_context
from hrvol.training.tile_features import TileFeatures, load_features
from hrvol.volume.grid.regions import plane_tiles
from hrvol.volume.grid.tiling import whole
from hrvol.volume.guard import file_or_none, keep_inputs
from hrvol.volume.intensity import Window
from hrvol.volume.storage.location import located
from hrvol.volume.volume import Volume, open_volume

if TYPE_CHECKING:
    from hrvol.features.deep.upsample import Linear


LOG = logging.getLogger("hrvol.run")

DEFAULT_PLANES = 4

SAMPLE_PIXELS = 20_000

SAMPLE_TILES = 8
"""Most pixels and tiles to fit the components to, of all volumes together; but at least one tile of each."""

RANGE = (1.0, 99.0)
"""Percentiles of the sample that become 0 and 255 of a colour."""


@dataclass(frozen=True)
class PcaReport:
    """Contents of a picture.

    Attributes
    ----------
    picture
        The file.
    planes
        Name of the volume and number of the plane, for each row.
    explained
        Share of the variance of the standardised features in each of red, green and blue, in 0..1.
    """

    picture: Path
    planes: tuple[tuple[str, int], ...]
    explained: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Palette:
    """Three components of features, and the range of each that is drawn.

    Attributes
    ----------
    projection
        Projection to three components.
    low, high
        Values that become 0 and 255 of each colour, ``(3,)`` float32.
    """

    projection: Projection
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @classmethod
    def fit(cls, samples: NDArray[np.float32]) -> Palette:
        """Fit to features ``(n, C)`` float32."""
        projection = fit_projection(samples, 3)
        low, high = np.percentile(projection(samples), RANGE, axis=0).astype(np.float32)
        return cls(projection, low, np.maximum(high, low + np.float32(1e-6)))

    def maps(self, groups: Mapping[str, slice]) -> dict[str, Linear]:
        """Return the projection as linear maps of groups of features, whose results add up to it."""
        import torch

        from hrvol.features.deep.upsample import Linear  # torch: only where features are computed

        maps = {}
        for name, columns in groups.items():
            weight = (self.projection.components[columns] / self.projection.scale[columns, None]).T
            bias = -weight @ self.projection.mean[columns]
            maps[name] = Linear(torch.from_numpy(np.ascontiguousarray(weight)), torch.from_numpy(bias))
        return maps

    def colours(self, components: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return red, green and blue ``(y, x, 3)`` uint8 of components ``(3, y, x)``."""
        scaled = (np.moveaxis(components, 0, -1) - self.low) / (self.high - self.low)
        shown: NDArray[np.uint8] = np.rint(255 * scaled.clip(0, 1)).astype(np.uint8)
        return shown


def pca_picture(
    volumes: Sequence[Any],
    out: str | Path,
    *,
    planes: int | Sequence[int] = DEFAULT_PLANES,
    attention: bool = False,
    recipe: str | Path | Recipe | None = None,
    overwrite: bool = False,
    device: str = "auto",
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> PcaReport:
    """Draw three principal components of features as red, green and blue.

    They are fitted once, on pixels of all volumes, so a colour means the same everywhere in the picture.
    Features are projected before they are spread over pixels, tile by tile. With the recipe's
    ``cluster.position_degree``, the positional component of deep features is subtracted: otherwise colours
    show the place in the tile. Attention is computed for each tile on its own.

    Parameters
    ----------
    volumes
        Paths, or numpy, Dask, xarray or Zarr arrays, ``(Z, Y, X)`` or ``(Y, X)``.
    out
        PNG to write.
    planes
        Number of planes of each volume to draw, evenly spaced (all if it has fewer), or a list of planes.
    attention
        Also draw the attention of the network's CLS token, mean over heads, times uniform.
    recipe
        A recipe, its file, or a preset's name; ``None`` for :data:`hrvol.explore.planes.LOOK_RECIPE`.
    overwrite
        Replace a picture that exists.
    device
        Where features are computed and projected, ``cpu``, ``cuda`` or ``auto``: a GPU if torch finds one.
        The components are fitted on the CPU, which takes less than a second.
    weights_path, offline, storage_options, progress
        As in :func:`hrvol.train_model`.

    Raises
    ------
    UsageError
        A plane is outside; attention is requested with a recipe without a network; or there are too many
        planes.
    InputError
        A volume cannot be read, or all its planes in the picture have one grey value only.
    OutputExistsError
        ``out`` exists already.
    WeightsError
        Network weights could not be obtained or do not match the model.
    DeviceError
        ``cuda`` is requested, and there is no GPU.
    """
    spec = Recipe.load(LOOK_RECIPE if recipe is None else recipe)
    if attention and not spec.features.uses_deep:
        raise UsageError("attention: classical features have none; expected a deep or hybrid recipe")
    if not volumes:
        raise UsageError("pca: found no volume, expected at least one")
    opened = [open_volume(located(volume, storage_options)) for volume in volumes]
    spec = recipe_for(spec, opened)
    keep_inputs(out, *opened, file_or_none(recipe), weights_path)
    file = check_picture(out, overwrite)
    chosen = [(volume, z) for volume in opened for z in choose_planes(volume, planes)]
    if len(chosen) > MOST_ROWS:
        raise UsageError(f"{file}: found {len(chosen)} planes to draw, expected at most {MOST_ROWS}")
    choice = choose_device(device)
    windows = unit_windows(opened, spec.intensity, spec.seed)
    for volume in opened:
        _check_structure(volume, [z for owner, z in chosen if owner is volume], windows[volume])
    featuriser = load_features(spec.features, choice.device, WeightsSource.of(weights_path, offline))
    LOG.info("%s", choice)
    check_context(featuriser, opened, spec.tiles)

    features = {volume: TileFeatures(featuriser, windows[volume], spec.tiles) for volume in opened}
    count = len(opened)
    samples = [
        sample_pixels(
            volume,
            whole(volume.shape),
            features[volume],
            pixels=math.ceil(SAMPLE_PIXELS / count),
            most_tiles=math.ceil(SAMPLE_TILES / count),
            seed=spec.seed,
            unit=True,
            progress=part_of(progress, number, count),
        )
        for number, volume in enumerate(opened, start=1)
    ]
    sampled = np.concatenate([sample.features for sample in samples])
    regions = [(volume, whole(volume.shape)) for volume in opened]
    field = position_field(regions, features, spec, progress)
    if field is not None:
        places = np.concatenate([sample.places for sample in samples])
        sampled[:, featuriser.groups["deep"]] -= field.at(places)
    palette = Palette.fit(sampled)
    maps = palette.maps(featuriser.groups)
    tally = Tally(progress, "components", sum(math.prod(volume.shape[1:]) for volume, _ in chosen))
    rows = []
    for volume, z in chosen:
        image = read_plane(volume, z, windows[volume])
        colours, heat = _plane(image, features[volume], palette, maps, field, attention)
        rows.append(
            ComponentRow(name_of(volume, z), thin(image), thin(colours), None if heat is None else thin(heat))
        )
        tally.finish(len(rows), math.prod(image.shape[:2]))
    with atomic_write(file) as partial:
        draw_components(partial, rows)
    shown = tuple((volume.source, z) for volume, z in chosen)
    return PcaReport(file, shown, tuple(palette.projection.explained.tolist()))


def choose_planes(volume: Volume, planes: int | Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of the planes of a volume to draw; an image has only one.

    Parameters
    ----------
    volume
        The volume.
    planes
        A list of planes, or how many: the middles of as many equal slabs (all planes if it has fewer).
    """
    depth = volume.shape[0]
    if not isinstance(planes, int):
        if not planes:
            raise UsageError("planes: found none, expected at least one")
        return tuple(dict.fromkeys(find_plane(volume, z) for z in planes))
    if planes < 1:
        raise UsageError(f"planes: found {planes}, expected at least 1")
    count = min(planes, depth)
    return tuple((2 * i + 1) * depth // (2 * count) for i in range(count))


def _plane(
    image: NDArray[np.float32],
    features: TileFeatures,
    palette: Palette,
    maps: Mapping[str, Linear],
    field: PositionField | None,
    attention: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Return the colours ``(Y, X, 3)`` of a plane, and its attention ``(Y, X)`` or ``None``."""
    featuriser = features.featuriser
    shape = image.shape[:2]
    colours = np.empty((*shape, 3), np.uint8)
    heat = np.empty(shape, np.float32) if attention else None
    for tile in plane_tiles(shape, features.tiles):
        crop = image[tile.window_slices]
        core, inside = tile.core_slices, tile.core_in_window
        if heat is None:
            mapped = featuriser.scores(crop, maps)
        else:
            upsampled = featuriser.upsampled(crop, linear=maps["deep"], unit=True, attention=True)
            assert upsampled.attention is not None
            heat[core] = upsampled.attention.mean(dim=0).numpy(force=True)[inside]
            mapped = featuriser.scores(crop, maps) if len(maps) > 1 else upsampled.features
        components: NDArray[np.float32] = mapped.numpy(force=True)[:, *inside]
        if field is not None:
            positional = field.mapped(maps["deep"].weight.numpy(force=True), *inside, crop.shape[:2])
            components = components - np.moveaxis(positional, -1, 0)
        colours[core] = palette.colours(components)
    return colours, heat


def _check_structure(volume: Volume, planes: Sequence[int], window: Window) -> None:
    """Raise an :class:`InputError` if all planes have one grey value: colours would show positions."""
    if all(is_plain(read_plane(volume, z, window)) for z in planes):
        raise InputError(f"{volume.source}: found one grey value in every plane, expected structure")
