"""Find the files that a dataset of HDF5 is made of: HDF5 itself fills with zeros what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrvol.errors import InputError
from hrvol.text import printable

SOURCES = 2**16
"""Most sources of a virtual dataset."""

_NESTED = 4  # virtual datasets of virtual datasets


def files_of(dataset: Any, source: str, check: bool, depth: int = 0) -> tuple[Path, ...]:
    """Return the files that hold the values of a dataset, that of the dataset itself first.

    Parameters
    ----------
    dataset
        An open :class:`h5py.Dataset`.
    source
        Name for messages.
    check
        Whether to open all sources of a virtual dataset, and look for their datasets.
    depth
        Number of virtual datasets around it.

    Raises
    ------
    InputError
        A file is missing, or lacks the dataset that is used of it.
    """
    own = Path(dataset.file.filename)
    files = {own: None}
    for name, _, _ in dataset.external or ():
        files[_existing(own, str(name), source, "values outside of the file")] = None
    if not dataset.is_virtual:
        return tuple(files)
    count = dataset.id.get_create_plist().get_virtual_count()
    if count > SOURCES:
        raise InputError(f"{source}: found {count:,} sources of a dataset, expected at most {SOURCES:,}")
    for name, inside in dict.fromkeys((one.file_name, one.dset_name) for one in dataset.virtual_sources()):
        if "%b" in name:  # numbered files, of which any number may exist
            continue
        path = own if name == "." else _existing(own, name, source, "the virtual dataset")
        files[path] = None
        if check and path != own:
            for other in _source_files(path, inside, source, depth):
                files[other] = None
    return tuple(files)


def _source_files(path: Path, inside: str, source: str, depth: int) -> tuple[Path, ...]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            dataset = file.get(inside)
            if dataset is None or not hasattr(dataset, "shape"):
                raise InputError(
                    f"{source}: found no {printable(inside, 200)} in {path.name}, which its"
                    " virtual dataset names"
                )
            return files_of(dataset, source, True, depth + 1) if depth < _NESTED else ()
    except OSError as error:
        reason = printable(" ".join(str(error).split()), 200)
        raise InputError(
            f"{source}: cannot read {path.name}, which its virtual dataset names: {reason}"
        ) from None


def _existing(own: Path, name: str, source: str, what: str) -> Path:
    """Return a file that another names; pipes and devices are none."""
    path = own.parent / name
    if "\0" in name or not path.is_file():
        raise InputError(f"{source}: found no file {printable(name, 200)}, which {what} names")
    return path
