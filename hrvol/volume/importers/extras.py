"""Import the packages that single formats need, and keep their logs off the user's screen."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from hrvol.errors import MissingExtraError

_LOGGERS = ("tifffile", "nibabel.global", "pydicom", "rsciio", "mrcfile", "nrrd", "PIL")


def require(module: str, source: str, kind: str, extra: str = "io") -> Any:
    """Import a module of an optional package.

    Parameters
    ----------
    module
        Its name.
    source, kind
        The file and its format, for the message: ``"an HDF5 file"``.
    extra
        Extra of hrvol that installs the package.

    Raises
    ------
    MissingExtraError
        The package is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != package:
            package = f"{package}, which needs {error.name}"
        raise MissingExtraError(
            f"{source}: found {kind}, which is read with {package}: pip install 'hrvol[{extra}]'"
        ) from None


@contextmanager
def read_quietly() -> Iterator[None]:
    """Keep logs and warnings of format libraries off the user's screen: what means damage is checked."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(_drop)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_drop)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Drop Python warnings while a file is opened."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _drop(_: logging.LogRecord) -> bool:
    return False
