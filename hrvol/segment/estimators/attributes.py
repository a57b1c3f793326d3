"""Check attributes of estimators that were read from a file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def attribute(owner: Any, name: str, kind: type) -> Any:
    """Return an attribute that has exactly this type; raise ``ValueError`` otherwise."""
    value = vars(owner).get(name)
    if type(value) is not kind:
        raise ValueError(
            f"found a {type(owner).__name__} with {name} of type {type(value).__name__},"
            f" expected {kind.__name__}"
        )
    return value


def check_number(owner: Any, name: str, expected: int) -> None:
    """Raise ``ValueError`` if an attribute is not this integer."""
    value = vars(owner).get(name)
    if type(value) is bool or not isinstance(value, int | np.integer) or value != expected:
        found = value if isinstance(value, int | np.integer) else type(value).__name__
        raise ValueError(f"found a {type(owner).__name__} with {name} {found}, expected {expected}")


def check_numbers(name: str, values: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array of finite floating-point numbers of a shape; raise ``ValueError`` for another one."""
    if type(values) is not np.ndarray or values.dtype.kind != "f" or values.shape != shape:
        found = f"{getattr(values, 'dtype', type(values).__name__)} {getattr(values, 'shape', '')}"
        raise ValueError(f"found {name} {found}, expected floating-point numbers {shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"found NaN or infinity in {name}, expected finite numbers")
    return values
