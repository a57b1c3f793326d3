"""Read Zarr hierarchies in zip archives that others wrote, within bounds that are checked first."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import ZipStore

from hrvol.errors import InputError
from hrvol.text import printable
from hrvol.volume.storage.input_store import METADATA, METADATA_BYTES

MEMBERS = 2**22
"""Most members of an archive."""


class ZipInput(ZipStore):
    """A zip archive for reading only, of which no member of more bytes than expected is decompressed.

    Parameters
    ----------
    path
        The archive.
    read_only
        Always true.
    chunk_bytes
        Most bytes of a chunk; ``None`` until the array is known.
    """

    def __init__(self, path: Path | str, *, read_only: bool = True, chunk_bytes: int | None = None) -> None:
        super().__init__(path, mode="r", read_only=True)
        self.chunk_bytes = chunk_bytes

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return a value, or a range of its bytes; ``None`` if it does not exist."""
        self._check(key)
        return await super().get(key, prototype or default_buffer_prototype(), byte_range)

    def _check(self, key: str) -> None:
        if not self._is_open:
            self._sync_open()
        try:
            size = self._zf.getinfo(key).file_size
        except KeyError:
            return
        limit = METADATA_BYTES if os.path.basename(key) in METADATA else self.chunk_bytes
        if limit is not None and size > limit:
            raise InputError(f"{printable(key, 200)}: found {size:,} bytes, expected at most {limit:,}")


def zip_root(path: Path) -> str | None:
    """Return where in an archive a Zarr hierarchy begins; ``None`` if it is no archive or holds none.

    Raises
    ------
    InputError
        The archive is damaged.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: found a damaged zip archive ({printable(str(error), 100)})") from None
    if len(names) > MEMBERS:
        raise InputError(f"{path}: found {len(names):,} members, expected at most {MEMBERS:,}")
    roots = [name.rpartition("/")[0] for name in names if name.rpartition("/")[2] in METADATA]
    return min(roots, key=lambda root: (root.count("/") + bool(root), root)) if roots else None
