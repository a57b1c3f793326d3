"""A project folder as a user of a workflow has it, and the commands run in it."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from click.testing import CliRunner

from hrvol.cli import main

WORKFLOWS = Path(__file__).parents[2] / "workflows"
COMMANDS = [Path(sys.executable).parent]  # where hrvol and python are
PATIENCE = 300  # seconds; a busy machine takes a while to start a process
SHAPE = (4, 150, 130)
RECIPE = {
    "features": {"kind": "classical", "classical": {"filters": ["gaussian", "sobel"], "sigmas": [1, 2]}},
    "classifier": {"trees": 5, "samples_per_class": 500},
    "tiles": {"core": 64, "overlap": 12, "planes": 1},
}

# hrvol, except that the first segmentation is stopped after some blocks, whose files are recorded.
INTERRUPTED = """#!{python}
import json, os, signal, subprocess, sys, time
from pathlib import Path

hrvol, kept, words = "{hrvol}", Path("{kept}"), sys.argv[1:]
if not (words[0] == "segment" or "segment.a" in words) or kept.exists():
    os.execv(hrvol, [hrvol, *words])
out = words[2] if words[0] == "segment" else "results/a.ome.zarr"
blocks = Path(out, "labels", "hrvol", "0", "c").resolve()
files = lambda: {{str(file): file.stat().st_mtime_ns for file in blocks.rglob("*") if file.is_file()}}
process = subprocess.Popen([hrvol, *words])
while process.poll() is None and len(files()) < 8:
    time.sleep(0.02)
process.send_signal(signal.SIGTERM)
code = process.wait()
kept.write_text(json.dumps({{"code": code, "files": files()}}))
sys.exit(code)
"""


def tool(name):
    """Return the path of a program, or skip the test."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not on the PATH")
    return program


def environment(*folders, **variables):
    """Return this process's environment, with programs of these folders first, then ours."""
    path = os.pathsep.join([*map(str, folders), *map(str, COMMANDS), os.environ["PATH"]])
    return {**os.environ, "PATH": path, **variables}


def executable(path, text):
    """Write a script that can be run."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def prepare(folder, **settings):
    """Write a volume, strokes on it, its truth, a recipe, and the workflows' config.yaml."""
    truth = np.ones(SHAPE, np.uint8)
    truth[:, 30:90, 20:90] = 2
    truth[:, 110:140] = 3
    image = 60.0 * truth + np.random.default_rng(0).normal(0, 15, SHAPE)
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[::2, :, 5::11] = truth[::2, :, 5::11]
    for name, values in (("a", np.clip(image, 0, 255)), ("strokes", strokes), ("truth", truth)):
        tifffile.imwrite(folder / f"{name}.tif", values.astype(np.uint8), photometric="minisblack")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    config = {
        "recipe": "recipe.yaml",
        "classes": ["pore", "binder", "particle"],
        "workers": 1,
        "volumes": {"a": "a.tif"},
        "strokes": {"a": "strokes.tif"},
        "truth": {"a": "truth.tif"},
        **settings,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def prepare_series(folder, **volumes):
    """Write the same and a workflow file of hrvol run, ``series.yaml``; more volumes by name."""
    prepare(folder)
    values = {
        "volumes": {"a": {"path": "a.tif", "strokes": "strokes.tif", "truth": "truth.tif"}, **volumes},
        "options": {"engine": "local", "workers": 1},
        "steps": {
            "train": {"recipe": "recipe.yaml", "classes": ["pore", "binder", "particle"]},
            "segment": {"uncertainty": True},
            "evaluate": {},
            "export": {"output": "{name}.tif"},
        },
    }
    (folder / "series.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def status(labels):
    """Return how many blocks are done, failed, left."""
    result = CliRunner().invoke(main, ["status", str(labels), "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def block_files(labels):
    """Return the files of blocks that are written so far."""
    return [path for path in Path(labels, "labels", "hrvol", "0", "c").rglob("*") if path.is_file()]


def wait_for(condition, process):
    """Wait until a condition holds while a process runs."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode} before the condition held"
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.02)


def interrupt_first_segment(folder):
    """Return a folder with an ``hrvol`` that is stopped once, and the file that records its blocks."""
    kept = folder / "interrupted.json"
    text = INTERRUPTED.format(python=sys.executable, hrvol=COMMANDS[0] / "hrvol", kept=kept)
    executable(folder / "interrupted" / "hrvol", text)
    return folder / "interrupted", kept


def assert_resumed(kept):
    """Check that the run was stopped midway, and that its blocks were not computed again."""
    then = json.loads(kept.read_text())
    assert then["code"] == 75
    assert len(then["files"]) >= 8
    for path, written in then["files"].items():
        assert Path(path).stat().st_mtime_ns == written
