"""Options for what files of inputs lack: voxel size, order of axes, channel, layout of raw files.

They turn the paths of a command into locations that carry them, so that no function takes them itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from hrvol.volume.read_options import Channel, ReadOptions

F = TypeVar("F", bound=Callable[..., Any])


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Return one to three numbers above 0."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 2, 3) or not all(0 < number < float("inf") for number in numbers):
        raise click.BadParameter(f"found {value!r}, expected numbers above 0: z,y,x (y,x for an image)")
    return numbers


def _sides(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Return two or three whole numbers above 0."""
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",")]
    if len(parts) not in (2, 3) or not all(
        part.isdecimal() and len(part) < 19 and int(part) for part in parts
    ):
        raise click.BadParameter(f"found {value!r}, expected whole numbers above 0: z,y,x (y,x for an image)")
    return tuple(map(int, parts))


def _channel(ctx: click.Context, param: click.Parameter, value: str | None) -> Channel | None:
    """Return a number, or a name: ``mean``, ``rgb`` or that of a channel."""
    if value is not None and value.isdecimal() and len(value) <= 9:
        return int(value)
    if value is not None and (not value.strip() or value.startswith("-")):
        raise click.BadParameter(f"found {value!r}, expected a number from 0, a name, mean or rgb")
    return value


READING = {
    "voxel_size": click.option(
        "--voxel-size",
        callback=_numbers,
        metavar="z,y,x",
        help="Size of a voxel in --unit, in place of that of the file; one number for all axes.",
    ),
    "unit": click.option("--unit", metavar="UNIT", help="Unit of the voxel size: nm, um, mm [the file's]."),
    "axis_order": click.option(
        "--axis-order",
        metavar="ORDER",
        help="Letters of the stored axes, the slowest first: xyz for a transposed stack. Not for OME-Zarr,"
        " which names its axes.",
    ),
    "channel": click.option(
        "--channel",
        callback=_channel,
        metavar="N|NAME",
        help="Channel to read of images with several, from 0 or by its name; mean: of all; rgb: the first"
        " three as colour, which is the default where there are three.",
    ),
    "raw_shape": click.option(
        "--raw-shape", callback=_sides, metavar="z,y,x", help="Shape of files without a header."
    ),
    "raw_dtype": click.option(
        "--raw-dtype", metavar="TYPE", help="Type of their voxels, such as uint16 or float32 [uint8]."
    ),
    "raw_offset": click.option(
        "--raw-offset", type=click.IntRange(0), metavar="N", help="Bytes before their first voxel [0]."
    ),
    "raw_byteorder": click.option(
        "--raw-byteorder", type=click.Choice(["little", "big"]), help="Their byte order [little]."
    ),
}


def reads(*names: str) -> Callable[[F], F]:
    """Return a decorator that adds the options, and applies them to the inputs of a command.

    Parameters
    ----------
    names
        Arguments of the command that are paths of inputs, or tuples of them; ``object.field`` names a field
        of an argument that is a frozen dataclass.
    """

    def decorate(command: F) -> F:
        @wraps(command)
        def with_options(*arguments: Any, **values: Any) -> Any:
            reading = _options(**{key: values.pop(key) for key in READING})
            if reading is not None:
                for name in names:
                    first, *fields = name.split(".")
                    values[first] = _with_options(values[first], fields, reading)
            return command(*arguments, **values)

        decorated: Any = with_options
        for option in reversed(list(READING.values())):
            decorated = option(decorated)
        return cast(F, decorated)

    return decorate


def _options(
    raw_shape: tuple[int, ...] | None,
    raw_dtype: str | None,
    raw_offset: int | None,
    raw_byteorder: str | None,
    **values: Any,
) -> ReadOptions | None:
    """Return the options as one object; ``None`` if there are none."""
    layout = {"dtype": raw_dtype, "offset": raw_offset, "byteorder": raw_byteorder}
    given: dict[str, Any] = {name: value for name, value in layout.items() if value is not None}
    if given and raw_shape is None:
        raise click.UsageError(f"--raw-{next(iter(given))} needs --raw-shape z,y,x")
    if raw_shape is None and all(value is None for value in values.values()):
        return None
    from hrvol.volume.read_options import RawLayout, ReadOptions

    return ReadOptions(**values, raw=None if raw_shape is None else RawLayout(raw_shape, **given))


def _with_options(value: Any, fields: list[str], reading: ReadOptions) -> Any:
    """Return a path as a location with options; paths in tuples and in fields of objects likewise."""
    if fields:
        if value is None or not is_dataclass(value):
            return value
        inner = _with_options(getattr(value, fields[0]), fields[1:], reading)
        return replace(cast(Any, value), **{fields[0]: inner})
    if isinstance(value, tuple):
        return tuple(_with_options(part, [], reading) for part in value)
    if not isinstance(value, str):
        return value
    from hrvol.volume.storage.location import Location

    return replace(Location.of(value), reading=reading)
