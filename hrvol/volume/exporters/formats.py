"""Find the format of an output by its suffix or its name."""

from __future__ import annotations

from pathlib import Path

from hrvol.errors import UsageError
from hrvol.text import printable
from hrvol.volume.exporters import link_state
from hrvol.volume.exporters.content import Format
from hrvol.volume.exporters.hdf5 import HDF5
from hrvol.volume.exporters.mesh_files import PLY, STL, MeshFormat
from hrvol.volume.exporters.metaimage import MHA, MHD
from hrvol.volume.exporters.nrrd import NRRD, RAW
from hrvol.volume.exporters.precomputed import PRECOMPUTED
from hrvol.volume.exporters.tiff import FOLDER, STACK

FORMATS = (STACK, FOLDER, HDF5, MHA, MHD, NRRD, RAW, PRECOMPUTED)
"""Formats of planes."""

MESHES = (STL, PLY)

NAMES = (*(entry.name for entry in (*FORMATS, *MESHES)), link_state.NAME)


def find_format(path: Path, name: str | None) -> Format | MeshFormat | None:
    """Return the format of a path to write; ``None`` for the state of neuroglancer.

    Parameters
    ----------
    path
        As the user wrote it; without a suffix it is a folder of TIFF planes.
    name
        One of :data:`NAMES`; ``None``: by the suffix.

    Raises
    ------
    UsageError
        There is no such name or suffix.
    """
    suffix = path.suffix.lower()
    for entry in (*FORMATS, *MESHES):
        if entry.name == name or (name is None and suffix in entry.suffixes):
            return entry
    if name == link_state.NAME or (name is None and suffix == link_state.SUFFIX):
        return None
    if name is not None:
        raise UsageError(f"format: found {printable(name, 60)!r}, expected {', '.join(NAMES)}")
    known = [suffix for entry in (*FORMATS, *MESHES) for suffix in entry.suffixes if suffix]
    raise UsageError(
        f"{path}: found the suffix {printable(suffix, 60)}, expected {', '.join(known)}, {link_state.SUFFIX},"
        " none (a folder of TIFF planes), or --format"
    )
