"""Choose what computes the network of deep features on the CPU."""

from __future__ import annotations

from hrvol.backend import TORCH, BackendChoice, check_name, choose_backend
from hrvol.errors import UsageError
from hrvol.recipe.specs import FeatureSpec


def choose_for_features(backend: str, device: str, spec: FeatureSpec) -> BackendChoice:
    """Choose the backend of features.

    Parameters
    ----------
    backend
        As for :func:`hrvol.backend.choose_backend`.
    device
        ``cpu`` or ``cuda``, for which there is torch only.
    spec
        The features. Without a network nothing is chosen, and half precision is torch's own.

    Raises
    ------
    UsageError
        OpenVINO is requested for a GPU, or for a network in half precision.
    DeviceError
        The backend is not installed, or the processor has no instructions for it.
    """
    check_name(backend)
    if not spec.uses_deep:
        return BackendChoice(TORCH, "the features have no network")
    precision = spec.deep.precision
    if precision != "fp32":
        if backend not in ("auto", TORCH):
            raise UsageError(
                f"backend: found {backend} for features.deep.precision: {precision}, expected torch, or fp32"
            )
        return BackendChoice(TORCH, f"the only one for {precision}")
    return choose_backend(backend, device)
