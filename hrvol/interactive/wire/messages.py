"""Write classes, previews, answers and errors as JSON values and arrays, and read them again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol import errors
from hrvol.classes import ClassInfo
from hrvol.errors import HrvolError, InputError
from hrvol.interactive.results import ORDER, Place, Preview, Quality

Arrays = Mapping[str, NDArray[Any]]

_PLANES = ("labels", "probabilities", "uncertainty")


def classes_to_json(classes: Sequence[ClassInfo]) -> list[list[Any]]:
    """Return classes as JSON values."""
    return [[info.value, info.name, list(info.colour)] for info in classes]


def classes_from_json(values: Any) -> tuple[ClassInfo, ...]:
    """Return the classes of JSON values; :class:`InputError` if they are damaged."""
    try:
        return tuple(ClassInfo(int(v), str(n), (int(r), int(g), int(b))) for v, n, (r, g, b) in values)
    except (TypeError, ValueError):
        raise InputError("answer of a server: found damaged classes") from None


def error_to_json(error: BaseException) -> dict[str, str]:
    """Return an error as the name of its class and one line."""
    if isinstance(error, HrvolError):
        return {"error": type(error).__name__, "message": str(error)}
    return {"error": "HrvolError", "message": f"unexpected {errors.one_line(error)} (a fault in hrvol)"}


def error_from_json(values: Any) -> HrvolError:
    """Return the error of JSON values: of the same class, with the same line."""
    found = values if isinstance(values, Mapping) else {}
    kind = getattr(errors, str(found.get("error")), None)
    if not (isinstance(kind, type) and issubclass(kind, HrvolError)):
        kind = HrvolError
    return kind(str(found.get("message") or "the server failed"))


def preview_to_json(preview: Preview, version: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return a preview as JSON values and arrays; ``version`` is that of the client's strokes."""
    values = {
        "plane": preview.plane,
        "rows": [preview.rows.start, preview.rows.stop],
        "columns": [preview.columns.start, preview.columns.stop],
        "step": preview.step,
        "classes": classes_to_json(preview.classes),
        "stage": preview.stage,
        "exact": bool(preview.exact),
        "complete": bool(preview.complete),
        "version": version,
    }
    return values, {name: getattr(preview, name) for name in _PLANES}


def preview_from_json(values: Mapping[str, Any], arrays: Arrays) -> Preview:
    """Return the preview of JSON values and arrays; :class:`InputError` if they are damaged."""
    try:
        labels, probabilities, uncertainty = (arrays[name] for name in _PLANES)
        classes = classes_from_json(values["classes"])
        fits = (
            labels.ndim == 2
            and labels.dtype == np.uint16
            and probabilities.shape == (len(classes), *labels.shape)
            and uncertainty.shape == labels.shape
            and probabilities.dtype == uncertainty.dtype == np.float32
            and values["stage"] in ORDER
        )
        if not fits:
            raise ValueError
        return Preview(
            int(values["plane"]),
            slice(*map(int, values["rows"])),
            slice(*map(int, values["columns"])),
            int(values["step"]),
            classes,
            labels,
            probabilities,
            uncertainty,
            values["stage"],
            bool(values["exact"]),
            bool(values["complete"]),
            int(values["version"]),
        )
    except (KeyError, TypeError, ValueError):
        raise InputError("answer of a server: found a damaged preview") from None


def places_to_json(places: Sequence[Place]) -> list[list[float]]:
    """Return places as JSON values."""
    return [[p.plane, p.row, p.column, p.uncertainty] for p in places]


def places_from_json(values: Any) -> tuple[Place, ...]:
    """Return the places of JSON values; :class:`InputError` if they are damaged."""
    try:
        return tuple(Place(int(z), int(y), int(x), float(u)) for z, y, x, u in values)
    except (TypeError, ValueError):
        raise InputError("answer of a server: found damaged places") from None


def quality_to_json(quality: Quality, version: int) -> dict[str, Any]:
    """Return a quality as JSON values, NaN as null."""
    return {
        "classes": classes_to_json(quality.classes),
        "iou": [None if math.isnan(iou) else iou for iou in quality.iou],
        "mean": None if math.isnan(quality.mean) else quality.mean,
        "description": quality.description,
        "version": version,
    }


def quality_from_json(values: Any) -> Quality:
    """Return the quality of JSON values; :class:`InputError` if they are damaged."""
    try:
        iou = tuple(math.nan if value is None else float(value) for value in values["iou"])
        mean = math.nan if values["mean"] is None else float(values["mean"])
        classes = classes_from_json(values["classes"])
        return Quality(classes, iou, mean, str(values["description"]), int(values["version"]))
    except (KeyError, TypeError, ValueError):
        raise InputError("answer of a server: found a damaged quality") from None
