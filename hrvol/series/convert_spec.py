"""The section of a workflow file that names the step convert; its keys are the options of the command."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hrvol.errors import UsageError
from hrvol.recipe.spec import invalid
from hrvol.series.options_spec import Level, StepSpec, Text

_Sides = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2, max_length=3)]


def _unquoted(version: Any) -> Any:
    """Return a version as text: without quotes it is a number in YAML."""
    return str(version) if isinstance(version, float) else version


class ConvertSpec(StepSpec):
    """Convert volumes to OME-Zarr, as ``hrvol convert`` does; the other steps read the converted ones.

    Attributes
    ----------
    output
        The OME-Zarr to write, a path or URL.
    ome_zarr
        Version of OME-Zarr.
    chunks, shards
        Voxels (z, y, x) of a chunk and of a shard; null: chosen by the volume.
    compression
        ``zstd``, ``gzip``, ``blosc-zstd``, ``blosc-lz4``, with a level as in ``zstd:5``, or ``none``.
    uint8
        Grey values that become 0 to 255: ``LOW,HIGH``, ``LOW%,HIGH%`` of a sample, or ``auto``; null: values
        are kept.
    pyramid
        How coarser levels are computed.
    level
        Resolution to read of a multiscale volume, 0 the finest.
    verify
        Compare each block with its source at the end.
    """

    output: Text = "{name}.volume.ome.zarr"
    ome_zarr: Annotated[Literal["0.5", "0.4"], BeforeValidator(_unquoted)] = "0.5"
    chunks: _Sides | None = None
    shards: _Sides | None = None
    compression: Text | None = None
    uint8: Text | None = None
    pyramid: Literal["mean", "mode", "none"] = "mean"
    level: Level = 0
    verify: bool = False

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        from hrvol.run.convert.options import ImageOptions  # Zarr: only where volumes are converted

        given: Any = (self.ome_zarr, self.chunks, self.shards, self.compression, self.uint8, self.pyramid)
        try:
            ImageOptions(*given)
        except UsageError as error:
            key, _, text = str(error).partition(": ")
            raise invalid(text, key) from None
        return self
