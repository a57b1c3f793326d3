"""Open datasets of HDF5 and NeXus files (h5py, hdf5plugin); chunks are read as they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hrvol.errors import InputError, MissingExtraError
from hrvol.text import printable
from hrvol.volume.importers.extras import require
from hrvol.volume.importers.hdf5_files import files_of
from hrvol.volume.importers.hdf5_search import Candidate, choose, contents
from hrvol.volume.importers.hdf5_size import hdf5_size
from hrvol.volume.importers.lazy_arrays import SlicedArray
from hrvol.volume.importers.stored import Request, StoredImage, grey_axes
from hrvol.volume.storage.bounded_array import check_chunks, check_shape

_KIND = "an HDF5 file"


def open_hdf5(request: Request) -> StoredImage:
    """Open a dataset of a local file."""
    file = _opened(request.path, request.source)
    dataset = choose(file, request.inside, request.source)
    files = files_of(dataset, request.source, check=not request.again)
    if dataset.external:
        holder, name = dataset.file, dataset.name
        del dataset  # it has to be closed to be opened otherwise
        dataset = _beside_its_file(holder, name)
    own = request.path
    return _image(file, dataset, request.source, tuple(dict.fromkeys((own, *map(_beside(own), files)))))


def open_stream(stream: Any, inside: str, source: str) -> StoredImage:
    """Open a dataset of a file that is read through a seekable stream."""
    file = _opened(stream, source)
    dataset = choose(file, inside, source)
    if dataset.is_virtual or dataset.external:
        raise InputError(f"{source}: found a dataset in several files at a URL, expected one file")
    return _image(file, dataset, source, ())


def _beside_its_file(file: Any, name: str) -> Any:
    """Open a dataset whose values are in raw files, which are named from the folder of its file."""
    import h5py

    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_efile_prefix(b"${ORIGIN}")
    return h5py.Dataset(h5py.h5d.open(file.id, name.encode(), access))


def list_datasets(path: Path, inside: str, source: str) -> tuple[tuple[Candidate, ...], str | None]:
    """Return the datasets of a file that may be images, and the path of the one that is opened, if any is."""
    with _opened(path, source) as file:
        found = contents(file).candidates
        try:
            chosen = choose(file, inside, source)
        except InputError:
            return found, None
        return found, next((one.path for one in found if file[one.path] == chosen), chosen.name)


def _opened(file: Any, source: str) -> Any:
    h5py = require("h5py", source, _KIND)
    with suppress(ImportError):
        import hdf5plugin  # noqa: F401 - registers further compressions
    try:
        return h5py.File(file, "r")
    except OSError as error:
        reason = printable(" ".join(str(error).split()), 200)
        raise InputError(f"{source}: cannot be read as {_KIND} ({reason})") from None


def _beside(own: Path) -> Any:
    """Return a function that gives the opened file the path by which it was opened."""
    whole = own.absolute()
    return lambda path: own if path.absolute() == whole else path


def _image(file: Any, dataset: Any, source: str, files: Sequence[Path]) -> StoredImage:
    shape = tuple(int(side) for side in dataset.shape or ())
    if dataset.dtype.kind not in "biuf":
        shown = printable(str(dataset.dtype), 100)
        raise InputError(
            f"{source}: found type {shown} in {dataset.name}, expected integers or floating-point numbers"
        )
    check_shape(source, shape, dataset.dtype)
    if len(shape) < 2:
        raise InputError(f"{source}: found shape {shape} in {dataset.name}, expected (y, x) or (z, y, x)")
    chunks = _chunks(dataset, shape)
    check_chunks(source, shape, chunks, dataset.dtype)
    _check_filters(dataset, source)
    axes = grey_axes(shape)
    size = hdf5_size(dataset, axes or ("z", "y", "x")[-len(shape) :])
    decodes = dataset.chunks is not None or bool(dataset.is_virtual)  # else rows are copied as they are
    array = SlicedArray(_Reading(file, dataset), shape, dataset.dtype, chunks, decodes=decodes)
    return StoredImage(array, axes, size, tuple(files))


class _Reading:
    """Reads selections of a dataset, and keeps its file open."""

    def __init__(self, file: Any, dataset: Any) -> None:
        self._file = file
        self._dataset = dataset

    def __call__(self, selection: Any) -> Any:
        return self._dataset[selection]


def _chunks(dataset: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return what is read at least: a chunk, a row of a contiguous dataset, a plane of a virtual one."""
    if dataset.chunks is not None:
        return tuple(min(int(c), side) for c, side in zip(dataset.chunks, shape, strict=True))
    kept = 2 if dataset.is_virtual else 1
    return (*[1] * (len(shape) - kept), *shape[-kept:])


def _check_filters(dataset: Any, source: str) -> None:
    """Raise an error if values are compressed in a way that is not installed."""
    import h5py

    plist = dataset.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(number)
        if h5py.h5z.filter_avail(code):
            continue
        shown = printable(name.decode("utf-8", "replace"), 60) or f"number {code}"
        try:
            import hdf5plugin  # noqa: F401
        except ImportError:
            raise MissingExtraError(
                f"{source}: found an HDF5 file compressed with {shown}, which is read with hdf5plugin:"
                " pip install 'hrvol[io]'"
            ) from None
        raise InputError(f"{source}: found HDF5's filter {shown}, expected one that hdf5plugin has")
