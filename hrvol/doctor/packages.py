"""Compare the requirements of installed packages with the versions that are installed.

``pip check`` would not do: it ignores extras, reports packages that hrvol does not use, and is absent from
environments of uv and some of conda.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import Distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Folders = Sequence[str] | None
"""Where packages are installed; ``None`` is ``sys.path``."""

_CUDA_SUFFIX = re.compile(r"-cu(da)?\d+x?$")


@dataclass(frozen=True)
class MissingRequirement:
    """A requirement such as ``dask>=2026.7.1`` of a package, and the version found, if any."""

    by: str
    requirement: str
    found: str | None

    def __str__(self) -> str:
        return f"{self.requirement} ({'not installed' if self.found is None else f'found {self.found}'})"


def find(name: str, folders: Folders) -> Distribution | None:
    """Return the package that is imported; conda's names lack the CUDA version at the end of PyPI's."""
    path = list(sys.path if folders is None else folders)
    for alias in dict.fromkeys((name, _CUDA_SUFFIX.sub("", name))):
        for package in Distribution.discover(name=alias, path=path):
            with suppress(FileNotFoundError):  # a broken uninstall leaves folders without metadata
                if "Name" in package.metadata:
                    return package
    return None


def lacks(name: str, folders: Folders, extra: str = "") -> tuple[MissingRequirement, ...]:
    """Return the unmet requirements of a package, or of one of its extras alone."""
    package = find(name, folders)
    if package is None:
        return (MissingRequirement(name, name, None),)
    unmet = (_unmet(name, requirement, folders) for requirement in _requirements(package, extra))
    return tuple(one for one in unmet if one is not None)


def conflicts(names: Iterable[str], folders: Folders) -> tuple[MissingRequirement, ...]:
    """Return the requirements of packages, and of their dependencies, for which a wrong version is installed.

    Absent packages are left out: they may be optional, or have another name (conda).
    """
    wrong: dict[str, MissingRequirement] = {}
    ahead = [(name, "") for name in names]
    seen = set(ahead)
    while ahead:
        name, extra = ahead.pop()
        package = find(name, folders)
        if package is None:
            continue
        for requirement in _requirements(package, extra):
            unmet = _unmet(f"{name} {package.version}", requirement, folders)
            if unmet is not None and unmet.found is not None:
                wrong[f"{unmet.by} {unmet.requirement}"] = unmet
            further = {(canonicalize_name(requirement.name), one) for one in ("", *requirement.extras)} - seen
            seen |= further
            ahead += sorted(further)
    return tuple(wrong[key] for key in sorted(wrong))


def extras_of(name: str, folders: Folders) -> tuple[str, ...]:
    """Return the extras of a package."""
    package = find(name, folders)
    return () if package is None else tuple(package.metadata.get_all("Provides-Extra") or ())


def _requirements(package: Distribution, extra: str) -> list[Requirement]:
    """Return the requirements of a package without extras; or those that an extra adds."""

    def applies(requirement: Requirement, name: str) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({"extra": name})

    every = map(Requirement, package.requires or ())
    return [one for one in every if applies(one, extra) and not (extra and applies(one, ""))]


def _unmet(by: str, requirement: Requirement, folders: Folders) -> MissingRequirement | None:
    package = find(requirement.name, folders)
    if package is not None and requirement.specifier.contains(package.version, prereleases=True):
        return None
    text = f"{requirement.name}{requirement.specifier}"
    return MissingRequirement(by, text, None if package is None else package.version)
