"""Measure speed and memory on a GPU: ``python -m benchmarks.speed.gpu``.

Speed and share of each stage by preset and precision; operations of the network beside a product of large
matrices on the same device; images per pass; memory beside its forecast; several devices. ``--device cpu``
runs the same on the CPU, as a test. Each figure is printed, and the page written again, as it comes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.machine import describe_machine
from benchmarks.markdown import table
from benchmarks.speed.stages import STAGES, clocks
from benchmarks.speed.work import network_flop
from hrvol.device import cpus
from hrvol.features import featuriser
from hrvol.features.deep.backbone import Backbone, load_backbone
from hrvol.features.deep.gpu_memory import MOST, batch_in, device_need, free_bytes, network_of
from hrvol.phantom import draw_strokes, make_phantom
from hrvol.recipe.recipe import DEFAULT_BLOCK, PRESETS, Recipe
from hrvol.run.classify import STRIPE
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import Model
from hrvol.training.train import train_model

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_REPEATS = 10


@dataclass(frozen=True)
class Stages:
    """One preset in one precision.

    Attributes
    ----------
    preset, precision
        Settings.
    voxels_per_s
        In this process, without synchronisation at the stages.
    shares
        Of the stages and, last, of the rest, from another run that synchronises after each stage.
    flops
        Operations per second of the network while it is at work.
    memory, forecast
        Peak of torch's bytes, and its forecast; 0 on the CPU.
    """

    preset: str
    precision: str
    voxels_per_s: float
    shares: tuple[float, ...]
    flops: float
    memory: int
    forecast: int


@dataclass
class Figures:
    """Figures so far.

    Attributes
    ----------
    products
        Operations per second of a product of matrices, by precision.
    batches
        Images and operations per second, by precision and images at once.
    rows
        Presets.
    scaling
        Seconds by number of devices.
    """

    products: dict[str, float] = field(default_factory=dict)
    batches: dict[str, dict[int, tuple[float, float]]] = field(default_factory=dict)
    rows: list[Stages] = field(default_factory=list)
    scaling: dict[int, float] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the document."""
    args = _parser().parse_args(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("found no GPU; --device cpu runs the same on the CPU")
    if args.device == "cpu":
        torch.set_num_threads(1)  # else the times of stages do not add up
    figures = Figures()
    for message in measure(figures, args):
        print(message, flush=True)
        args.output.write_text(render(figures, args), encoding="utf-8")


def measure(figures: Figures, args: argparse.Namespace) -> Iterator[str]:
    """Measure one thing after the other into ``figures``; yield a line for each."""
    for precision in args.precisions:
        figures.products[precision] = measure_product(args.device, precision, args.product)
        yield f"product, {precision}: {figures.products[precision] / 1e12:.3f} TFLOP/s"
    for precision in args.precisions:
        figures.batches[precision] = {}
        for batch, speed in measure_batches(args.device, precision, args.core + 70, args.batches):
            figures.batches[precision][batch] = speed
            yield f"{batch} images at once, {precision}: {speed[0]:.1f} images/s"
    volume, strokes = electrode(args)
    with tempfile.TemporaryDirectory() as name, limits(args.device):
        folder = Path(name)
        for preset in args.presets:
            for precision in args.precisions:
                featuriser._LOADED.clear()  # else memory includes the former networks
                model = train_model(
                    [(volume, strokes)], recipe=recipe_of(preset, precision, args), device=args.device
                )
                figures.rows.append(measure_stages(preset, precision, volume, model, folder, args))
                yield str(figures.rows[-1])
        # Several devices use the last preset and precision.
        counts = args.workers or worker_counts(args.device)
        for count, seconds in measure_scaling(volume, model, folder, args.device, counts):
            figures.scaling[count] = seconds
            yield f"{count} at work: {seconds:.1f} s"


def limits(device: str) -> Any:
    """Return a context that limits the CPU to one thread if it is measured."""
    return threadpool_limits(1) if device == "cpu" else nullcontext()


def electrode(args: argparse.Namespace) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a volume of so many tiles, all of one phantom, and strokes on its first plane."""
    phantom = make_phantom((args.block_planes, args.core, args.core), seed=0)
    times = (-(-args.planes // args.block_planes), args.across, args.across)
    volume = np.tile(phantom.image, times)[: args.planes]
    strokes = np.zeros_like(volume)
    drawn = draw_strokes(phantom.labels, (0,))
    strokes[: args.block_planes, : args.core, : args.core] = drawn[: args.planes]
    return volume, strokes


def recipe_of(preset: str, precision: str, args: argparse.Namespace) -> Recipe:
    """Return a preset with the requested precision and sizes."""
    return PRESETS[preset].with_(
        **{
            "features.deep.precision": precision,
            "classifier.trees": args.trees,
            "tiles.core": args.core,
            "tiles.overlap": min(35, args.core // 2),
            "tiles.planes": args.block_planes,
        }
    )


def wait_for(device: str) -> None:
    """Wait for the work queued on a device."""
    if device == "cuda":
        torch.cuda.synchronize()


def measure_product(device: str, precision: str, side: int) -> float:
    """Return the operations per second of a product of two square matrices: the best of some."""
    left, right = (
        torch.rand(side, side, device=device, dtype=torch.float32).to(_DTYPES[precision]) for _ in "ab"
    )
    return 2 * side**3 / min(_seconds(lambda: left @ right, device))


def measure_batches(
    device: str, precision: str, side: int, batches: Sequence[int]
) -> Iterator[tuple[int, tuple[float, float]]]:
    """Yield images at once, and images and operations per second: the network alone."""
    backbone = load_backbone("dinov2_vits14", device=device, precision=precision)
    flop = network_flop((side // backbone.patch) ** 2 + 1, DEFAULT_BLOCK)
    for batch in batches:
        images = torch.rand(batch, 1, side, side, device=device)
        seconds = statistics.median(
            _seconds(lambda seen=images: backbone.tokens(seen, blocks=(DEFAULT_BLOCK,)), device)
        )
        yield batch, (batch / seconds, batch * flop / seconds)


def _seconds(function: Callable[[], Any], device: str) -> list[float]:
    function()
    seconds = []
    for _ in range(_REPEATS if device == "cuda" else 3):
        wait_for(device)
        began = time.perf_counter()
        function()
        wait_for(device)
        seconds.append(time.perf_counter() - began)
    return seconds


@contextmanager
def counted(work: Counter[str], device: str) -> Iterator[None]:
    """Count the network's operations, and wait for the device at the end of each stage."""
    tokens = Backbone.tokens

    def count(self: Backbone, images: torch.Tensor, **options: Any) -> Any:
        stride = options.get("stride") or self.patch
        height, width = (1 + (side - self.patch) // stride for side in images.shape[2:])
        last = max(options.get("blocks") or (self.depth,))
        work["flop"] += round(len(images) * network_flop(height * width + 1, last))
        return tokens(self, images, **options)

    def waiting(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            wait_for(device)
            try:
                return function(*arguments, **options)
            finally:
                wait_for(device)

        return call

    with ExitStack() as stack:
        stack.enter_context(patch.object(Backbone, "tokens", count))
        for functions in STAGES.values():
            for owner, name in functions:
                stack.enter_context(patch.object(owner, name, waiting(getattr(owner, name))))
        yield


def measure_stages(
    preset: str,
    precision: str,
    volume: NDArray[np.uint8],
    model: Model,
    folder: Path,
    args: argparse.Namespace,
) -> Stages:
    """Label the volume in this process: once to warm up, once for the speed, once for the shares."""

    def label(part: NDArray[np.uint8], name: str) -> float:
        wait_for(args.device)
        began = time.perf_counter()
        out = folder / f"{preset}-{precision}-{name}.ome.zarr"
        report = segment_volume(part, out, model, engine="serial", device=args.device)
        assert not report.failed, report.failed
        return time.perf_counter() - began

    label(volume[:1, : args.core, : args.core], "warm")
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    plain = label(volume, "plain")
    memory = torch.cuda.max_memory_allocated() if args.device == "cuda" else 0
    spent: Counter[str] = Counter()
    work: Counter[str] = Counter()
    with counted(work, args.device), clocks(spent):
        whole = label(volume, "clocks")
    shares = [spent[stage] / whole for stage in STAGES]
    flops = work["flop"] / spent["network"] if spent["network"] else 0.0
    return Stages(
        preset,
        precision,
        volume.size / plain,
        (*shares, 1 - sum(shares)),
        flops,
        memory,
        0 if args.device == "cpu" else forecast(model.recipe),
    )


def forecast(recipe: Recipe) -> int:
    """Return the forecast of what torch takes on the GPU for a recipe's features, as a run would."""
    features, shape = recipe.features, 2 * (recipe.tiles.core + 2 * recipe.tiles.overlap,)
    if not features.uses_deep:
        return device_need(features, shape, None, batch=1, rows=STRIPE).torch
    network = network_of(features.deep.weights)
    batch = batch_in(free_bytes(torch.device("cuda")), network, features.deep, shape)
    return device_need(features, shape, network, batch=batch, rows=STRIPE).torch


def worker_counts(device: str) -> list[int]:
    """Return the numbers of devices, or processes, to measure: powers of two, and all."""
    most = torch.cuda.device_count() if device == "cuda" else cpus()
    return sorted({2**n for n in range(most.bit_length()) if 2**n <= most} | {most})


def measure_scaling(
    volume: NDArray[np.uint8], model: Model, folder: Path, device: str, counts: Sequence[int]
) -> Iterator[tuple[int, float]]:
    """Yield numbers of devices (``cpu``: of processes) and the seconds of a run, their start included."""
    source = folder / "volume.zarr"
    zarr.save_array(str(source), volume)
    for count in counts:
        engine: dict[str, Any] = {"engine": "local", "workers": count}
        if device == "cuda":
            engine = {"engine": "cuda", "devices": [str(number) for number in range(count)]}
        report = segment_volume(source, folder / f"by-{count}.ome.zarr", model, device=device, **engine)
        assert not report.failed, report.failed
        yield count, report.seconds


def machine(device: str) -> str:
    """Describe the GPUs, or the CPU."""
    if device == "cpu":
        return f"**On the CPU, to see that it runs; nothing here is about GPUs.** {describe_machine(1)}"
    names = Counter(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    gpus = ", ".join(f"{count} x {name}" for name, count in names.items())
    return f"{gpus}, CUDA {torch.version.cuda}; {describe_machine(cpus())}"


_ABOUT = """A phantom of {planes} x {side} x {side} voxels, tiles of {core} px, blocks of {block_planes}
planes, {trees} trees. Speed: one process, undisturbed. Shares: the same again, waiting for the device at
the ends of each stage. *Of a product*: the network's operations per second beside those of a product of
two matrices of {product} x {product} in the same precision on the same device. Memory: what torch holds, and
the forecast of that; CUDA, CuPy and the classifier have theirs besides.
"""


def render(figures: Figures, args: argparse.Namespace) -> str:
    """Return the page of the figures so far."""
    voxels = args.planes * (args.across * args.core) ** 2
    head = ["preset", "precision", "voxels/s", *STAGES, "the rest"]
    head += ["network, TFLOP/s", "of a product", "GPU MiB", "forecast"]
    rows = []
    for row in figures.rows:
        memory = [f"{size / 2**20:.0f}" if size else "" for size in (row.memory, row.forecast)]
        shares = [f"{share:.1%}" for share in row.shares]
        of_product = f"{row.flops / figures.products[row.precision]:.1%}"
        speed = [f"{row.voxels_per_s:.0f}", *shares, f"{row.flops / 1e12:.3f}", of_product]
        rows.append([row.preset, row.precision, *speed, *memory])
    batches = [
        [
            precision,
            batch,
            f"{rate:.1f}",
            f"{flops / 1e12:.3f}",
            f"{flops / figures.products[precision]:.1%}",
        ]
        for precision, by_batch in figures.batches.items()
        for batch, (rate, flops) in by_batch.items()
    ]
    text = f"""# On a GPU

Made by `python -m benchmarks.speed.gpu --device {args.device}`. {machine(args.device)}

{_ABOUT.format(**vars(args), side=args.across * args.core)}
{table(head, rows)}
## Images at once

The network alone, {DEFAULT_BLOCK} blocks, images of {args.core + 70} px; up to {MOST} are used.

{table(["precision", "images at once", "images/s", "TFLOP/s", "of a product"], batches)}"""
    if not figures.scaling:
        return text
    what = "GPUs" if args.device == "cuda" else "processes"
    first, alone = next(iter(figures.scaling.items()))
    last = figures.rows[-1]
    scaling = [
        [count, f"{took:.1f}", f"{voxels / took:.0f}", f"{alone / took:.2f}"]
        for count, took in figures.scaling.items()
    ]
    return f"""{text}
## Several {what}

{last.preset}, {last.precision}, the start of the workers included.

{table([what, "s", "voxels/s", f"times that of {first}"], scaling)}"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.gpu", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=["fast", "balanced", "best"])
    parser.add_argument("--precisions", nargs="+", choices=list(_DTYPES), default=["fp32", "bf16", "fp16"])
    parser.add_argument("--planes", type=int, default=32)
    parser.add_argument("--across", type=int, default=4, help="tiles along each side of a plane")
    parser.add_argument("--core", type=int, default=448, help="of a tile that is kept, px")
    parser.add_argument("--block-planes", type=int, default=8)
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--product", type=int, default=8192, help="side of the matrices")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--workers", type=int, nargs="+", help="numbers of GPUs (cpu: of processes)")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/speed/gpu.md"))
    return parser


if __name__ == "__main__":
    main()
