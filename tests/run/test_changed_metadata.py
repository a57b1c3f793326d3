"""Metadata of an output that were changed or lost: restored by the same command, or refused in one line."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from fault_data import contents, copied, differing, is_whole, progress_of, shards

from hrvol.classes import default_classes
from hrvol.engine.stop import Stop
from hrvol.errors import HrvolError, OtherRunError, OutputExistsError, StoppedError
from hrvol.info import describe
from hrvol.run.ledger import Ledger, read_state
from hrvol.run.segment import segment_volume
from hrvol.run.status import run_status
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


def documents(out):
    """Return all metadata of an output but for its ledger's, as values."""
    files = (path.relative_to(out) for path in Path(out).rglob("zarr.json"))
    return {str(path): json.loads((out / path).read_text()) for path in files if path.parts[0] != "ledger"}


@pytest.fixture(scope="module")
def created(tmp_path_factory):
    out = tmp_path_factory.mktemp("created") / "out.ome.zarr"
    store = small(out)
    for image, plan in enumerate(store.images):
        for level in range(len(plan.levels)):
            store.make_level(image, level)
    return out


def change(path, rng):
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at] = rng.choice([byte for byte in range(256) if byte != data[at]])
    path.write_bytes(data)


def edit(path, function):
    values = json.loads(path.read_text())
    function(values)
    path.write_text(json.dumps(values, indent=2))


def test_one_changed_byte_anywhere_is_restored(created, tmp_path):
    expected, rng = documents(created), random.Random(0)
    out = copied(created, tmp_path / "out.ome.zarr")
    names = sorted(expected)
    assert len(names) == 14
    for number in range(90):
        path = out / names[number % len(names)]
        before = path.read_bytes()
        change(path, rng)
        resumed(out)
        assert documents(out) == expected, path
        path.write_bytes(before)


@pytest.mark.parametrize("complete", [False, True])
def test_any_lost_document_is_restored_and_the_output_marked_incomplete(created, tmp_path, complete):
    out = copied(created, tmp_path / "out.ome.zarr")
    store = resumed(out)
    if complete:
        store.declare(complete=True)
    expected = documents(out)
    for name in sorted(expected):
        lost = (out / name).read_bytes()
        (out / name).unlink()
        restored = resumed(out)
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


# -- whole runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lost",
    ["uncertainty", "labels/hrvol/1/zarr.json", "probabilities/1", "labels/zarr.json", "zarr.json"],
)
def test_lost_metadata_and_arrays_are_made_again(case, tmp_path, lost):
    out = copied(case.reference, tmp_path / "out.ome.zarr")
    path = out / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    case.segment(out)
    is_whole(out, case)


@pytest.mark.parametrize("lost", ["uncertainty", "labels/hrvol/1/zarr.json"])
def test_no_label_is_deleted_for_what_else_is_lost(case, tmp_path, lost):
    out = copied(case.reference, tmp_path / "out.ome.zarr")
    path = out / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    stop = Stop()
    stop.request()
    before = {shard: shard.read_bytes() for shard in shards(out, "labels/hrvol/0")}
    try:
        case.segment(out, stop=stop)
    except StoppedError:
        assert run_status(out)["state"] != "complete"
    assert {shard: shard.read_bytes() for shard in shards(out, "labels/hrvol/0")} == before
    case.segment(out)
    is_whole(out, case)


def test_one_changed_byte_of_a_whole_output(case, tmp_path):
    rng = random.Random(1)
    out = copied(case.reference, tmp_path / "out.ome.zarr")
    names = sorted(documents(out))
    for name in rng.sample(names, 4):
        change(out / name, rng)
        case.segment(out)
        assert differing(contents(out), case.expected) == [], name


def test_an_unfinished_output_that_says_it_is_complete(case, unfinished, tmp_path):
    out = copied(unfinished, tmp_path / "out.ome.zarr")
    edit(out / "zarr.json", lambda values: values["attributes"]["hrvol"].update(complete=True))
    case.segment(out)
    is_whole(out, case)


def test_levels_that_are_not_recorded_are_built_though_the_output_says_it_is_complete(case, tmp_path):
    out = copied(case.reference, tmp_path / "out.ome.zarr")
    location = Location.of(out)
    with Ledger(location, len(case.blocks)) as ledger:
        for name in ledger.state.parts:
            ledger.mark_part(name, "", "")
    shutil.rmtree(out / "labels/hrvol/1/c")
    case.segment(out)
    is_whole(out, case)


def test_settings_are_compared_with_those_that_were_recorded(case, unfinished, tmp_path):
    out = copied(unfinished, tmp_path / "out.ome.zarr")
    edit(out / "zarr.json", lambda values: values["attributes"]["hrvol"]["recipe"].update(seed=9))
    with pytest.raises(OtherRunError, match=r"outputs\.uncertainty was true, now false"):
        segment_volume(case.volume, out, case.model, probabilities=True)
    case.segment(out)
    is_whole(out, case)


def test_without_root_and_record_it_is_refused_and_with_the_record_it_may_be_replaced(case, tmp_path):
    out = copied(case.reference, tmp_path / "out.ome.zarr")
    (out / "zarr.json").write_text("{")
    case.segment(out, overwrite=True)
    is_whole(out, case)
    (out / "zarr.json").write_text("{")
    (out / "ledger/zarr.json").write_text("{")
    before = len(shards(out, "labels/hrvol/0"))
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match="found no Zarr"):
            case.segment(out, overwrite=overwrite)
    assert len(shards(out, "labels/hrvol/0")) == before


def test_labels_by_others_are_not_deleted_with_an_output(case, tmp_path):
    out = copied(case.reference, tmp_path / "out.ome.zarr")
    zarr.open_group(out, mode="r+").create_array("labels/by hand/0", data=np.ones(3, np.uint8))
    with pytest.raises(OutputExistsError, match="found labels/by hand, expected only what hrvol wrote"):
        case.segment(out, overwrite=True)
    assert (out / "labels/by hand/0").is_dir()
    case.segment(out)
    assert progress_of(out)[0] == len(read_state(Location.of(out), 18).of_block)


def test_status_and_info_of_changed_metadata_are_right_or_one_line(created, tmp_path):
    out = copied(created, tmp_path / "out.ome.zarr")
    rng = random.Random(2)
    for name in ("zarr.json", "labels/zarr.json", "labels/hrvol/zarr.json", "labels/hrvol/0/zarr.json"):
        before = (out / name).read_bytes()
        for _ in range(10):
            change(out / name, rng)
            for look in (lambda: run_status(out), lambda: describe(str(out))):
                try:
                    look()
                except HrvolError as error:
                    assert len(str(error).splitlines()) == 1  # noqa: PT017
                    assert "out.ome.zarr" in str(error)  # noqa: PT017
            (out / name).write_bytes(before)
