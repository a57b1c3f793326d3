"""The metadata of a label output: what is changed or lost is restored, what others added stays."""

import random
import shutil

import numpy as np
import pytest
import zarr
from fault_data import change, copied, documents, edit

from hrvol.classes import default_classes
from hrvol.volume.ome.documents import recorded_documents
from hrvol.volume.ome.label_documents import LabelOutputs
from hrvol.volume.ome.labels import create_labels
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import open_volume

CLASSES = default_classes([1, 2, 3], ["pore", "binder", "crack"])


def small(path, **more):
    """Create an output of 4 blocks with all arrays, or resume it, and return its store."""
    like = open_volume(np.zeros((4, 300, 600), np.uint8))
    return create_labels(
        path,
        like,
        classes=CLASSES,
        block_shape=(4, 256, 512),
        attributes={"recipe": {"seed": 0}, "model": {"sha256": "ab"}, "window": [0.25, 1.0]},
        outputs=LabelOutputs("hrvol", True, True),
        **more,
    )


def resumed(path):
    return small(path, resume=True, written=recorded_documents(Location.of(path)))


@pytest.fixture(scope="module")
def created(tmp_path_factory):
    out = tmp_path_factory.mktemp("created") / "out.ome.zarr"
    store = small(out)
    for image, plan in enumerate(store.images):
        for level in range(len(plan.levels)):
            store.make_level(image, level)
    return out


def test_one_changed_byte_anywhere_is_restored(created, tmp_path):
    expected, rng = documents(created), random.Random(0)
    out = copied(created, tmp_path / "out.ome.zarr")
    names = sorted(expected)
    assert len(names) == 14
    for number in range(42):
        path = out / names[number % len(names)]
        before = path.read_bytes()
        change(path, rng)
        resumed(out)
        assert documents(out) == expected, path
        path.write_bytes(before)


@pytest.mark.parametrize("complete", [False, True])
def test_any_lost_document_is_restored_and_the_output_marked_incomplete(created, tmp_path, caplog, complete):
    out = copied(created, tmp_path / "out.ome.zarr")
    store = resumed(out)
    if complete:
        store.declare(complete=True)
    expected = documents(out)
    for name in sorted(expected):
        lost = (out / name).read_bytes()
        (out / name).unlink()
        caplog.clear()
        restored = resumed(out)
        if complete:
            assert f"restored missing or changed metadata: {name}" in caplog.text
        if complete and name != "zarr.json":
            assert not restored.complete
            restored.declare(complete=True)
            assert documents(out) == expected
        (out / name).write_bytes(lost)


def test_what_others_added_stays(created, tmp_path):
    out = copied(created, tmp_path / "out.ome.zarr")

    def add(values):
        values["attributes"]["notes"] = "mine"
        values["attributes"]["ome"]["_creator"] = {"name": "napari"}

    for name in ("zarr.json", "labels/hrvol/zarr.json"):
        edit(out / name, add)
    edit(out / "labels/zarr.json", lambda values: values["attributes"]["ome"]["labels"].append("by hand"))
    expected = documents(out)
    resumed(out)
    assert documents(out) == expected
    # Also where something of ours is damaged in the same document.
    edit(out / "labels/zarr.json", lambda values: values["attributes"]["ome"].pop("version"))
    edit(out / "zarr.json", lambda values: values["attributes"]["ome"].pop("omero"))
    edit(out / "labels/hrvol/zarr.json", lambda values: values["attributes"]["ome"].update(version="0.6"))
    resumed(out)
    assert documents(out) == expected


def test_an_output_without_the_record_keeps_codecs_and_provenance(created, tmp_path):
    """As version 0.1.0 wrote it; another version of Zarr may choose other codecs."""
    out = copied(created, tmp_path / "out.ome.zarr")
    shutil.rmtree(out / "ledger")
    array = out / "uncertainty/0/zarr.json"

    def recode(values):
        inner = values["codecs"][0]["configuration"]["codecs"]
        inner[1] = {"name": "gzip", "configuration": {"level": 1}}

    edit(array, recode)
    edit(out / "zarr.json", lambda values: values["attributes"]["hrvol"].update(extra=1))
    expected = documents(out)
    edit(out / "labels/hrvol/0/zarr.json", lambda values: values.update(fill_value=7))
    resumed(out)
    assert documents(out) == expected
    assert recorded_documents(Location.of(out)) is not None
    resumed(out)
    assert documents(out) == expected
    zarr.open_array(out / "uncertainty/0", mode="r")[:]
