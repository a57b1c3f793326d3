"""Save a Labels layer as strokes that ``hrvol train`` reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hrvol.napari.notify import report


def write_labels(path: str, data: Any, about: dict[str, Any]) -> list[str]:
    """Write a Labels layer as a sparse OME-Zarr with names, colours and voxel size.

    Parameters
    ----------
    path
        ``*.zarr``; an earlier output of hrvol there is replaced, as the dialog has confirmed it.
    data, about
        Of the layer, as napari passes them: ``(y, x)`` or ``(z, y, x)``.

    Returns
    -------
    list of str
        The path, also if it could not be written, which a notification reports: napari would show a
        traceback for an empty list.
    """
    from hrvol.interactive.strokes import export_strokes
    from hrvol.napari.layers import classes_of, volume_of
    from hrvol.volume.drawing_store.drawer import Drawer
    from hrvol.volume.drawing_store.paintable import PaintableArray
    from hrvol.volume.strokes.merge import count_strokes
    from hrvol.volume.strokes.open_strokes import open_strokes
    from hrvol.volume.strokes.write import write_strokes

    try:
        if isinstance(data, PaintableArray) and isinstance(data.strokes, Drawer):
            export_strokes(data.strokes, path, overwrite=True)
            return [path]
        volume = volume_of(data, about)
        strokes = open_strokes(volume)
        values = [info.value for info in count_strokes(strokes).classes]
        strokes = replace(strokes, classes=classes_of(about, values))
        write_strokes(strokes, path, volume, overwrite=True)
    except Exception as error:
        report(error)
    return [path]
