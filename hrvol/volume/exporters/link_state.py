"""Make a state of neuroglancer that shows labels where they are published, in the colours of classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hrvol.files import SOFTWARE
from hrvol.volume.exporters.content import Content, hex_colour
from hrvol.volume.units import metres

NAME = "neuroglancer"

SUFFIX = ".json"

_VIEW = 512  # voxels across a panel, about


def link_state(content: Content, source: str, image: str | None) -> dict[str, Any]:
    """Return the state.

    Parameters
    ----------
    content
        What is shown.
    source
        URL of the group of the OME-Zarr.
    image
        URL of the image around the labels; ``None`` without one.
    """
    scale = metres(content.unit)
    unit = "" if scale is None else "m"
    axes = "zyx"[-content.ndim :]
    sizes = dict(zip("zyx", content.voxel_size, strict=True))
    shape = dict(zip("zyx", content.shape, strict=True))
    first = dict(zip("zyx", content.translation, strict=True))
    layers: list[dict[str, Any]] = []
    if image is not None:
        layers.append({"type": "image", "name": "image", "source": image})
    layer: dict[str, Any] = {"name": content.kind, "source": source}
    if content.kind == "labels":
        layer |= {
            "type": "segmentation",
            "segments": [str(info.value) for info in content.classes],
            "segmentColors": {str(info.value): hex_colour(info) for info in content.classes},
        }
    else:
        layer["type"] = "image"
    return {
        "title": f"{SOFTWARE}: {', '.join(info.name for info in content.classes) or content.kind}",
        "dimensions": {axis: [sizes[axis] * (scale or 1.0), unit] for axis in axes},
        "position": [first[axis] / sizes[axis] + shape[axis] / 2 for axis in axes],
        "crossSectionScale": max(1.0, shape["x"] / _VIEW),
        "layers": [*layers, layer],
        "selectedLayer": {"visible": True, "layer": content.kind},
        "layout": "4panel" if content.ndim == 3 else "xy",
    }


def zarr_source(url: str, version: int) -> str:
    """Return how neuroglancer names an OME-Zarr of a version of the Zarr format."""
    return f"{url.rstrip('/')}/|zarr{version}:"


def is_ours(path: Path) -> bool:
    """Whether a file is a state that hrvol wrote."""
    try:
        return str(json.loads(path.read_bytes()).get("title", "")).startswith("hrvol ")
    except (OSError, ValueError, AttributeError):
        return False
