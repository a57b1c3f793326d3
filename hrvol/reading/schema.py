"""Validate values from files by pydantic models, with errors as one line."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hrvol.errors import HrvolError, InputError
from hrvol.reading.explain import explain
from hrvol.text import is_name


class Schema(BaseModel):
    """Base of models for values from files: exact types, finite numbers, unknown keys ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


def _check_name(text: str) -> str:
    if not is_name(text):
        raise ValueError("text without control characters")
    return text


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_name)]
"""A name to show to people: 1 to 200 characters, none of which a terminal obeys or hides."""

S = TypeVar("S", bound=BaseModel)


def validated(schema: type[S], values: Any, source: str, error: type[HrvolError] = InputError) -> S:
    """Return values from a file as a model.

    Parameters
    ----------
    schema
        The model.
    values
        Plain Python values, as JSON has them.
    source
        Name of the file for messages.
    error
        Type of the error to raise.

    Raises
    ------
    HrvolError
        Of the type ``error``: a value is missing, of another type, or out of bounds. The message names the
        file, the key, the value found and the value expected.
    """
    try:
        # As JSON, because a list is no tuple otherwise where types are exact.
        return schema.model_validate_json(json.dumps(values, ensure_ascii=False).encode())
    except UnicodeEncodeError:  # JSON has escapes for halves of characters
        raise error(f"{source}: found text that is no Unicode, expected Unicode") from None
    except ValidationError as problem:
        raise error(explain(problem, schema, source)) from None
    except (RecursionError, ValueError):
        raise error(f"{source}: found values that are nested too deeply, expected less") from None
