"""The script that watches a folder: files appear while it runs, some slowly, some damaged."""

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from flow_data import PATIENCE, WORKFLOWS, block_files, environment, executable, prepare, status, wait_for

import hrvol

SCRIPT = WORKFLOWS / "watch_folder.py"
QUICKLY = ["--interval", "0.1", "--stable", "1", "--retry-delay", "0.1"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder with a volume and a model for it."""
    folder = tmp_path_factory.mktemp("source")
    prepare(folder)
    model = hrvol.train_model([(folder / "a.tif", folder / "strokes.tif")], recipe=folder / "recipe.yaml")
    hrvol.save_model(model, folder / "model.hrvol")
    return folder


@pytest.fixture
def place(source, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(source / "model.hrvol", tmp_path)
    return tmp_path


def watching(place, *words, options=("--workers", "1"), first=()):
    command = ["script", SCRIPT, "in", "-m", "model.hrvol", "-o", "out", *QUICKLY, *words, "--", *options]
    return subprocess.Popen(
        [*map(str, command)],
        cwd=place,
        env=environment(*first),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def ended(process):
    try:
        return process.communicate(timeout=PATIENCE)[1]
    finally:
        process.kill()


def journal(place, name):
    path = place / "out" / ".watch" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def complete(place, name):
    return (place / "out" / f"{name}.ome.zarr").exists() and journal(place, f"{name}.tif").get(
        "state"
    ) == "done"


def test_volumes_are_segmented_as_they_are_finished(place, source):
    data = (source / "a.tif").read_bytes()
    (place / "in" / "first.tif").write_bytes(data)
    process = watching(place)
    try:
        wait_for(lambda: complete(place, "first"), process)
        with (place / "in" / "slow.tif").open(
            "wb"
        ) as stream:  # it grows for longer than a file has to be stable
            for start in range(0, len(data), len(data) // 8 + 1):
                stream.write(data[start : start + len(data) // 8 + 1])
                stream.flush()
                time.sleep(0.25)
                assert not (place / "out" / "slow.ome.zarr").exists()
        (place / "in" / "damaged.tif").write_bytes(data[:1000])
        wait_for(lambda: complete(place, "slow"), process)
        wait_for(lambda: journal(place, "damaged.tif").get("state") == "failed", process)
        process.send_signal(signal.SIGTERM)
        log = ended(process)
    finally:
        process.kill()
    assert process.returncode == 75, log
    for name in ("first", "slow"):
        assert status(place / "out" / f"{name}.ome.zarr")["state"] == "complete"
        assert len(re.findall(rf"in/{name}\.tif: done in \d+ s: out/{name}\.ome\.zarr", log)) == 1
    assert journal(place, "damaged.tif")["tries"] == 3
    assert log.count("damaged.tif: try") == 3
    assert "given up: hrvol: error: in/damaged.tif" in log
    assert "Traceback" not in log


def test_a_watch_that_is_stopped_resumes(place, source):
    shutil.copy(source / "a.tif", place / "in")
    labels = place / "out" / "a.ome.zarr"
    process = watching(place)
    wait_for(lambda: len(block_files(labels)) >= 4, process)
    process.send_signal(signal.SIGINT)
    log = ended(process)
    assert process.returncode == 130, log
    assert "in/a.tif: stopped after" in log
    then = status(labels)
    assert then["state"] == "stopped"
    kept = {path: path.stat().st_mtime_ns for path in block_files(labels)}

    process = watching(place, "--once")
    log = ended(process)
    assert process.returncode == 0, log
    assert status(labels)["state"] == "complete"
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())

    process = watching(place, "--once")
    log = ended(process)
    assert process.returncode == 0
    assert "done in" not in log


def test_a_watch_that_is_killed_resumes_and_only_one_watches(place, source):
    shutil.copy(source / "a.tif", place / "in")
    labels = place / "out" / "a.ome.zarr"
    process = watching(place)
    wait_for(lambda: len(block_files(labels)) >= 2, process)
    other = watching(place)
    assert "another watch_folder.py writes there" in ended(other)
    assert other.returncode == 1
    process.kill()
    process.wait()
    process = watching(place, "--once")
    log = ended(process)
    assert process.returncode == 0, log
    assert status(labels)["state"] == "complete"


def test_markers_folders_and_patterns(place, source):
    """As HTTomo: a folder for each run, and a file that tells that it is finished."""
    run = place / "in" / "run 1"
    (run / "images").mkdir(parents=True)
    shutil.copy(source / "a.tif", run / "images" / "rec.tif")
    process = watching(place, "--once", "--pattern", "*/images/*.tif", "--marker", "{path}.done")
    time.sleep(2)
    assert not (place / "out" / "run 1").exists()
    (run / "images" / "rec.tif.done").touch()
    log = ended(process)
    assert process.returncode == 0, log
    assert status(place / "out" / "run 1" / "images" / "rec.ome.zarr")["state"] == "complete"


def test_a_folder_of_planes_that_grows_and_an_hdf5_file(place, source):
    """As nabu: a folder of TIFF planes, or one file."""
    h5py = pytest.importorskip("h5py")
    image = tifffile.imread(source / "a.tif")
    folder = place / "in" / "scan_0001_rec"
    process = watching(place)
    folder.mkdir()
    for number, plane in enumerate(image):
        tifffile.imwrite(folder / f"scan_0001_rec_{number:06d}.tif", plane, photometric="minisblack")
        time.sleep(0.4)
    with h5py.File(place / "in" / "scan_0002_rec.h5", "w") as file:
        file["entry0000/reconstruction/results/data"] = image
    outputs = [place / "out" / f"scan_000{number}_rec.ome.zarr" for number in (1, 2)]
    names = ("scan_0001_rec", "scan_0002_rec.h5")
    wait_for(lambda: all(journal(place, name).get("state") == "done" for name in names), process)
    process.send_signal(signal.SIGTERM)
    log = ended(process)
    assert log.count("done in") == 2, log
    first, second = (zarr.open_array(path / "labels" / "hrvol" / "0", mode="r")[:] for path in outputs)
    assert first.shape == image.shape
    np.testing.assert_array_equal(first, second)


def test_a_volume_that_changed_is_not_segmented_again(place, source):
    shutil.copy(source / "a.tif", place / "in")
    assert ended(watching(place, "--once"))
    assert complete(place, "a")
    (place / "in" / "a.tif").touch()
    process = watching(place)
    wait_for(lambda: journal(place, "a.tif")["state"] == "changed", process)
    process.send_signal(signal.SIGTERM)
    log = ended(process)
    assert log.count("a.tif: changed since it was segmented; delete") == 1
    assert "done in" not in log


def test_a_wrong_option_is_not_tried_again(place, source):
    shutil.copy(source / "a.tif", place / "in")
    process = watching(place, "--once", options=("--workers", "0"))
    log = ended(process)
    assert process.returncode == 1
    assert log.count("a.tif: try 1 failed with exit code 2, given up") == 1
    assert "--workers" in log


def test_a_volume_that_fails_once_is_tried_again(place, source):
    shutil.copy(source / "a.tif", place / "in")
    real = shutil.which("hrvol", path=environment()["PATH"])
    flag = place / "failed once"
    script = f'#!/bin/sh\n[ -e "{flag}" ] && exec {real} "$@"\ntouch "{flag}"; echo out of memory; exit 137\n'
    executable(place / "programs" / "hrvol", script)
    log = ended(watching(place, "--once", first=[place / "programs"]))
    assert "try 1 failed with exit code 137, another try in 0 s: out of memory" in log
    assert journal(place, "a.tif") == {**journal(place, "a.tif"), "state": "done", "tries": 2}


def test_a_wrong_marker_is_refused_at_once(place):
    process = watching(place, "--marker", "{file}.done")
    assert "--marker: found {file}.done, expected {path}" in ended(process)
    assert process.returncode == 2


def loaded():
    spec = importlib.util.spec_from_file_location("watch_folder", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.ome.zarr", "a"), ("a.b.tif", "a.b"), ("a.NII.GZ", "a"), ("rec", "rec"), ("x.h5", "x")],
)
def test_names_of_outputs(name, stem):
    assert loaded().stem(Path(name)) == stem


def test_outputs_inside_of_the_folder_are_no_volumes(tmp_path):
    for name in ("a.tif", "out/b.tif", ".part/c.tif", "d/e.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = loaded().candidates(tmp_path, "**/*.tif", tmp_path / "out")
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.tif", "d/e.tif"]
