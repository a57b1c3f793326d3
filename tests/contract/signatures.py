"""Signatures out of wheels that are not installed.

:meth:`Wheels.lookup` follows a dotted path as Python would: through packages, re-exports, classes, their
bases, and what a call returns where that is written down. Bases that are installed (of scikit-learn, of
distributed) are looked at for real.
"""

import importlib
import inspect
import re
import zipfile
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from contract.sources import (
    ANY,
    Alias,
    Class,
    Function,
    Module,
    Unknown,
    read_compiled,
    read_cython,
    read_python,
    without_first,
)


class Missing(Exception):
    """Something named does not exist; the message says what."""


@dataclass(frozen=True)
class Instance:
    """What a call of a class returns; or, not exactly, what a function says that it returns."""

    of: Class
    exact: bool = True


@dataclass(frozen=True)
class Real:
    """An object of an installed package."""

    value: Any


@dataclass(eq=False)
class Wheels:
    """Modules of some wheels, read when they are asked for.

    Attributes
    ----------
    paths
        Wheel of each top-level package.
    """

    paths: Mapping[str, Path]
    _modules: dict[str, Module | None] = field(default_factory=dict)

    def lookup(self, path: str) -> Any:
        """Return what a dotted path leads to; ``()`` after a name means what a call of it returns.

        Raises
        ------
        Missing
            A part of the path does not exist.
        """
        first, *steps = path.split(".")
        here: Any = self.module(first)
        if here is None:
            here = _installed(Alias(first))
        if here == Unknown():
            raise Missing(f"{path}: there is no package {first}")
        for step in steps:
            name, *calls = step.split("(")
            owner = here
            here = self._attribute(here, name, path)
            for _ in calls:
                here = self._called(here, owner)
        return here

    def signature(self, found: Any) -> inspect.Signature:
        """Return the signature of what :meth:`lookup` found."""
        if isinstance(found, Function):
            return found.signature
        if isinstance(found, Class):
            made = self._member(found, "__init__")
            if made is None:
                made = self._member(found, "__new__")
            return self.signature(made) if made is not None else inspect.Signature()
        if isinstance(found, Real):
            signature = inspect.signature(found.value)
            # A method that was looked up on its class.
            if inspect.isfunction(found.value) and "self" in signature.parameters:
                return without_first(signature)
            return signature
        return ANY

    def module(self, name: str) -> Module | None:
        """Return a module, or nothing if no wheel has it."""
        if name not in self._modules:
            self._modules[name] = self._read(name)
        return self._modules[name]

    def _read(self, name: str) -> Module | None:
        root = name.partition(".")[0]
        if root not in self._archives:
            return None
        archive, files = self._archives[root]
        stem = name.replace(".", "/")
        parent = name.rpartition(".")[0]
        if f"{stem}/__init__.py" in files:
            return read_python(archive.read(f"{stem}/__init__.py").decode(), name, name)
        if f"{stem}.py" in files:
            return read_python(archive.read(f"{stem}.py").decode(), name, parent)
        found = []
        if f"{stem}.pyi" in files:
            found.append(read_python(archive.read(f"{stem}.pyi").decode(), name, parent))
        if f"{stem}.pyx" in files:
            found.append(read_cython(archive.read(f"{stem}.pyx").decode(), name, parent))
        else:
            binary = [file for file in files if re.fullmatch(rf"{re.escape(stem)}\.[\w-]+\.so", file)]
            found.extend(read_compiled(archive.read(file), name) for file in binary)
        if found:  # a stub tells more, but not of everything
            return Module(name, dict(ChainMap(*(dict(module.names) for module in found))), found[0].stars)
        return Module(name, {}) if any(file.startswith(f"{stem}/") for file in files) else None

    @cached_property
    def _archives(self) -> dict[str, tuple[zipfile.ZipFile, set[str]]]:
        found = {}
        for path in self.paths.values():
            archive = zipfile.ZipFile(path)
            files = set(archive.namelist())
            for root in {file.partition("/")[0] for file in files}:
                found[root] = (archive, files)
        return found

    def _attribute(self, here: Any, name: str, path: str) -> Any:
        if isinstance(here, Module):
            return self._in_module(here, name, path)
        if isinstance(here, Class | Instance):
            owner = here.of if isinstance(here, Instance) else here
            found = self._member(owner, name)
            if found is None and not (isinstance(here, Instance) and not here.exact):
                raise Missing(f"{path}: {owner.module}.{owner.name} has no {name}")
            return Unknown() if found is None else found
        if isinstance(here, Real):
            try:
                return Real(inspect.getattr_static(here.value, name))
            except AttributeError:
                raise Missing(f"{path}: {here.value!r} has no {name}") from None
        return Unknown()

    def _in_module(self, module: Module, name: str, path: str) -> Any:
        found = module.names.get(name)
        if found == Alias(module.name, name):  # `from package import module`, within the package
            found = None
        if isinstance(found, Alias):
            return self._followed(found, path)
        if found is not None:
            return found
        inner = self.module(f"{module.name}.{name}")
        if inner is not None:
            return inner
        for star in module.stars:
            other = self.module(star)
            if other is not None and (name in other.names or other.stars):
                try:
                    return self._in_module(other, name, path)
                except Missing:
                    continue
        raise Missing(f"{path}: module {module.name} has no {name}")

    def _followed(self, alias: Alias, path: str) -> Any:
        module = self.module(alias.module)
        if module is None:
            return _installed(alias)
        return module if alias.name is None else self._in_module(module, alias.name, path)

    def _member(self, owner: Class, name: str) -> Any:
        """Return a member of a class or of its bases, :class:`Unknown` if a base is, or nothing."""
        if name in owner.members:
            return owner.members[name]
        unknown = False
        for base in owner.bases:
            found = self._named(base, owner.module)
            if isinstance(found, Class):
                member = self._member(found, name)
            elif isinstance(found, Real):
                try:
                    member = Real(inspect.getattr_static(found.value, name))
                except AttributeError:
                    continue
                if name in ("__init__", "__new__") and member.value is getattr(object, name):
                    continue
            else:
                unknown = True
                continue
            if member is not None:
                return member
        return Unknown() if unknown else None

    def _named(self, text: str, module: str) -> Any:
        """Return what a name in the source of a module stands for."""
        text = text.strip().strip("\"'")
        if not re.fullmatch(r"[\w.]+", text):
            return Unknown()
        here: Any = self.module(module)
        try:
            for step in text.split("."):
                here = self._attribute(here, step, text)
        except Missing:
            return Real(object) if text == "object" else Unknown()
        return here

    def _called(self, here: Any, owner: Any) -> Any:
        if isinstance(here, Class):
            return Instance(here)
        if isinstance(here, Function) and here.returns:
            found = self._named(here.returns, here.module)
            if isinstance(found, Class):
                # `fit` that says it returns its own class returns the very estimator.
                return Instance(found, exact=isinstance(owner, Instance) and owner.of == found)
        return Unknown()


def _installed(alias: Alias) -> Any:
    try:
        module = importlib.import_module(alias.module)
        return Real(module if alias.name is None else getattr(module, alias.name))
    except (ImportError, AttributeError):
        return Unknown()
