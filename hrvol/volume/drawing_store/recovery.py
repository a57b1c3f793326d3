"""Open the chunks of a store, and repeat what a killed process recorded and did not store."""

from __future__ import annotations

import logging
import shutil
from itertools import count as count_from

import numpy as np

from hrvol.arrays import Shape3
from hrvol.volume.drawing_store.chunk_files import ChunkFiles
from hrvol.volume.drawing_store.chunks import Chunks, Counts
from hrvol.volume.drawing_store.class_table import ClassTable
from hrvol.volume.drawing_store.count_file import read_counts
from hrvol.volume.drawing_store.edit import Record
from hrvol.volume.drawing_store.journal import journal_files, number_of, read_records
from hrvol.volume.drawing_store.layout import Layout
from hrvol.volume.storage.location import PARTIAL

LOG = logging.getLogger("hrvol.volume")


def load_chunks(layout: Layout, files: ChunkFiles, chunks: Chunks) -> None:
    """Count the stored chunks, those first that are not in the file of counts as they are now.

    Unfinished files of a killed process are deleted.
    """
    assert layout.location.path is not None
    for folder, pattern in (
        (layout.location.path, f"*{PARTIAL}"),
        (layout.folder, f"*{PARTIAL}"),
        (layout.own, ".counts.*"),
    ):
        for partial in folder.glob(pattern):
            partial.unlink(missing_ok=True)
    known = read_counts(layout.own)
    highest = int(np.iinfo(layout.labels.dtype).max)
    for index, stamp in files.stored().items():
        found = known.get(index)
        if found is not None and found[0] == stamp and _possible(found[1], index, layout, highest):
            chunks.load(index, found[1])
        elif counts := chunks.count(index, files.read(index)):
            chunks.load(index, counts)


def replay(layout: Layout, chunks: Chunks, table: ClassTable) -> tuple[ClassTable, int, int]:
    """Repeat the records of a journal.

    Whatever of them is stored already is set once more. A file with damage is kept beside the journal.

    Returns
    -------
    tuple
        Table of classes; number of the next file of the journal, not the one after the last file, in which an
        unfinished edit would seem to continue; number of repeated edits.
    """
    grid = layout.grid
    number, count = 0, 0
    edit: list[bytes] = []
    for path in journal_files(layout.own):
        if number_of(path) != number + 1:
            edit = []  # was not finished
        number = number_of(path)
        records, damaged = read_records(path)
        for data in records:
            try:
                record = Record.of(data, table)
                if record.piece is not None and not grid.fits(record.piece):
                    raise ValueError("found voxels outside of the volume")
            except ValueError:
                damaged = True
                continue
            edit.append(data)  # not decoded: parts of one edit may together be too large for memory
            if record.more:
                continue
            for part in edit:
                one = Record.of(part, table)
                if one.piece is not None:
                    chunks.apply(one.piece, one.back)
            table, count, edit = record.table or table, count + 1, []
        if damaged:
            names = (layout.own / f"damaged-{n:08d}.bin" for n in count_from(1))
            kept = next(name for name in names if not name.exists())
            shutil.copyfile(path, kept)
            LOG.warning("%s: found a damaged journal; what is valid of it is restored, and it is kept", kept)
    return table.with_values([*chunks.planes]), number + 2, count


def _possible(counts: Counts, index: Shape3, layout: Layout, highest: int) -> bool:
    first = index[0] * layout.chunk[0]
    planes = range(first, first + layout.chunk[0])
    if not all(z in planes and 0 < value <= highest for z, value in counts):
        return False
    return sum(counts.values()) <= int(np.prod(layout.chunk))
