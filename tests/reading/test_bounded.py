"""Small files are read within bounds, and refused in one line before anything large is allocated."""

import io
import json
import os
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from hrvol.errors import InputError, ModelError
from hrvol.reading.bounded import check_archive, parse_array, parse_json, parse_mapping, read_file
from hrvol.reading.schema import Name, Schema, validated


def npy(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def test_files_are_read_as_they_are(tmp_path):
    file = tmp_path / "some.json"
    file.write_bytes(b"{}")
    assert read_file(file, 2, "a file") == b"{}"


def test_paths_that_never_end_or_are_no_files_are_refused_at_once(tmp_path):
    pipe, folder, large = tmp_path / "pipe", tmp_path / "folder", tmp_path / "large"
    os.mkfifo(pipe)
    folder.mkdir()
    with large.open("wb") as stream:
        stream.truncate(2**40)  # sparse
    began = time.monotonic()
    for path, found in [
        (pipe, "a named pipe"),
        ("/dev/zero", "a device"),
        (folder, "a folder"),
        (large, "1,099,511,627,776 bytes"),
        (tmp_path / "none", "no such file"),
        ("a\0b", "embedded null byte"),
    ]:
        with pytest.raises(ModelError, match=f"found {found}, expected"):
            read_file(path, 100, "a *.hrvol file", ModelError)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "an integer of 5000 digits"),
        (b"[NaN]", "the number NaN"),
        (b"[-Infinity]", "the number -Infinity"),
        (b'"\xff"', "utf-8"),
        (b"{", "Expecting property name"),
        (b"[" + b" " * 1000 + b"]", "1,002 bytes"),
    ],
)
def test_json_out_of_bounds_is_refused(data, found):
    limit = 1000 if b"  " in data else 10**6
    with pytest.raises(InputError, match=f"some.json: found .*({found}).*, expected"):
        parse_json(data, "some.json", limit=limit)


def test_a_mapping_is_told_from_other_values():
    assert parse_mapping(b'{"a": 1e3}', "some.json") == {"a": 1000.0}
    with pytest.raises(InputError, match=r"some.json: found a list, expected a mapping"):
        parse_mapping(b"[]", "some.json")


@pytest.mark.parametrize("values", [np.arange(6.0).reshape(2, 3), np.zeros((0, 4)), np.float32(3)])
def test_arrays_are_read_as_they_were_written(values):
    actual = parse_array(npy(values), "some.npy", np.shape(values))
    assert actual.dtype == np.asarray(values).dtype
    assert np.array_equal(actual, values)


def test_an_array_that_claims_more_than_it_has_allocates_nothing():
    header = npy(np.zeros(3))
    bomb = header.replace(b"(3,), }      ", b"(1099511627776,), }"[:13].ljust(13))
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    for data in (stream.getvalue() + b"\0" * 24, bomb):
        tracemalloc.start()
        with pytest.raises(InputError, match=r"some.npy: found .*, expected"):
            parse_array(data, "some.npy")
        assert tracemalloc.get_traced_memory()[1] < 10**6
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        npy(np.arange(6))[:-1],
        npy(np.arange(6)) + b"\0",
        b"",
        b"\x93NUMPY\x01\0\xff\xff",
        npy(np.arange(6)).replace(b"<i8", b"|O8"),
        npy(np.arange(6)).replace(b"(6,)", b"(-6,)"[:4]),
    ],
)
def test_damaged_arrays_are_refused(data):
    with pytest.raises(InputError, match=r"some.npy: found .*, expected"):
        parse_array(data, "some.npy")


def zipped(members, level=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", level) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return zipfile.ZipFile(stream)


LIMITS = {".json": 1000, ".npy": 10**6, "total": 2 * 10**6}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "found"),
    [
        ([(f"{i}.json", b"") for i in range(11)], "11 members"),
        ([("a.json", b"0" * 1001)], "1,001 bytes"),
        ([(f"{i}.npy", b"0" * 700_000) for i in range(3)], "2,100,000 bytes"),
        ([("a.json", b""), ("a.json", b"")], "the member a.json twice"),
        ([("a.py", b"")], "the member a.py"),
    ],
)
def test_archives_out_of_bounds_are_refused(members, found):
    with zipped(members) as archive, pytest.raises(InputError, match=f"some.zip.*: found {found}"):
        check_archive(archive, "some.zip", 10, LIMITS)


def test_archives_within_bounds_pass():
    with zipped([("a.json", b"{}"), ("b.npy", b"0" * 10**6)]) as archive:
        check_archive(archive, "some.zip", 10, LIMITS)


class Entry(Schema):
    name: Name
    value: int
    pair: tuple[float, float] = (0.0, 1.0)


def test_values_are_validated_with_exact_types():
    entry = validated(Entry, {"name": "Pore Ø", "value": 3, "pair": [1, 2.5], "more": []}, "some.json")
    assert entry == Entry(name="Pore Ø", value=3, pair=(1.0, 2.5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value": "3"}, "value: found '3', expected an integer"),
        ({"value": True}, "value: found true, expected an integer"),
        ({"value": 1.5}, "value: found 1.5, expected an integer"),
        ({"name": "a\x1b[31m"}, "name: found .*, expected"),
        ({"name": "a\nb"}, "name: found .*, expected"),
        ({"name": "\u202eabc"}, "name: found .*, expected"),
        ({"name": ""}, "name: found '', expected"),
        ({"name": "a" * 201}, "name: found '.*', expected"),
        ({"pair": [1, float("nan")]}, "pair.* found nan, expected"),
        ({"pair": [1, 2, 3]}, "pair: found .*, expected a list of 2 values"),
        ({"value": 10**5000}, ""),
    ],
    ids=range(11),
)
def test_wrong_values_are_refused_in_one_line(changes, message):
    with pytest.raises(InputError, match=f"some.json: {message}") as caught:
        validated(Entry, {"name": "a", "value": 1} | changes, "some.json")
    assert str(caught.value).isprintable()


def test_values_nested_too_deeply_are_refused():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError, match="nested too deeply"):
        validated(Entry, deep, "some.json")


def test_json_of_a_schema_round_trips():
    entry = Entry(name="a", value=1)
    assert validated(Entry, json.loads(entry.model_dump_json()), "some.json") == entry
