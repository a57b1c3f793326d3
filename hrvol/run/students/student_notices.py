"""What to know before a student is used: how its volume differs from the one that it was taught on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from hrvol.errors import InputError, ModelError
from hrvol.segment.model.model import Model
from hrvol.segment.student.lattice import Lattice
from hrvol.segment.student.student import StudentClassifier
from hrvol.text import printable
from hrvol.volume.intensity import grey_statistics
from hrvol.volume.volume import Volume

GREY_SHIFT = 0.1
"""Least difference of mean or standard deviation, in units of the intensity window, that is reported."""


def check_refinement(model: Model, *, crf: bool) -> None:
    """Raise a :class:`ModelError` if labels of a student are to be refined by a CRF.

    Parameters
    ----------
    model
        The student.
    crf
        Whether the run is requested to refine labels.
    """
    if crf or model.recipe.crf is not None:
        where = "" if crf else " in its recipe"
        raise ModelError(
            f"{model.source}: found a CRF{where} for the labels of a student, which do not depend on tiles as"
            " those of a CRF do; expected none, or the model that taught it"
        )


def notices(model: Model, volume: Volume, sha256: str, lattice: Lattice) -> Iterator[str]:
    """Yield what a user should know about a student on a volume, in one line each.

    Parameters
    ----------
    model
        The student.
    volume, sha256
        The volume, and the digest that identifies it.
    lattice
        Of the volume.
    """
    field = tuple(2 * around + 1 for around in lattice.halo)
    if any(length < side for length, side in zip(volume.shape, field, strict=True)):
        yield (
            f"{volume.source}: found {_sides(volume.shape)} voxels, less than the {_sides(field)} on which a"
            " label depends: they are mirrored at the borders"
        )
    assert isinstance(model.classifier, StudentClassifier)
    taught = model.classifier.taught.get("volume") or {}
    if taught.get("sha256") in (None, sha256):
        return
    other = printable(str(taught.get("source", "unknown")), 200)
    yield (
        f"{model.source}: taught on another volume ({other}) than {volume.source}; a student has no features"
        " to compare with the training strokes: segment a few planes with its teacher (--roi) to have it"
        " compared"
    )
    with suppress(InputError):  # blocks with unreadable voxels will report them
        yield from _shift(model, model.classifier.taught.get("grey") or {}, volume)


def _shift(model: Model, taught: Mapping[str, Any], volume: Volume) -> Iterator[str]:
    """Yield how grey values differ from those that a student was taught on."""
    if not {"mean", "std"} <= taught.keys():
        return
    mean, std = grey_statistics(volume, model.window)
    differences = [
        f"{name} {found:.2f}, expected {expected:.2f}"
        for name, found, expected in (
            ("mean", mean, taught["mean"]),
            ("standard deviation", std, taught["std"]),
        )
        if abs(found - expected) > GREY_SHIFT
    ]
    if differences:
        yield f"{volume.source}: grey values differ from those it was taught on: {'; '.join(differences)}"


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
