"""What is installed and whether it fits together, as packages say themselves; and whether it imports."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from typing import Any, TypeVar

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hrvol.errors import one_line

T = TypeVar("T")

Packages = Mapping[str, Distribution]
"""Installed packages by their canonical names."""

_FOR_CUDA = re.compile(r"-cu(da)?\d+x?$")

_PATIENCE = (
    300.0  # seconds until an import counts as hung: the first one from a network file system takes minutes
)


@dataclass(frozen=True)
class MissingRequirement:
    """A requirement that is not met.

    Attributes
    ----------
    by
        Who wants it.
    requirement
        What is wanted, such as ``dask>=2026.7.1,<2026.7.2``.
    found
        The version that is installed instead; ``None`` if none is.
    """

    by: str
    requirement: str
    found: str | None

    def __str__(self) -> str:
        return f"{self.requirement} ({'not installed' if self.found is None else f'found {self.found}'})"


def installed(path: Sequence[str] | None = None) -> dict[str, Distribution]:
    """Return what is installed; of several of one name, that which is imported.

    Parameters
    ----------
    path
        Folders to look in instead of ``sys.path``.
    """
    packages: dict[str, Distribution] = {}
    for found in distributions() if path is None else distributions(path=list(path)):
        name = found.metadata["Name"]
        if name:  # folders that a broken uninstall left behind have none
            packages.setdefault(canonicalize_name(name), found)
    return packages


def find(name: str, packages: Packages) -> Distribution | None:
    """Return a package; conda's are named without the CUDA version that PyPI's end in."""
    plain = canonicalize_name(name)
    return packages.get(plain) or packages.get(_FOR_CUDA.sub("", plain))


def lacks(name: str, packages: Packages, extra: str = "") -> tuple[MissingRequirement, ...]:
    """Return what a package, or one of its extras alone, wants and does not find."""
    package = find(name, packages)
    if package is None:
        return (MissingRequirement(name, name, None),)
    found = (_lack(name, wanted, packages) for wanted in _requirements(package, extra))
    return tuple(lack for lack in found if lack is not None)


def conflicts(names: Iterable[str], packages: Packages) -> tuple[MissingRequirement, ...]:
    """Return the requirements of packages, and of what they need in turn, that meet a wrong version.

    What is not there at all is left out: packages may do without, or be named otherwise (conda).
    """
    found: dict[str, MissingRequirement] = {}
    ahead = [(name, "") for name in names]
    seen = set(ahead)
    while ahead:
        name, extra = ahead.pop()
        package = find(name, packages)
        if package is None:
            continue
        for wanted in _requirements(package, extra):
            lack = _lack(f"{name} {package.version}", wanted, packages)
            if lack is not None and lack.found is not None:
                found[f"{lack.by} {lack.requirement}"] = lack
            for further in ("", *sorted(wanted.extras)):
                step = (canonicalize_name(wanted.name), further)
                if step not in seen:
                    seen.add(step)
                    ahead.append(step)
    return tuple(found[key] for key in sorted(found))


def extras_of(name: str, packages: Packages) -> tuple[str, ...]:
    """Return the extras of a package."""
    package = find(name, packages)
    return () if package is None else tuple(package.metadata.get_all("Provides-Extra") or ())


def _requirements(package: Distribution, extra: str) -> list[Requirement]:
    """Return what a package wants without extras; or, of an extra, what it wants for that only."""
    wanted = [Requirement(text) for text in package.requires or ()]

    def applies(requirement: Requirement, name: str) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({"extra": name})

    return [one for one in wanted if applies(one, extra) and not (extra and applies(one, ""))]


def _lack(by: str, wanted: Requirement, packages: Packages) -> MissingRequirement | None:
    package = find(wanted.name, packages)
    if package is not None and wanted.specifier.contains(package.version, prereleases=True):
        return None
    said = f"{wanted.name}{wanted.specifier}"
    return MissingRequirement(by, said, None if package is None else package.version)


class IsolatedProcess:
    """Another process to try things in: what crashes there is an answer, and not the end of this process."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> IsolatedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, function: Callable[..., T], *arguments: Any) -> tuple[T | None, str | None]:
        """Call an importable function there; return its value, or one line that says what went wrong."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_silence)
        try:
            return self._pool.submit(function, *arguments).result(_PATIENCE), None
        except BrokenProcessPool:
            said = "the process crashed"
        except TimeoutError:
            for process in list(self._pool._processes.values()):
                process.kill()
            said = f"no answer within {_PATIENCE:.0f} s"
        except Exception as error:
            return None, one_line(error)
        self._end()
        return None, said

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def import_module(name: str) -> None:
    """Import a module; what it raises, ``SystemExit`` included, is an error."""
    try:
        importlib.import_module(name)
    except SystemExit as error:
        raise ImportError(f"{name} ended its process with {error.code}") from None


def _silence() -> None:
    """Let nothing that is imported write where hrvol does."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
