"""Open a synthetic electrode with strokes; its files are kept in the user's cache."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from hrvol.napari.folders import plugin_folder
from hrvol.napari.notify import report

_SHAPE = (32, 256, 256)

_PLANES = (4, 16, 28)

_VOXEL = 50.0  # nanometers

_FOLDER = "electrode-1"
"""Changes with the sample."""


def open_phantom() -> list[Any]:
    """Return the layers of the sample: the volume, and strokes that can be painted on."""
    from hrvol.napari.layers import layer_of
    from hrvol.volume.pictures import open_pictures

    try:
        folder = phantom_folder()
        names = {"volume.ome.zarr": "electrode", "strokes.ome.zarr": "strokes"}
        layers = []
        for file, name in names.items():
            (picture,) = open_pictures(folder / file)
            data, about, kind = layer_of(picture)
            layers.append((data, about | {"name": name}, kind))
        return layers
    except Exception as error:
        report(error)
        return []


def phantom_folder() -> Path:
    """Return the folder of the sample's files, which are made if they do not exist."""
    folder = plugin_folder("samples") / _FOLDER
    if folder.is_dir():
        return folder
    partial = folder.with_name(f"{uuid4().hex}.partial")
    try:
        _make(partial)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # made by another process meanwhile
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _make(folder: Path) -> None:
    from hrvol.classes import default_classes
    from hrvol.phantom import draw_strokes, make_phantom
    from hrvol.volume.strokes.open_strokes import whole_strokes
    from hrvol.volume.strokes.write import write_strokes
    from hrvol.volume.volume import open_volume
    from hrvol.volume.write_image import write_image

    phantom = make_phantom(_SHAPE)
    volume = replace(open_volume(phantom.image), voxel_size=(_VOXEL, _VOXEL, _VOXEL), unit="nanometer")
    write_image(folder / "volume.ome.zarr", volume)
    strokes = whole_strokes(open_volume(draw_strokes(phantom.labels, _PLANES)))
    names = default_classes(range(1, len(phantom.class_names) + 1), phantom.class_names)
    write_strokes(replace(strokes, classes=names), folder / "strokes.ome.zarr", volume)
