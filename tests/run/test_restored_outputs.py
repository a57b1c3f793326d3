"""Outputs whose metadata or arrays were changed or lost: the same command makes them whole again."""

import random
import shutil

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from fault_data import (
    DEEP,
    ODD,
    change,
    contents,
    copied,
    differing,
    documents,
    edit,
    is_whole,
    progress_of,
    shards,
)
from run_data import QUICK

from hrvol.cli import main
from hrvol.engine.stop import Stop
from hrvol.errors import HrvolError, InputError, OtherRunError, OutputExistsError, StoppedError
from hrvol.run.cluster import cluster_volume
from hrvol.run.ledger import Ledger, read_state
from hrvol.run.pyramid.build_pyramid import build_pyramid
from hrvol.run.segment import segment_volume
from hrvol.run.status import run_status
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.storage.location import Location


@pytest.mark.parametrize(
    "lost",
    ["probabilities/1", "labels/zarr.json", "zarr.json"],
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
    for name in rng.sample(names, 3):
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


def test_status_of_changed_metadata_is_right_or_one_line(case, tmp_path):
    out = copied(case.reference, tmp_path / "out.ome.zarr")
    rng = random.Random(2)
    for name in ("zarr.json", "labels/zarr.json", "labels/hrvol/zarr.json", "labels/hrvol/0/zarr.json"):
        before = (out / name).read_bytes()
        for _ in range(10):
            change(out / name, rng)
            for look in (lambda: run_status(out), lambda: open_label_store(out)):
                try:
                    look()
                except HrvolError as error:
                    assert len(str(error).splitlines()) == 1  # noqa: PT017
                    assert "out.ome.zarr" in str(error)  # noqa: PT017
            (out / name).write_bytes(before)


@pytest.mark.parametrize("name", ["model/c/0", "model/zarr.json", "model"])
def test_classes_that_were_found_are_found_again_if_their_copy_is_damaged(tmp_path, data, name):
    settings = {"recipe": QUICK, "classes": 2, "clusters": 8}
    image = data[0][:1, :64, :130]
    out = tmp_path / "out.ome.zarr"
    cluster_volume(image, out, **settings)
    expected, model = contents(out), (out / "model/c/0").read_bytes()
    if name == "model":
        shutil.rmtree(out / name)
    else:
        change(out / name, random.Random(3))
    cluster_volume(image, out, **settings)
    assert differing(contents(out), expected) == []
    assert (out / "model/c/0").read_bytes() == model
    assert zarr.open_array(out / "model", mode="r")[:].tobytes() == model


def edit_provenance(out, changes):
    edit(out / "zarr.json", lambda values: values["attributes"]["hrvol"].update(changes))


@pytest.mark.parametrize("key", ["recipe", "input", "region", "block_shape", "complete", "outputs", "model"])
def test_odd_provenance_is_refused_in_one_line(unfinished, tmp_path, key):
    out = copied(unfinished, tmp_path / "out.ome.zarr")
    for value in ODD:
        edit_provenance(out, {key: value})
        for look in (lambda: run_status(out), lambda: open_label_store(out).block_shape):
            try:
                look()
            except HrvolError as error:
                assert len(str(error)) < 1000  # noqa: PT017
                assert str(error).isprintable()  # noqa: PT017


def test_odd_provenance_is_restored(case, unfinished, tmp_path):
    out = copied(unfinished, tmp_path / "out.ome.zarr")
    odd = {"recipe": DEEP, "input": None, "region": 3, "outputs": [], "model": "", "complete": {}}
    edit_provenance(out, odd)
    case.segment(out)
    is_whole(out, case)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("input", {"shape": [10**30, 10**30, 10**30]}),
        ("input", {"shape": [10**5, 10**6, 10**6]}),
        ("input", {"shape": [0, 5, 5]}),
        ("region", [[0, 2], [0, 10**9], [0, 5]]),
        ("region", [[2, 0], [0, 5], [0, 5]]),
        ("recipe", {"tiles": {"core": 0}}),
    ],
)
def test_sizes_in_the_provenance_are_bounded_before_anything_is_allocated(unfinished, tmp_path, key, value):
    out = copied(unfinished, tmp_path / "out.ome.zarr")
    edit_provenance(out, {key: value})
    with pytest.raises(InputError, match=r"out\.ome\.zarr: "):
        run_status(out)


def test_a_driver_that_writes_is_no_reason_to_start_over(case, unfinished, tmp_path):
    out = copied(unfinished, tmp_path / "out.ome.zarr")
    with Ledger(Location.of(out), len(case.blocks)):
        result = CliRunner().invoke(main, case.command(out))
    assert result.exit_code == 1
    assert "is writing it" in result.output
    assert "--fresh" not in result.output


def test_coarser_levels_are_not_added_to_an_output(unfinished, tmp_path):
    out = copied(unfinished, tmp_path / "out.ome.zarr")
    with pytest.raises(InputError, match="found an output of hrvol, whose levels its own command builds"):
        build_pyramid(out)
    assert np.count_nonzero(read_state(Location.of(out), 18).of_block) > 5
