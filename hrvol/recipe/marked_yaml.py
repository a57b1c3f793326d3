"""Read a YAML mapping and keep the line and column of every key and value, for error messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from hrvol.errors import RecipeError
from hrvol.reading.explain import KeyPath

_STRING, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"

_VALUES = 10_000  # of a recipe; the longest has about 100

_DEPTH = 50

_DIGITS = 40  # of an integer; longer ones cannot be printed

_KINDS = {list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}


@dataclass(frozen=True)
class MarkedMapping:
    """A mapping read from YAML.

    Attributes
    ----------
    values
        Plain Python values.
    root
        Node tree of the same values; its marks have the positions.
    """

    values: dict[str, Any]
    root: yaml.Node

    def position(self, path: KeyPath, *, of_key: bool = False) -> tuple[int, int]:
        """Return line and column, from 1, of a value, or of the closest section above that is in the file.

        Parameters
        ----------
        path
            Keys and indices from the top of the file.
        of_key
            Point to the key instead of its value. Sections and empty values always are at their key.
        """
        node, mark = self.root, self.root.start_mark
        for part in path:
            if isinstance(node, yaml.MappingNode):
                pair = next((pair for pair in reversed(node.value) if pair[0].value == part), None)
                if pair is None:
                    break
                key, node = pair
                empty = node.start_mark.index == node.end_mark.index
                mark = (key if of_key or empty or isinstance(node, yaml.MappingNode) else node).start_mark
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                mark = node.start_mark
            else:
                break
        return mark.line + 1, mark.column + 1


class _Loader(yaml.SafeLoader):
    """Give errors of values (an impossible date, ``!!int`` of text) a position, too."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            what = str(error) if isinstance(error, ValueError) else f"found no value of {node.tag}"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from None

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        if len(node.value) > _DIGITS:
            raise ValueError(f"found an integer of {len(node.value)} digits, expected at most {_DIGITS}")
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_mapping(content: bytes, source: str, keys: str = "recipe keys") -> MarkedMapping:
    """Parse a YAML file that holds one mapping.

    Parameters
    ----------
    content
        Bytes of the file, UTF-8.
    source
        Name of the file for error messages.
    keys
        What its keys are, for error messages.

    Raises
    ------
    RecipeError
        The file is not UTF-8, not valid YAML, empty, not a mapping or too large with all aliases replaced, or
        a mapping has a key twice or a key that is not text. The message starts with ``source:line:column``,
        counted from 1.
    """
    text = _decode(content, source)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise RecipeError(f"{source}:1:1: found no keys, expected some {keys}, or {{}} for the defaults")
        _check_size(root, source)  # before construction, which follows aliases
        _check_keys(root, source)  # before construction, which merges duplicates
        values = loader.construct_document(root)
    except yaml.reader.ReaderError as error:
        line, column = _line_and_column(text[: error.position])
        problem = f"found the control character {chr(int(error.character))!r}, expected text"
        raise RecipeError(f"{source}:{line}:{column}: not valid YAML: {problem}") from None
    except yaml.MarkedYAMLError as error:
        raise RecipeError(_explain_yaml(error, text, source)) from None
    except RecursionError:
        raise RecipeError(f"{source}: not valid YAML: nested too deeply") from None
    if not isinstance(values, dict):
        kind = "null" if values is None else _KINDS.get(type(values), type(values).__name__)
        line, column = root.start_mark.line + 1, root.start_mark.column + 1
        raise RecipeError(f"{source}:{line}:{column}: found {kind}, expected a mapping of {keys}")
    return MarkedMapping(values, root)


def _explain_yaml(error: yaml.MarkedYAMLError, text: str, source: str) -> str:
    mark, start, context = error.problem_mark or error.context_mark, error.context_mark, error.context
    if mark is None:
        return f"{source}: not valid YAML: {error.problem}"
    if start is not None and start.line < mark.line and str(context).startswith("while"):
        context = f"{context} (line {start.line + 1})"
    problem = ", ".join(filter(None, (context, error.problem)))
    if text[mark.index : mark.index + 1] == "\t":
        problem = "found a tab, expected spaces"
    return f"{source}:{mark.line + 1}:{mark.column + 1}: not valid YAML: {problem}"


def _decode(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _line_and_column(content[: error.start].decode("utf-8"))
        byte = f"the byte 0x{content[error.start]:02x}"
        raise RecipeError(f"{source}:{line}:{column}: found {byte}, expected YAML in UTF-8") from None


def _line_and_column(before: str) -> tuple[int, int]:
    """Return the position, from 1, of the character that follows a text."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _check_size(root: yaml.Node, source: str) -> None:
    """Raise :class:`RecipeError` if the values are too many or too deep once aliases are replaced by them."""
    sizes: dict[int, int] = {}  # of a node with all below it; 0 while it is counted

    def size(node: yaml.Node, depth: int) -> int:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        if sizes.get(id(node)) == 0:
            raise RecipeError(f"{source}:{line}:{column}: found an alias of itself, expected none")
        if depth > _DEPTH:
            raise RecipeError(f"{source}:{line}:{column}: not valid YAML: nested too deeply")
        if id(node) not in sizes:
            sizes[id(node)] = 0
            below = [] if isinstance(node, yaml.ScalarNode) else node.value
            children = [child for part in below for child in (part if isinstance(part, tuple) else (part,))]
            sizes[id(node)] = 1 + sum(size(child, depth + 1) for child in children)
        if sizes[id(node)] > _VALUES:
            raise RecipeError(f"{source}:{line}:{column}: found more than {_VALUES:,} values, expected fewer")
        return sizes[id(node)]

    size(root, 0)


def _check_keys(root: yaml.Node, source: str) -> None:
    """Raise :class:`RecipeError` if a mapping has a key twice, or one that is not text."""
    ahead: list[tuple[str, yaml.Node]] = [("", root)]
    checked = set()
    while ahead:
        name, node = ahead.pop()
        if id(node) in checked:  # an alias
            continue
        checked.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            ahead += [(f"{name}[{index}]", item) for index, item in reversed(list(enumerate(node.value)))]
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, int] = {}
        children = []
        for key, value in node.value:
            line, column = key.start_mark.line + 1, key.start_mark.column + 1
            if key.tag == _MERGE:
                continue
            if key.tag != _STRING:
                what = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise RecipeError(f"{source}:{line}:{column}: found the key {what}, expected text as key")
            path = f"{name}.{key.value}" if name else key.value
            if key.value in lines:
                raise RecipeError(
                    f"{source}:{line}:{column}: {path}: duplicate key, first found on line {lines[key.value]}"
                )
            lines[key.value] = line
            children.append((path, value))
        ahead += reversed(children)
