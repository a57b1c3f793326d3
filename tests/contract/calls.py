"""What hrvol asks of the GPU packages, collected from its source: every import, every name used, every call.

Followed are names that are imported (anywhere in a file), attributes of them, what their calls return, and
local variables that hold such a thing. Not followed are arguments of hrvol's own functions, so what is done
there with an array that came from elsewhere is not seen.

``**options`` of a call must be readable without running it: a dict display, a constant of a module of
hrvol, a local variable or a function made of those, or a function of a constant table such as
``named(TABLE, values)``, which returns the table's keys.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

PACKAGES = frozenset({"cuml", "cupy", "cupyx", "nvforest", "dask_cuda", "rmm"})


class Unreadable(Exception):
    """Keywords that only running the code would tell."""


@dataclass(frozen=True)
class Use:
    """Something of a package that a line of source names or calls.

    Attributes
    ----------
    where
        File and line.
    path
        What is used, as :meth:`contract.signatures.Wheels.lookup` takes it.
    arguments
        Of a call: number of positional ones, and the keywords; ``None`` if it is not called.
    some
        Whether there may be more positional arguments (``*rest``).
    """

    where: str
    path: str
    arguments: tuple[int, tuple[str, ...]] | None = None
    some: bool = False


def uses(folder: Path) -> list[Use]:
    """Return what the modules in a folder use of :data:`PACKAGES`.

    Raises
    ------
    Unreadable
        A call has ``**options`` that cannot be read.
    """
    return [use for file in sorted(folder.rglob("*.py")) for use in Source(file, folder.parent).uses()]


def outside_of_functions(file: Path) -> Iterator[int]:
    """Yield the lines that import one of :data:`PACKAGES` as soon as the module is imported."""
    for node in _own(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom) and any(_imports(node)):
            yield node.lineno


@dataclass(eq=False)
class Source:
    """A module's source; modules of hrvol it imports constants from lie below ``root``."""

    file: Path
    root: Path
    text: str | None = None
    tree: ast.Module = field(init=False)

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.file.read_text(encoding="utf-8") if self.text is None else self.text)

    def uses(self) -> Iterator[Use]:
        """Yield what is imported, named and called."""
        for node in ast.walk(self.tree):
            for name in _imports(node):
                yield Use(self._where(node), name)
        yield from self._within(self.tree, {})

    def _within(self, scope: ast.AST, outer: dict[str, str | None]) -> Iterator[Use]:
        """Yield what a function, or the module outside of its functions, uses."""
        nodes = list(_own(scope))
        known = {**outer, **_arguments(scope)}
        for node in nodes:
            known.update(_bindings(node))
        for node in nodes:  # in order: a name is known when it is assigned
            _assign(node, known)
        for node in nodes:
            if isinstance(node, ast.Call):
                path = _path(node.func, known)
                if path is not None:
                    yield self._call(node, path, scope)
            elif isinstance(node, ast.Attribute) and (path := _path(node, known)) is not None:
                yield Use(self._where(node), path)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield from self._within(node, known)

    def _call(self, node: ast.Call, path: str, scope: ast.AST) -> Use:
        starred = [argument for argument in node.args if isinstance(argument, ast.Starred)]
        keywords: list[str] = []
        for keyword in node.keywords:
            if keyword.arg is not None:
                keywords.append(keyword.arg)
                continue
            try:
                keywords.extend(self.keys(keyword.value, scope))
            except Unreadable as error:
                raise Unreadable(f"{self._where(node)}: {path}(**...): {error}") from None
        return Use(self._where(node), path, (len(node.args) - len(starred), tuple(keywords)), bool(starred))

    def keys(self, node: ast.expr, scope: ast.AST) -> tuple[str, ...]:
        """Return the keys of a mapping, as far as they are written down; all that it may have."""
        if isinstance(node, ast.Dict):
            return self._of_display(node, scope)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return _once(self.keys(node.left, scope) + self.keys(node.right, scope))
        if isinstance(node, ast.IfExp):
            return _once(self.keys(node.body, scope) + self.keys(node.orelse, scope))
        if isinstance(node, ast.Name):
            return self._of_name(node.id, scope)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self._of_call(node, node.func.id, scope)
        raise Unreadable(f"{ast.unparse(node)} cannot be read")

    def _of_display(self, node: ast.Dict, scope: ast.AST) -> tuple[str, ...]:
        found: list[str] = []
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                found.extend(self.keys(value, scope))
            elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                found.append(key.value)
            else:
                raise Unreadable(f"key {ast.unparse(key)} cannot be read")
        return _once(tuple(found))

    def _of_name(self, name: str, scope: ast.AST) -> tuple[str, ...]:
        values = list(_assigned(name, scope))
        if values:
            return _once(
                tuple(key for value in values for key in self.keys(value, scope)) + _set_later(name, scope)
            )
        if scope is not self.tree and name not in _arguments(scope):
            return self._of_name(name, self.tree)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hrvol."):
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        other = _source(self.root, node.module or "")
                        return other._of_name(alias.name, other.tree)
        raise Unreadable(f"{name} is no constant and no local mapping")

    def _of_call(self, node: ast.Call, name: str, scope: ast.AST) -> tuple[str, ...]:
        if name == "dict" and all(keyword.arg for keyword in node.keywords):
            inner = [key for argument in node.args for key in self.keys(argument, scope)]
            return _once((*inner, *(keyword.arg for keyword in node.keywords if keyword.arg)))
        for function in self._functions.get(name, []):
            returned = [part.value for part in ast.walk(function) if isinstance(part, ast.Return)]
            try:
                return _once(tuple(key for value in returned if value for key in self.keys(value, function)))
            except Unreadable:
                break
        if node.args:
            return self.keys(node.args[0], scope)
        raise Unreadable(f"{ast.unparse(node)} cannot be read")

    @cached_property
    def _functions(self) -> dict[str, list[ast.FunctionDef]]:
        found: dict[str, list[ast.FunctionDef]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, []).append(node)
        return found

    def _where(self, node: ast.AST) -> str:
        return f"{self.file.relative_to(self.root)}:{getattr(node, 'lineno', 0)}"


@cache
def _source(root: Path, module: str) -> Source:
    file = root.joinpath(*module.split("."))
    return Source(file / "__init__.py" if file.is_dir() else file.with_suffix(".py"), root)


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function in order of the text; inner functions, but not what is in them."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _own(child)


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.partition(".")[0] in PACKAGES:
                yield alias.name
    elif isinstance(node, ast.ImportFrom) and _of_gpu(node):
        for alias in node.names:
            yield f"{node.module}.{alias.name}"


def _bindings(node: ast.AST) -> dict[str, str]:
    """Return the names that an import binds."""
    found = {}
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.partition(".")[0] in PACKAGES:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
    elif isinstance(node, ast.ImportFrom) and _of_gpu(node):
        found = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _of_gpu(node: ast.ImportFrom) -> bool:
    return not node.level and (node.module or "").partition(".")[0] in PACKAGES


def _arguments(scope: ast.AST) -> dict[str, None]:
    if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return {}
    return {part.arg: None for part in ast.walk(scope.args) if isinstance(part, ast.arg)}


def _assign(node: ast.AST, known: dict[str, str | None]) -> None:
    """Note what a variable holds; of several things, none."""
    pairs: list[tuple[ast.expr, ast.expr | None]] = []
    if isinstance(node, ast.Assign):
        pairs = [(target, node.value) for target in node.targets]
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
        pairs = [(node.target, node.value)]
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        pairs = [(node.optional_vars, node.context_expr)]
    elif isinstance(node, ast.For):
        pairs = [(node.target, None)]
    for target, value in pairs:
        path = _path(value, known) if value is not None else None
        if isinstance(target, ast.Name):
            known[target.id] = path if known.get(target.id) in (None, path) else None
        else:
            for part in ast.walk(target):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    known[part.id] = None


def _path(node: ast.expr | None, known: dict[str, str | None]) -> str | None:
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        inner = _path(node.value, known)
        return None if inner is None else f"{inner}.{node.attr}"
    if isinstance(node, ast.Call):
        inner = _path(node.func, known)
        return None if inner is None else f"{inner}()"
    return None


def _assigned(name: str, scope: ast.AST) -> Iterator[ast.expr]:
    """Yield what is assigned to a name in a function (or module), or added to it as a mapping."""
    for node in _own(scope):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if node.value is not None and any(_is(target, name) for target in targets):
                yield node.value
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "update"
            and _is(node.func.value, name)
        ):
            yield from node.args


def _set_later(name: str, scope: ast.AST) -> tuple[str, ...]:
    """Return the keys of ``name[key] = value``."""
    found = []
    for node in _own(scope):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and _is(node.value, name):
            if not (isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)):
                raise Unreadable(f"{ast.unparse(node)} = ... cannot be read")
            found.append(node.slice.value)
    return tuple(found)


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _once(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(keys))
