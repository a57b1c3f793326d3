"""The journal of strokes: nothing that was written is lost, whatever happens to the file and to the disk."""

import os
import resource
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from drawing_data import SHAPE, act, create, disc

from hrvol.classes import default_classes
from hrvol.errors import ResourceError
from hrvol.volume.drawing_store.journal import Journal, journal_files, read_records
from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.grid.tiling import whole
from hrvol.volume.strokes.merge import count_strokes
from hrvol.volume.strokes.open_strokes import open_strokes

ALL = whole(SHAPE)
CLASSES = default_classes([1, 2], ["pore", "solid"])


@pytest.fixture
def journal(tmp_path):
    one = Journal(tmp_path, 1)
    yield one
    one.close()


def records_in(folder):
    found = [read_records(path) for path in journal_files(folder)]
    return [record for records, _ in found for record in records], any(damaged for _, damaged in found)


def test_records_are_in_order_over_several_files(journal, tmp_path):
    journal.append([b"one", b"two"])
    first = journal.rotate()
    journal.append([b"three"])
    journal.sync()
    assert [path.name for path in journal_files(tmp_path)] == ["journal-00000001.bin", "journal-00000002.bin"]
    assert records_in(tmp_path) == ([b"one", b"two", b"three"], False)
    journal.cut(first)
    assert records_in(tmp_path) == ([b"three"], False)
    journal.append([b"four"])
    journal.write()
    assert records_in(tmp_path) == ([b"three", b"four"], False)
    assert journal.unsynced
    journal.sync()
    assert not journal.unsynced


def test_any_cut_loses_no_earlier_record(journal, tmp_path):
    records = [bytes([number]) * (number * 7) for number in range(1, 6)]
    ends = []
    for record in records:
        journal.append([record])
        journal.write()
        ends.append(journal_files(tmp_path)[0].stat().st_size)
    data = journal_files(tmp_path)[0].read_bytes()
    for size in range(len(data) + 1):
        journal_files(tmp_path)[0].write_bytes(data[:size])
        expected = records[: sum(end <= size for end in ends)]
        assert records_in(tmp_path) == (expected, False), size


def test_any_damaged_byte_costs_one_record(journal, tmp_path):
    records = [bytes([number]) * (number * 7) for number in range(1, 6)]
    journal.append(records)
    journal.write()
    path = journal_files(tmp_path)[0]
    data = path.read_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        found, noted = records_in(tmp_path)
        assert len(found) == 4, place
        assert [one for one in records if one in found] == found
        assert noted or found == records[:4]  # the last one may look cut off


class Limit:
    """No file of this process grows above a size, as on a full disk."""

    def __init__(self, size):
        self._size, self._before = size, resource.getrlimit(resource.RLIMIT_FSIZE)

    def __enter__(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._size, self._before[1]))

    def __exit__(self, *error):
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


def test_what_cannot_be_written_stays_in_memory_and_in_order(journal, tmp_path):
    journal.append([b"a" * 50])
    journal.sync()
    with Limit(100):
        journal.append([b"b" * 60])
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                journal.sync()
            assert records_in(tmp_path) == ([b"a" * 50], False)
        journal.rotate()
        journal.append([b"c" * 10])
        with pytest.raises(OSError, match="File too large"):
            journal.write()
    journal.append([b"d"])
    journal.sync()
    assert records_in(tmp_path) == ([b"a" * 50, b"b" * 60, b"c" * 10, b"d"], False)


def test_what_the_disk_forgot_is_written_again(journal, tmp_path, monkeypatch):
    """After a failed fsync the pages of a file are gone, though the file system no longer says so."""
    journal.append([b"one"])
    journal.sync()
    journal.append([b"two"])
    journal.write()

    def fails(handle):
        raise OSError(5, os.strerror(5))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="Input/output"):
            journal.sync()
    assert records_in(tmp_path) == ([b"one"], False)
    journal.append([b"three"])
    journal.sync()
    assert records_in(tmp_path) == ([b"one", b"two", b"three"], False)


def copied_while_open(store, to):
    """Copy a store as a kill would leave it: what is written now, and nothing afterwards."""
    shutil.copytree(store.source, to)
    return to


def unsaved(tmp_path, monkeypatch, changes=12):
    """Return a copy of a store whose changes are in the journal only, and what they are."""
    monkeypatch.setattr("hrvol.volume.drawing_store.keeper.SAVE", 60)
    store = create(tmp_path / "strokes.ome.zarr", classes=CLASSES)
    states = [(store.read(ALL), store.classes)]
    for number in range(changes):
        act(store, number)
        states.append((store.read(ALL), store.classes))
    store._keeper._journal.sync()
    copy = copied_while_open(store, tmp_path / "killed.ome.zarr")
    assert not (copy / "0/c").exists()
    store.close()
    return copy, states


def same(store, state):
    return np.array_equal(store.read(ALL), state[0]) and store.classes == state[1]


def test_a_journal_is_repeated_and_then_gone(tmp_path, monkeypatch):
    killed, states = unsaved(tmp_path, monkeypatch)
    for _ in range(2):
        with DrawingStore.open(killed) as store:
            assert same(store, states[-1])
            assert store.steps == (0, 0)
        assert journal_files(killed / "0/.drawing") == []


def test_a_journal_is_repeated_over_what_is_stored_already(tmp_path, monkeypatch):
    """Killed after the chunks were written, before the journal was deleted."""
    killed, states = unsaved(tmp_path, monkeypatch)
    (path,) = journal_files(killed / "0/.drawing")
    data = path.read_bytes()
    with DrawingStore.open(killed):
        pass
    path.write_bytes(data)
    with DrawingStore.open(killed) as store:
        assert same(store, states[-1])
        assert store.counts().planes == {
            v: {int(z): int((states[-1][0][z] == v).sum()) for z in range(7) if (states[-1][0][z] == v).any()}
            for v in (1, 2)
        }


def test_a_cut_off_journal_gives_an_earlier_state_and_a_damaged_one_is_kept(tmp_path, monkeypatch, caplog):
    killed, states = unsaved(tmp_path, monkeypatch)
    (path,) = journal_files(killed / "0/.drawing")
    data = path.read_bytes()
    ends = np.cumsum([12 + len(record) for record in read_records(path)[0]])
    assert len(ends) == len(states) - 1
    for number, copy in ((3, "three"), (11, "eleven")):
        shutil.copytree(killed, tmp_path / copy)
        other = journal_files(tmp_path / copy / "0/.drawing")[0]
        other.write_bytes(data[: ends[number] - 1])
        with DrawingStore.open(tmp_path / copy) as store:
            assert same(store, states[number])
    assert not caplog.records
    damaged = bytearray(data)
    damaged[ends[1] + 30] ^= 1  # in the third of them
    path.write_bytes(damaged)
    with DrawingStore.open(killed) as store:
        assert "found a damaged journal" in caplog.text
        expected = create(tmp_path / "without.ome.zarr", classes=CLASSES)
        for number in (0, 1, *range(3, 12)):
            act(expected, number)
        assert np.array_equal(store.read(ALL), expected.read(ALL))
        expected.close()
    assert (killed / "0/.drawing/damaged-00000001.bin").read_bytes() == damaged


def test_an_edit_of_many_records_is_repeated_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr("hrvol.volume.drawing_store.piece.MOST_VOXELS", 2000)
    monkeypatch.setattr("hrvol.volume.drawing_store.keeper.SAVE", 60)
    with create(tmp_path / "strokes.ome.zarr", classes=CLASSES) as store:
        states = [(store.read(ALL), store.classes)]
        for change in (lambda: store.paint(ALL, 1), lambda: store.merge_classes(1, 2), store.undo):
            change()
            states.append((store.read(ALL), store.classes))
        store._keeper._journal.sync()
        shutil.copytree(store.source, tmp_path / "killed.ome.zarr")
    (path,) = journal_files(tmp_path / "killed.ome.zarr/0/.drawing")
    data = path.read_bytes()
    ends = np.cumsum([12 + len(record) for record in read_records(path)[0]])
    each = len(ends) // 3
    assert each > 10
    for number in (0, 1, each - 2, each - 1, each, 2 * each - 1, 2 * each, 3 * each - 2, 3 * each - 1):
        copy = tmp_path / f"{number}.ome.zarr"
        shutil.copytree(tmp_path / "killed.ome.zarr", copy)
        journal_files(copy / "0/.drawing")[0].write_bytes(data[: ends[number]])
        with DrawingStore.open(copy) as again:
            assert same(again, states[(number + 1) // each]), number


def test_a_large_journal_is_repeated_file_by_file(tmp_path, monkeypatch):
    monkeypatch.setattr("hrvol.volume.drawing_store.piece.MOST_VOXELS", 2000)
    monkeypatch.setattr("hrvol.volume.drawing_store.journal.SPLIT", 1000)
    monkeypatch.setattr("hrvol.volume.drawing_store.keeper.SAVE", 60)
    killed = tmp_path / "killed.ome.zarr"
    with create(tmp_path / "strokes.ome.zarr", classes=CLASSES) as store:
        store.paint(disc((1, 20, 20)), 2)
        state = store.read(ALL), store.classes
        store.paint(ALL, 1)
        store._keeper._journal.sync()
        shutil.copytree(store.source, killed)
    files = journal_files(killed / "0/.drawing")
    assert len(files) > 2
    assert all(path.stat().st_size < 2000 for path in files)
    shutil.copytree(killed, tmp_path / "whole.ome.zarr")
    with DrawingStore.open(tmp_path / "whole.ome.zarr") as again:
        assert (again.read(ALL) == 1).all()
    files[-1].unlink()  # the edit was not finished
    with DrawingStore.open(killed) as again:
        assert same(again, state)
        again.paint(disc((3, 50, 50)), 1)
        state = again.read(ALL), again.classes
        again._keeper._journal.sync()
        shutil.copytree(killed, tmp_path / "twice.ome.zarr")
    with DrawingStore.open(tmp_path / "twice.ome.zarr") as again:
        assert same(again, state)


@pytest.mark.parametrize("seed", range(4))
def test_a_journal_of_noise_is_refused_or_harmless(tmp_path, monkeypatch, seed):
    """Valid checksums, and contents that nobody wrote."""
    killed, _ = unsaved(tmp_path, monkeypatch, 3)
    (path,) = journal_files(killed / "0/.drawing")
    records = read_records(path)[0]
    rng = np.random.default_rng(seed)
    path.unlink()
    journal = Journal(path.parent, 1)
    for record in records:
        for _ in range(30):
            noisy = bytearray(record)
            for place in rng.integers(0, len(noisy), 3):
                noisy[place] = rng.integers(0, 256)
            journal.append([bytes(noisy[: rng.integers(0, len(noisy) + 1)]), bytes(noisy)])
    journal.sync()
    journal.close()
    with DrawingStore.open(killed) as store:
        values = store.read(ALL)
        assert {int(v) for v in np.unique(values)} <= {0, *(info.value for info in store.classes)}


def test_a_full_disk_is_reported_and_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("hrvol.volume.drawing_store.saver.RETRY", 0.05)
    monkeypatch.setattr("hrvol.volume.drawing_store.keeper.SYNC", 0.02)
    monkeypatch.setattr("hrvol.volume.drawing_store.keeper.SAVE", 0.02)
    path = tmp_path / "strokes.ome.zarr"
    store = create(path, classes=CLASSES)
    heard, failed, worked = [], threading.Event(), threading.Event()

    def listen(change):
        heard.append(change)
        if change.kind == "error":
            (failed if change.message else worked).set()

    store.subscribe(listen)
    store.paint(disc((1, 20, 20)), 1)
    store.flush()
    stored = store.read(ALL)
    with Limit(40):
        for number in range(30):
            store.paint(disc((2, 20 + number, 40)), 2)
        assert failed.wait(10)
        with pytest.raises(ResourceError, match="cannot be written: File too large; what is drawn is kept"):
            store.flush()
        assert "File too large" in store.problem
        assert not store.saved
        with pytest.raises(ResourceError):
            store.close()
        killed = copied_despite_the_limit(store, tmp_path / "killed.ome.zarr")
        store.paint(disc((3, 50, 50)), 1)
        drawn = store.read(ALL)
    assert worked.wait(10)
    deadline = time.monotonic() + 10
    while not store.saved and time.monotonic() < deadline:
        time.sleep(0.01)
    assert store.saved
    assert store.problem == ""
    assert [change.message.count("\n") for change in heard if change.kind == "error" and change.message] == [
        0
    ]
    store.close()
    with DrawingStore.open(path) as again:
        assert np.array_equal(again.read(ALL), drawn)
    with DrawingStore.open(killed) as earlier:
        assert np.array_equal(earlier.read(ALL)[1], stored[1])


def test_who_hears_that_saving_works_again_may_save_and_close(tmp_path, monkeypatch):
    monkeypatch.setattr("hrvol.volume.drawing_store.saver.RETRY", 60)
    monkeypatch.setattr("hrvol.volume.drawing_store.keeper.SAVE", 60)
    store = create(tmp_path / "strokes.ome.zarr", classes=CLASSES)
    closed = threading.Event()

    def close(change):
        if change.kind == "error" and not change.message:
            store.paint(disc((2, 20, 20)), 2)
            store.flush()
            store.close()
            closed.set()

    store.subscribe(close)
    with Limit(40):
        store.paint(disc((1, 20, 20)), 1)
        with pytest.raises(ResourceError):
            store.flush()
    threading.Thread(target=store.flush, daemon=True).start()
    assert closed.wait(30)
    with DrawingStore.open(tmp_path / "strokes.ome.zarr") as again:
        assert {*again.counts().planes} == {1, 2}


def copied_despite_the_limit(store, to):
    subprocess.run(
        ["bash", "-c", 'ulimit -S -f unlimited && cp -r "$0" "$1"', store.source, str(to)], check=True
    )
    return to


def test_a_value_means_one_class_for_ever(tmp_path, monkeypatch):
    """What is undone is not used again: another class would take over what others remember of it."""
    monkeypatch.setattr("hrvol.volume.drawing_store.keeper.SAVE", 60)
    with create(tmp_path / "strokes.ome.zarr", classes=CLASSES) as store:
        assert [store.add_class(name) for name in "ab"] == [3, 4]
        store.undo()
        store.undo()
        assert store.classes == CLASSES
        store._keeper._journal.sync()
        killed = copied_while_open(store, tmp_path / "killed.ome.zarr")
        assert store.add_class("c") == 5
        store.undo()
    for path, expected in ((store.source, 6), (killed, 5)):
        with DrawingStore.open(path) as again:
            assert again.classes == CLASSES
            assert again.add_class("d") == expected


def test_strokes_that_training_does_not_see_are_named(tmp_path, monkeypatch, caplog):
    killed, states = unsaved(tmp_path, monkeypatch)
    open_strokes(killed)
    (record,) = caplog.records
    assert "killed.ome.zarr: found strokes of a killed process that are not stored yet" in record.message
    caplog.clear()
    with DrawingStore.open(killed) as store:
        store.paint(disc((6, 80, 80)), 1)
        store._keeper._journal.sync()
        open_strokes(killed)  # they are stored soon
    assert np.array_equal(open_strokes(killed).read(ALL)[:6], states[-1][0][:6])
    assert not caplog.records


def test_a_script_that_ends_without_closing_saves_all_chunks(tmp_path):
    path = tmp_path / "strokes.ome.zarr"
    script = "; ".join(
        [
            "import numpy as np",
            "from hrvol.volume.drawing_store.store import DrawingStore",
            "from hrvol.volume.volume import open_volume",
            f"store = DrawingStore.create({str(path)!r}, open_volume(np.zeros((8, 9, 9), np.uint8)))",
            "store.paint((slice(0, 8), slice(0, 4), slice(0, 4)), 1)",
        ]
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
    assert journal_files(path / "0/.drawing") == []
    assert count_strokes(open_strokes(path)).planes == {1: dict.fromkeys(range(8), 16)}
