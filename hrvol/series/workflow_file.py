"""Read a workflow file (YAML); errors carry file, line and column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hrvol.errors import RecipeError, WorkflowError
from hrvol.reading.bounded import read_file
from hrvol.reading.explain import KeyPath, Locate, Position, explain
from hrvol.recipe.marked_yaml import parse_mapping
from hrvol.series.spec import SeriesSpec

_FILE_BYTES = 2**20

_QUOTES = "text that begins with { is a mapping in YAML: put it in quotes"


@dataclass(frozen=True)
class Workflow:
    """A workflow file, validated.

    Attributes
    ----------
    path
        The file; relative paths in it begin in its folder.
    spec
        What it holds.
    locate
        Returns line and column of a value or its key.
    """

    path: Path
    spec: SeriesSpec
    locate: Locate = field(repr=False, compare=False)

    def error(self, keys: KeyPath, text: str) -> WorkflowError:
        """Return an error of a value: its position, its keys and a text."""
        line, column = self.locate(keys, False)
        dotted = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
        return WorkflowError(f"{self.path}:{line}:{column}: {dotted.removeprefix('.')}: {text}")

    def resolved(self, path: str, base: Path | None = None) -> str:
        """Return a path of the file as one from the current folder; URLs as they are.

        Parameters
        ----------
        path
            Path or URL.
        base
            Folder in which a relative path begins; ``None``: that of the file.
        """
        if "://" in path:
            return path
        return str((self.path.parent if base is None else base) / Path(path).expanduser())

    @property
    def out(self) -> Path:
        """Folder of the outputs."""
        return Path(self.resolved(self.spec.out))


def read_workflow(path: str | Path) -> Workflow:
    """Read and validate a workflow file.

    Raises
    ------
    WorkflowError
        There is no such file, or it is not valid YAML, has an unknown key or a wrong value. The message
        starts with ``file:line:column``, counted from 1.
    """
    content = read_file(path, _FILE_BYTES, "a workflow file (YAML)", WorkflowError)
    source = str(path)
    try:
        mapping = parse_mapping(content, source, "workflow keys")
    except RecipeError as error:
        hint = f" ({_QUOTES})" if "not valid YAML" in str(error) and b": {" in content else ""
        raise WorkflowError(f"{error}{hint}") from None
    values, origins = _one_form(mapping.values)

    def locate(keys: KeyPath, of_key: bool) -> Position:
        return mapping.position(_written(keys, origins), of_key=of_key)

    try:
        spec = SeriesSpec.model_validate(values)
    except ValidationError as error:
        raise WorkflowError(explain(error, SeriesSpec, source, locate)) from None
    workflow = Workflow(Path(path), spec, locate)
    if "://" in spec.out:
        raise workflow.error(("out",), f"found the URL {spec.out}, expected a local folder")
    if spec.table is not None and not spec.table.lower().endswith((".csv", ".json")):
        raise workflow.error(("table",), f"found {spec.table}, expected a file .csv or .json")
    return workflow


Origins = dict[tuple[str | int, ...], KeyPath]
"""Keys of a list item in the validated form -> its keys in the file."""


def _one_form(values: Mapping[str, Any]) -> tuple[dict[str, Any], Origins]:
    """Return the values with volumes and exports as lists of sections, and where their items were."""
    result, origins = dict(values), Origins()
    if "volumes" in result:
        items = _volumes(result["volumes"])
        if items is not None:
            result["volumes"] = [item for _, item in items]
            origins |= {("volumes", i): ("volumes", *keys) for i, (keys, _) in enumerate(items)}
    steps = result.get("steps")
    if isinstance(steps, Mapping) and isinstance(steps.get("export"), Mapping):
        result["steps"] = {**steps, "export": [steps["export"]]}
        origins["steps", "export", 0] = ("steps", "export")
    return result, origins


def _volumes(raw: Any) -> list[tuple[KeyPath, Any]] | None:
    """Return sections and their keys in the file; ``None`` for what is neither text, list nor mapping."""
    if isinstance(raw, str) or (isinstance(raw, Mapping) and isinstance(raw.get("path"), str)):
        return [((), _section(raw))]
    if isinstance(raw, list):
        return [((i,), _section(item)) for i, item in enumerate(raw)]
    if isinstance(raw, Mapping):
        return [
            ((key,), {"name": key, **section} if isinstance(section := _section(item), dict) else item)
            for key, item in raw.items()
        ]
    return None


def _section(item: Any) -> Any:
    return {"path": item} if isinstance(item, str) else item


def _written(keys: KeyPath, origins: Origins) -> KeyPath:
    """Return the keys of a value in the file."""
    for length in (2, 3):
        if keys[:length] in origins:
            return (*origins[keys[:length]], *keys[length:])
    return keys


def workflow_schema() -> dict[str, Any]:
    """Return the JSON schema of workflow files, with all forms that volumes and exports may have."""
    schema = SeriesSpec.model_json_schema()
    section = {"$ref": "#/$defs/VolumeSpec"}
    one = {"anyOf": [{"type": "string"}, section]}
    volumes = schema["properties"]["volumes"]
    schema["properties"]["volumes"] = {
        "title": volumes["title"],
        "description": volumes["description"],
        "anyOf": [
            {"type": "string"},
            section,
            {"type": "array", "items": one},
            {"type": "object", "additionalProperties": one},
        ],
    }
    exports = schema["$defs"]["StepsSpec"]["properties"]["export"]
    schema["$defs"]["StepsSpec"]["properties"]["export"] = {
        "title": exports["title"],
        "description": exports["description"],
        "anyOf": [{"$ref": "#/$defs/ExportSpec"}, {"type": "array", "items": {"$ref": "#/$defs/ExportSpec"}}],
    }
    return schema
