"""Ledgers and provenance that somebody edited: damage, whose blocks are computed again, or one line."""

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner
from fault_data import copied, is_whole

from hrvol.cli import main
from hrvol.errors import BusyError, HrvolError, InputError, OutputExistsError
from hrvol.run.build_pyramid import build_pyramid
from hrvol.run.ledger import DONE, Ledger, check_free, entries, lanes, read_state, sealed
from hrvol.run.status import run_status
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.records import Records

COUNT = 8

DEEP = json.loads("[" * 400 + "]" * 400)

ODD = [None, True, -1, 1.5, 10**30, "1", "", [], {}, DEEP, "x" * 10**6, "\x1b[2J"]


@pytest.fixture
def place(tmp_path):
    return Location.of(tmp_path / "out.ome.zarr")


def begun(place):
    with Ledger(place, COUNT) as ledger:
        ledger.mark_done(1, "ab", voxels=5, counts={"1": 5}, seams=[1, 0, 0.5])
        ledger.mark_failed(2, "why")
        ledger.mark_part("labels/hrvol/1/0", "ab", "cd")
        ledger.mark_done(3, "ef", voxels=7)
    return list(entries(place))


def put_entries(place, values):
    Records(place, read_only=False).put("ledger/main/000000", sealed({"entries": values}))


@pytest.mark.parametrize(
    "key", ["block", "state", "stamp", "at", "voxels", "counts", "seams", "objects", "peak"]
)
def test_an_odd_entry_is_no_entry(place, key):
    first, *others = begun(place)
    for value in ODD:
        put_entries(place, [{**first, key: value}, *others])
        state = read_state(place, COUNT)
        current = [entry for entry in entries(place) if state.current(entry)]
        assert all(entry["voxels"] in (0, 1, 5, 7) or key == "voxels" for entry in current)
        assert state.of_block[3] == DONE
        assert state.parts == {"labels/hrvol/1/0": ("ab", "cd")}
        for entry in current:
            assert isinstance(entry["counts"], dict)
            assert sum(entry["seams"]) + entry["read"] + entry["peak"] + entry["voxels"] >= 0
        with Ledger(place, COUNT) as ledger:  # what is recorded next counts
            ledger.mark_done(1, "99")
        assert read_state(place, COUNT).checksum[1] == 0x99


@pytest.mark.parametrize("values", [*ODD, [DEEP], [1, "a", None, {"at": 1}]])
def test_odd_records_are_damaged_ones(place, values):
    begun(place)
    records = Records(place, read_only=False)
    for record in (sealed({"entries": values}), {"entries": values}, {"entries": values, "seal": values}):
        records.put("ledger/main/000000", record)
        assert not read_state(place, COUNT).of_block.any()
    path = os.path.join(place.url, "ledger/main/000000/zarr.json")
    for text in ("[]", '{"attributes": 3}', "[" * 10**6, '{"attributes": {"entries": ' + "9" * 5000 + "}}"):
        with open(path, "w") as file:
            file.write(text)
        assert not read_state(place, COUNT).of_block.any()
    os.unlink(path)
    os.mkfifo(path)  # would be waited for
    assert not read_state(place, COUNT).of_block.any()


@pytest.mark.parametrize("key", ["host", "pid", "born", "began", "at", "pulse", "state", "owner", "engine"])
def test_an_odd_head_is_no_head(place, key):
    begun(place)
    head = lanes(place)["main"] | {"state": "running"}
    for value in ODD:
        Records(place, read_only=False).put("ledger/main", sealed({**head, key: value}))
        try:
            check_free(place, sleep=lambda seconds: None)
        except BusyError as error:  # where the value is a possible one
            assert "is writing it" in str(error)  # noqa: PT017
            assert str(error).isprintable()  # noqa: PT017
    (lane,) = (path for path in (os.listdir(f"{place.url}/ledger")) if path == "main")
    os.rename(f"{place.url}/ledger/{lane}", f"{place.url}/ledger/\x1b[2J")
    assert lanes(place) == {}
    assert list(entries(place)) == []


def edit(out, function):
    path = out / "zarr.json"
    values = json.loads(path.read_text())
    function(values["attributes"]["hrvol"])
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("key", ["recipe", "input", "region", "block_shape", "complete", "outputs", "model"])
def test_odd_provenance_is_refused_in_one_line(unfinished, tmp_path, key):
    out = copied(unfinished, tmp_path / "out.ome.zarr")
    for value in ODD:
        edit(out, lambda values, value=value: values.update({key: value}))
        for look in (lambda: run_status(out), lambda: open_label_store(out).block_shape):
            try:
                look()
            except HrvolError as error:
                assert len(str(error)) < 1000  # noqa: PT017
                assert str(error).isprintable()  # noqa: PT017


def test_odd_provenance_is_restored(case, unfinished, tmp_path):
    out = copied(unfinished, tmp_path / "out.ome.zarr")
    edit(
        out,
        lambda values: values.update(recipe=DEEP, input=None, region=3, outputs=[], model="", complete={}),
    )
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
    edit(out, lambda values: values.update({key: value}))
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


def test_a_voxel_size_that_is_no_number_is_not_written(case, tmp_path):
    from hrvol.run.extract_features import extract_features
    from hrvol.volume.ome.documents import check_scale

    for number in (np.nan, np.inf):
        with pytest.raises(InputError, match="expected finite numbers"):
            check_scale("v", 1.0, number)
    (tmp_path / "f.zarr").mkdir()
    (tmp_path / "f.zarr" / "notes").touch()
    with pytest.raises(OutputExistsError):
        extract_features(case.volume, tmp_path / "f.zarr", recipe="classical", full=True, overwrite=True)
