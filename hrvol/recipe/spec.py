"""Base of the sections of a recipe: frozen groups of settings, described by their docstrings."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


def attribute_docs(model: type) -> dict[str, str]:
    """Return the texts of the ``Attributes`` section of a model's numpydoc docstring by field."""
    texts: dict[str, list[str]] = {}
    names: list[str] = []
    for line in inspect.cleandoc(model.__doc__ or "").partition("\nAttributes\n----------\n")[2].splitlines():
        if line.startswith(" "):
            for name in names:
                texts[name].append(line.strip())
        elif line:
            names = line.split(", ")
            texts.update({name: [] for name in names})
    return {name: " ".join(lines).replace("``", "") for name, lines in texts.items()}


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Put a model's docstring into its JSON schema."""
    schema["description"] = " ".join((model.__doc__ or "").partition("\n\n")[0].split()).replace("``", "")
    for base in reversed(model.__mro__):  # of a base class, too
        for name, text in attribute_docs(base).items():
            if name in schema["properties"]:
                schema["properties"][name]["description"] = text


def invalid(text: str, key: str | None = None) -> PydanticCustomError:
    """Return the error for validators to raise: ``found ..., expected ...``.

    Parameters
    ----------
    text
        The message.
    key
        The field that a validator of a whole section complains about.
    """
    return PydanticCustomError("setting", "{text}", {"text": text, "key": key})


class Spec(BaseModel):
    """A frozen, hashable group of settings that round-trips through a dict."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, json_schema_extra=_describe)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values only, ready for JSON or YAML."""
        return self.model_dump(mode="json")
