"""Collect the imports, names and calls of the GPU packages from the source of hrvol.

Followed are imported names (anywhere in a file), their attributes, the results of their calls, and local
variables bound to any of these. Arguments of functions are not followed, so uses of an array that a function
receives are not collected.

``**options`` of a call must be readable without running it: a dict display, a constant of a module of
hrvol, a local variable or a function made of those, or a function of a constant table such as
``keywords_of(TABLE, values)``, which returns the table's keys.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

PACKAGES = frozenset({"cuml", "cupy", "cupyx", "nvforest", "dask_cuda", "rmm"})


class Unreadable(Exception):
    """Keywords that are known only when the code runs."""


@dataclass(frozen=True)
class Use:
    """A name or call of a package on a line of source.

    Attributes
    ----------
    where
        File and line.
    path
        Dotted path as for :meth:`contract.signatures.Wheels.lookup`.
    arguments
        Number of positional arguments and the keywords of a call; ``None`` without a call.
    some
        Whether there may be more positional arguments (``*rest``).
    """

    where: str
    path: str
    arguments: tuple[int, tuple[str, ...]] | None = None
    some: bool = False


def uses(folder: Path) -> list[Use]:
    """Return the uses of :data:`PACKAGES` in the modules of a folder.

    Raises
    ------
    Unreadable
        A call has ``**options`` that cannot be read.
    """
    return [use for file in sorted(folder.rglob("*.py")) for use in Source(file, folder.parent).uses()]


def outside_of_functions(file: Path) -> Iterator[int]:
    """Yield the lines that import one of :data:`PACKAGES` when the module is imported."""
    for node in _own(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom) and any(_imports(node)):
            yield node.lineno


@dataclass(eq=False)
class Source:
    """A module's source; the modules of hrvol whose constants it imports are below ``root``."""

    file: Path
    root: Path
    text: str | None = None
    tree: ast.Module = field(init=False)

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.file.read_text(encoding="utf-8") if self.text is None else self.text)

    def uses(self) -> Iterator[Use]:
        """Yield all imports, names and calls."""
        for node in ast.walk(self.tree):
            for name in _imports(node):
                yield Use(self._where(node), name)
        yield from self._within(self.tree, {})

    def _within(self, scope: ast.AST, outer: dict[str, str | None]) -> Iterator[Use]:
        """Yield the uses in a function, or in the module outside of its functions."""
        nodes = list(_own(scope))
        paths = {**outer, **_arguments(scope)}
        for node in nodes:
            paths.update(_bindings(node))
        for node in nodes:  # in order, because assignments refer to earlier ones
            _assign(node, paths)
        for node in nodes:
            if isinstance(node, ast.Call):
                path = _path(node.func, paths)
                if path is not None:
                    yield self._call(node, path, scope)
            elif isinstance(node, ast.Attribute) and (path := _path(node, paths)) is not None:
                yield Use(self._where(node), path)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield from self._within(node, paths)

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
        """Return all keys that a mapping may have according to the source."""
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
        keys: list[str] = []
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                keys.extend(self.keys(value, scope))
            elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                keys.append(key.value)
            else:
                raise Unreadable(f"key {ast.unparse(key)} cannot be read")
        return _once(tuple(keys))

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
        raise Unreadable(f"{name} is neither a constant nor a local mapping")

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
        functions: dict[str, list[ast.FunctionDef]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef):
                functions.setdefault(node.name, []).append(node)
        return functions

    def _where(self, node: ast.AST) -> str:
        return f"{self.file.relative_to(self.root)}:{getattr(node, 'lineno', 0)}"


@cache
def _source(root: Path, module: str) -> Source:
    file = root.joinpath(*module.split("."))
    return Source(file / "__init__.py" if file.is_dir() else file.with_suffix(".py"), root)


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function in order of the text, without the bodies of inner functions."""
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
    paths = {}
    if isinstance(node, ast.Import):
        for alias in node.names:
            root = alias.name.partition(".")[0]
            if root in PACKAGES:
                paths[alias.asname or root] = alias.name if alias.asname else root
    elif isinstance(node, ast.ImportFrom) and _of_gpu(node):
        paths = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return paths


def _of_gpu(node: ast.ImportFrom) -> bool:
    return not node.level and (node.module or "").partition(".")[0] in PACKAGES


def _arguments(scope: ast.AST) -> dict[str, None]:
    if not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return {}
    return {part.arg: None for part in ast.walk(scope.args) if isinstance(part, ast.arg)}


def _assign(node: ast.AST, paths: dict[str, str | None]) -> None:
    """Record the path that a variable is bound to, or ``None`` if there are several."""
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
        path = _path(value, paths) if value is not None else None
        if isinstance(target, ast.Name):
            paths[target.id] = path if paths.get(target.id) in (None, path) else None
        else:
            for part in ast.walk(target):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    paths[part.id] = None


def _path(node: ast.expr | None, paths: dict[str, str | None]) -> str | None:
    if isinstance(node, ast.Name):
        return paths.get(node.id)
    if isinstance(node, ast.Attribute):
        inner = _path(node.value, paths)
        return None if inner is None else f"{inner}.{node.attr}"
    if isinstance(node, ast.Call):
        inner = _path(node.func, paths)
        return None if inner is None else f"{inner}()"
    return None


def _assigned(name: str, scope: ast.AST) -> Iterator[ast.expr]:
    """Yield the values assigned to a name in a function or module, and the mappings added to it."""
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
    keys = []
    for node in _own(scope):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and _is(node.value, name):
            if not (isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)):
                raise Unreadable(f"{ast.unparse(node)} = ... cannot be read")
            keys.append(node.slice.value)
    return tuple(keys)


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _once(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(keys))
