"""Find the format of a file or folder, and open it: one importer per format.

An importer is a function of a :class:`~hrvol.volume.importers.stored.Request` that returns a
:class:`~hrvol.volume.importers.stored.StoredImage`. Zarr is not among them: it is what is left.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from hrvol.errors import HrvolError, InputError, one_line
from hrvol.text import printable
from hrvol.volume.importers import dicom, hdf5, mrc, n5, nifti, npy, nrrd, planes, raw, rosetta, tiff, txrm
from hrvol.volume.importers.extras import read_quietly, without_warnings
from hrvol.volume.importers.recognise import check_exists
from hrvol.volume.importers.stored import Request, StoredImage
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.zip_input import zip_root

Open = Callable[[Request], StoredImage]

_HEAD = 1024  # bytes that tell the format

_FOLDER_ENTRIES = 2**20

_LISTED = 100  # datasets

_ZARR = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


@dataclass(frozen=True)
class Format:
    """A format of single files.

    Attributes
    ----------
    name
        With an article, for messages.
    open
        Opens a file.
    suffixes
        Of names; a file with one of them is taken for this format unless its first bytes are of another.
    starts
        First bytes.
    magic
        Tells by the first kilobyte and the name, in lower case.
    levels
        Whether files may hold several resolution levels.
    """

    name: str
    open: Open
    suffixes: tuple[str, ...] = ()
    starts: tuple[bytes, ...] = ()
    magic: Callable[[bytes, str], bool] = lambda head, name: False
    levels: bool = False

    def begins(self, head: bytes, name: str) -> bool:
        """Return whether the first bytes are of this format."""
        return head.startswith(self.starts) if self.starts else self.magic(head, name)


def _is_microscope(head: bytes, name: str) -> bool:
    """Return whether a file is of a format that only its name identifies: some are HDF5 or OLE files."""
    return name.endswith((".dm3", ".dm4", ".emd", ".ser", ".emi", ".hspy"))


FORMATS = (
    Format("an electron microscope's file", rosetta.open_rosetta, magic=_is_microscope),
    Format(
        "an HDF5 file",
        hdf5.open_hdf5,
        (".h5", ".hdf5", ".hdf", ".nxs", ".nx5", ".he5"),
        (b"\x89HDF\r\n\x1a\n",),
    ),
    Format(
        "a TIFF image",
        tiff.open_request,
        tiff.SUFFIXES,
        (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        levels=True,
    ),
    Format("a PNG image", planes.open_raster, (".png",), (b"\x89PNG\r\n\x1a\n",)),
    Format("a JPEG image", planes.open_raster, (".jpg", ".jpeg"), (b"\xff\xd8\xff",)),
    Format("a NumPy file", npy.open_npy, (".npy",), (b"\x93NUMPY",)),
    Format("an NRRD file", nrrd.open_nrrd, (".nrrd", ".nhdr"), (b"NRRD",)),
    Format(
        "a NIfTI file",
        nifti.open_nifti,
        (".nii", ".nii.gz"),
        magic=lambda head, name: head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"),
    ),
    Format(
        "a DICOM file", dicom.open_file, (".dcm", ".ima"), magic=lambda head, name: head[128:132] == b"DICM"
    ),
    Format("an X-ray microscope's file", txrm.open_txrm, (".txrm", ".xrm", ".txm")),
    Format("a description of a raw file", raw.open_side_file, raw.SIDE_FILES),
    Format(
        "an MRC file",
        mrc.open_mrc,
        tuple(
            f"{suffix}{end}"
            for suffix in (".mrc", ".rec", ".map", ".mrcs", ".ccp4")
            for end in ("", ".gz", ".bz2")
        ),
        magic=lambda head, name: head[208:212] == b"MAP ",
    ),
    Format("a file without a header", raw.open_raw, raw.SUFFIXES),
)
"""All formats of single files, in the order in which first bytes are compared."""

_RAW = FORMATS[-1]

_HDF5 = FORMATS[1]


@dataclass(frozen=True)
class Found:
    """What opens a location.

    Attributes
    ----------
    name
        Of the format.
    open
        Opens it.
    levels
        Whether it may hold several resolution levels.
    """

    name: str
    open: Callable[[], StoredImage]
    levels: bool = False


def find(location: Location, level: int = 0, again: bool = False) -> Found | None:
    """Return what opens a local file, folder or pattern; ``None`` for Zarr and for what is not known.

    Parameters
    ----------
    location
        A local path.
    level
        Resolution level.
    again
        Whether it was opened before.

    Raises
    ------
    InputError
        There is no such file, no file of the pattern, or a damaged zip archive.
    """
    path = location.path
    if path is None:
        return None
    layout = None if location.reading is None else location.reading.raw
    request = Request(path, location.url, location.inside, level, layout, again)
    if not os.path.lexists(path) and glob.has_magic(str(path)):
        matching = [Path(name) for name in glob.glob(str(path)) if os.path.isfile(name)]
        if not matching:
            raise InputError(f"{location.url}: found no file of this pattern, expected images")
        return _found_files(request, matching, every=True)
    check_exists(path)
    if path.is_dir():
        return _found_folder(request)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        known = _format(file.read(_HEAD), path.name.lower(), request)
    if known is None or (known is not _HDF5 and zip_root(path) is not None):
        return None
    return Found(known.name, partial(known.open, request), known.levels)


def list_datasets(location: Location) -> tuple[dict[str, str], str | None]:
    """Return the datasets of a local HDF5 file that may be images, and which of them is opened.

    Returns
    -------
    tuple
        Shape and type by path (none of a file of another format), and the path of the one that is opened.
    """
    path = location.path
    if path is None or not path.is_file():
        return {}, None
    with path.open("rb") as file:
        request = Request(path, location.url, location.inside)
        if _format(file.read(_HEAD), path.name.lower(), request) is not _HDF5:
            return {}, None
    found, chosen = hdf5.list_datasets(path, location.inside, location.url)
    return {one.path: f"{' x '.join(map(str, one.shape))} {one.dtype}" for one in found[:_LISTED]}, chosen


def open_found(found: Found, source: str) -> StoredImage:
    """Open what was found; whatever a library raises for a damaged file becomes an :class:`InputError`."""
    try:
        with read_quietly(), without_warnings():
            return found.open()
    except HrvolError:
        raise
    except MemoryError:
        raise InputError(
            f"{source}: cannot be read as {found.name} (it needs more memory than there is)"
        ) from None
    except Exception as error:  # parsers of private formats may raise anything
        raise InputError(f"{source}: cannot be read as {found.name} ({one_line(error)})") from None


def _format(head: bytes, name: str, request: Request) -> Format | None:
    """Return the format of a file by its first bytes, else by its name, else by the options."""
    if request.raw is not None and name.endswith(raw.SUFFIXES):
        return _RAW
    if request.inside and head.startswith(_HDF5.starts):
        number = request.inside.strip("/")
        return FORMATS[0] if FORMATS[0].begins(head, name) and number.isdecimal() else _HDF5
    for known in FORMATS:
        if known.begins(head, name):
            return known
    ending = next((known for known in FORMATS if name.endswith(known.suffixes or ("\0",))), None)
    return _RAW if ending is None and request.raw is not None else ending


def _found_folder(request: Request) -> Found | None:
    folder = request.path
    if any(os.path.lexists(folder / name) for name in _ZARR):  # beside a million chunks, perhaps
        return None
    try:
        with os.scandir(folder) as entries:
            listed = list(islice(entries, _FOLDER_ENTRIES + 1))
            # Pipes and devices are no images, whatever their names; folders are none either.
            names = [entry.name for entry in listed if entry.is_file()]
    except OSError as error:
        raise InputError(f"{request.source}: cannot be opened: {error.strerror}") from None
    if len(listed) > _FOLDER_ENTRIES:
        raise InputError(f"{request.source}: found more than {_FOLDER_ENTRIES:,} files, expected fewer")
    if n5.ATTRIBUTES in names and n5.is_n5(folder):
        return Found("an N5 dataset", partial(n5.open_n5, request), True)
    return _found_files(request, [folder / name for name in names])


def _found_files(request: Request, files: Sequence[Path], every: bool = False) -> Found | None:
    """Return what opens several files as one stack; of a folder, files of other kinds are left out."""
    images = planes.image_files(files)
    if images and (len(images) == len(files) or not every):
        _check_previews(request, images, files)
        return Found("a stack of images", partial(planes.open_planes, request, files=images))
    slices = [path for path in files if _is_slice(path)]
    if slices:
        return Found("a DICOM series", partial(dicom.open_series, request, files=slices))
    if every:
        raise InputError(
            f"{request.source}: found {len(files):,} files, expected TIFF, PNG or JPEG images, or DICOM"
            " slices"
        )
    return None


def _check_previews(request: Request, images: Sequence[Path], files: Sequence[Path]) -> None:
    """Raise an :class:`InputError` if a folder holds as many volumes as images, which show them."""
    if 2 * len(images) > len(files):
        return
    of_images = set(images)
    others = [path for path in files if path not in of_images and _is_volume(path)]
    if len(others) >= len(images):
        raise InputError(
            f"{request.source}: found images ({printable(images[0].name, 60)}) and at least as many files of"
            f" other formats ({printable(others[0].name, 60)}), expected one kind: name a file, or a pattern"
            " such as 'FOLDER/*.tif'"
        )


def _is_volume(path: Path) -> bool:
    """Return whether a file is probably of a format for volumes."""
    if path.name.startswith("."):
        return False
    name = path.name.lower()
    suffixes = (suffix for known in FORMATS for suffix in known.suffixes if suffix not in raw.SIDE_FILES)
    return name.endswith(tuple(suffixes)) or _is_microscope(b"", name) or _is_slice(path)


def _is_slice(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    return path.suffix.lower() in (".dcm", ".ima") or dicom.is_dicom(path)
