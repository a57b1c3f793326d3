"""Schemas of the metadata of OME-Zarr 0.1 to 0.5, as far as they are read.

Keys that are not read are ignored, so that extensions do no harm, unless they change the meaning of others.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from hrvol.reading.schema import Name, Schema
from hrvol.text import is_name

AXES = 8
"""Most axes of an image."""

LEVELS = 64
"""Most levels of an image."""

_VERSION = re.compile(r"0\.[1-5](?![0-9])")


def _check_inside(path: str) -> str:
    parts = path.split("/")
    if not is_name(path) or path.startswith("/") or ".." in parts or len(path) > 1000 or "\\" in path:
        raise ValueError("a path inside the group")
    return path


def _check_version(version: str | float | None) -> str | float | None:
    if version is not None and not _VERSION.match(str(version)):
        raise ValueError("a version from 0.1 to 0.5")
    return version


Inside = Annotated[str, AfterValidator(_check_inside)]
"""A path relative to a group that does not leave it."""

Version = Annotated[str | float | None, AfterValidator(_check_version)]

Text = Annotated[str, Field(max_length=200)]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


LabelValue = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=2**63)]
"""A value of a label; some writers have floats for it."""

LabelText = Annotated[str | None, BeforeValidator(_text)]
"""A class or name of a label; some writers have numbers for it."""


class Axis(Schema):
    """One axis; until version 0.3 only its name."""

    name: Name
    unit: Text | None = None


class Transformation(Schema):
    """A scale, a translation, or nothing; others are refused, because they are not applied."""

    type: Literal["scale", "translation", "identity"]
    scale: list[float] | None = Field(None, max_length=AXES)
    translation: list[float] | None = Field(None, max_length=AXES)

    @model_validator(mode="after")
    def _check_values(self) -> Transformation:
        if self.type != "identity" and getattr(self, self.type) is None:
            raise ValueError(f"a list of numbers as {self.type}")
        return self


class Dataset(Schema):
    """One level."""

    path: Inside | int
    coordinateTransformations: list[Transformation] | None = Field(None, max_length=16)


class MultiscaleEntry(Schema):
    """An image at several resolutions."""

    version: Version = None
    axes: list[Axis | Name] | None = Field(None, min_length=2, max_length=AXES)
    datasets: list[Dataset] = Field(min_length=1, max_length=LEVELS)
    coordinateTransformations: list[Transformation] | None = Field(None, max_length=16)
    coordinateSystems: Any = None

    @field_validator("coordinateSystems")
    @classmethod
    def _check_none(cls, value: Any) -> Any:
        if value is not None:
            raise ValueError("no coordinate systems, which OME-Zarr has from version 0.6 on")
        return value


class Multiscales(Schema):
    """The attributes of an image; only the first of several images is read."""

    version: Version = None
    multiscales: list[MultiscaleEntry] = Field(min_length=1)


class LabelList(Schema):
    """The attributes of a group of labels."""

    labels: list[Inside] = Field(max_length=10_000)


class Colour(Schema):
    """The colour of a label value."""

    value: LabelValue = Field(alias="label-value")
    rgba: list[Annotated[int, Field(ge=0, le=255)]] | None = Field(None, min_length=3, max_length=4)


class Property(Schema):
    """What is known of a label value."""

    value: LabelValue = Field(alias="label-value")
    class_name: LabelText = Field(None, alias="class")
    name: LabelText = None


class ImageLabel(Schema):
    """Colours and names of labels."""

    version: Version = None
    colors: list[Colour] | None = None
    properties: list[Property] | None = None


class LabelAttributes(Schema):
    """The attributes of labels."""

    image_label: ImageLabel = Field(alias="image-label")
