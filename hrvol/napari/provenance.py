"""Read the request of a run from its output, so that it can be resumed."""

from __future__ import annotations

from typing import Any

from hrvol.errors import InputError
from hrvol.napari.requests import SegmentRequest
from hrvol.volume.grid.tiling import Box
from hrvol.volume.storage.location import Location


def request_of(output: str) -> SegmentRequest:
    """Return the request that an output records, as far as it does: engine and workers are not part of it.

    Raises
    ------
    InputError
        It is no output of a segmentation, or its provenance is damaged.
    """
    made = (Location.of(output).attributes() or {}).get("hrvol")
    if not isinstance(made, dict):
        raise InputError(f"{output}: found no output of a run")
    return SegmentRequest(
        volume=_text(made, "input"),
        model=_text(made, "model"),
        output=output,
        region=_region(made),
        probabilities=_flag(made, "probabilities"),
        uncertainty=_flag(made, "uncertainty"),
        skip_background=made.get("mask") is not None,
        class_weights=_weights(made),
    )


def _text(made: dict[str, Any], key: str) -> str:
    values = made.get(key)
    source = values.get("source") if isinstance(values, dict) else None
    return source if isinstance(source, str) else ""


def _flag(made: dict[str, Any], key: str) -> bool:
    outputs = made.get("outputs")
    return isinstance(outputs, dict) and outputs.get(key) is True


def _weights(made: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    """Return the class weights that were requested; those that were chosen by fractions were not."""
    values = made.get("class_weights")
    if not isinstance(values, dict) or "fractions" in made:
        return ()
    return tuple(
        (str(name), float(factor))
        for name, factor in values.items()
        if isinstance(factor, int | float) and factor != 1
    )


def _region(made: dict[str, Any]) -> Box | None:
    """Return the region; ``None`` if it is all of the volume, or not recorded."""
    region, values = made.get("region"), made.get("input")
    shape = values.get("shape") if isinstance(values, dict) else None
    try:
        (z0, z1), (y0, y1), (x0, x1) = ((int(start), int(stop)) for start, stop in region or ())
        sides = [1, 1, *map(int, shape or ())][-3:]
    except (TypeError, ValueError):
        return None
    if [(z0, z1), (y0, y1), (x0, x1)] == [(0, side) for side in sides]:
        return None
    return slice(z0, z1), slice(y0, y1), slice(x0, x1)
