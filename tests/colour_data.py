"""Coloured textures that look alike in grey, strokes on them, and OME-Zarr with channels."""

import numpy as np
import zarr
from run_data import QUICK, make_volume

HUES = {1: (150, 90, 60), 2: (60, 123, 146)}
"""Red ground and blue discs, of one luminance and one mean within a grey value or two."""

COLOURED = QUICK.with_(
    **{
        "features.classical.sigmas": [1, 2],
        "features.classical.colour": "channels",
        "classifier.trees": 5,
    }
)


def make_coloured(shape=(3, 100, 130), seed=0):
    """Return (z, y, x, 3) uint8 colours, and the truth (z, y, x)."""
    _, truth = make_volume(seed, shape)
    noise = np.random.default_rng(seed).normal(0, 12, shape)[..., None]
    colours = np.where(truth[..., None] == 2, HUES[2], HUES[1]) + noise
    return np.clip(colours, 0, 255).astype(np.uint8), truth


def write_ome(path, values, axes, names=None, chunks=None):
    """Write an OME-Zarr image of one level with axes such as ``czyx``, and names of channels."""
    group = zarr.create_group(path, zarr_format=3)
    array = group.create_array(
        "0",
        shape=values.shape,
        dtype=values.dtype,
        chunks=chunks or tuple(min(side, 40) for side in values.shape),
        dimension_names=list(axes),
    )
    array[...] = values
    entries = [{"name": axis, "type": "channel" if axis == "c" else "space"} for axis in axes]
    scale = {"type": "scale", "scale": [1.0] * len(axes)}
    ome = {
        "version": "0.5",
        "multiscales": [{"axes": entries, "datasets": [{"path": "0", "coordinateTransformations": [scale]}]}],
    }
    if names is not None:
        ome["omero"] = {"channels": [{"label": name} for name in names]}
    group.attrs["ome"] = ome
    return path
