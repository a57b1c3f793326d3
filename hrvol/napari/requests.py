"""Requests of the panels as the exact arguments of its command line."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hrvol.errors import UsageError
from hrvol.volume.grid.tiling import Box
from hrvol.volume.storage.location import is_url

PLAN_SECONDS = 10.0
"""Length of the probe of a plan."""


def absolute(path: str) -> str:
    """Return a path as an absolute one; URLs stay."""
    text = path.strip()
    return text if not text or is_url(text) else str(Path(text).expanduser().absolute())


def command_line(arguments: Sequence[str]) -> str:
    """Return the line for a terminal that does the same."""
    return shlex.join(["hrvol", *arguments])


def region_text(region: Box) -> str:
    """Return a region as ``--roi`` takes it."""
    return ",".join(f"{span.start}:{span.stop}" for span in region)


@dataclass(frozen=True)
class SegmentRequest:
    """A segmentation.

    Attributes
    ----------
    volume, model, output
        Absolute paths, or URLs.
    region
        Box (z, y, x); ``None``: the whole volume.
    engine, workers
        As of the command line; 0 workers: its default.
    distil
        Whether to segment with a student of the model, which is distilled first.
    probabilities, uncertainty
        Whether to write them too.
    skip_background
        Whether to skip what is no material.
    class_weights
        Names or numbers of classes, and factors of their probabilities.
    fresh
        Whether to replace an earlier output.
    """

    volume: str
    model: str
    output: str
    region: Box | None = None
    engine: str = "local"
    workers: int = 0
    distil: bool = False
    probabilities: bool = False
    uncertainty: bool = False
    skip_background: bool = False
    class_weights: tuple[tuple[str, float], ...] = ()
    fresh: bool = False

    def check(self) -> None:
        """Raise a :class:`UsageError` if something is not chosen."""
        _check_chosen(volume=self.volume, model=self.model, output=self.output)
        if not self.output.rstrip("/").endswith(".zarr"):
            raise UsageError(f"output: found {self.output}, expected a name that ends in .ome.zarr")

    def of_volume(self) -> tuple[str, ...]:
        """Return the options that do not depend on the machine."""
        options = [] if self.region is None else ["--roi", region_text(self.region)]
        options += ["--mask", "auto"] if self.skip_background else []
        options += ["--probabilities"] if self.probabilities else []
        options += ["--uncertainty"] if self.uncertainty else []
        for name, factor in self.class_weights:
            options += ["--class-weight", f"{name}={factor:.12g}"]
        return tuple(options)

    def of_engine(self) -> tuple[str, ...]:
        """Return the options that name the engine."""
        options = [] if self.engine == "local" else ["--engine", self.engine]
        options += ["--workers", str(self.workers)] if self.workers and self.engine != "serial" else []
        return tuple(options)

    def arguments(self) -> tuple[str, ...]:
        """Return the arguments of the run; the same ones resume it."""
        more = [*(["--distil"] if self.distil else []), *(["--fresh"] if self.fresh else [])]
        options = (*self.of_volume(), *self.of_engine(), *more)
        return "segment", self.volume, self.output, "-m", self.model, *options

    def plan_arguments(self, seconds: float = PLAN_SECONDS) -> tuple[str, ...]:
        """Return the arguments that estimate what it costs, as JSON."""
        more = ["--fresh"] if self.fresh else []
        options = (*self.of_volume(), *self.of_engine(), *more, "--seconds", f"{seconds:g}", "--json")
        return "plan", self.volume, self.output, "-m", self.model, *options


@dataclass(frozen=True)
class DistilRequest:
    """A distillation.

    Attributes
    ----------
    volume, model, output
        Absolute paths, or URLs of the volume.
    minutes
        Time for labelling and training; 0: the default.
    size, volumetric
        As of the command line.
    region
        Box (z, y, x) that tiles are taken from; ``None``: the whole volume.
    accept, fresh
        Whether to keep a student that fails the check, and to replace an earlier file.
    tiles, steps
        Number of tiles and of training steps; 0: the defaults.
    engine
        Where tiles are labelled, as of the command line.
    """

    volume: str
    model: str
    output: str
    minutes: float = 0.0
    size: str = "auto"
    volumetric: str = "auto"
    region: Box | None = None
    accept: bool = False
    fresh: bool = False
    tiles: int = 0
    steps: int = 0
    engine: str = "local"

    def check(self) -> None:
        """Raise a :class:`UsageError` if something is not chosen."""
        _check_chosen(volume=self.volume, model=self.model, output=self.output)
        if not self.output.endswith(".hrvol"):
            raise UsageError(f"student: found {self.output}, expected a name that ends in .hrvol")

    def arguments(self) -> tuple[str, ...]:
        """Return the arguments of the command."""
        options = ["--minutes", f"{self.minutes:g}"] if self.minutes else []
        options += ["--size", self.size] if self.size != "auto" else []
        options += ["--3d", self.volumetric] if self.volumetric != "auto" else []
        options += ["--roi", region_text(self.region)] if self.region is not None else []
        options += ["--tiles", str(self.tiles)] if self.tiles else []
        options += ["--steps", str(self.steps)] if self.steps else []
        options += ["--engine", self.engine] if self.engine != "local" else []
        options += ["--accept"] if self.accept else []
        options += ["--fresh"] if self.fresh else []
        return "distil", self.volume, self.model, "-o", self.output, *options, "--json"


@dataclass(frozen=True)
class ClusterRequest:
    """Classes without strokes.

    Attributes
    ----------
    volume, output
        Absolute paths, or URLs.
    classes
        Number of classes; 0: as many as the merging distance leaves.
    merge
        Scale of the merging distance.
    clusters
        Number of clusters before merging; 0: the recipe's.
    recipe
        Name of a preset, or a file; empty: the default.
    region
        Box (z, y, x) to work on; ``None``: the whole volume.
    model
        File of the model to write; empty: none.
    fresh
        Whether to replace an earlier output.
    """

    volume: str
    output: str
    classes: int = 0
    merge: float = 1.0
    clusters: int = 0
    recipe: str = ""
    region: Box | None = None
    model: str = ""
    fresh: bool = False

    def check(self) -> None:
        """Raise a :class:`UsageError` if something is not chosen."""
        _check_chosen(volume=self.volume, output=self.output)

    def arguments(self) -> tuple[str, ...]:
        """Return the arguments of the command."""
        if self.classes:
            options = ["--classes", str(self.classes)]
        else:
            options = ["--merge", f"{self.merge:g}"] if self.merge != 1 else []
        options += ["--clusters", str(self.clusters)] if self.clusters else []
        options += ["--recipe", self.recipe] if self.recipe else []
        options += ["--roi", region_text(self.region)] if self.region is not None else []
        options += ["--model", self.model] if self.model else []
        if self.region is not None and self.region[0].stop - self.region[0].start == 1:
            options += ["--engine", "serial"]  # workers take longer to start
        options += ["--fresh"] if self.fresh else []
        return "cluster", self.volume, self.output, *options


def _check_chosen(**fields: str) -> None:
    for name, value in fields.items():
        if not value:
            raise UsageError(f"{name}: found none, expected a path")
