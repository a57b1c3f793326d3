"""What a client wants of a session, as one document: sent again, it means the same."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hrvol.errors import InputError
from hrvol.interactive.wire.limits import ASKS
from hrvol.text import printable

_Whole = Annotated[int, Field(ge=0, lt=2**48)]

_Class = Annotated[int, Field(ge=0, lt=2**16)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class WantedSession(_Strict):
    """A session: its number, which is that of the client, and a recipe.

    Attributes
    ----------
    number
        Another number means another session.
    preset, yaml
        Name of a preset, or the text of a recipe file; neither: the recipe of the server.
    """

    number: _Whole
    preset: Annotated[str, Field(max_length=100)] | None = None
    yaml: Annotated[str, Field(max_length=2**20)] | None = None


class WantedView(_Strict):
    """What is seen, see :meth:`hrvol.Session.view`."""

    plane: _Whole
    rows: tuple[_Whole, _Whole]
    columns: tuple[_Whole, _Whole]
    level: Annotated[int, Field(ge=0, le=30)]


class Ask(_Strict):
    """A question that is answered later."""

    number: _Whole
    kind: Literal["update", "places", "quality", "model"]
    count: Annotated[int, Field(ge=1, le=1000)] = 1
    planes: Literal["view", "visited", "volume"] = "view"


class Wanted(_Strict):
    """All that a client wants.

    Attributes
    ----------
    session
        The session, or none.
    view
        What is seen, once it is known.
    live
        Whether previews follow the strokes and the view.
    weights
        Class weights by class value.
    cancels
        How often everything was cancelled.
    asks
        Questions without an answer so far.
    """

    session: WantedSession | None = None
    view: WantedView | None = None
    live: bool = False
    weights: Annotated[list[tuple[_Class, float]], Field(max_length=2**16)] = []
    cancels: _Whole = 0
    asks: Annotated[list[Ask], Field(max_length=ASKS)] = []

    @classmethod
    def of(cls, data: bytes) -> Wanted:
        """Return what JSON wants; :class:`InputError` if it is damaged."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "document"
            raise InputError(f"request: found a wrong {printable(place, 100)}: {first['msg']}") from None
