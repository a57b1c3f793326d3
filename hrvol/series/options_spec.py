"""Sections of a workflow file that several places have: where steps compute, and how volumes are read.

The ``Attributes`` of a docstring are the descriptions of keys in the JSON schema and in the reference.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hrvol.errors import UsageError
from hrvol.recipe.spec import Spec, invalid
from hrvol.volume.read_options import RawLayout, ReadOptions

Text = Annotated[str, Field(min_length=1, max_length=4096)]
"""A path, a URL or a template of one."""

Name = Annotated[str, Field(min_length=1, max_length=200)]

Names = Annotated[tuple[Name, ...], Field(max_length=10_000)]


Level = Annotated[int, Field(ge=0, le=63)]
"""Resolution of a multiscale volume, 0 the finest."""

_Side = Annotated[int, Field(ge=0, lt=2**40)]

Offset = tuple[_Side, _Side, _Side]
"""First voxel (z, y, x) of a crop in its volume."""


class ComputeSpec(Spec):
    """Where steps compute and how files are opened; the options of the commands by their names.

    Attributes
    ----------
    engine
        ``serial``, ``local``, ``cuda``, ``slurm``, or the address of a Dask scheduler.
    workers
        Worker processes of ``local`` or ``cuda``, or jobs of ``slurm``; null: one per CPU, per GPU, one job.
    scheduler_file
        File of a running Dask scheduler.
    engine_options
        Options of ``slurm``: queue, walltime, memory, ...
    scratch
        Folder for scratch files of decoded chunks, on the machines of the workers; null: none.
    device
        ``auto``, ``cpu`` or ``cuda``.
    devices
        GPUs of engine ``cuda``, by number or UUID.
    weights
        File with the weights of the network, instead of the cache.
    offline
        Use weights on this machine only.
    storage_options
        Options of the file system of URLs; a secret from the environment: ``secret: env:NAME``.
    storage_options_file
        The same from a JSON or YAML file that only you can read (mode 0600).
    """

    engine: Text = "local"
    workers: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    scheduler_file: Text | None = None
    engine_options: dict[str, Any] = Field(default_factory=dict)
    scratch: Text | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Names = ()
    weights: Text | None = None
    offline: bool = False
    storage_options: dict[str, Any] = Field(default_factory=dict)
    storage_options_file: Text | None = None


class StepSpec(Spec):
    """What all steps have.

    Attributes
    ----------
    volumes
        Names of volumes that the step is for, with ``*`` and ``?``; null: all.
    options
        Options of this step only; keys that it leaves out are those of the file's ``options``.
    """

    volumes: Names | None = None
    options: ComputeSpec = ComputeSpec()


class RawSpec(Spec):
    """Layout of files without a header (``--raw-shape`` and others).

    Attributes
    ----------
    shape
        Voxels per stored axis, the slowest first.
    dtype
        Type of the voxels.
    offset
        Bytes before the first voxel.
    byteorder
        Their byte order.
    """

    shape: Annotated[tuple[Annotated[int, Field(ge=1, lt=2**40)], ...], Field(min_length=2, max_length=3)]
    dtype: Annotated[str, Field(max_length=20)] = "uint8"
    offset: Annotated[int, Field(ge=0, lt=2**50)] = 0
    byteorder: Literal["little", "big"] = "little"


class ReadingSpec(Spec):
    """How volumes are read whose files lack something: also what is drawn on them, and their truths.

    Attributes
    ----------
    voxel_size
        (z, y, x) in ``unit``, or one number.
    unit
        Unit of length.
    axis_order
        Letters of the stored axes, the slowest first, such as ``xyz``.
    channel
        Channel to read, from 0 or by its name, ``mean``, or ``rgb`` (the first three as colour).
    raw
        Layout of files without a header.
    """

    voxel_size: float | Annotated[tuple[float, ...], Field(min_length=2, max_length=3)] | None = None
    unit: Annotated[str, Field(max_length=100)] | None = None
    axis_order: Annotated[str, Field(max_length=20)] | None = None
    channel: (
        Annotated[int, Field(ge=0, lt=2**31)] | Annotated[str, Field(min_length=1, max_length=200)] | None
    ) = None
    raw: RawSpec | None = None

    @property
    def options(self) -> ReadOptions | None:
        """The same for :func:`hrvol.open_volume`; ``None`` if there is nothing."""
        values: dict[str, Any] = {name: value for name, value in self if value is not None}
        if not values:
            return None
        if "raw" in values:
            values["raw"] = RawLayout(**dict(values["raw"]))
        if isinstance(values.get("voxel_size"), float):
            values["voxel_size"] = (values["voxel_size"],)
        return ReadOptions(**values)

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        try:
            _ = self.options
        except UsageError as error:
            key, _, text = str(error).partition(": ")
            name = key.replace(" ", "_")
            raise invalid(text, name if name in type(self).model_fields else "raw") from None
        return self


def combined(base: Spec, over: Spec | None) -> Any:
    """Return settings in which the keys that another section names are those of that section.

    Raises
    ------
    pydantic.ValidationError
        The settings exclude each other.
    """
    if over is None or not over.model_fields_set:
        return base
    changes: dict[str, Any] = {}
    for name in over.model_fields_set:
        before, now = getattr(base, name), getattr(over, name)
        changes[name] = combined(before, now) if isinstance(now, Spec) and isinstance(before, Spec) else now
    return type(base).model_validate({name: getattr(base, name) for name in base.model_fields_set} | changes)
