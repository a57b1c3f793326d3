"""Kill a run that distils and segments, at random moments: ``python -m benchmarks.runs.killed_students``.

``hrvol segment --distil`` labels tiles with the teacher, trains a student and segments with it. All processes
of the command are killed (SIGKILL) at a random moment of a random stage, and the same command is given again,
several times until it may end; then all over again with an empty cache. Student and labels must be those of
a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import zarr

from benchmarks.machine import log
from hrvol.features.weights.cache import cache_dir
from hrvol.phantom import draw_strokes, make_phantom
from hrvol.recipe.recipe import Recipe
from hrvol.segment.model.model import save_model
from hrvol.training.train import train_model

STAGES = ("look at the volume", "label tiles", "train planes", "label cubes", "train small", "segment")
"""Of a run, in order, as its progress names them."""


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
        differing = 0
        for chain in range(args.chains):
            _clear(folder)
            for stage in sorted(rng.choice(len(STAGES), args.kills)):
                if _run(folder, command, (STAGES[stage], float(rng.uniform(0, args.seconds)))):
                    stages[STAGES[stage]] += 1
            _run(folder, command, None)
            differing += _digest(folder) != expected
            log(f"chain {chain + 1}: {stages.total()} killed so far, {differing} differing results")
    print(f"{stages.total()} killed ({dict(stages)}) in {args.chains} chains: {differing} differing results")
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


def _run(folder: Path, command: Sequence[str], moment: tuple[str, float] | None) -> bool:
    """Run a command, and kill it some seconds after a stage began; return whether it was killed."""
    output = folder / "progress.txt"
    environment = os.environ | {"HRVOL_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    with output.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=environment, start_new_session=True, cwd=Path.cwd()
        )
        while process.poll() is None:
            time.sleep(0.05)
            if moment is not None and moment[0] in output.read_text(encoding="utf-8", errors="replace"):
                time.sleep(moment[1])
                killed = process.poll() is None
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return killed
    if process.returncode != 0:
        raise SystemExit(f"exit {process.returncode}: {output.read_text(encoding='utf-8')[-2000:]}")
    return False


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
    add("--chains", type=int, default=5, help="runs from an empty cache to the end")
    add("--kills", type=int, default=4, help="in each of them")
    add("--seconds", type=float, default=5.0, help="from the begin of a stage to the kill, at most")
    add("--seed", type=int, default=0, help="of the moments")
    add("--planes", type=int, default=32)
    add("--tiles", type=int, default=8)
    add("--steps", type=int, default=200)
    add("--folder", type=Path, help="for the files")
    return parser


if __name__ == "__main__":
    sys.exit(main())
