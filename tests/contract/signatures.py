"""Read signatures from wheels that are not installed.

:meth:`Wheels.lookup` resolves a dotted path as Python would: through packages, re-exports, classes, their
bases, and annotated return types. Bases from installed packages (scikit-learn, distributed) are imported.
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
    """A name does not exist; the message contains it."""


@dataclass(frozen=True)
class Instance:
    """An instance of a class; not exact if it is only the annotated return type of a function."""

    of: Class
    exact: bool = True


@dataclass(frozen=True)
class Real:
    """An object of an installed package."""

    value: Any


@dataclass(eq=False)
class Wheels:
    """Modules of wheels, read on demand.

    Attributes
    ----------
    paths
        Wheel of each top-level package.
    """

    paths: Mapping[str, Path]
    _modules: dict[str, Module | None] = field(default_factory=dict)

    def lookup(self, path: str) -> Any:
        """Return the object at a dotted path; ``()`` after a name stands for the result of calling it.

        Raises
        ------
        Missing
            A part of the path does not exist.
        """
        first, *steps = path.split(".")
        target: Any = self.module(first)
        if target is None:
            target = _installed(Alias(first))
        if target == Unknown():
            raise Missing(f"{path}: there is no package {first}")
        for step in steps:
            name, *calls = step.split("(")
            owner = target
            target = self._attribute(target, name, path)
            for _ in calls:
                target = self._called(target, owner)
        return target

    def signature(self, target: Any) -> inspect.Signature:
        """Return the signature of an object that :meth:`lookup` returned."""
        if isinstance(target, Function):
            return target.signature
        if isinstance(target, Class):
            constructor = self._member(target, "__init__")
            if constructor is None:
                constructor = self._member(target, "__new__")
            return self.signature(constructor) if constructor is not None else inspect.Signature()
        if isinstance(target, Real):
            signature = inspect.signature(target.value)
            # A method that was looked up on its class.
            if inspect.isfunction(target.value) and "self" in signature.parameters:
                return without_first(signature)
            return signature
        return ANY

    def module(self, name: str) -> Module | None:
        """Return a module, or ``None`` if no wheel has it."""
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
        modules = []
        if f"{stem}.pyi" in files:
            modules.append(read_python(archive.read(f"{stem}.pyi").decode(), name, parent))
        if f"{stem}.pyx" in files:
            modules.append(read_cython(archive.read(f"{stem}.pyx").decode(), name, parent))
        else:
            binary = [file for file in files if re.fullmatch(rf"{re.escape(stem)}\.[\w-]+\.so", file)]
            modules.extend(read_compiled(archive.read(file), name) for file in binary)
        if modules:  # a stub is more precise, but may be incomplete
            return Module(name, dict(ChainMap(*(dict(module.names) for module in modules))), modules[0].stars)
        return Module(name, {}) if any(file.startswith(f"{stem}/") for file in files) else None

    @cached_property
    def _archives(self) -> dict[str, tuple[zipfile.ZipFile, set[str]]]:
        archives = {}
        for path in self.paths.values():
            archive = zipfile.ZipFile(path)
            files = set(archive.namelist())
            for root in {file.partition("/")[0] for file in files}:
                archives[root] = (archive, files)
        return archives

    def _attribute(self, target: Any, name: str, path: str) -> Any:
        if isinstance(target, Module):
            return self._in_module(target, name, path)
        if isinstance(target, Class | Instance):
            owner = target.of if isinstance(target, Instance) else target
            member = self._member(owner, name)
            if member is None and not (isinstance(target, Instance) and not target.exact):
                raise Missing(f"{path}: {owner.module}.{owner.name} has no {name}")
            return Unknown() if member is None else member
        if isinstance(target, Real):
            try:
                return Real(inspect.getattr_static(target.value, name))
            except AttributeError:
                raise Missing(f"{path}: {target.value!r} has no {name}") from None
        return Unknown()

    def _in_module(self, module: Module, name: str, path: str) -> Any:
        value = module.names.get(name)
        if value == Alias(module.name, name):  # `from package import module`, within the package
            value = None
        if isinstance(value, Alias):
            return self._resolved(value, path)
        if value is not None:
            return value
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

    def _resolved(self, alias: Alias, path: str) -> Any:
        module = self.module(alias.module)
        if module is None:
            return _installed(alias)
        return module if alias.name is None else self._in_module(module, alias.name, path)

    def _member(self, owner: Class, name: str) -> Any:
        """Return a member of a class or of its bases, or ``None``; :class:`Unknown` if a base is unknown."""
        if name in owner.members:
            return owner.members[name]
        unknown = False
        for base in owner.bases:
            resolved = self._by_name(base, owner.module)
            if isinstance(resolved, Class):
                member = self._member(resolved, name)
            elif isinstance(resolved, Real):
                try:
                    member = Real(inspect.getattr_static(resolved.value, name))
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

    def _by_name(self, text: str, module: str) -> Any:
        """Return the object that a name in the source of a module refers to."""
        text = text.strip().strip("\"'")
        if not re.fullmatch(r"[\w.]+", text):
            return Unknown()
        target: Any = self.module(module)
        try:
            for step in text.split("."):
                target = self._attribute(target, step, text)
        except Missing:
            return Real(object) if text == "object" else Unknown()
        return target

    def _called(self, target: Any, owner: Any) -> Any:
        if isinstance(target, Class):
            return Instance(target)
        if isinstance(target, Function) and target.returns:
            result = self._by_name(target.returns, target.module)
            if isinstance(result, Class):
                # A method annotated to return its own class, as `fit`, returns the object itself.
                return Instance(result, exact=isinstance(owner, Instance) and owner.of == result)
        return Unknown()


def _installed(alias: Alias) -> Any:
    try:
        module = importlib.import_module(alias.module)
        return Real(module if alias.name is None else getattr(module, alias.name))
    except (ImportError, AttributeError):
        return Unknown()
