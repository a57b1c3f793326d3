"""Runs on the command line: gone on with, in parts, and looked at from elsewhere."""

import json
import time

import numpy as np
import pytest
import zarr
from click.testing import CliRunner

from hrvol.cli import main
from hrvol.run.ledger import LEDGER, sealed
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.records import Records
from hrvol.volume.volume import open_labels

RECIPE = """
features: {kind: classical, classical: {filters: [gaussian, sobel], sigmas: [1, 2]}}
classifier: {trees: 5, samples_per_class: 300}
tiles: {core: 64, overlap: 12, planes: 1}
"""


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a volume, a mask, and a model."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    truth = np.ones((6, 70, 200), np.uint8)
    truth[:, 20:50, 30:80] = 2
    image = np.clip(np.where(truth == 2, 160, 80) + rng.normal(0, 15, truth.shape), 0, 255).astype(np.uint8)
    strokes = np.zeros_like(truth)
    strokes[1, :, ::9] = truth[1, :, ::9]
    zarr.save_array(folder / "volume.zarr", image)
    zarr.save_array(folder / "strokes.zarr", strokes)
    zarr.save_array(folder / "mask.zarr", np.where(truth == 2, np.uint8(1), np.uint8(0)))
    (folder / "recipe.yaml").write_text(RECIPE)
    train = ("train", folder / "volume.zarr", folder / "strokes.zarr", "-o", folder / "m.hrvol")
    run(*train, "--recipe", folder / "recipe.yaml")
    return folder


def segment(place, out, *more, code=0):
    command = ("segment", place / "volume.zarr", out, "-m", place / "m.hrvol", "--engine", "serial")
    return run(*command, *more, code=code)


def test_parts_one_after_the_other_and_their_status(place, tmp_path):
    out = tmp_path / "out.ome.zarr"
    first = segment(place, out, "--part", "1/2")
    assert "this part is done; 12 blocks remain for other parts" in first.stdout
    status = json.loads(run("status", out, "--json").stdout)
    assert (status["state"], status["total"], status["done"], status["left"]) == ("stopped", 24, 12, 12)
    assert [driver["lane"] for driver in status["drivers"]] == ["part-1-of-2"]
    assert "12 of 24 done, 0 failed, 12 left" in run("status", out).stdout
    segment(place, out, "--part", "2/2")
    assert "complete, 100 %" in run("status", out).stdout
    whole = tmp_path / "whole.ome.zarr"
    segment(place, whole)
    np.testing.assert_array_equal(open_labels(out).read(), open_labels(whole).read())
    assert "is already complete" in segment(place, out).stdout


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_a_part_that_makes_no_sense_is_wrong_usage(place, tmp_path, part):
    assert "expected k/n" in segment(place, tmp_path / "no", "--part", part, code=2).stderr
    assert not (tmp_path / "no").exists()


def test_a_part_cannot_begin_anew(place, tmp_path):
    assert "--fresh" in segment(place, tmp_path / "no", "--part", "1/2", "--fresh", code=2).stderr


def test_other_settings_are_refused_in_one_line_that_says_what_to_do(place, tmp_path):
    out = tmp_path / "out.ome.zarr"
    segment(place, out, "--part", "1/2")
    line = segment(place, out, "--uncertainty", code=1).stderr.splitlines()[-1]
    assert "outputs.uncertainty was false, now true" in line
    assert "--fresh" in line
    segment(place, out, "--uncertainty", "--fresh")
    assert "complete" in run("status", out).stdout


def test_a_mask_on_the_command_line(place, tmp_path):
    out = tmp_path / "out.ome.zarr"
    segment(place, out, "--mask", place / "mask.zarr")
    labels, mask = open_labels(out).read(), open_labels(place / "mask.zarr").read()
    assert ((labels > 0) == (mask > 0)).all()


def test_status_of_a_run_that_goes_on_or_was_lost(place, tmp_path):
    out = tmp_path / "out.ome.zarr"
    segment(place, out, "--part", "1/2")
    records = Records(Location.of(out), read_only=False)
    head = records.get(f"{LEDGER}/part-1-of-2")
    del head["seal"]
    records.put(f"{LEDGER}/part-1-of-2", sealed(head | {"state": "running"}))
    running = json.loads(run("status", out, "--json").stdout)
    assert running["state"] == "running"
    assert running["voxels_per_s"] > 0
    assert running["eta_s"] > 0
    text = run("status", out).stdout
    assert "voxels/s" in text
    assert "part-1-of-2: running" in text
    assert running["quiet_s"] < 300
    assert "quiet" not in text
    path = f"{LEDGER}/part-1-of-2/000000"
    entries = [entry | {"at": entry["at"] - 1000} for entry in records.get(path)["entries"]]
    records.put(path, sealed({"entries": entries}))
    began = {"state": "running", "at": time.time(), "began": head["began"] - 2000}
    records.put(f"{LEDGER}/part-1-of-2", sealed(head | began))
    assert "quiet   no block has finished for 16 min" in run("status", out).stdout
    long_ago = head | {"state": "running", "at": head["at"] - 3600}
    records.put(f"{LEDGER}/part-1-of-2", sealed(long_ago))
    assert "lost" in run("status", out).stdout


def test_status_of_what_is_no_run(place, tmp_path):
    for path in (tmp_path / "nothing", place / "volume.zarr"):
        assert "found no output of a run" in run("status", path, code=1).stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--storage-option", "secret"), "expected key=value"),
        (("--engine", "pbs"), "engine: found 'pbs', expected serial"),
        (("--engine-option", "queue=gpu"), "only slurm has any"),
    ],
)
def test_options_that_make_no_sense(place, tmp_path, option, message):
    stderr = segment(place, tmp_path / "no", *option, code=2).stderr
    assert message in stderr
    assert "secret" not in stderr
