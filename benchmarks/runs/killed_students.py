"""Kill a run that distils and segments, at random moments: ``python -m benchmarks.runs.killed_students``.

``hrvol segment --distil`` labels tiles with the teacher, trains a student and segments with it. All processes
of the command are killed (SIGKILL) at a random moment and the same command is given again, until it ends;
then all over again with an empty cache, until enough commands were killed. Student and labels must be those
of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr

from benchmarks.machine import log
from hrvol.features.weights.cache import cache_dir
from hrvol.phantom import draw_strokes, make_phantom
from hrvol.recipe.recipe import Recipe
from hrvol.segment.model.model import save_model
from hrvol.training.train import train_model

_STAGE = re.compile(r"(label tiles|compare tiles|look at|train small|segment|pyramid|check)")


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        folder = Path(place)
        command = _project(folder, args)
        began = time.monotonic()
        _run(folder, command, None)
        whole = time.monotonic() - began
        expected = _digest(folder)
        log(f"undisturbed: {whole:.0f} s, labels and student {expected[:12]}")
        stages: Counter[str] = Counter()
        differing = chains = 0
        while stages.total() < args.kills:
            _clear(folder)
            chains += 1
            while (stage := _run(folder, command, float(rng.uniform(0.5, args.latest * whole)))) is not None:
                stages[stage] += 1
                if stages.total() >= args.kills:
                    _run(folder, command, None)
                    break
            differing += _digest(folder) != expected
            log(f"chain {chains}: {stages.total()} killed so far, {differing} differing results")
    print(
        f"{stages.total()} commands killed ({dict(stages)}) in {chains} chains: {differing} differing results"
    )
    return int(differing > 0)


def _project(folder: Path, args: argparse.Namespace) -> list[str]:
    """Write a volume and a model, and return the command."""
    phantom = make_phantom((args.planes, 320, 320), 0)
    zarr.create_array(str(folder / "volume.zarr"), data=phantom.image, chunks=(16, 64, 64))
    strokes = draw_strokes(phantom.labels, [args.planes // 2], seed=0)
    model = train_model([(phantom.image, strokes)], recipe=Recipe.load("fast"), device="cpu")
    save_model(model, folder / "model.hrvol")
    (folder / "cache").mkdir()
    (folder / "cache" / "weights").symlink_to(cache_dir())
    files = [str(folder / name) for name in ("volume.zarr", "out.ome.zarr")]
    options = (
        f"--distil --tiles {args.tiles} --steps {args.steps} --size small --seed 0 --accept --engine local"
    )
    words = [sys.executable, "-m", "hrvol", "segment", *files, "-m", str(folder / "model.hrvol")]
    return [*words, *options.split(), "--workers", "2", "--probabilities"]


def _run(folder: Path, command: Sequence[str], seconds: float | None) -> str | None:
    """Run a command; return what it did when it was killed, ``None`` if it ended before."""
    output = folder / "progress.txt"
    with output.open("w", encoding="utf-8") as file:
        environment = os.environ | {"HRVOL_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=environment, start_new_session=True, cwd=Path.cwd()
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            lines = output.read_text(encoding="utf-8", errors="replace")
            found = _STAGE.findall(lines)
            return found[-1] if found else "start"
    if code != 0:
        raise SystemExit(f"exit {code}: {output.read_text(encoding='utf-8')[-2000:]}")
    return None


def _clear(folder: Path) -> None:
    shutil.rmtree(folder / "cache" / "distil", ignore_errors=True)
    for path in folder.glob("out.*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _digest(folder: Path) -> str:
    """Return a digest of all arrays of the output, and of the student's weights."""
    digest = hashlib.sha256()
    group = zarr.open_group(str(folder / "out.ome.zarr"), mode="r")
    for path, node in sorted(group.members(max_depth=None)):
        if isinstance(node, zarr.Array) and ".hrvol" not in path and "ledger" not in path:
            digest.update(path.encode() + np.asarray(node[:]).tobytes())
    (student,) = folder.glob("out*.hrvol")
    from hrvol.segment.model.model import load_model

    arrays = load_model(student).classifier.arrays  # type: ignore[union-attr]
    for name in sorted(arrays):
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runs.killed_students", description=__doc__)
    add = parser.add_argument
    add("--kills", type=int, default=20)
    add("--seed", type=int, default=0, help="of the moments")
    add("--planes", type=int, default=48)
    add("--tiles", type=int, default=12)
    add("--steps", type=int, default=300)
    add("--latest", type=float, default=0.7, help="latest moment, as a part of an undisturbed run")
    add("--folder", type=Path, help="for the files")
    return parser


if __name__ == "__main__":
    sys.exit(main())
