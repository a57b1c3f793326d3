"""Boxes around the foreground objects of a label map, and its saliency mask (paper, section 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import measure

from hrvol.errors import InputError
from hrvol.quality.metrics import box_iou

Mode = Literal["multi", "single"]

NAME_OF_SUPERBOX = "all foreground"

_FAR = np.iinfo(np.int32).max  # where an empty box starts, so that the union with another box is the other


@dataclass(frozen=True)
class Object:
    """A connected component of the foreground.

    Attributes
    ----------
    label
        Its class; 0 for the superbox, a component of all foreground classes together.
    box
        Half-open, in pixels: ``(y0, x0, y1, x1)``, or ``(z0, y0, x0, z1, y1, x1)`` in 3D.
    size
        Pixels of the component (not of the box).
    superbox
        Whether this is the superbox.
    """

    label: int
    box: tuple[int, ...]
    size: int
    superbox: bool


@dataclass(frozen=True, eq=False)
class Components:
    """Measures of n connected components: a table of D-dimensional boxes.

    Attributes
    ----------
    labels
        ``(n,)`` int64: classes; 0 for components of all foreground classes together.
    sizes
        ``(n,)`` int64: pixels.
    boxes
        ``(n, 2 * D)`` int32, as in :class:`Object`; a component without pixels has a box that ends before it
        starts.
    sums
        ``(n, m)`` int64: other measures that add up over the pieces of a component; ``None``: none.
    """

    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    boxes: NDArray[np.int32]
    sums: NDArray[np.int64] | None = None

    @classmethod
    def concatenated(cls, tables: Iterable[Components]) -> Components:
        """Return the rows of several tables, in order."""
        several = list(tables)
        columns = zip(*((table.labels, table.sizes, table.boxes) for table in several), strict=True)
        sums = [table.sums for table in several if table.sums is not None]
        labels, sizes, boxes = map(np.concatenate, columns)
        return cls(labels, sizes, boxes, np.concatenate(sums) if sums else None)

    def __getitem__(self, rows: NDArray[Any]) -> Components:
        """Return the rows that a mask or an index array selects."""
        sums = None if self.sums is None else self.sums[rows]
        return Components(self.labels[rows], self.sizes[rows], self.boxes[rows], sums)

    def merged(self, group: NDArray[Any]) -> Components:
        """Return the union of each group of rows; ``group`` ``(n,)`` numbers the groups 0..m-1."""
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        lows, highs = np.split(self.boxes[order], 2, axis=1)
        return Components(
            self.labels[order][starts],
            np.add.reduceat(self.sizes[order], starts),
            np.hstack([np.minimum.reduceat(lows, starts), np.maximum.reduceat(highs, starts)]),
            None if self.sums is None else np.add.reduceat(self.sums[order], starts),
        )

    def to_objects(self, min_size: int) -> tuple[list[Object], Object | None]:
        """Return objects of single classes, and the largest of all classes (of equals, the first box)."""
        single, united = self[self.labels > 0], self[self.labels == 0]
        united = united[united.sizes == united.sizes.max(initial=0)]
        return single[single.sizes >= min_size]._rows(), min(united._rows(), key=rank, default=None)

    def _rows(self) -> list[Object]:
        columns = self.labels.tolist(), self.boxes.tolist(), self.sizes.tolist()
        return [
            Object(label, tuple(box), size, label == 0) for label, box, size in zip(*columns, strict=True)
        ]


def foreground_mask(labels: NDArray[Any], foreground: Sequence[int]) -> NDArray[np.bool_]:
    """Return the saliency mask of labels of any shape: where they are of a foreground class (section 4.3.2).

    Raises
    ------
    InputError
        Labels are not integers, or a foreground class is below 1.
    """
    if labels.dtype.kind not in "iub":
        raise InputError(f"labels: found values of type {labels.dtype}, expected integer labels")
    if any(value < 1 for value in foreground):
        raise InputError(f"foreground: found classes {sorted(foreground)}, expected them from 1")
    return np.isin(labels, np.asarray(foreground, np.int64))


def find_objects(
    labels: NDArray[Any],
    foreground: Sequence[int],
    *,
    min_size: int = 200,
    mode: Mode = "multi",
    superbox_iou: float = 0.8,
) -> tuple[Object, ...]:
    """Box the connected components of each foreground class, and the superbox (paper, section 4.3.1).

    The superbox is around the largest connected component of all foreground classes together: it covers
    objects that were split into classes. Pixels that touch by a corner are connected.

    Parameters
    ----------
    labels
        ``(Y, X)`` or ``(Z, Y, X)`` integer labels.
    foreground
        Foreground classes, from 1; the map may lack some.
    min_size
        Least pixels of a component (the reference code's is 201). The superbox may have fewer, so that
        ``single`` gives every map with any foreground a box.
    mode
        ``multi``: all boxes; ``single``: the superbox only, and always.
    superbox_iou
        With ``multi``, the superbox is left out if its intersection over union with another box is larger.

    Returns
    -------
    tuple[Object, ...]
        The superbox, then the others by falling size, then by box and class. Empty without foreground.

    Raises
    ------
    InputError
        Labels are not integers or neither 2-D nor 3-D, or a foreground class is below 1.
    """
    if labels.ndim not in (2, 3):
        raise InputError(f"labels: found shape {labels.shape}, expected (Y, X) or (Z, Y, X)")
    kept = np.where(foreground_mask(labels, foreground), labels, 0)
    _, components, _ = measure_components(kept, (0,) * labels.ndim, (0,) * labels.ndim)
    return select_objects(*components.to_objects(min_size), mode, superbox_iou)


def as_rows(
    objects: Iterable[Object], classes: Mapping[int, str] | None = None
) -> list[dict[str, int | str]]:
    """Return rows of a table: ``class``, ``superbox`` (0 or 1), ``size``, ``z0`` (not in 2D) .. ``x1``.

    With names of classes there is also ``name``; that of the superbox is :data:`NAME_OF_SUPERBOX`.
    """
    rows: list[dict[str, int | str]] = []
    for item in objects:
        axes = "zyx" if len(item.box) == 6 else "yx"
        names = [f"{axis}{end}" for end in (0, 1) for axis in axes]
        row: dict[str, int | str] = {"class": item.label, "superbox": int(item.superbox), "size": item.size}
        if classes is not None:
            row["name"] = classes.get(item.label, NAME_OF_SUPERBOX)
        rows.append(row | dict(zip(names, item.box, strict=True)))
    return rows


def measure_components(
    kept: NDArray[Any],
    origin: tuple[int, ...],
    halo_low: tuple[int, ...],
    sums: Callable[[NDArray[Any], int], NDArray[np.int64]] | None = None,
) -> tuple[NDArray[Any], Components, NDArray[np.int32]]:
    """Label and measure the connected components of a map that is 0 off the foreground.

    Parameters
    ----------
    kept
        Integer labels; 0 off the foreground.
    origin
        Position in the volume of the first voxel behind the halo.
    halo_low
        Voxels of halo on the low side of each axis; they are labelled but do not count.
    sums
        Called with the numbers behind the halo and the highest one; returns ``(numbers, m)`` other measures
        of the components 1, 2, ... that add up.

    Returns
    -------
    numbered
        The number of each voxel's component of a single class, from 1; 0 off the foreground.
    components
        n components of single classes, then those of all foreground classes together.
    united_of
        ``(n,)`` int32: index of the component of all foreground classes that holds each of a single class.
    """
    numbered, count = measure.label(kept, background=0, return_num=True, connectivity=kept.ndim)
    labels, united_of = np.zeros((2, count + 1), np.int64)
    labels[numbered] = kept
    united_of[numbered] = measure.label(kept > 0, connectivity=kept.ndim)
    inside = numbered[tuple(slice(halo, None) for halo in halo_low)]
    sizes = np.bincount(inside.ravel(), minlength=count + 1).astype(np.int64, copy=False)
    boxes = np.tile(np.repeat(np.array([_FAR, 0], np.int32), kept.ndim), (count, 1))
    for number, spans in enumerate(
        ndimage.find_objects(inside, count)
    ):  # regionprops_table is 9 times slower
        if spans is not None:
            boxes[number] = [span.start for span in spans] + [span.stop for span in spans]
    boxes[sizes[1:] > 0] += np.array(origin * 2, np.int32)
    added = None if sums is None else sums(inside, count)
    single = Components(labels[1:], sizes[1:], boxes, added)
    united = replace(single, labels=np.zeros(count, np.int64)).merged(united_of[1:] - 1)
    components = Components.concatenated([single, united])
    return numbered, components, (count - 1 + united_of[1:]).astype(np.int32)


def select_objects(
    objects: Iterable[Object], superbox: Object | None, mode: Mode, superbox_iou: float
) -> tuple[Object, ...]:
    """Return the objects of a mode, in order; see :func:`find_objects`."""
    if superbox is None or mode == "single":
        return (superbox,) if superbox else ()
    others = tuple(sorted(objects, key=rank))
    redundant = any(box_iou(superbox.box, item.box) > superbox_iou for item in others)
    return others if redundant else (superbox, *others)


def rank(item: Object) -> tuple[int, tuple[int, ...], int]:
    """Return the sort key of objects: falling size, then box and class."""
    return -item.size, item.box, item.label
