"""Features as colours: three principal components, the same for all planes of all volumes in a picture."""

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
from hrvol.explore.planes import LOOK_RECIPE, find_plane, name_of, read_plane, unit_windows
from hrvol.features.projection import Projection, fit_projection
from hrvol.figures.overlays import MOST_ROWS, ComponentRow, draw_components, thin
from hrvol.files import atomic_write, check_picture, text
from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import TileSpec
from hrvol.segment.positions import PositionField
from hrvol.training.position_field import part_of, position_field
from hrvol.training.sampling import sample_pixels
from hrvol.training.strokes import check_context
from hrvol.volume.grid.regions import plane_tiles
from hrvol.volume.grid.tiling import whole
from hrvol.volume.intensity import Window
from hrvol.volume.region import keep_input
from hrvol.volume.volume import Volume, open_volume

if TYPE_CHECKING:
    from hrvol.features.deep.upsample import Linear
    from hrvol.features.featuriser import Featuriser


LOG = logging.getLogger("hrvol.run")

DEFAULT_PLANES = 4

SAMPLE_PIXELS = 20_000

SAMPLE_TILES = 8
"""The components are fitted on so many pixels, from so many tiles, of all volumes together; but on one tile
of each."""

RANGE = (1.0, 99.0)
"""Percentiles of the sample that become the least and the most of a colour."""


@dataclass(frozen=True)
class PcaReport:
    """What is in the picture.

    Attributes
    ----------
    picture
        The file.
    planes
        Name of a volume and number of a plane, for each row.
    explained
        Share of the variance of the standardised features in each of red, green and blue, in 0..1.
    """

    picture: Path
    planes: tuple[tuple[str, int], ...]
    explained: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Palette:
    """Components of features, and what becomes 0 and 1 of each colour.

    Attributes
    ----------
    projection
        To three components.
    low, high
        ``(3,)`` float32.
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

        from hrvol.features.deep.upsample import Linear  # torch: only where features are made

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
    progress: ProgressCallback | None = None,
) -> PcaReport:
    """Draw three principal components of features as red, green and blue.

    They are fitted once, on pixels spread over all volumes: a colour means the same everywhere in the
    picture. Features are projected before they are spread over pixels, tile by tile. With the recipe's
    ``cluster.position_degree``, what deep features say of the place in a tile is taken off: else colours are
    of places, and tiles show. Attention stays each tile's own.

    Parameters
    ----------
    volumes
        Paths, or numpy, Dask, xarray or Zarr arrays, ``(Z, Y, X)`` or ``(Y, X)``.
    out
        PNG to write.
    planes
        How many planes of each volume to draw, evenly spaced (all if it has fewer), or which.
    attention
        Also draw the attention that the network's CLS token pays, mean over heads, times uniform.
    recipe
        A recipe, its file, or a preset's name; ``None`` for :data:`hrvol.explore.planes.LOOK_RECIPE`.
    overwrite
        Replace a picture that exists.
    device
        Where features are made and projected, ``cpu``, ``cuda`` or ``auto``: a GPU where torch sees one. The
        components are fitted on the CPU: it takes less than a second.
    weights_path, offline, progress
        As in :func:`hrvol.segment_volume`.

    Raises
    ------
    UsageError
        A plane is outside; attention is asked of a recipe without a network; or there are too many planes.
    InputError
        A volume cannot be read, or all its planes in the picture show one grey value only.
    OutputExistsError
        ``out`` is in the way.
    WeightsError
        The network's weights are not to be had.
    DeviceError
        A GPU is wanted, and there is none.
    """
    from hrvol.features.featuriser import load_featuriser  # torch: only where features are made

    spec = Recipe.load(LOOK_RECIPE if recipe is None else recipe)
    if attention and not spec.features.uses_deep:
        raise UsageError("attention: classical features have none; use a deep or hybrid recipe")
    if not volumes:
        raise UsageError("pca: found no volume, expected at least one")
    file = check_picture(out, overwrite)
    opened = [open_volume(volume) for volume in volumes]
    for volume in opened:
        keep_input(volume, file)
    chosen = [(volume, z) for volume in opened for z in choose_planes(volume, planes)]
    if len(chosen) > MOST_ROWS:
        raise UsageError(f"{file}: found {len(chosen)} planes to draw, expected at most {MOST_ROWS}")
    choice = choose_device(device)
    windows = unit_windows(opened, spec.intensity, spec.seed)
    for volume in opened:
        _check_structure(volume, [z for owner, z in chosen if owner is volume], windows[volume])
    featuriser = load_featuriser(
        spec.features, device=choice.device, weights_path=text(weights_path), offline=offline
    )
    LOG.info("%s", choice)
    check_context(featuriser, opened, spec.tiles)

    count = len(opened)
    samples = [
        sample_pixels(
            volume,
            whole(volume.shape),
            featuriser,
            windows[volume],
            spec.tiles,
            pixels=math.ceil(SAMPLE_PIXELS / count),
            most_tiles=math.ceil(SAMPLE_TILES / count),
            seed=spec.seed,
            unit=True,
            progress=part_of(progress, number, count),
        )
        for number, volume in enumerate(opened, start=1)
    ]
    features = np.concatenate([sample.features for sample in samples])
    regions = [(volume, whole(volume.shape)) for volume in opened]
    field = position_field(regions, windows, featuriser, spec, progress)
    if field is not None:
        places = np.concatenate([sample.places for sample in samples])
        features[:, featuriser.groups["deep"]] -= field.at(places)
    palette = Palette.fit(features)
    maps = palette.maps(featuriser.groups)
    tally = Tally(progress, "components", sum(math.prod(volume.shape[1:]) for volume, _ in chosen))
    rows = []
    for volume, z in chosen:
        image = read_plane(volume, z, windows[volume])
        colours, paid = _plane(image, palette, maps, field, featuriser, spec.tiles, attention)
        heard = None if paid is None else thin(paid)
        rows.append(ComponentRow(name_of(volume, z), thin(image), thin(colours), heard))
        tally.finish(len(rows), image.size)
    with atomic_write(file) as partial:
        draw_components(partial, rows)
    shown = tuple((volume.source, z) for volume, z in chosen)
    return PcaReport(file, shown, tuple(palette.projection.explained.tolist()))


def choose_planes(volume: Volume, planes: int | Sequence[int]) -> tuple[int, ...]:
    """Return which planes of a volume are drawn; an image has only one.

    Parameters
    ----------
    volume
        The volume.
    planes
        Which, or how many: these are the middles of as many equal parts (all planes if it has fewer).
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
    palette: Palette,
    maps: Mapping[str, Linear],
    field: PositionField | None,
    featuriser: Featuriser,
    tiles: TileSpec,
    attention: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Return the colours ``(Y, X, 3)`` of a plane, and the attention ``(Y, X)`` if it is wanted."""
    colours = np.empty((*image.shape, 3), np.uint8)
    paid = np.empty(image.shape, np.float32) if attention else None
    for tile in plane_tiles(image.shape, tiles):
        window = image[tile.window_slices]
        here, inside = tile.core_slices, tile.core_in_window
        if paid is None:
            mapped = featuriser.scores(window, maps)
        else:
            seen = featuriser.upsampled(window, linear=maps["deep"], unit=True, attention=True)
            assert seen.attention is not None
            paid[here] = seen.attention.mean(dim=0).numpy(force=True)[inside]
            mapped = featuriser.scores(window, maps) if len(maps) > 1 else seen.features
        components: NDArray[np.float32] = mapped.numpy(force=True)[:, *inside]
        if field is not None:
            place = field.mapped(maps["deep"].weight.numpy(force=True), *inside, window.shape)
            components = components - np.moveaxis(place, -1, 0)
        colours[here] = palette.colours(components)
    return colours, paid


def _check_structure(volume: Volume, planes: Sequence[int], window: Window) -> None:
    """Refuse a volume whose planes in the picture all show one grey value: colours would be of positions."""
    if all(np.ptp(read_plane(volume, z, window)) == 0 for z in planes):
        raise InputError(f"{volume.source}: found one grey value in every plane, expected structure to see")
