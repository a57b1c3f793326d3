"""Write neuroglancer's precomputed format through TensorStore: a folder that any web server publishes.

Format: https://neuroglancer-docs.web.app/datasource/precomputed/
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrvol.errors import InputError
from hrvol.files import SOFTWARE
from hrvol.volume.exporters.content import Content, Format, PlaneWriter, Writing, library
from hrvol.volume.units import metres

_SIDE = 64

_PROPERTIES = "segment_properties"


class _Scale:
    """One resolution."""

    def __init__(self, store: Any, content: Content) -> None:
        self._store, self._labels, self._next = store, content.kind == "labels", 0
        self._source = content.source

    def write(self, planes: NDArray[Any]) -> None:
        if self._labels:
            if planes.dtype.kind == "i" and planes.min(initial=0) < 0:
                raise InputError(f"{self._source}: found label {planes.min()}, expected 0 or more")
            planes = planes.astype(np.uint64 if planes.dtype.itemsize == 8 else np.uint32)
        stop = self._next + len(planes)
        self._store[:, :, self._next : stop, 0] = planes.transpose(2, 1, 0)
        self._next = stop


@contextmanager
def open_precomputed(path: Path, content: Content, writing: Writing) -> Iterator[PlaneWriter]:
    """Write one resolution; where the folder exists, one more, coarser than those in it."""
    tensorstore = library("tensorstore", path)
    begun = path.exists()
    labels = content.kind == "labels"
    wide = labels and content.dtype.itemsize == 8
    dtype = ("uint64" if wide else "uint32") if labels else content.dtype.name
    factor = (metres(content.unit) or 1e-9) * 1e9
    sizes = [factor * size for size in content.voxel_size]
    start = [factor * t for t in content.translation]
    depth = max(n for n in range(1, _SIDE + 1) if writing.planes % n == 0)
    scale: dict[str, Any] = {
        "size": content.shape[::-1],
        "resolution": sizes[::-1],
        "chunk_size": [_SIDE, _SIDE, depth],
        "encoding": "raw",
        "voxel_offset": [round(t / s) for t, s in zip(start, sizes, strict=True)][::-1],
    }
    if labels:
        scale |= {"encoding": "compressed_segmentation", "compressed_segmentation_block_size": [8, 8, 8]}
    store = tensorstore.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": f"{path}/"},
            "multiscale_metadata": {
                "type": "segmentation" if labels else "image",
                "data_type": dtype,
                "num_channels": 1,
            },
            "scale_metadata": scale,
            "context": {"data_copy_concurrency": {"limit": writing.threads}},
        },
        create=True,
        open=begun,
    ).result()
    yield _Scale(store.translate_to[0], content)
    if not begun:
        _describe(path, content)


def _describe(path: Path, content: Content) -> None:
    """Add the names of classes, and who wrote it, to the metadata."""
    file = path / "info"
    info = json.loads(file.read_text())
    info["hrvol"] = SOFTWARE
    if content.kind == "labels" and content.classes:
        info[_PROPERTIES] = _PROPERTIES
        names = {"id": "label", "type": "label", "values": [c.name for c in content.classes]}
        inline = {"ids": [str(c.value) for c in content.classes], "properties": [names]}
        (path / _PROPERTIES).mkdir()
        properties = {"@type": "neuroglancer_segment_properties", "inline": inline}
        (path / _PROPERTIES / "info").write_text(json.dumps(properties))
    file.write_text(json.dumps(info))


def _ours(path: Path) -> bool:
    try:
        return str(json.loads((path / "info").read_bytes()).get("hrvol", "")).startswith("hrvol ")
    except (OSError, ValueError, AttributeError):
        return False


PRECOMPUTED = Format(
    "precomputed",
    "neuroglancer's precomputed format",
    (".precomputed",),
    open_precomputed,
    _ours,
    ("int8", "uint8", "int16", "uint16", "int32", "uint32", "uint64", "float32"),
    folder=True,
)
