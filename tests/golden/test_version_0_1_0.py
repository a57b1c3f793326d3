"""Labels, probabilities and models keep the bits of version 0.1.0; an output that it began is not resumed.

``version_0_1_0.zip`` was written by that version: a volume with strokes, the model trained on them, digests
of its segmentation, and the same segmentation stopped after 4 of 18 blocks. Its arithmetic is 1, which has
other last bits than the present one in deep features and linear classifiers; here they vanish in rounding.
"""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from threadpoolctl import threadpool_info

import hrvol
from hrvol.errors import OtherRunError
from hrvol.features.arithmetic import ARITHMETIC
from hrvol.run.resume import differences
from hrvol.segment.model.model import current_versions, model_bytes

ARCHIVE = Path(__file__).with_name("version_0_1_0.zip")
OUTPUTS = {"probabilities": True, "uncertainty": True, "backend": "torch"}
NUMERIC = ("numpy", "scipy", "scikit-learn")
"""Packages whose releases may change last bits."""
OTHER_ARITHMETIC = f"arithmetic was 1, now {ARITHMETIC} (resume it with the version that began it)"
RECORDED_WITH = {"Haswell", "Zen"}
"""Kernels of OpenBLAS, which give the same bits."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def records(folder):
    return json.loads((folder / "records.json").read_text())


@pytest.fixture(scope="module")
def same_packages(records):
    recorded, present = records["attributes"]["hrvol"]["versions"], current_versions()
    return all(recorded[name] == present[name] for name in NUMERIC)


def digests(out):
    root = zarr.open_group(out, mode="r")
    return {
        f"{top}/{path}": hashlib.sha256(array[...].tobytes()).hexdigest()
        for top in ("labels", "probabilities", "uncertainty")
        for path, array in root[top].members(max_depth=None)
        if isinstance(array, zarr.Array)
    }


def check(out, folder, records, same_packages):
    """Compare an output with that of version 0.1.0: to the bit with the packages it was made with."""
    assert zarr.open_group(out, mode="r").attrs["hrvol"]["complete"]
    if same_packages:
        assert digests(out) == records["arrays"]
    else:
        assert digests(out).keys() == records["arrays"].keys()
        labels, before = (
            zarr.open_array(store / "labels/hrvol/0", mode="r")[...]
            for store in (out, folder / "whole.ome.zarr")
        )
        assert np.mean(labels == before) > 0.999


def members(data):
    with zipfile.ZipFile(data) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "info.json"}


def train(folder, file):
    data = np.load(folder / "volume.npz")
    values = json.loads((folder / "recipe.json").read_text())
    values["features"]["deep"] = {"weave": 0}  # the defaults that were completed then
    recipe = hrvol.Recipe.from_dict(values)
    model = hrvol.train_model(
        [(data["image"], data["strokes"])], recipe=recipe, classes=["matrix", "disc"], backend="torch"
    )
    file.write_bytes(model_bytes(model))


def test_a_trained_model_has_the_same_bytes(folder, same_packages, tmp_path):
    file = tmp_path / "model.hrvol"
    # The last bits of a fit depend on the kernels that OpenBLAS selects for the processor.
    kernels = {info.get("architecture") for info in threadpool_info() if info["internal_api"] == "openblas"}
    if same_packages and not kernels <= RECORDED_WITH:
        program = (
            f"import sys; sys.path[:0] = {sys.path!r}; from pathlib import Path; import {__name__} as golden;"
        )
        program += f"import {__name__} as golden; golden.train(Path({str(folder)!r}), Path({str(file)!r}))"
        environment = os.environ | {"OPENBLAS_CORETYPE": "Haswell"}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    else:
        train(folder, file)
    trained, before = members(file), members(folder / "model.hrvol")
    # It keeps what its training pixels look like as well, which that version does not read.
    assert {name for name in trained.keys() - before.keys() if not name.startswith("drift_")} == set()
    assert before.keys() <= trained.keys()
    if same_packages:
        assert [name for name in before if trained[name] != before[name]] == []


def test_a_segmentation_has_the_same_bits_and_settings(folder, records, same_packages, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    out = tmp_path / "out.ome.zarr"
    hrvol.segment_volume("volume.zarr", out, "model.hrvol", **OUTPUTS)
    check(out, folder, records, same_packages)
    attributes, before = zarr.open_group(out, mode="r").attrs.asdict(), records["attributes"]
    assert attributes["ome"] == before["ome"] | {"multiscales": attributes["ome"]["multiscales"]}
    assert attributes["ome"]["multiscales"][0]["datasets"] == before["ome"]["multiscales"][0]["datasets"]
    changed = differences(before["hrvol"], attributes["hrvol"])
    assert [line for line in changed if not line.startswith("versions.")] == [OTHER_ARITHMETIC]


def test_an_output_that_it_began_is_refused_and_stays(folder, monkeypatch):
    monkeypatch.chdir(folder)
    out = folder / "begun.ome.zarr"
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(OtherRunError) as refused:
        hrvol.segment_volume("volume.zarr", out, "model.hrvol", **OUTPUTS)
    assert f"expected the same settings to resume it: {OTHER_ARITHMETIC}" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_its_layout_is_resumed(folder, records, same_packages, monkeypatch):
    monkeypatch.chdir(folder)
    out = folder / "begun.ome.zarr"
    root = zarr.open_group(out, mode="r+")
    assert hrvol.run_status(out)["done"] == 4
    # A run refuses other versions of packages, and another arithmetic, whose bits are the same here.
    same = {"versions": current_versions(), "arithmetic": ARITHMETIC}
    root.attrs["hrvol"] = root.attrs["hrvol"] | same
    report = hrvol.segment_volume("volume.zarr", out, "model.hrvol", **OUTPUTS)
    assert (report.blocks, report.failed) == (18, ())
    assert report.before == 4 * 64 * 64
    check(out, folder, records, same_packages)
