"""Make the sections about doubt that need no uncertainty map: distance from the strokes, and calibration."""

from __future__ import annotations

from typing import Any

from hrvol.errors import InputError
from hrvol.figures.reliability import reliability_svg
from hrvol.report.content import PageTable, Section, short
from hrvol.report.facts import Facts
from hrvol.run.attribute_names import CALIBRATION, DRIFT
from hrvol.run.drift_entry import read_entry
from hrvol.segment.model.model import Model


def drift_section(facts: Facts) -> Section | None:
    """Return how far planes are from the training strokes, as the output records; ``None`` for nothing."""
    try:
        drift = read_entry(facts.attributes.get(DRIFT), str(facts.location))
    except InputError:
        return None
    if drift is None:
        return None
    planes, far = len(drift.planes), len(drift.far)
    text = (
        f"Tiles that were compared with the strokes that the model was trained on: {drift.tiles}, in {planes}"
        f" plane{'s' * (planes > 1)}. A distance is that of a plane's median pixel; pixels like those of the"
        f" training have about 1, and beyond {drift.threshold:.2f} a plane is far. "
    )
    if far:
        text += (
            f"Far are {far} of {planes}: labels there may be wrong. Draw strokes on some of them, and train"
            " again with the others."
        )
    else:
        text += "None is far."
    rows = [
        [f"z = {z}", f"{distance:.2f}", "far" if z in drift.far else ""]
        for z, distance in zip(drift.planes, drift.distances, strict=True)
    ]
    return Section(
        text=text,
        table=PageTable("Distance of planes from the training strokes", ["plane", "distance", ""], rows),
        values=drift.to_dict() | {"far": list(drift.far)},
    )


def calibration_section(facts: Facts, model: Model | None) -> Section | None:
    """Return the reliability of a calibrated model; ``None`` for others."""
    if model is None or model.calibration is None:
        return None
    found = model.calibration
    applied = isinstance(facts.attributes.get(CALIBRATION), dict)
    where = (
        "It was applied to probabilities and uncertainty of this output."
        if applied
        else "It was not applied in this output."
    )
    values: dict[str, Any] = {
        "temperature": found.temperature,
        "applied": applied,
        "error_before": found.before.error,
        "error_after": found.after.error,
        "pixels": found.pixels,
        "held_out": found.held_out,
    }
    return Section(
        text=(
            f"A temperature of {short(found.temperature)} was fitted to the model's probabilities on held-out"
            f" strokes. Their expected calibration error was {found.before.error:.3f} before, and"
            f" {found.after.error:.3f} after. {where} Labels do not depend on it."
        ),
        note=(
            f"Share of right labels against their probability, on {found.pixels:,} pixels of held-out strokes"
            f" ({found.held_out}); on the dotted line they are equal."
        ),
        chart=reliability_svg("reliability", found),
        values=values,
    )
