"""Write files and folders beside their place, and move them there when they are whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from hrvol.errors import OutputExistsError, UsageError
from hrvol.files import flush


@dataclass(frozen=True)
class Product:
    """What a user finds after an export.

    Attributes
    ----------
    path
        The file or folder that users name.
    files
        All files of it, the one with the header last.
    is_ours
        Whether hrvol wrote what is there.
    """

    path: Path
    files: tuple[Path, ...]
    is_ours: Callable[[Path], bool]


def check_product(product: Product, overwrite: bool) -> None:
    """Check that a product can be written.

    Raises
    ------
    UsageError
        Its folder does not exist.
    OutputExistsError
        One of its files exists, and must not be replaced: any without ``overwrite``, one that hrvol did not
        write with it.
    """
    parent = product.path.parent
    if not parent.is_dir():
        raise UsageError(f"{product.path}: no such folder {parent}, expected one to write to")
    occupied = [file for file in product.files if os.path.lexists(file)]
    if not occupied:
        return
    if not overwrite:
        raise OutputExistsError(f"{occupied[0]}: exists already, expected nothing there")
    links = any(file.is_symlink() for file in occupied)
    kinds = all(file.is_file() or (file == product.path and file.is_dir()) for file in occupied)
    if links or not kinds or not os.path.lexists(product.path) or not product.is_ours(product.path):
        raise OutputExistsError(
            f"{occupied[0]}: found no earlier export of this kind, expected one; it is not overwritten"
            " (delete it first if it is not needed)"
        )


@contextmanager
def published(products: Sequence[Product], overwrite: bool) -> Iterator[Callable[[Path], Path]]:
    """Publish products at the end of the ``with`` statement, and nothing if it raises.

    Parameters
    ----------
    products
        All in one folder.
    overwrite
        As for :func:`check_product`.

    Yields
    ------
    callable
        Returns where to write the file or folder with a path: in a hidden folder beside it. A product whose
        files are not written is not published.
    """
    for product in products:
        check_product(product, overwrite)
    first = products[0].path
    hidden = first.parent / f".{first.name}.{uuid4().hex[:8]}"
    hidden.mkdir()
    try:
        yield lambda path: hidden / path.name
        for product in products:
            if os.path.lexists(hidden / product.path.name):
                _publish(product, hidden, overwrite)
        with suppress(OSError):  # not every file system has this
            flush(first.parent)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _publish(product: Product, hidden: Path, overwrite: bool) -> None:
    for file in product.files:
        _sync(hidden / file.name)
    check_product(product, overwrite)  # again: a long export leaves time for another one
    replaced = hidden / "replaced"
    replaced.mkdir(exist_ok=True)
    moved: list[tuple[Path, Path]] = []
    try:
        for file in reversed(product.files):  # the header first: values without one look like nothing
            if os.path.lexists(file):
                _move(file, replaced / file.name, moved)
        for file in product.files:
            _move(hidden / file.name, file, moved)
    except BaseException:
        for source, target in reversed(moved):  # the earlier export is there again
            os.rename(target, source)
        raise


def _move(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    os.rename(source, target)
    moved.append((source, target))


def _sync(path: Path) -> None:
    """Flush a file, or a folder with all that is in it, to the disk."""
    if path.is_dir():
        for folder, _, names in os.walk(path):
            for name in names:
                flush(Path(folder) / name)
    flush(path)
