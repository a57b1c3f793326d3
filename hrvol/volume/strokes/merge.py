"""Count strokes by class and plane, and merge those of several sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hrvol.classes import MAX_VALUE, ClassInfo, default_colour
from hrvol.errors import StrokesError
from hrvol.volume.strokes.painted import MOST_PAINTED, Painted
from hrvol.volume.strokes.stroke_counts import StrokeCounts
from hrvol.volume.strokes.strokes import Strokes

Conflicts = Literal["error", "first", "last"]
"""Which of two classes counts that are drawn on one voxel."""

_SHOWN = 3


def count_strokes(strokes: Strokes) -> StrokeCounts:
    """Count the drawn voxels of each class in each plane, one piece in memory at a time.

    Raises
    ------
    StrokesError
        A value is no class.
    """
    planes: dict[int, dict[int, int]] = {}
    for box, labels in strokes.drawn():
        for z, plane in enumerate(labels, start=box[0].start):
            values, counts = np.unique(plane[plane != 0], return_counts=True)
            _check_values(values, strokes.source)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                of_class = planes.setdefault(value, {})
                of_class[z] = of_class.get(z, 0) + count
    known = {info.value: info for info in strokes.classes or ()}
    ordered = {value: dict(sorted(planes[value].items())) for value in sorted(planes)}
    return StrokeCounts(ordered, tuple(known.get(value, _unnamed(value)) for value in ordered))


def merge_strokes(sources: Sequence[Strokes], conflicts: Conflicts = "error") -> Strokes:
    """Return strokes of several sources on one volume as one.

    Parameters
    ----------
    sources
        Strokes on a volume of one shape; the largest where it is unknown.
    conflicts
        Which class counts where two sources draw different ones: ``first``, ``last``, or ``error``: none.

    Raises
    ------
    StrokesError
        Sources name classes differently, or draw different classes on a voxel.
    """
    classes = _merged_classes(sources)
    painted = [painted_of(one) for one in sources]
    shape = tuple(max(one.shape[axis] for one in sources) for axis in range(3))
    for later, strokes in zip(painted[1:], sources[1:], strict=True):
        if conflicts == "error":
            for earlier, other in zip(painted, sources, strict=True):
                if earlier is later:
                    break
                _check_conflicts(earlier, later, (other.source, strokes.source), classes)
    order = painted[::-1] if conflicts == "first" else painted
    joined = Painted.of(
        np.concatenate([one.places for one in order]), np.concatenate([one.values for one in order])
    )
    names = " + ".join(one.source for one in sources)
    infos = tuple(classes[value] for value in sorted(classes)) or None
    return Strokes(names, (shape[0], shape[1], shape[2]), painted=joined, classes=infos)


def painted_of(strokes: Strokes) -> Painted:
    """Return all drawn voxels of strokes as a list; :class:`StrokesError` if they are too many for one."""
    if strokes.painted is not None:
        return strokes.painted
    places, values, count = [], [], 0
    for box, labels in strokes.drawn():
        inside = np.nonzero(labels)
        count += len(inside[0])
        if count > MOST_PAINTED:
            raise StrokesError(f"{strokes.source}: found more than {MOST_PAINTED:,} pixels, expected fewer")
        drawn = labels[inside]
        _check_values(np.unique(drawn), strokes.source)
        places.append(np.stack(inside, axis=1) + [span.start for span in box])
        values.append(drawn.astype(np.uint16))
    if not places:
        return Painted.of(np.empty((0, 3)), np.empty(0))
    return Painted.of(np.concatenate(places), np.concatenate(values))


def _check_values(values: NDArray[Any], source: str) -> None:
    if len(values) and not 0 < int(values[0]) <= int(values[-1]) <= MAX_VALUE:
        raise StrokesError(
            f"{source}: found labels {int(values[0])} to {int(values[-1])}, expected 0 or classes"
            f" 1..{MAX_VALUE}"
        )


def _merged_classes(sources: Sequence[Strokes]) -> dict[int, ClassInfo]:
    by_value: dict[int, tuple[ClassInfo, str]] = {}
    by_name: dict[str, tuple[ClassInfo, str]] = {}
    for strokes in sources:
        for info in strokes.classes or ():
            same, where = by_value.setdefault(info.value, (info, strokes.source))
            if same.name != info.name:
                raise StrokesError(
                    f"{strokes.source}: found class {info.value} as {info.name}, expected {same.name} as in"
                    f" {where} (--classes a,b,c sets the order of names)"
                )
            same, where = by_name.setdefault(info.name, (info, strokes.source))
            if same.value != info.value:
                raise StrokesError(
                    f"{strokes.source}: found class {info.name} as {info.value}, expected {same.value} as in"
                    f" {where} (--classes a,b,c sets the order of names)"
                )
    return {value: info for value, (info, _) in by_value.items()}


def _check_conflicts(
    one: Painted, other: Painted, names: tuple[str, str], classes: Mapping[int, ClassInfo]
) -> None:
    """Raise a :class:`StrokesError` that names voxels which two sources draw with different classes."""
    both = np.concatenate([one.places, other.places])
    order = np.lexsort((both[:, 2], both[:, 1], both[:, 0]))
    values = np.concatenate([one.values, other.values])[order]
    places = both[order]
    same = np.flatnonzero((np.diff(places, axis=0) == 0).all(axis=1))
    differ = same[values[same] != values[same + 1]]
    if not len(differ):
        return

    def name(value: int) -> str:
        return classes[value].name if value in classes else str(value)

    shown = "; ".join(
        f"z {places[i, 0]}, y {places[i, 1]}, x {places[i, 2]}: {name(int(values[i]))} and"
        f" {name(int(values[i + 1]))}"
        for i in differ[:_SHOWN]
    )
    raise StrokesError(
        f"{names[1]}: found {len(differ):,} pixels of other classes than in {names[0]} ({shown}), expected"
        " the same (--conflicts last: the last source counts)"
    )


def _unnamed(value: int) -> ClassInfo:
    return ClassInfo(value, f"class {value}", default_colour(value))
