"""Suggest where in a volume to draw next: places whose annotation would help most."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hrvol.classes import default_classes
from hrvol.errors import StrokesError, UsageError
from hrvol.figures.slices import grey_picture, montage
from hrvol.files import FileKind, atomic_write, check_file, check_picture
from hrvol.interactive.drawing import Drawn, DrawnStrokes
from hrvol.interactive.results import Place
from hrvol.interactive.session import Session
from hrvol.interactive.strokes import import_strokes
from hrvol.progress import ProgressCallback
from hrvol.recipe.recipe import Recipe
from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.guard import keep_inputs
from hrvol.volume.intensity import common_window
from hrvol.volume.volume import Volume, open_volume

COUNT = 10

TILES = 48
"""Tiles of the volume that are looked at."""

WINDOW = 256
"""Side in pixels of the window around a place."""

TABLE = FileKind("table of places", (b"rank,z,y,x,",))

_NEAR = 32  # pixels around a stroke that are seen first

_COLUMNS = 5  # of the picture

_RING = 12  # pixels


@dataclass(frozen=True)
class Suggestion:
    """A place, and the window around it.

    Attributes
    ----------
    z, y, x
        The voxel.
    rows, columns
        First pixel and end of the window, in its plane.
    uncertainty
        Mean entropy over log K around the place, in 0..1.
    """

    z: int
    y: int
    x: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    uncertainty: float


def suggest_places(
    volume: Any,
    strokes: Any,
    *,
    count: int = COUNT,
    tiles: int = TILES,
    recipe: str | Path | Recipe | None = None,
    table: str | Path | None = None,
    picture: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    weights_path: str | Path | None = None,
    offline: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[Suggestion, ...]:
    """Return places of a volume where strokes would teach most, the best first.

    A quick classifier of the strokes is applied to tiles that are spread over the volume. A place stands for
    many uncertain pixels that are unlike what is drawn, and the places differ from each other (see
    :meth:`hrvol.Session.next_places`).

    Parameters
    ----------
    volume
        A volume, as for :func:`hrvol.open_volume`.
    strokes
        Strokes of at least two classes, as for :func:`hrvol.train_model`. They are not changed.
    count
        How many places; there may be fewer.
    tiles
        Tiles of the volume that are looked at.
    recipe
        A recipe, its file, or a preset's name; ``None``: ``fast``.
    table
        ``*.csv`` to write.
    picture
        ``*.png`` to write: the windows, with rings around the places.
    overwrite
        Replace earlier files.
    device, weights_path, offline
        As for :func:`hrvol.train_model`.
    storage_options
        Keywords of the fsspec file system of URLs.
    progress
        Called with the stage, its steps done and their total.

    Raises
    ------
    UsageError
        A number is not positive, or a file has another suffix.
    InputError
        The volume or the strokes cannot be read; :class:`StrokesError`: fewer than two classes are drawn.
    OutputExistsError
        There is a file.
    """
    for name, value in (("count", count), ("tiles", tiles)):
        if value < 1:
            raise UsageError(f"{name}: found {value}, expected at least 1")
    _check_files(table, picture, overwrite, volume, strokes)
    opened = open_volume(volume, storage_options=storage_options)
    chosen = Recipe.load("fast" if recipe is None else recipe)
    with tempfile.TemporaryDirectory(prefix="hrvol-suggest-") as folder:
        store = DrawingStore.create(Path(folder) / "strokes.ome.zarr", opened, default_classes(()))
        with store:
            import_strokes(store, strokes, opened, storage_options=storage_options)
            drawn = DrawnStrokes(store).read()
            _check_classes(drawn, strokes)
            z, y, x = (int(v) for v in drawn.painted.places[0])
            keywords: dict[str, Any] = {"device": device, "weights_path": weights_path, "offline": offline}
            with Session.open(opened, store, recipe=chosen, cache=False, **keywords) as session:
                if progress is not None:
                    session.on_progress(progress)
                session.view(z, slice(y - _NEAR, y + _NEAR), slice(x - _NEAR, x + _NEAR))
                session.update().result()  # then the recipe's features of all strokes are there
                places = session.next_places(count, "volume", tiles)
    found = tuple(_with_window(place, opened.shape) for place in places)
    if table is not None:
        with atomic_write(Path(table)) as partial:
            partial.write_text(_csv(found, opened), encoding="utf-8")
    if picture is not None:
        sheet = _sheet(found, opened, chosen)
        with atomic_write(Path(picture)) as partial:
            Image.fromarray(sheet).save(partial, "PNG")
    return found


def _check_files(table: str | Path | None, picture: str | Path | None, overwrite: bool, *inputs: Any) -> None:
    if table is not None:
        if Path(table).suffix.lower() != ".csv":
            raise UsageError(f"{table}: found {Path(table).suffix or 'no suffix'}, expected .csv")
        check_file(table, TABLE, overwrite)
        keep_inputs(table, *inputs)
    if picture is not None:
        if Path(picture).suffix.lower() != ".png":
            raise UsageError(f"{picture}: found {Path(picture).suffix or 'no suffix'}, expected .png")
        check_picture(picture, overwrite)
        keep_inputs(picture, *inputs)


def _check_classes(drawn: Drawn, strokes: Any) -> None:
    if len(drawn.values) < 2:
        name = strokes if isinstance(strokes, (str, Path)) else "strokes"
        raise StrokesError(f"{name}: found strokes of {len(drawn.values)} classes, expected at least 2")


def _with_window(place: Place, shape: tuple[int, int, int]) -> Suggestion:
    rows, columns = _span(place.row, shape[1]), _span(place.column, shape[2])
    return Suggestion(place.plane, place.row, place.column, rows, columns, round(place.uncertainty, 4))


def _span(at: int, length: int) -> tuple[int, int]:
    """Return the pixels of a window around one of them that are inside of the plane, as many as can be."""
    side = min(WINDOW, length)
    start = min(max(at - side // 2, 0), length - side)
    return start, start + side


def _csv(found: Sequence[Suggestion], volume: Volume) -> str:
    unit = volume.unit or "voxel"
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ["row_start", "row_stop", "column_start", "column_stop", "uncertainty"]
    writer.writerow(["rank", "z", "y", "x", *names, *(f"{axis} ({unit})" for axis in "zyx")])
    for rank, one in enumerate(found, start=1):
        sizes = zip((one.z, one.y, one.x), volume.voxel_size, volume.translation, strict=True)
        position = [round(first + at * size, 9) for at, size, first in sizes]
        writer.writerow([rank, one.z, one.y, one.x, *one.rows, *one.columns, one.uncertainty, *position])
    return stream.getvalue()


def _sheet(found: Sequence[Suggestion], volume: Volume, recipe: Recipe) -> NDArray[np.uint8]:
    """Return a picture of the windows, with a ring around each place and its rank."""
    if not found:
        return np.full((WINDOW, WINDOW, 3), 255, np.uint8)
    limits = common_window([volume], recipe.intensity, recipe.seed)
    pictures = []
    for rank, one in enumerate(found, start=1):
        box = slice(one.z, one.z + 1), slice(*one.rows), slice(*one.columns)
        image = Image.fromarray(grey_picture(volume.read(box)[0], limits)).convert("RGB")
        pen = ImageDraw.Draw(image)
        y, x = one.y - one.rows[0], one.x - one.columns[0]
        pen.ellipse((x - _RING, y - _RING, x + _RING, y + _RING), outline=(255, 210, 0), width=2)
        text = f"{rank}: z {one.z}, y {one.y}, x {one.x}"
        pen.text((6, 4), text, (255, 210, 0), stroke_width=1, stroke_fill=(0, 0, 0))
        pictures.append(np.asarray(image))
    return montage(pictures, min(_COLUMNS, len(pictures)))


def to_dict(found: Sequence[Suggestion]) -> list[dict[str, Any]]:
    """Return JSON values."""
    return [asdict(one) for one in found]
