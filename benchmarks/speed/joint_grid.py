"""Compare the joint grid with spreading view by view: ``python -m benchmarks.speed.joint_grid [--quick]``.

Both ways upsample the same random tokens of one tile, in turn in one process, in the stripes in which pixels
are classified. Times do not include the network. ``--quick`` measures a smaller tile, fewer times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor

from benchmarks.machine import describe_machine
from benchmarks.markdown import line
from hrvol.features.deep.image_tokens import ImageTokens, grouped
from hrvol.features.deep.joint_grid import joint_grid
from hrvol.features.deep.layout import layout_of
from hrvol.features.deep.views import views_of
from hrvol.recipe.recipe import PRESETS
from hrvol.run.classify import STRIPE

PATCH, CHANNELS, CONTEXT = 14, 384, 35


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.joint_grid", description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["fast", "balanced", "best"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(describe_machine(1))
    print(
        line(["preset", "knots", "by view, ms", "joint grid, ms", "ratio", "largest difference"]), flush=True
    )
    side, turns = (280, 3) if args.quick else (518, 7)
    for preset in args.presets:
        print(line(compare(preset, side, turns, args.device)), flush=True)


def compare(preset: str, side: int, turns: int, device: str) -> list[str]:
    """Return a row of the table: median times, the median ratio of the turns, and the largest difference."""
    spec = PRESETS[preset].features.deep
    layout, views = layout_of(PATCH, spec, (side, side)), views_of(spec)
    torch.manual_seed(0)
    size = (len(layout.centres[0]), len(layout.centres[1]), CHANNELS)
    grids = [torch.randn(size, device=device) for _ in views]
    # What a tile keeps: the context around it is not upsampled.
    inside = slice(CONTEXT, side - CONTEXT)
    by_view = grouped(grids, spec, layout)
    joint = joint_grid(layout, views, spec.interpolation, device=device)
    kept = side - 2 * CONTEXT
    old, new = (torch.empty(kept, kept, CHANNELS, device=device) for _ in range(2))

    def one_by_one() -> None:
        put(by_view, old)

    def jointly() -> None:
        put(joint.add_up(grids, inside, inside), new)

    def put(tokens: ImageTokens, out: Tensor) -> None:
        for rows in stripes(kept):
            tokens.spread(slice(rows.start + CONTEXT, rows.stop + CONTEXT), inside, out[rows])

    for way in (one_by_one, jointly):  # the first touch of memory is not measured
        way()
    times = [(timed(one_by_one, new), timed(jointly, new)) for _ in range(turns)]
    before, after = (median(way) for way in zip(*times, strict=True))
    ratio = median(one / other for one, other in times)
    difference = float((old - new).abs().max() / old.abs().max())
    knots = " x ".join(map(str, joint.knots))
    return [preset, knots, f"{before * 1e3:.0f}", f"{after * 1e3:.0f}", f"{ratio:.1f}", f"{difference:.1e}"]


def stripes(height: int) -> list[slice]:
    """Return the stripes in which the rows of a tile are classified."""
    return [slice(start, min(start + STRIPE, height)) for start in range(0, height, STRIPE)]


def timed(way: Callable[[], None], result: Tensor) -> float:
    """Return the seconds of a way: of CPU time, which other work disturbs less, or until a GPU is done."""
    clock = time.process_time if result.device.type == "cpu" else time.perf_counter
    began = clock()
    way()
    result[-1, -1, -1].item()  # waits for a GPU
    return clock() - began


if __name__ == "__main__":
    main()
