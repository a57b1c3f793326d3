"""Places of stores: paths and URLs with options, writes that last, and what is left behind by the killed."""

import errno
import json
import os
import pickle
import threading
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from hrvol.classes import default_classes
from hrvol.errors import InputError, OutputExistsError, UsageError
from hrvol.volume.ome.labels import LabelStore, create_labels
from hrvol.volume.ome.output import clear_output
from hrvol.volume.storage import location as module
from hrvol.volume.storage.location import PARTIAL, DurableStore, Location, checksum, located
from hrvol.volume.storage.options import parse_options
from hrvol.volume.storage.records import Records
from hrvol.volume.volume import open_labels, open_volume


def test_options_are_text_or_json_and_dots_nest():
    pairs = [
        *("endpoint_url=http://host:9000", "anon=true", "max_concurrency=3", "key=a=b", "empty="),
        *("client_kwargs.region_name=eu-west-1", "client_kwargs.verify=false", 's3={"max_paths": 7}'),
    ]
    assert parse_options(pairs) == {
        "endpoint_url": "http://host:9000",
        "anon": True,
        "max_concurrency": 3,
        "key": "a=b",
        "empty": "",
        "client_kwargs": {"region_name": "eu-west-1", "verify": False},
        "s3": {"max_paths": 7},
    }
    assert parse_options([]) == {}


names = st.text(st.characters(categories=["L"]), min_size=1, max_size=5)
options = st.recursive(
    st.dictionaries(names, st.integers() | st.booleans(), min_size=1, max_size=3),
    lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=4,
)


@given(options)
def test_any_nested_options_can_be_written_as_pairs(wanted):
    def pairs(values, before=""):
        for name, value in values.items():
            if isinstance(value, dict):
                yield from pairs(value, f"{before}{name}.")
            else:
                yield f"{before}{name}={json.dumps(value)}"

    assert parse_options(pairs(wanted)) == wanted


@pytest.mark.parametrize("pair", ["hunter2", "=hunter2", "a..b=hunter2"])
def test_a_pair_that_is_none_is_refused_without_its_value(pair):
    with pytest.raises(UsageError, match="expected key=value") as refused:
        parse_options([pair])
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("pairs", [["a=hunter2", "a.b=1"], ["a=1", "a.b=hunter2"]])
def test_a_value_that_is_a_mapping_too_is_refused_without_it(pairs):
    with pytest.raises(UsageError, match="expected one of both") as refused:
        parse_options(pairs)
    assert "hunter2" not in str(refused.value)


def test_a_location_is_its_url_whatever_its_options():
    one = Location.of("s3://bucket/v.zarr", {"secret": "hunter2"})
    other = Location.of("s3://bucket/v.zarr")
    assert one == other
    assert hash(one) == hash(other)
    assert one != Location.of("s3://bucket/w.zarr")
    assert str(one) == "s3://bucket/v.zarr"
    assert "hunter2" not in repr(one)
    assert one.path is None
    assert Location.of(one) is one


def test_options_travel_with_the_location_but_belong_to_urls_only(tmp_path):
    one = Location.of("s3://bucket/v.zarr", {"client_kwargs": {"region_name": "eu-west-1"}})
    assert pickle.loads(pickle.dumps(one)).options == one.options
    assert Location.of(tmp_path, {"key": "a"}).options == {}
    assert Location.of(f"file://{tmp_path}") == Location.of(str(tmp_path)) == Location.of(tmp_path)
    assert Location.of(tmp_path).path == tmp_path
    array = np.zeros(3)
    assert located(array, {"key": "a"}) is array
    assert located("s3://bucket/v.zarr", {"key": "a"}).options == {"key": "a"}


@pytest.fixture
def settled(monkeypatch):
    """What was brought to the disk, in order: names of files and folders."""
    seen, fsync = [], os.fsync

    def watched(handle):
        seen.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    return seen


@pytest.mark.parametrize("way", ["set", "set_sync", "set_if_not_exists"])
def test_a_write_is_on_the_disk_before_it_has_its_name_and_its_folders_after_it(tmp_path, settled, way):
    root = tmp_path / "new.zarr"
    store = DurableStore(root)
    value = default_buffer_prototype().buffer.from_bytes(b"labels")
    done = getattr(store, way)("c/0/1", value)
    if done is not None:
        sync(done)
    assert (root / "c/0/1").read_bytes() == b"labels"
    contents, *folders = settled
    assert contents.startswith(str(root / "c/0/1"))
    assert contents.endswith(PARTIAL)
    assert folders == [str(folder) for folder in (root / "c/0", root / "c", root, tmp_path)]


def test_whatever_zarr_writes_is_on_the_disk(tmp_path, settled):
    place = Location.of(tmp_path / "out.zarr")
    group = zarr.create_group(place.store(read_only=False), attributes={"a": 1})
    array = group.create_array("labels/0", shape=(8, 8), shards=(4, 8), chunks=(4, 4), dtype="uint8")
    array[:4] = 1
    group.attrs["a"] = 2
    files = {str(path) for path in (tmp_path / "out.zarr").rglob("*") if path.is_file()}
    assert len(files) == 4
    for file in files:
        assert any(name.startswith(f"{file}.") for name in settled), file


def test_a_write_that_fails_leaves_the_value_before_it_and_nothing_else(tmp_path, monkeypatch):
    store = DurableStore(tmp_path)
    first, second = (default_buffer_prototype().buffer.from_bytes(text) for text in (b"first", b"second"))
    store.set_sync("a", first)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.set_sync("a", second)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"first"


def test_a_value_that_is_there_is_kept_where_that_is_asked_for(tmp_path):
    store = DurableStore(tmp_path)
    for text in (b"first", b"second"):
        sync(store.set_if_not_exists("a", default_buffer_prototype().buffer.from_bytes(text)))
    assert (tmp_path / "a").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_folders_that_cannot_be_brought_to_the_disk_are_let_be_but_not_broken_disks(
    tmp_path, monkeypatch, number, passes
):
    fsync = os.fsync

    def fussy(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fussy)
    value = default_buffer_prototype().buffer.from_bytes(b"labels")
    if passes:
        DurableStore(tmp_path).set_sync("a", value)
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            DurableStore(tmp_path).set_sync("a", value)


def test_a_store_for_reading_writes_nothing(tmp_path):
    assert not isinstance(Location.of(tmp_path).store(), DurableStore)
    with pytest.raises(ValueError, match="read-only"):
        DurableStore(tmp_path, read_only=True).set_sync(
            "a", default_buffer_prototype().buffer.from_bytes(b"x")
        )
    assert list(tmp_path.iterdir()) == []


def test_what_was_half_written_is_nothing_and_tidied_away(tmp_path):
    place = Location.of(tmp_path)
    half = tmp_path / f"zarr.json.0123456789{PARTIAL}"
    half.write_bytes(b"{")
    assert not place.occupied()
    deep = tmp_path / "labels" / "0" / f"c.0123456789{PARTIAL}"
    deep.parent.mkdir(parents=True)
    deep.write_bytes(b"half")
    (deep.parent / "c").write_bytes(b"whole")
    assert place.occupied()
    place.tidy()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["c"]
    place.tidy()


def test_anything_but_an_empty_folder_is_in_the_way(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    found = {
        name: Location.of(tmp_path / name).occupied()
        for name in ("empty", "none", "file", "folder", "broken")
    }
    assert found == {"empty": False, "none": False, "file": True, "folder": True, "broken": True}


def make(place):
    """An output of hrvol's, as far as that is told by its attributes."""
    attributes = {"hrvol": {"complete": False, "block_shape": [1]}}
    group = zarr.create_group(place.store(read_only=False), attributes=attributes)
    group.create_array("labels/0", data=np.arange(4))
    group.create_array("model/0", data=np.arange(4))


def test_what_is_half_deleted_still_says_whose_it_is(tmp_path, monkeypatch):
    place = Location.of(tmp_path / "out.zarr")
    make(place)
    remove = DurableStore.delete_dir

    async def killed(self, prefix):
        if prefix == "model":
            raise OSError("killed")
        await remove(self, prefix)

    with monkeypatch.context() as patch, suppress(OSError):
        patch.setattr(DurableStore, "delete_dir", killed)
        place.remove()
    assert (tmp_path / "out.zarr" / "model").exists()
    clear_output(place, True)
    assert not (tmp_path / "out.zarr").exists()


def test_a_link_to_an_output_stays_and_nothing_behind_links_is_deleted(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "out.zarr").symlink_to(tmp_path / "scratch")
    place = Location.of(tmp_path / "out.zarr")
    make(place)
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "keep").write_text("x")
    (tmp_path / "scratch" / "link").symlink_to(tmp_path / "others")
    place.remove()
    assert (tmp_path / "out.zarr").is_symlink()
    assert list((tmp_path / "scratch").iterdir()) == []
    assert (tmp_path / "others" / "keep").exists()


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_one_name_can_be_deleted_and_the_rest_stays(tmp_path, where, request):
    place = Location.of(tmp_path / "out.zarr" if where == "disk" else f"memory://{request.node.name}")
    make(place)
    place.remove("labels")
    place.remove("none")
    assert sorted(zarr.open_group(place.store(), mode="r").keys()) == ["model"]
    place.remove()
    assert not place.occupied()


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_what_keys_hold_is_measured_and_erased(tmp_path, where, request):
    place = Location.of(tmp_path / "out.zarr" if where == "disk" else f"memory://{request.node.name}")
    make(place)
    keys = ["labels/0/c/0", "model/0/c/0", "labels/0/c/1"]
    sizes, checksums = place.sizes(keys), place.checksums(keys)
    assert sizes[0] == sizes[1] == len(place.read_bytes("labels/0/c/0"))
    assert checksums[0] == checksums[1] == checksum(place.read_bytes("labels/0/c/0"))
    assert sizes[2] is checksums[2] is checksum(None) is None
    assert checksum(b"x") != checksum(b"y")
    place.erase(keys)
    assert place.sizes(keys) == [None] * 3
    np.testing.assert_array_equal(place.open_array("labels/0")[:], 0)


def test_a_name_that_would_do_as_a_pattern_is_a_name(request):
    places = [
        Location.of(f"memory://{request.node.name}/{name}.zarr") for name in ("run[12]", "run1", "run2")
    ]
    for place in places:
        make(place)
    places[0].erase(["labels/0/c/0"])
    assert [place.sizes(["labels/0/c/0"])[0] is None for place in places] == [True, False, False]
    places[0].remove()
    assert [place.occupied() for place in places] == [False, True, True]


def test_erasing_takes_a_folder_that_has_the_name_of_an_object(tmp_path):
    (tmp_path / "c" / "0").mkdir(parents=True)
    (tmp_path / "c" / "0" / "notes.txt").write_text("x")
    Location.of(tmp_path).erase(["c/0"])
    assert not (tmp_path / "c" / "0").exists()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def website(tmp_path):
    """A server of the files in a folder, for reading only; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_any_file_system_of_fsspec_will_do(tmp_path, website, zarr_format):
    values = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)
    zarr.create_array(tmp_path / "v.zarr", data=values, chunks=(2, 4, 4), zarr_format=zarr_format)
    np.testing.assert_array_equal(open_volume(f"{website}/v.zarr").read(), values)
    with pytest.raises(InputError, match=r"none.zarr: found neither"):
        open_volume(f"{website}/none.zarr")
    place = Location.of(f"{website}/out.zarr")
    with pytest.raises(OSError, match="Unsupported method") as refused:
        Records(place, read_only=False).put("ledger", {})
    assert refused.value.filename == place.url


def test_an_output_in_memory_is_written_read_and_cleared_in_one_process(request):
    place = Location.of(f"memory://{request.node.name}")
    assert not place.occupied()
    assert place.attributes() is None
    like = open_volume(np.zeros((4, 64, 64), np.uint8))
    about = {"model": {"source": "m"}}
    made = create_labels(
        place, like, classes=default_classes([1, 2], None), block_shape=(2, 64, 64), attributes=about
    )
    assert pickle.loads(pickle.dumps(made)) == made
    made.write((slice(0, 2), slice(0, 64), slice(0, 64)), np.ones((2, 64, 64), np.uint8))
    assert made.checksums([(0, 0, 0)]) == made.checksums([(0, 0, 0)]) != made.checksums([(1, 0, 0)])
    LabelStore(place).finish()
    found = open_labels(place)
    assert np.flatnonzero(found.read().any(axis=(1, 2))).tolist() == [0, 1]
    assert place.attributes()["hrvol"]["complete"] is True
    records = Records(place, read_only=False)
    records.put("ledger/main", {"pulse": 1})
    assert Records(place).get("ledger/main") == {"pulse": 1}
    assert Records(place).children("ledger") == ["main"]
    assert Records(place).children("nothing") == []
    place.tidy()
    with pytest.raises(OutputExistsError, match="exists already"):
        clear_output(place, False)
    clear_output(place, True)
    assert not place.occupied()


def test_damaged_metadata_is_neither_attributes_nor_a_free_place(tmp_path):
    place = Location.of(tmp_path / "out.zarr")
    make(place)
    mark = tmp_path / "out.zarr" / module.MARK
    mark.write_bytes(mark.read_bytes()[:20])
    assert place.attributes() is None
    with pytest.raises(OutputExistsError, match="found no Zarr"):
        clear_output(place, True)
