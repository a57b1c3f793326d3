"""Options, parsers and output that several commands share.

A group of options that belong together reaches the command as one object: see :func:`bundle`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from hrvol.cli.common.class_weights import CLASS_WEIGHTS
from hrvol.cli.common.labels import LABELS
from hrvol.cli.common.of_students import BACKEND, COMPANION
from hrvol.cli.common.output import echo
from hrvol.reading.region_text import parse_slices, whole_number

if TYPE_CHECKING:
    from hrvol.engine.spec import EngineSpec
    from hrvol.features.weights.source import WeightsSource
    from hrvol.run.options import ClusterOptions, RunOptions


F = TypeVar("F", bound=Callable[..., Any])
Option = Callable[[Any], Any]

Roi = tuple[slice, ...]
"""``(y, x)`` or ``(z, y, x)`` slices; an open end is ``None``."""


def parse_roi(ctx: click.Context, param: click.Parameter, value: str | None) -> Roi | None:
    """Return the slices of ``z0:z1,y0:y1,x0:x1``; ``:`` or an empty end means all of an axis."""
    if value is None:
        return None
    try:
        return parse_slices(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def parse_names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Return comma-separated names."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"found an empty name in {value!r}, expected names separated by commas")
    return names


def bundle(name: str, make: Callable[..., Any], options: Mapping[str, Option]) -> Callable[[F], F]:
    """Return a decorator that adds options to a command and passes their values as one argument.

    Parameters
    ----------
    name
        Of the command's argument.
    make
        Called with the values, by the keys of ``options``; returns the argument.
    options
        Click options by the names of their values, in the order of the help.
    """

    def decorate(command: F) -> F:
        @wraps(command)
        def with_object(*arguments: Any, **values: Any) -> Any:
            values[name] = make(**{key: values.pop(key) for key in options})
            return command(*arguments, **values)

        decorated: Any = with_object
        for option in reversed(list(options.values())):
            decorated = option(decorated)
        return cast(F, decorated)

    return decorate


def weights_of(weights_path: str | None, offline: bool) -> WeightsSource:
    """Return where the options :data:`WEIGHTS` take weights from."""
    from hrvol.features.weights.source import WeightsSource

    return WeightsSource.of(weights_path, offline)


WEIGHTS = {
    "weights_path": click.option(
        "--weights",
        "weights_path",
        metavar="PATH",
        help="Read the network's weights from this file instead of the cache.",
    ),
    "offline": click.option("--offline", is_flag=True, help="Use network weights on this machine only."),
}


device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where features are computed; auto: a GPU if there is one for this engine. The choice is reported.",
)


def parse_devices(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Return comma-separated numbers or UUIDs of GPUs."""
    names = parse_names(ctx, param, value)
    for name in names or ():
        if not name.isdecimal() and not name.startswith(("GPU-", "MIG-")):
            raise click.BadParameter(f"found {name!r}, expected numbers or UUIDs of GPUs, such as 0,2")
    return names


def engine_of(
    engine: str,
    scheduler_file: str | None,
    engine_options: dict[str, Any],
    workers: int | None,
    devices: tuple[str, ...] | None = None,
) -> EngineSpec:
    """Return the engine that the options :data:`ENGINE` name."""
    from hrvol.run.options import engine_spec

    return engine_spec(engine, workers, scheduler_file, engine_options, devices)


def parse_part(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Return the numbers of ``k/n``."""
    if value is None:
        return None
    k, _, n = value.partition("/")
    part, parts = whole_number(k), whole_number(n)
    if part is None or parts is None or not 1 <= part <= parts:
        raise click.BadParameter(f"found {value!r}, expected k/n with k from 1 to n, such as 3/8")
    return part, parts


def parse_pairs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, Any]:
    """Return the mapping of ``key=value`` options."""
    from hrvol.errors import UsageError
    from hrvol.volume.storage.options import parse_options

    try:
        return parse_options(value)
    except UsageError as error:
        raise click.BadParameter(str(error)) from None


def _storage(storage_pairs: dict[str, Any], storage_file: str | None) -> dict[str, Any]:
    """Return the options of file systems, from the command line, the environment and a file."""
    from hrvol.volume.storage.options import from_environment, merged, read_options, secrets_in

    for name in secrets_in(storage_pairs):
        echo(
            f"hrvol: warning: --storage-option {name}=... can be read by everybody on this machine;"
            f" expected {name}=env:NAME, or --storage-options-file",
            err=True,
        )
    from_file = {} if storage_file is None else read_options(storage_file)
    return merged(from_file, from_environment(storage_pairs))


crf_option = click.option(
    "--crf",
    is_flag=True,
    help="Refine with a dense CRF (extra crf): smooth edges, but fine phases may vanish.",
)

recipe_option = click.option(
    "--recipe",
    metavar="FILE|PRESET",
    help="A recipe file (YAML), or fast, balanced (default of train), best, paper, classical, deep,"
    " cas (default of cluster and detect), cas-volume, cas-paper, dinov3, dino-saw.",
)

roi_option = click.option(
    "--roi",
    callback=parse_roi,
    metavar="z0:z1,y0:y1,x0:x1",
    help="Work on this region only, in voxels; ':' is a whole axis. E.g. 0:64,:,100:500.",
)

storage_option = bundle(
    "storage_options",
    _storage,
    {
        "storage_pairs": click.option(
            "--storage-option",
            "storage_pairs",
            multiple=True,
            callback=parse_pairs,
            metavar="KEY=VALUE",
            help="For the file system of URLs, e.g. endpoint_url=http://host:9000, anon=true; a secret from"
            " the environment: secret=env:NAME. May be repeated.",
        ),
        "storage_file": click.option(
            "--storage-options-file",
            "storage_file",
            metavar="FILE",
            help="The same from a JSON or YAML file that only you can read (mode 0600).",
        ),
    },
)


classes_option = click.option(
    "--classes", callback=parse_names, metavar="a,b,c", help="Names of classes 1, 2, ... in order."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

ENGINE = {
    "engine": click.option(
        "--engine",
        default="local",
        show_default=True,
        metavar="NAME|ADDRESS",
        help="serial: this process; local: worker processes on this machine; cuda: one per GPU of it;"
        " slurm: SLURM jobs; or the address of a Dask scheduler (tcp://host:8786). The labels are identical"
        " (on GPUs: up to rounding).",
    ),
    "scheduler_file": click.option(
        "--scheduler-file", metavar="FILE", help="Use the Dask cluster whose scheduler wrote this file."
    ),
    "engine_options": click.option(
        "--engine-option",
        "engine_options",
        multiple=True,
        metavar="KEY=VALUE",
        callback=parse_pairs,
        help="For slurm, e.g. queue=gpu, gpus=4 (or cores=8), walltime=08:00:00, memory=32GB; repeatable.",
    ),
    "workers": click.option(
        "--workers",
        type=click.IntRange(1),
        help="Worker processes of local [one per CPU] or cuda [one per GPU], or jobs of slurm [1].",
    ),
}
engine_options = bundle("engine", engine_of, ENGINE)

DEVICES = {
    "device": device_option,
    "devices": click.option(
        "--devices",
        callback=parse_devices,
        metavar="0,2,...",
        help="GPUs of engine cuda, as in CUDA_VISIBLE_DEVICES [all].",
    ),
}
_OUTPUT = {
    "probabilities": click.option(
        "--probabilities", is_flag=True, help="Also write the probability of each class (uint8, 255 = 1)."
    ),
    "uncertainty": click.option(
        "--uncertainty", is_flag=True, help="Also write the uncertainty of the labels (uint8, 0 = certain)."
    ),
    "crf": crf_option,
}
INPUT = {
    "roi": roi_option,
    "mask": click.option(
        "--mask",
        metavar="MASK|auto",
        help="Label only voxels where this volume is not 0 (of the same shape); auto: skip the rim of a round"
        " reconstruction and air around the sample.",
    ),
    "level": click.option(
        "--level",
        type=click.IntRange(0, 63),
        default=0,
        show_default=True,
        help="Resolution of a multiscale volume, 0 the finest; the output has its shape.",
    ),
}
_FRESH = {
    "fresh": click.option("--fresh", is_flag=True, help="Delete an earlier output instead of resuming it.")
}
PART = {
    "part": click.option(
        "--part",
        callback=parse_part,
        metavar="k/n",
        help="Compute the k-th of n parts of the blocks: array jobs without a scheduler.",
    )
}
SCRATCH = {
    "scratch": click.option(
        "--scratch",
        metavar="DIR",
        help="Folder on a local disk of the workers, for decoded planes of which a layer of blocks has more"
        " than 512 MiB (see hrvol plan) [memory, if it suffices]. Nothing is left there.",
    )
}
STORAGE = {"storage_options": storage_option}


def _run_options(
    engine: str,
    scheduler_file: str | None,
    engine_options: dict[str, Any],
    workers: int | None,
    **values: Any,
) -> RunOptions:
    """Return the request of a command; its values by the names of the options above."""
    from hrvol.run.options import InputOptions, OutputOptions, RunOptions
    from hrvol.segment.class_weights import ClassWeights

    return RunOptions(
        engine_of(engine, scheduler_file, engine_options, workers, values["devices"]),
        values["device"],
        InputOptions(values["roi"], values["mask"], values["level"]),
        OutputOptions(
            probabilities=values["probabilities"],
            uncertainty=values["uncertainty"],
            crf=values["crf"],
            overwrite=values["fresh"],
            part=values.get("part"),
            class_weights=ClassWeights.of(values.get("class_weight"), values.get("fractions")),
            **{name: values[name] for name in LABELS if values.get(name)},
        ),
        weights_of(values["weights_path"], values["offline"]),
        values["storage_options"],
        values.get("companion"),
        values["backend"],
        values["scratch"],
        not values.get("no_drift"),
    )


_RUN = ENGINE | DEVICES | _OUTPUT | INPUT | SCRATCH | _FRESH | STORAGE | WEIGHTS | BACKEND
run_options = bundle("options", _run_options, _RUN)
"""All options of a run, as one :class:`~hrvol.run.options.RunOptions`."""
_DRIFT = {
    "no_drift": click.option(
        "--no-drift",
        is_flag=True,
        help="Do not compare some tiles with the training strokes first, to warn of planes unlike them.",
    )
}
_SEGMENT = _RUN | PART | CLASS_WEIGHTS | COMPANION | _DRIFT
segment_options = bundle("options", _run_options, _SEGMENT | LABELS)
"""The same for a given model, whose classes are known, and with parts of the blocks."""

_PLAN_FRESH = {
    "fresh": click.option("--fresh", is_flag=True, help="Plan as if an earlier output were deleted.")
}
plan_options = bundle("options", _run_options, _SEGMENT | _PLAN_FRESH)
"""The same for a plan, which deletes nothing."""

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation of --fresh.")


def _finding(
    recipe: str | None, clusters: int | None, merge: float | None, classes: int | None, seed: int | None
) -> ClusterOptions:
    if merge is not None and classes is not None:
        raise click.UsageError("--merge sets a distance and --classes a number of classes: choose one")
    from hrvol.run.options import ClusterOptions

    return ClusterOptions(recipe, clusters, merge, classes, seed)


_FINDING = {
    "recipe": recipe_option,
    "clusters": click.option(
        "--clusters", type=click.IntRange(2), help="Number of k-means clusters before merging [80]."
    ),
    "merge": click.option(
        "--merge",
        type=click.FloatRange(0, min_open=True),
        metavar="LAMBDA",
        help="Scale of the merging distance: below 1 merges less, above 1 more [1].",
    ),
    "classes": click.option(
        "--classes", type=click.IntRange(1), metavar="N", help="Merge until N classes are left."
    ),
    "seed": click.option("--seed", type=click.IntRange(0), help="Overrides the recipe's seed (0)."),
}
min_size_option = click.option(
    "--min-size",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Voxels (pixels in an image) of the smallest object that gets a box.",
)


compute_options = bundle("computing", dict, {"device": device_option} | STORAGE | WEIGHTS)
"""Where features are computed and what is opened for them, as keywords of the public functions."""
recipe_compute_options = bundle(
    "computing", dict, {"recipe": recipe_option, "device": device_option} | STORAGE | WEIGHTS
)
"""The same, and the recipe."""
train_options = bundle(
    "computing", dict, {"recipe": recipe_option, "device": device_option} | STORAGE | WEIGHTS | BACKEND
)
"""The same, and what computes the network."""

finding_options = bundle("finding", _finding, _FINDING)


fresh_option = click.option("--fresh", is_flag=True, help="Replace earlier files.")
