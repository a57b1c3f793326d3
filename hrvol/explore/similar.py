"""Where something like this is: a point of one image looked for in others (paper, section S3)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrvol.device import choose_device
from hrvol.errors import UsageError
from hrvol.explore.planes import LOOK_RECIPE, check_seen, find_plane, name_of, read_plane, unit_windows
from hrvol.figures.overlays import HeatPanel, draw_similar
from hrvol.files import atomic_write, check_picture, text
from hrvol.progress import ProgressCallback, Tally
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import TileSpec
from hrvol.segment.positions import PositionField
from hrvol.segment.retrieval import Match, query_vectors, similarity, top_matches
from hrvol.training.position_field import position_field, take_off
from hrvol.volume.grid.regions import plane_tiles
from hrvol.volume.grid.tiling import Tile, whole
from hrvol.volume.region import keep_input
from hrvol.volume.volume import Volume, open_volume

if TYPE_CHECKING:
    from hrvol.features.featuriser import Featuriser


LOG = logging.getLogger("hrvol.run")

TOP = 5

APART = 14, 0.05
"""Distance between matches: a patch of the default network, for what is nearer shares a token; but at least
this share of the target's longer side, so that matches are not all of one thing."""

Point = Sequence[int]


@dataclass(frozen=True, eq=False)
class Target:
    """A plane that was searched.

    Attributes
    ----------
    source, plane
        Where it is.
    name
        What it is called in pictures.
    image
        ``(Y, X)`` float32 in [0, 1].
    heat
        ``(Y, X)`` float32 in [-1, 1]: the cosine similarity of each pixel to the first point.
    matches
        For each point, its matches in falling similarity.
    """

    source: str
    plane: int
    name: str
    image: NDArray[np.float32]
    heat: NDArray[np.float32]
    matches: tuple[tuple[Match, ...], ...]


@dataclass(frozen=True, eq=False)
class SimilarityResult:
    """What was looked for, and where it was found.

    Attributes
    ----------
    source, plane, name, image
        The plane the points are on, as in :class:`Target`.
    points
        ``(y, x)`` of each point.
    targets
        One for each plane that was searched.
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
            "shape": list(self.image.shape),
            "points": [{"point": i, "y": y, "x": x} for i, (y, x) in enumerate(self.points, start=1)],
            "targets": [
                {
                    "image": target.source,
                    "plane": target.plane,
                    "shape": list(target.image.shape),
                    "matches": [
                        {"point": i, "rank": rank, "y": m.y, "x": m.x, "similarity": m.similarity}
                        for i, found in enumerate(target.matches, start=1)
                        for rank, m in enumerate(found, start=1)
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
    progress: ProgressCallback | None = None,
) -> SimilarityResult:
    """Look for points of one image in others, by the cosine of the angle between features.

    Features are those of the network, tile by tile: no more than one tile's are in memory at a time. With
    ``cluster.position_degree``, as in the default recipe, what they say of the place in the tile is taken
    off: else a thing is most like another at the same place. With 0 (the preset ``deep``), it is not.

    Parameters
    ----------
    image
        What the points are on: a path, or a numpy, Dask, xarray or Zarr array, ``(Y, X)`` or ``(Z, Y, X)``.
    points
        ``(y, x)`` or ``(z, y, x)`` of each, in pixels, all on one plane. The first is what the similarity
        maps are of; the others are keypoints.
    targets
        Where to look; none for the plane of the points itself.
    planes
        Which planes of stacks; the points' own unless said. A single one also says where ``(y, x)`` points
        are.
    top
        Most matches of a point in a target.
    apart
        Matches of a point are more than so many pixels apart in y or in x. ``None``: a patch, or a twentieth
        of the target's longer side if that is more.
    picture
        PNG to write: the image with its points, and each target with its similarity map and its matches.
    overwrite
        Replace a picture that exists.
    recipe
        A recipe, its file, or a preset's name; ``None`` for :data:`hrvol.explore.planes.LOOK_RECIPE`. Of
        hybrid features the deep ones are compared.
    device
        Where features are made, ``cpu``, ``cuda`` or ``auto``: a GPU where torch sees one. They are compared
        on the CPU, a tile at a time.
    weights_path, offline, progress
        As in :func:`hrvol.segment_volume`.

    Raises
    ------
    UsageError
        A point or a plane is outside, it is not said which plane is meant, or the recipe has no network.
    InputError
        An image cannot be read, or shows one grey value only.
    OutputExistsError
        The picture is in the way.
    WeightsError
        The network's weights are not to be had.
    DeviceError
        A GPU is wanted, and there is none.
    """
    from hrvol.features.featuriser import load_featuriser  # torch: only where features are made

    spec = Recipe.load(LOOK_RECIPE if recipe is None else recipe)
    if not spec.features.uses_deep:
        raise UsageError("similar: classical features are not compared; expected a deep or hybrid recipe")
    if top < 1 or (apart is not None and apart < 0):
        raise UsageError(f"similar: found top {top}, apart {apart}, expected at least 1 and 0")
    opened = open_volume(image)
    z, places = _place(opened, points, planes)
    searched = [
        (volume, plane)
        for volume in [open_volume(target) for target in targets] or [opened]
        for plane in _searched(volume, planes or ((z,) if opened.shape[0] > 1 else ()))
    ]
    volumes = [opened, *(volume for volume, _ in searched)]
    if picture is not None:
        picture = check_picture(picture, overwrite)
        for volume in volumes:
            keep_input(volume, picture)
    choice = choose_device(device)
    windows = unit_windows(volumes, spec.intensity, spec.seed)
    shown = _read(opened, z, windows[opened])
    featuriser = load_featuriser(
        spec.features, device=choice.device, weights_path=text(weights_path), offline=offline
    )
    LOG.info("%s", choice)

    seen_planes = list(dict.fromkeys([(opened, z), *searched]))
    regions = [(volume, (slice(i, i + 1), *whole(volume.shape)[1:])) for volume, i in seen_planes]
    field = position_field(regions, windows, featuriser, spec, progress)

    queries = _queries(shown, places, featuriser, field, spec.tiles)
    tally = Tally(progress, "compare", sum(math.prod(volume.shape[1:]) for volume, _ in searched))
    found = []
    for number, (volume, plane) in enumerate(searched):
        seen = _read(volume, plane, windows[volume])
        maps = np.empty((len(places), *seen.shape), np.float32)
        for tile in plane_tiles(seen.shape, spec.tiles):
            compared = similarity(_features(seen, tile, featuriser, field), queries)
            maps[:, *tile.core_slices] = compared
            tally.finish((number, tile.core), compared[0].size)
        distance = max(APART[0], round(APART[1] * max(seen.shape))) if apart is None else apart
        matches = tuple(top_matches(heat, top, distance) for heat in maps)
        found.append(Target(volume.source, plane, name_of(volume, plane), seen, maps[0].copy(), matches))
    report = SimilarityResult(opened.source, z, name_of(opened, z), shown, places, tuple(found))
    if picture is not None:
        with atomic_write(picture) as file:
            draw_similar(
                file,
                (report.name, report.image),
                report.points,
                [HeatPanel(t.name, t.image, t.heat, t.matches) for t in report.targets],
            )
    return report


def _place(
    volume: Volume, points: Sequence[Point], planes: Sequence[int]
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return the plane that points are on, and their ``(y, x)``."""
    if not points:
        raise UsageError("similar: found no point, expected at least one (--at y,x)")
    said = {point[0] for point in points if len(point) == 3}
    if any(len(point) not in (2, 3) for point in points) or len(said) > 1:
        raise UsageError(f"similar: found points {list(points)}, expected (y, x) or (z, y, x) of one plane")
    if said:
        z = said.pop()
    else:
        meant = planes[0] if len(planes) == 1 else None
        z = find_plane(volume, meant, "say which with --at z,y,x")
    places = tuple((int(point[-2]), int(point[-1])) for point in points)
    for place in places:
        if not all(0 <= i < length for i, length in zip((z, *place), volume.shape, strict=True)):
            found = ", ".join(f"{axis}={i}" for axis, i in zip("zyx", (z, *place), strict=True))
            inside = " x ".join(map(str, volume.shape[-volume.ndim :]))
            raise UsageError(f"{volume.source}: found a point at {found}, expected it inside {inside}")
    return z, places


def _searched(volume: Volume, planes: Sequence[int]) -> Iterable[int]:
    """Return which planes of a volume are searched."""
    if volume.shape[0] == 1:
        return (0,)
    return [find_plane(volume, plane) for plane in planes] or [find_plane(volume, None)]


def _read(volume: Volume, z: int, window: tuple[float, float]) -> NDArray[np.float32]:
    plane = read_plane(volume, z, window)
    check_seen(plane, volume.source if volume.shape[0] == 1 else f"{volume.source}: plane {z}")
    return plane


def _queries(
    plane: NDArray[np.float32],
    points: Sequence[tuple[int, int]],
    featuriser: Featuriser,
    field: PositionField | None,
    tiles: TileSpec,
) -> NDArray[np.float32]:
    """Return the directions ``(n, C)`` of points' features, each from the tile that owns it."""
    found: dict[tuple[int, int], NDArray[np.float32]] = {}
    for tile in plane_tiles(plane.shape, tiles):
        y0, y1, x0, x1 = tile.core
        mine = [(y, x) for y, x in points if y0 <= y < y1 and x0 <= x < x1]
        if mine:
            features = _features(plane, tile, featuriser, field)
            found.update(zip(mine, query_vectors(features, [(y - y0, x - x0) for y, x in mine]), strict=True))
    return np.stack([found[point] for point in points])


def _features(
    plane: NDArray[np.float32], tile: Tile, featuriser: Featuriser, field: PositionField | None
) -> Any:
    """Return the features ``(C, y, x)`` of a tile's core."""
    window = featuriser.upsampled(plane[tile.window_slices], unit=True).features
    features = window[:, *tile.core_in_window]
    if field is not None:
        take_off(field, features, tile)
    return features
