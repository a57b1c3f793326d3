"""Import strokes of any origin into those that are drawn, and export these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import ClassInfo, default_classes
from hrvol.errors import StrokesError
from hrvol.interactive.protocols import PaintedStrokes
from hrvol.volume.drawing_store.as_strokes import strokes_of
from hrvol.volume.drawing_store.drawer import Drawer
from hrvol.volume.guard import keep_inputs
from hrvol.volume.storage.location import Location
from hrvol.volume.strokes.merge import Conflicts
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.strokes.strokes import Strokes
from hrvol.volume.strokes.write import write_strokes
from hrvol.volume.volume import Volume


def import_strokes(
    store: PaintedStrokes,
    source: Any,
    volume: Volume | None = None,
    *,
    names: Sequence[str] | None = None,
    conflicts: Conflicts = "error",
    storage_options: Mapping[str, Any] | None = None,
) -> int:
    """Draw strokes of another origin, as one step of undo, or several if another thread draws meanwhile.

    Parameters
    ----------
    store
        What is drawn so far.
    source
        As for :func:`hrvol.volume.strokes.open_strokes.open_strokes`: labels of the volume's shape, crops,
        points, polygons, ilastik projects, ROIs of ImageJ.
    volume
        The volume; only crops that ImageJ made need it.
    names
        Names of the classes 1, 2, ... for drawings whose classes have names; ``None``: those of the source.
    conflicts
        Which class counts where both draw different ones: ``first``: that in the store, ``last``: the
        imported one, ``error``: neither, nothing is imported.
    storage_options
        Keywords of the fsspec file system of URLs.

    Returns
    -------
    int
        Number of changed voxels. Classes are those of the same name; new ones keep their value if no class
        had it. Values without names are classes of these values.

    Raises
    ------
    InputError
        The source cannot be read; :class:`StrokesError`: it does not fit the volume, or conflicts.
    """
    strokes = open_strokes(source, volume or store.labels, names=names, storage_options=storage_options)
    if strokes.shape != store.shape:
        raise StrokesError(
            f"{strokes.source}: found strokes on {strokes.shape} voxels, expected {store.shape} as in"
            f" {store.source}"
        )
    strokes.check_size()
    infos = _infos(strokes, names)
    if conflicts == "error":
        _check_conflicts(store, strokes, infos)
    with store.stroke():
        values = {info.value: _value_of(store, info) for info in infos}
        return sum(_draw(store, where, drawn, values, conflicts) for where, drawn in _planes(strokes))


def export_strokes(
    store: Drawer, path: str | Path | Location, like: Volume | None = None, *, overwrite: bool = False
) -> None:
    """Write what is drawn, saved or not, to a file or store.

    Parameters
    ----------
    store
        What is drawn.
    path
        ``*.ome.zarr``, ``*.tif`` or ``*.csv``, as :func:`hrvol.volume.strokes.write.write_strokes` has it.
    like
        The volume whose voxel size, unit and position labels get; ``None``: those of the store.
    overwrite
        Whether to replace an earlier file or output of hrvol.

    Raises
    ------
    UsageError
        The suffix is another one, or the path is that of the store.
    OutputExistsError
        The path is occupied.
    StrokesError
        The volume is too large for TIFF.
    """
    keep_inputs(path, store.source, role="store of the strokes")
    write_strokes(strokes_of(store), path, like or store.labels, overwrite=overwrite)


def _infos(strokes: Strokes, names: Sequence[str] | None) -> tuple[ClassInfo, ...]:
    """Return the classes of strokes; where the user names those of an array, by these names."""
    if strokes.classes is not None or names is None:
        return strokes.classes or ()
    return default_classes(range(1, len(names) + 1), names)


def _value_of(store: PaintedStrokes, info: ClassInfo) -> int:
    """Return the value in the store of a class of the source, which is added if no class has its name."""
    for known in store.classes:
        if known.name == info.name:
            return known.value
    return store.add_class(info.name, info.colour, info.value)


def _planes(strokes: Strokes) -> Iterator[tuple[tuple[NDArray[Any], ...], NDArray[Any]]]:
    """Yield drawn voxels as index arrays, and their values, plane by plane: few are in memory at once."""
    for box, labels in strokes.drawn():
        for number, plane in enumerate(labels):
            rows, columns = np.nonzero(plane)
            if len(rows):
                z = np.full(len(rows), box[0].start + number)
                yield (z, rows + box[1].start, columns + box[2].start), plane[rows, columns]


def _draw(
    store: PaintedStrokes,
    where: tuple[NDArray[Any], ...],
    drawn: NDArray[Any],
    values: Mapping[int, int],
    conflicts: Conflicts,
) -> int:
    z, y, x = where
    new = _mapped(drawn, values)
    if conflicts == "first":
        free = store.read_places((z, y, x)) == 0
        z, y, x, new = z[free], y[free], x[free], new[free]
    return store.paint((z, y, x), new).pixels


def _mapped(drawn: NDArray[Any], values: Mapping[int, int]) -> NDArray[np.int64]:
    new = drawn.astype(np.int64)
    for value, target in values.items():
        new[drawn == value] = target
    return new


def _check_conflicts(store: PaintedStrokes, strokes: Strokes, infos: Sequence[ClassInfo]) -> None:
    """Raise a :class:`StrokesError` that names the first voxel that both draw with different classes."""
    known = {info.name: info.value for info in store.classes}
    values = {info.value: known.get(info.name, -1) for info in infos}
    names = {info.value: info.name for info in store.classes}
    own = {info.value: info.name for info in infos}
    count, shown = 0, ""
    for where, drawn in _planes(strokes):
        z, y, x = where
        present = store.read_places((z, y, x)).astype(np.int64)
        differ = np.flatnonzero((present > 0) & (present != _mapped(drawn, values)))
        count += len(differ)
        if len(differ) and not shown:
            i = int(differ[0])
            old, new = int(present[i]), int(drawn[i])
            shown = f"z {z[i]}, y {y[i]}, x {x[i]}: {names.get(old, old)} and {own.get(new, new)}"
    if count:
        raise StrokesError(
            f"{strokes.source}: found {count:,} pixels of other classes than in {store.source} ({shown}),"
            " expected the same (or that the first or the last counts)"
        )
