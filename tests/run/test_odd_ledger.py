"""Ledgers and provenance that somebody edited: damage, whose blocks are computed again, or one line."""

import os
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from fault_data import DEEP, ODD

from hrvol.errors import BusyError, InputError
from hrvol.run.ledger import Ledger, check_free, entries, lanes, read_state, sealed
from hrvol.run.ledger_entries import DONE
from hrvol.volume.ome.feature_array import create_features
from hrvol.volume.ome.labels import create_labels
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.records import Records
from hrvol.volume.volume import open_volume
from hrvol.volume.write_image import write_image

COUNT = 8


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
    records.put(
        "ledger/main/000000",
        sealed({"entries": [{"block": 1, "state": DONE, "stamp": "1", "at": 1.0}] * 5000}),
    )
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


def test_a_voxel_size_that_is_no_number_is_not_written(tmp_path):
    array = open_volume(np.zeros((2, 8, 8), np.uint8))
    for number in (np.nan, np.inf):
        volume = replace(array, voxel_size=(1.0, number, 1.0))
        with pytest.raises(InputError, match="expected finite numbers"):
            create_labels(tmp_path / "l", volume, classes=[], block_shape=(2, 8, 8), attributes={})
        with pytest.raises(InputError, match="expected finite numbers"):
            create_features(tmp_path / "f", (1, 2, 8, 8), ["a"], volume.voxel_size, None, {}, (2, 8, 8))
        with pytest.raises(InputError, match="expected finite numbers"):
            write_image(tmp_path / "i", volume)
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_more_entries_than_hrvol_writes_is_damaged_before_it_is_parsed(place):
    begun(place)
    put_entries(place, list(entries(place)) * 20_000)
    size = (place.path / "ledger" / "main" / "000000" / "zarr.json").stat().st_size
    tracemalloc.start()
    assert not read_state(place, COUNT).of_block.any()
    assert tracemalloc.get_traced_memory()[1] < 4 * size
    tracemalloc.stop()
