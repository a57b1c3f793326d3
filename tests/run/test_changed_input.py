"""An input that changes while a run goes on: no output is complete with labels of both."""

import os
import pickle
import shutil
import signal
import time

import numpy as np
import pytest
import tifffile
import zarr
from run_data import QUICK, make_volume

import hrvol.run.block as block_module
import hrvol.volume.input_state as input_state_module
from hrvol.engine.stop import Abandoned, Stop
from hrvol.errors import InputError, StoppedError, UnreadableError
from hrvol.run.extract_features import extract_features
from hrvol.run.segment import segment_volume
from hrvol.volume.chunk_cache import ChunkCache
from hrvol.volume.input_state import input_state
from hrvol.volume.storage.stamps import stamp_of
from hrvol.volume.volume import open_labels, open_volume

CHUNKS = (2, 75, 65)
KINDS = ["zarr 2", "shards", "tiff"]


def write(path, values, kind):
    if "tiff" in kind:
        tifffile.imwrite(path, values, compression="zlib" if "compressed" in kind else None)
    else:
        shards = (2, 150, 130) if kind == "shards" else None
        zarr_format = 2 if kind == "zarr 2" else 3
        zarr.create_array(path, data=values, chunks=CHUNKS, shards=shards, zarr_format=zarr_format)
    return path


def change(path, values, kind):
    """Replace the input by another volume, as a copy over it does."""
    other = write(path.with_name(f"other-{path.name}"), values, kind)
    if "tiff" in kind:
        os.replace(other, path)
    else:
        shutil.copytree(other, path, dirs_exist_ok=True)


def changing_at(monkeypatch, number, action):
    """Have an action happen before the ``number``-th block is read."""
    begun = []
    read = block_module.read_window

    def counted(*arguments):
        begun.append(0)
        if len(begun) == number:
            action()
        return read(*arguments)

    monkeypatch.setattr(block_module, "read_window", counted)


@pytest.fixture(scope="module")
def other():
    return 255 - make_volume(seed=1)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_an_input_that_was_replaced_are_named(tmp_path, monkeypatch, data, model, other, kind):
    image, _, _ = data
    path = write(tmp_path / ("v.tif" if "tiff" in kind else "v.zarr"), image, kind)
    with monkeypatch.context() as patch:
        changing_at(patch, 5, lambda: change(path, other, kind))
        report = segment_volume(path, tmp_path / "out.zarr", model)
    assert report.failed
    if "tiff" in kind:  # which is open all the time: nothing can be read of the new one
        assert not report.blocks
        assert not (tmp_path / "out.zarr").exists()
        return
    attributes = zarr.open_group(tmp_path / "out.zarr", mode="r").attrs["hrvol"]
    assert not attributes["complete"]
    assert all("changed during the run" in failure.reason for failure in report.failed)
    # What is left is of one input: that which is there now.
    expected = segment_volume(path, tmp_path / "again.zarr", model)
    assert not expected.failed
    labels, again = (open_labels(tmp_path / name).read() for name in ("out.zarr", "again.zarr"))
    np.testing.assert_array_equal(labels[labels > 0], again[labels > 0])
    assert (labels == 0).any()
    assert (labels > 0).any()


def test_a_block_that_changes_while_it_is_read_is_read_again(tmp_path, monkeypatch, data, model, other):
    image, _, _ = data
    path = write(tmp_path / "v.zarr", image, "zarr 3")
    read = block_module.read_window
    begun = []

    def changed(*arguments):
        raw = read(*arguments)
        begun.append(0)
        if len(begun) == 1:  # nothing else was computed
            change(path, other, "zarr 3")
        return raw

    monkeypatch.setattr(block_module, "read_window", changed)
    report = segment_volume(path, tmp_path / "out.zarr", model)
    assert not report.failed
    assert len(begun) == report.blocks + 1
    monkeypatch.undo()
    segment_volume(path, tmp_path / "again.zarr", model)
    labels, again = (open_labels(tmp_path / name).read() for name in ("out.zarr", "again.zarr"))
    np.testing.assert_array_equal(labels, again)


@pytest.mark.parametrize("what", ["one chunk", "deleted", "appeared", "mask"])
def test_small_changes_are_seen_and_only_their_blocks_fail(tmp_path, monkeypatch, data, model, what):
    image, _, _ = data
    path = write(tmp_path / "v.zarr", image, "zarr 3")
    mask = write(tmp_path / "mask.zarr", np.ones_like(image), "zarr 3")
    chunk = (mask if what == "mask" else path) / "c/0/0/1"  # none of the boxes that identify the input
    if what == "appeared":
        chunk.unlink()

    def act():
        if what == "deleted":
            chunk.unlink()
        elif what == "appeared":
            shutil.copy(path / "c/0/0/0", chunk)
        else:
            shutil.copy(chunk, chunk.with_name("new"))  # the same bytes, at another time
            os.replace(chunk.with_name("new"), chunk)

    with monkeypatch.context() as patch:
        changing_at(patch, 5, act)
        report = segment_volume(path, tmp_path / "out.zarr", model, mask=mask)
    assert 0 < len(report.failed) < 5
    again = segment_volume(path, tmp_path / "out.zarr", model, mask=mask)
    assert not again.failed
    assert again.blocks == report.blocks + len(report.failed)


@pytest.mark.parametrize("kind", ["zarr 3", "tiff"])
def test_features_of_an_input_that_was_replaced_are_not_finished(tmp_path, data, other, kind):
    path = write(tmp_path / ("v.tif" if kind == "tiff" else "v.zarr"), data[0], kind)
    reported = []

    def progress(stage, done, total):
        if stage == "features" and not reported:
            reported.append(done)
            change(path, other, kind)

    with pytest.raises(UnreadableError, match="found that it changed during the run"):
        extract_features(path, tmp_path / "out.zarr", recipe=QUICK, full=True, progress=progress)


def test_attributes_may_be_added_meanwhile(tmp_path, monkeypatch, data, model):
    path = write(tmp_path / "v.zarr", data[0], "zarr 3")
    with monkeypatch.context() as patch:
        changing_at(patch, 3, lambda: zarr.open_array(path, mode="r+").attrs.update({"seen": 1}))
        assert not segment_volume(path, tmp_path / "out.zarr", model).failed


def test_a_moved_volume_resumes(tmp_path, data, model):
    path = write(tmp_path / "v.zarr", data[0], "zarr 3")
    first = segment_volume(path, tmp_path / "out.zarr", model, part=(1, 2))
    assert first.left
    shutil.copytree(path, tmp_path / "w.zarr")
    assert not segment_volume(tmp_path / "w.zarr", tmp_path / "out.zarr", model).left


def test_cached_chunks_of_a_file_that_changed_are_read_again(tmp_path):
    values = np.arange(5 * 150 * 130, dtype=np.uint32).reshape(5, 150, 130)
    path = write(tmp_path / "v.zarr", values, "shards")
    cache, box = ChunkCache(), (slice(0, 2), slice(0, 80), slice(0, 130))
    volume = open_volume(path)

    def read():
        return cache.read(volume.array, box, None, input_state(volume, box).version)

    np.testing.assert_array_equal(read(), values[box])
    decoded = cache.decoded_chunks
    np.testing.assert_array_equal(read(), values[box])
    assert cache.decoded_chunks == decoded
    change(path, values + 1, "shards")
    np.testing.assert_array_equal(read(), values[box] + 1)


def test_a_volume_of_too_many_blocks_is_refused_before_anything_is_written(tmp_path, model):
    zarr.create_array(tmp_path / "v.zarr", shape=[100_000] * 3, chunks=[64] * 3, dtype="u1")
    for roi in (None, (slice(0, 1),) * 3):
        with pytest.raises(InputError, match=r"v\.zarr: found shape .* 1\.2e\+11 blocks, expected at most"):
            segment_volume(tmp_path / "v.zarr", tmp_path / "out.zarr", model, roi=roi)
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("kind", ["zarr 3", "tiff compressed"])
@pytest.mark.parametrize("ends", ["stopped", "killed"])
def test_a_stopped_run_of_an_input_that_changed_is_no_mixture(tmp_path, monkeypatch, data, model, ends, kind):
    if (ends, kind) == ("killed", "tiff compressed"):
        pytest.skip("a replaced file is another place: not told from a copy")
    image, _, _ = data
    path = write(tmp_path / ("v.tif" if "tiff" in kind else "v.zarr"), image, kind)
    other = image.copy()
    other[1::2] = 255 - image[1::2, ::-1]  # the three boxes that identify an input are the same
    stop = Stop()

    def act():
        change(path, other, kind)
        stop.request(signal.SIGTERM)
        if ends == "killed":
            raise Abandoned

    with monkeypatch.context() as patch:
        changing_at(patch, 5, act)
        with pytest.raises(StoppedError):
            segment_volume(path, tmp_path / "out.zarr", model, stop=stop)
    report = segment_volume(path, tmp_path / "out.zarr", model)
    assert not report.failed
    segment_volume(path, tmp_path / "again.zarr", model)
    labels, again = (open_labels(tmp_path / name).read() for name in ("out.zarr", "again.zarr"))
    np.testing.assert_array_equal(labels, again)


def test_a_change_after_a_resumed_run_began_is_seen_in_the_blocks_of_both(tmp_path, monkeypatch, data, model):
    path = write(tmp_path / "v.zarr", data[0], "zarr 3")
    segment_volume(path, tmp_path / "out.zarr", model, part=(1, 2))
    with monkeypatch.context() as patch:
        changing_at(patch, 2, lambda: os.utime(path / "c/0/0/0", ns=(0, 0)))
        report = segment_volume(path, tmp_path / "out.zarr", model)
    assert (0, 0, 0) in [failure.index for failure in report.failed]


def test_drivers_and_workers_may_see_other_times_and_numbers_of_files(tmp_path, monkeypatch, data):
    path = write(tmp_path / "v.zarr", data[0], "zarr 3")
    volume, box = open_volume(path), (slice(0, 1),) * 3
    here = input_state(volume, box).digest()

    def elsewhere(file):  # SMB keeps 100 ns, and FUSE has its own numbers
        size, when, number = stamp_of(file)
        return size, when // 100 * 100, number + 1

    monkeypatch.setattr(input_state_module, "stamp_of", elsewhere)
    assert input_state(volume, box).digest() == here
    os.utime(path / "c/0/0/0", ns=(0, 0))
    assert input_state(volume, box).digest() != here


def test_what_has_no_files_has_no_state(data):
    for volume in (open_volume(data[0]), open_volume(zarr.array(data[0]))):
        assert input_state(volume, (slice(0, 1),) * 3).digest() == 0


def test_the_state_of_a_box_survives_pickling_and_costs_little(tmp_path):
    zarr.create_array(tmp_path / "w.zarr", shape=(64, 576, 576), chunks=(64, 64, 64), dtype="u1")
    volume = open_volume(tmp_path / "w.zarr")
    box = (slice(0, 64), slice(0, 518), slice(0, 518))
    state = input_state(volume, box)
    assert len(state.files) == 82
    assert pickle.loads(pickle.dumps(state)).digest() == state.digest() != 0
    began = time.process_time()
    for _ in range(20):
        input_state(volume, box).digest()
    assert (time.process_time() - began) / 20 < 0.01
