"""Units of length: their names in OME, other spellings, and their lengths."""

from __future__ import annotations

from collections.abc import Sequence

from hrvol.arrays import Spacing3

METRES = {
    "picometer": 1e-12,
    "angstrom": 1e-10,
    "nanometer": 1e-9,
    "micrometer": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "inch": 0.0254,
    "meter": 1.0,
}
"""Lengths of units in metres."""

SYMBOLS = {
    "picometer": "pm",
    "angstrom": "Å",
    "nanometer": "nm",
    "micrometer": "µm",
    "millimeter": "mm",
    "centimeter": "cm",
    "inch": "in",
    "meter": "m",
}
"""Their symbols, for people."""

# Other spellings, by users and other software.
_SPELLINGS = {
    "å": "angstrom",
    "ångström": "angstrom",
    "pm": "picometer",
    "nm": "nanometer",
    "nanometre": "nanometer",
    "um": "micrometer",
    "µm": "micrometer",
    "μm": "micrometer",
    "\\u00b5m": "micrometer",
    "micron": "micrometer",
    "microns": "micrometer",
    "micrometre": "micrometer",
    "mm": "millimeter",
    "millimetre": "millimeter",
    "cm": "centimeter",
    "centimetre": "centimeter",
    "in": "inch",
    "m": "meter",
    "metre": "meter",
}


def normal_unit(unit: str | None) -> str | None:
    """Return the OME name of a unit of length; ``None`` for no unit and for pixels."""
    if unit is None:
        return None
    name = unit.strip().lower()
    if name in ("", "pixel", "pixels", "px", "none", "null"):
        return None
    return _SPELLINGS.get(name, name)


def common_unit(sizes: Spacing3, units: Sequence[str | None]) -> tuple[Spacing3, str | None]:
    """Express voxel sizes (z, y, x) in the unit of x.

    Parameters
    ----------
    sizes, units
        Per axis, (z, y, x). The size of an axis without a unit of length is not converted.

    Returns
    -------
    tuple
        The sizes and the unit of x (``None`` if it has none).
    """
    names = [normal_unit(unit) for unit in units]
    target = names[-1]
    if target not in METRES:
        return sizes, target
    z, y, x = (
        size * METRES[name] / METRES[target] if name in METRES and name != target else size
        for size, name in zip(sizes, names, strict=True)
    )
    return (z, y, x), target


def metres(unit: str | None) -> float | None:
    """Return the length of a unit in metres; ``None`` if hrvol does not know it."""
    return METRES.get(normal_unit(unit) or "")
