"""Find pixels similar to a point of one image in others (paper, section S3)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.device import choose_device
from hrvol.errors import UsageError
from hrvol.explore.planes import LOOK_RECIPE, check_seen, find_plane, name_of, read_plane, unit_windows
from hrvol.features.weights.source import WeightsSource
from hrvol.figures.overlays import HeatPanel, draw_similar
from hrvol.files import atomic_write, check_picture
from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.recipe import Recipe
from hrvol.segment.positions import PositionField
from hrvol.segment.retrieval import Match, query_vectors, similarity, top_matches
from hrvol.training.colour import recipe_for
from hrvol.training.position_field import position_field, subtract_field
from hrvol.training.tile_features import TileFeatures, load_features
from hrvol.volume.grid.regions import plane_tiles
from hrvol.volume.grid.tiling import Tile, whole
from hrvol.volume.guard import file_or_none, keep_inputs
from hrvol.volume.intensity import Window
from hrvol.volume.storage.location import located
from hrvol.volume.volume import Volume, open_volume

if TYPE_CHECKING:
    from torch import Tensor

    from hrvol.features.featuriser import Featuriser


LOG = logging.getLogger("hrvol.run")

TOP = 5

APART = 14, 0.05
"""Distance between matches: a patch of the default network, because nearer pixels share a token; but at least
this share of the target's longer side, so that not all matches are on one object."""

Point = Sequence[int]


@dataclass(frozen=True, eq=False)
class Target:
    """A plane that was searched.

    Attributes
    ----------
    source, plane
        The volume's source and the number of the plane.
    name
        Name in pictures.
    image
        ``(Y, X)`` float32 in [0, 1].
    heat
        ``(Y, X)`` float32 in [-1, 1]: the cosine similarity of each pixel to the first point.
    matches
        Matches of each point, in falling similarity.
    """

    source: str
    plane: int
    name: str
    image: NDArray[np.float32]
    heat: NDArray[np.float32]
    matches: tuple[tuple[Match, ...], ...]


@dataclass(frozen=True, eq=False)
class SimilarityResult:
    """Points and their matches.

    Attributes
    ----------
    source, plane, name, image
        The plane of the points, as in :class:`Target`.
    points
        ``(y, x)`` of each point.
    targets
        The planes that were searched.
    """

    source: str
    plane: int
    name: str
    image: NDArray[np.float32]
    points: tuple[tuple[int, int], ...]
    targets: tuple[Target, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the points and their matches as JSON values; points and ranks are numbered from 1."""
        return {
            "image": self.source,
            "plane": self.plane,
            "shape": list(self.image.shape[:2]),
            "points": [{"point": i, "y": y, "x": x} for i, (y, x) in enumerate(self.points, start=1)],
            "targets": [
                {
                    "image": target.source,
                    "plane": target.plane,
                    "shape": list(target.image.shape[:2]),
                    "matches": [
                        {"point": i, "rank": rank, "y": m.y, "x": m.x, "similarity": m.similarity}
                        for i, matches in enumerate(target.matches, start=1)
                        for rank, m in enumerate(matches, start=1)
                    ],
                }
                for target in self.targets
            ],
        }


def find_similar(
    image: Any,
    points: Sequence[Point],
    targets: Sequence[Any] = (),
    *,
    planes: Sequence[int] = (),
    top: int = TOP,
    apart: int | None = None,
    picture: str | Path | None = None,
    overwrite: bool = False,
    recipe: str | Path | Recipe | None = None,
    device: str = "auto",
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> SimilarityResult:
    """Find pixels similar to points of one image in others, by the cosine similarity of their features.

    Deep features are computed tile by tile: no more than one tile's are in memory at a time. With
    ``cluster.position_degree``, as in the default recipe, their positional component is subtracted: otherwise
    a thing is most similar to another at the same place in the tile. With 0 (the preset ``deep``), it is not.

    Parameters
    ----------
    image
        The image of the points: a path, or a numpy, Dask, xarray or Zarr array, ``(Y, X)`` or ``(Z, Y, X)``.
    points
        ``(y, x)`` or ``(z, y, x)`` of each, in pixels, all on one plane. Similarity maps are those of the
        first; the others are keypoints.
    targets
        Images to search; without any, the plane of the points.
    planes
        Planes of stacks to search; by default that of the points. A single one is also the plane of
        ``(y, x)`` points.
    top
        Most matches of a point in a target.
    apart
        Least distance of a point's matches along y or x, in pixels, exclusive. ``None``: a patch, or a
        twentieth of the target's longer side if that is more.
    picture
        PNG to write: the image with its points, and each target with its similarity map and its matches.
    overwrite
        Replace a picture that exists.
    recipe
        A recipe, its file, or a preset's name; ``None`` for :data:`hrvol.explore.planes.LOOK_RECIPE`. The
        deep ones of hybrid features are compared.
    device
        Where features are computed, ``cpu``, ``cuda`` or ``auto``: a GPU if torch finds one. They are
        compared on the CPU.
    weights_path, offline, storage_options, progress
        As in :func:`hrvol.train_model`.

    Raises
    ------
    UsageError
        A point or a plane is outside, the plane of a stack is not given, or the recipe has no network.
    InputError
        An image cannot be read, or has one grey value only.
    OutputExistsError
        The picture exists already.
    WeightsError
        Network weights could not be obtained or do not match the model.
    DeviceError
        ``cuda`` is requested, and there is no GPU.
    """
    spec = Recipe.load(LOOK_RECIPE if recipe is None else recipe)
    if not spec.features.uses_deep:
        raise UsageError("similar: classical features are not compared; expected a deep or hybrid recipe")
    if top < 1 or (apart is not None and apart < 0):
        raise UsageError(f"similar: found top {top}, apart {apart}, expected at least 1 and 0")
    opened = open_volume(located(image, storage_options))
    z, yx = _locate(opened, points, planes)
    target_volumes = [open_volume(located(target, storage_options)) for target in targets] or [opened]
    searched = [
        (volume, plane)
        for volume in target_volumes
        for plane in _searched(volume, planes or ((z,) if opened.shape[0] > 1 else ()))
    ]
    volumes = [opened, *(volume for volume, _ in searched)]
    spec = recipe_for(spec, volumes)
    if picture is not None:
        keep_inputs(picture, *volumes, file_or_none(recipe), weights_path)
        picture = check_picture(picture, overwrite)
    choice = choose_device(device)
    windows = unit_windows(volumes, spec.intensity, spec.seed)
    shown = _read(opened, z, windows[opened])
    featuriser = load_features(spec.features, choice.device, WeightsSource.of(weights_path, offline))
    LOG.info("%s", choice)

    features = {volume: TileFeatures(featuriser, window, spec.tiles) for volume, window in windows.items()}
    distinct = dict.fromkeys([(opened, z), *searched])
    regions = [(volume, (slice(i, i + 1), *whole(volume.shape)[1:])) for volume, i in distinct]
    field = position_field(regions, features, spec, progress)

    queries = _queries(shown, yx, features[opened], field)
    tally = Tally(progress, "compare", sum(math.prod(volume.shape[1:]) for volume, _ in searched))
    results = []
    for number, (volume, plane) in enumerate(searched):
        values = _read(volume, plane, windows[volume])
        sides = values.shape[:2]
        maps = np.empty((len(yx), *sides), np.float32)
        for tile in plane_tiles(sides, spec.tiles):
            compared = similarity(_core_features(values, tile, featuriser, field), queries)
            maps[:, *tile.core_slices] = compared
            tally.finish((number, tile.core), compared[0].size)
        distance = max(APART[0], round(APART[1] * max(sides))) if apart is None else apart
        matches = tuple(top_matches(heat, top, distance) for heat in maps)
        results.append(Target(volume.source, plane, name_of(volume, plane), values, maps[0].copy(), matches))
    result = SimilarityResult(opened.source, z, name_of(opened, z), shown, yx, tuple(results))
    if picture is not None:
        _draw(picture, result)
    return result


def _draw(picture: Path, result: SimilarityResult) -> None:
    panels = [HeatPanel(t.name, t.image, t.heat, t.matches) for t in result.targets]
    with atomic_write(picture) as file:
        draw_similar(file, (result.name, result.image), result.points, panels)


def _locate(
    volume: Volume, points: Sequence[Point], planes: Sequence[int]
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return the plane of points, and their ``(y, x)``."""
    if not points:
        raise UsageError("similar: found no point, expected at least one (--at y,x)")
    given = {point[0] for point in points if len(point) == 3}
    if any(len(point) not in (2, 3) for point in points) or len(given) > 1:
        raise UsageError(f"similar: found points {list(points)}, expected (y, x) or (z, y, x) of one plane")
    if given:
        z = given.pop()
    else:
        z = find_plane(volume, planes[0] if len(planes) == 1 else None, "choose it with --at z,y,x")
    yx = tuple((int(point[-2]), int(point[-1])) for point in points)
    for y, x in yx:
        if not all(0 <= i < length for i, length in zip((z, y, x), volume.shape, strict=True)):
            inside = " x ".join(map(str, volume.shape[-volume.ndim :]))
            raise UsageError(
                f"{volume.source}: found a point at z={z}, y={y}, x={x}, expected it inside {inside}"
            )
    return z, yx


def _searched(volume: Volume, planes: Sequence[int]) -> Iterable[int]:
    """Return the planes of a volume to search."""
    if volume.shape[0] == 1:
        return (0,)
    return [find_plane(volume, plane) for plane in planes] or [find_plane(volume, None)]


def _read(volume: Volume, z: int, window: Window) -> NDArray[np.float32]:
    plane = read_plane(volume, z, window)
    check_seen(plane, volume.source if volume.shape[0] == 1 else f"{volume.source}: plane {z}")
    return plane


def _queries(
    plane: NDArray[np.float32],
    points: Sequence[tuple[int, int]],
    features: TileFeatures,
    field: PositionField | None,
) -> NDArray[np.float32]:
    """Return the directions ``(n, C)`` of points' features, each from the tile that owns it."""
    vectors: dict[tuple[int, int], NDArray[np.float32]] = {}
    for tile in plane_tiles(plane.shape[:2], features.tiles):
        y0, y1, x0, x1 = tile.core
        owned = [(y, x) for y, x in points if y0 <= y < y1 and x0 <= x < x1]
        if owned:
            values = _core_features(plane, tile, features.featuriser, field)
            of_owned = query_vectors(values, [(y - y0, x - x0) for y, x in owned])
            vectors.update(zip(owned, of_owned, strict=True))
    return np.stack([vectors[point] for point in points])


def _core_features(
    plane: NDArray[np.float32], tile: Tile, featuriser: Featuriser, field: PositionField | None
) -> Tensor:
    """Return the deep features ``(C, y, x)`` of a tile's core, less their positional component."""
    upsampled = featuriser.upsampled(plane[tile.window_slices], unit=True).features
    features = upsampled[:, *tile.core_in_window]
    if field is not None:
        subtract_field(field, features, tile)
    return features
