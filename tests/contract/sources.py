"""Read names, functions and classes of a module without importing it.

Python (.py, .pyi) is parsed with ast. Cython (.pyx) is parsed by lines, and compiled modules by the
signatures that Cython writes into docstrings; of both only signatures and attributes are read.
"""

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

ANY = inspect.Signature(
    [
        inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]
)
"""Accepts any arguments."""


@dataclass(frozen=True)
class Unknown:
    """An object with unknown attributes and arguments."""


@dataclass(frozen=True)
class Value:
    """A constant, a property or an attribute: only its existence is known."""


@dataclass(frozen=True)
class Alias:
    """A name that refers to another: to a module, or to a name in it."""

    module: str
    name: str | None = None


@dataclass(frozen=True)
class Function:
    """A function or method: its signature without ``self``, and its annotated return type."""

    signature: inspect.Signature
    returns: str | None = None
    module: str = ""


@dataclass(frozen=True)
class Class:
    """A class as written: members by name, bases as source text."""

    name: str
    module: str
    bases: tuple[str, ...] = ()
    members: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Module:
    """Names at the top level of a module, and the modules of its star imports."""

    name: str
    names: Mapping[str, Any]
    stars: tuple[str, ...] = ()


def without_first(signature: inspect.Signature) -> inspect.Signature:
    """Return the signature of a method as it is called: without ``self``."""
    return signature.replace(parameters=list(signature.parameters.values())[1:])


# Python sources


def read_python(text: str, name: str, package: str) -> Module:
    """Return the names that a Python module or stub defines."""
    names: dict[str, Any] = {}
    stars: list[str] = []
    for node in _top_level(ast.parse(text).body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names[node.name] = _function(node, name)
        elif isinstance(node, ast.ClassDef):
            names[node.name] = _class(node, name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            _imported(node, package, names, stars)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in _targets(node):
                value = node.value
                names[target] = Alias(name, value.id) if isinstance(value, ast.Name) else Value()
                if names[target] == Alias(name, target):
                    names[target] = Value()
    return Module(name, names, tuple(stars))


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If):
            yield from _top_level(node.orelse)
            yield from _top_level(node.body)
        elif isinstance(node, ast.Try):
            for handler in node.handlers:
                yield from _top_level(handler.body)
            yield from _top_level(node.body)
            yield from _top_level(node.orelse)
        else:
            yield node


def _imported(
    node: ast.Import | ast.ImportFrom, package: str, names: dict[str, Any], stars: list[str]
) -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.asname:
                names[alias.asname] = Alias(alias.name)
            else:
                root = alias.name.partition(".")[0]
                names[root] = Alias(root)
        return
    module = node.module or ""
    if node.level:
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        module = ".".join([*parents, *([module] if module else [])])
    for alias in node.names:
        if alias.name == "*":
            stars.append(module)
        else:
            names[alias.asname or alias.name] = Alias(module, alias.name)


def _targets(node: ast.Assign | ast.AnnAssign) -> Iterator[str]:
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        for part in ast.walk(target):
            if isinstance(part, ast.Name):
                yield part.id


def _class(node: ast.ClassDef, module: str) -> Class:
    members: dict[str, Any] = {}
    for part in ast.walk(node):
        # Attributes that methods set on self count too.
        if (
            isinstance(part, ast.Attribute)
            and isinstance(part.ctx, ast.Store)
            and isinstance(part.value, ast.Name)
            and part.value.id == "self"
        ):
            members[part.attr] = Value()
    for part in _top_level(node.body):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            members[part.name] = _method(part, module)
        elif isinstance(part, ast.Assign | ast.AnnAssign):
            members.update(dict.fromkeys(_targets(part), Value()))
    return Class(node.name, module, tuple(ast.unparse(base) for base in node.bases), members)


def _method(node: ast.FunctionDef | ast.AsyncFunctionDef, module: str) -> Any:
    marks = {ast.unparse(mark) for mark in node.decorator_list}
    if any(mark.endswith("property") or mark.endswith(".setter") for mark in marks):
        return Value()
    function = _function(node, module)
    return function if "staticmethod" in marks else _bound(function)


def _bound(function: Function) -> Function:
    if not function.signature.parameters:
        return function
    return Function(without_first(function.signature), function.returns, function.module)


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, module: str) -> Function:
    returns = ast.unparse(node.returns) if node.returns is not None else None
    return Function(_of_arguments(node.args), returns, module)


def _of_arguments(arguments: ast.arguments) -> inspect.Signature:
    positional = [*arguments.posonlyargs, *arguments.args]
    first_default = len(positional) - len(arguments.defaults)
    parameters = []
    for index, argument in enumerate(positional):
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        if index < len(arguments.posonlyargs):
            kind = inspect.Parameter.POSITIONAL_ONLY
        default = None if index >= first_default else inspect.Parameter.empty
        parameters.append(inspect.Parameter(argument.arg, kind, default=default))
    if arguments.vararg:
        parameters.append(inspect.Parameter(arguments.vararg.arg, inspect.Parameter.VAR_POSITIONAL))
    for argument, default_node in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        default = None if default_node is not None else inspect.Parameter.empty
        parameters.append(inspect.Parameter(argument.arg, inspect.Parameter.KEYWORD_ONLY, default=default))
    if arguments.kwarg:
        parameters.append(inspect.Parameter(arguments.kwarg.arg, inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(parameters)


# Cython sources

_HEADER = re.compile(
    r"^(?P<indent> *)(?:"
    r"(?:cdef |cpdef )?class (?P<class>\w+)(?P<bases>[^:]*):"
    r"|(?P<kind>def|cpdef)\s+(?:[\w\[\], .*]+?\s+\*?)?(?P<def>\w+)\s*(?P<open>\()"
    r"|(?P<name>[A-Za-z_]\w*)\s*(?:=(?!=)|:[^=\n]+$)"
    r")",
    re.M,
)


def read_cython(text: str, name: str, package: str) -> Module:
    """Return the names that a Cython module defines for Python."""
    text = _blanked(text)
    names: dict[str, Any] = {}
    stars: list[str] = []
    for statement in re.finditer(r"^(?:from [\w.]+ )?import (?:\([^)]*\)|[^\n(]+)", text, re.M):
        # cimports concern the compiler only.
        _imported(ast.parse(statement[0]).body[0], package, names, stars)  # type: ignore[arg-type]
    owner: tuple[int, str] | None = None
    members: dict[str, dict[str, Any]] = {}
    last_line = ""
    for header in _HEADER.finditer(text):
        indent = len(header["indent"])
        if owner is not None and indent <= owner[0]:
            owner = None
        last_line = text[: header.start()].rstrip("\n").rpartition("\n")[2].strip()
        if header["class"]:
            if indent == 0:
                bases = tuple(
                    part.strip() for part in header["bases"].strip().strip("()").split(",") if part.strip()
                )
                members[header["class"]] = {}
                names[header["class"]] = Class(header["class"], name, bases, members[header["class"]])
                owner = (indent, header["class"])
        elif header["def"]:
            inside, rest = _parenthesised(text, header.start("open"))
            returns = re.match(r"\s*->\s*([^:\n]+):", rest)
            function = Function(parse_arguments(inside), returns[1] if returns else None, name)
            if owner is not None and indent == owner[0] + 4:
                member: Any = function if last_line == "@staticmethod" else _bound(function)
                members[owner[1]][header["def"]] = Value() if last_line.endswith("property") else member
            elif indent == 0:
                names[header["def"]] = function
        elif owner is not None and indent == owner[0] + 4:
            members[owner[1]].setdefault(header["name"], Value())
        elif indent == 0:
            names.setdefault(header["name"], Value())
    for title, inner in members.items():
        for attribute in re.findall(r"\bself\.(\w+) *=[^=]", _body(text, title)):
            inner.setdefault(attribute, Value())
    return Module(name, names, tuple(stars))


def _blanked(text: str) -> str:
    """Return the text with the contents of triple-quoted strings removed, but their line breaks kept."""
    return re.sub(r'("""|\'\'\')(.*?)\1', lambda match: '""' + "\n" * match[2].count("\n"), text, flags=re.S)


def _body(text: str, title: str) -> str:
    start = re.search(rf"^(?:cdef |cpdef )?class {title}\b", text, re.M)
    assert start is not None
    end = re.search(r"^\S(?!\))", text[start.end() :].partition(":\n")[2], re.M)
    inside = text[start.end() :].partition(":\n")[2]
    return inside[: end.start()] if end else inside


def _parenthesised(text: str, start: int) -> tuple[str, str]:
    """Return the text in the parentheses that open at ``start``, and the text that follows them."""
    depth, quote, position = 0, "", start
    while position < len(text):
        sign = text[position]
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign == "#":
            position = text.index("\n", position)
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
            if depth == 0:
                return text[start + 1 : position], text[position + 1 : position + 200]
        position += 1
    raise ValueError(f"no end of the parentheses at {start}: {text[start : start + 60]!r}")


def parse_arguments(text: str) -> inspect.Signature:
    """Return the signature of an argument list of Python or Cython, without types."""
    text = re.sub(r"#[^\n]*", "", text)
    parts, current, depth, quote = [], "", 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        if sign == "," and not depth and not quote:
            parts.append(current)
            current = ""
        else:
            current += sign
    parts.append(current)
    plain = [_plain(part.strip()) for part in parts if part.strip()]
    tree = ast.parse(f"def f({', '.join(plain)}): pass").body[0]
    assert isinstance(tree, ast.FunctionDef)
    return _of_arguments(tree.args)


def _plain(argument: str) -> str:
    """Return an argument without types as ``name``, ``name=None`` or a star."""
    if argument in ("*", "/"):
        return argument
    bare = re.sub(r"\[[^\]]*\]", "", argument)  # float[:, ::1] v
    before, equals, _ = bare.partition("=")
    before = re.sub(r"\bnot None$|\bor None$", "", before.partition(":")[0].strip()).strip()
    stars = re.match(r"\*{1,2}(?=\w+$)", before)
    name = re.search(r"(\w+)$", before)
    assert name is not None, f"no name in {argument!r}"
    return f"{stars[0] if stars else ''}{name[1]}{'=None' if equals else ''}"


# Compiled modules: Cython writes the signature into the docstring, and the qualified name into the code.


def read_compiled(data: bytes, name: str) -> Module:
    """Return the names in a compiled Cython module; the bases of its classes are unknown."""
    signatures: dict[str, Function] = {}
    for match in re.finditer(rb"[\0\n]((?:\w+\.)*\w+)(\([^\0\n]*\))(?: -> [^\0\n]+)?(?=[\0\n])", data):
        title, arguments = match[1].decode(), match[2].decode()[1:-1]
        try:
            signatures.setdefault(title, Function(parse_arguments(arguments), None, name))
        except (AssertionError, SyntaxError):
            continue
    names: dict[str, Any] = {}
    members: dict[str, dict[str, Any]] = {}
    pattern = rb"\0" + re.escape(name.encode()) + rb"\.([A-Za-z_][\w.]*)(?=\0)"
    for title in sorted({match[1].decode() for match in re.finditer(pattern, data)}):
        first, _, rest = title.partition(".")
        if not rest:
            names.setdefault(first, signatures.get(first, Function(ANY, None, name)))
            continue
        inner = members.setdefault(first, {})
        member, _, deeper = rest.partition(".")
        signature = signatures.get(f"{first}.{member}")
        inner[member] = Value() if deeper or signature is None else _bound(signature)
    for first, inner in members.items():
        constructor = signatures.get(first)
        if constructor is not None:
            inner["__init__"] = constructor
        names[first] = Class(first, name, ("?",), inner)
    return Module(name, names)
