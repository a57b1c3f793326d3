"""Files are written whole or not at all."""

import os

import pytest

from hrvol.errors import OutputExistsError, UsageError
from hrvol.files import MODEL, atomic_write, check_file, check_picture


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with atomic_write(path) as partial:
        assert (partial.parent, partial.suffix) == (tmp_path, ".png")
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(path) as partial:  # noqa: PT012
        partial.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_durable_file_is_flushed_before_its_name_is(tmp_path, monkeypatch):
    path, flushed, fsync = tmp_path / "m.hrvol", [], os.fsync

    def watched(handle):
        flushed.append((os.readlink(f"/proc/self/fd/{handle}"), path.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    with atomic_write(path) as partial:
        partial.write_bytes(b"quick")
    assert flushed == []
    path.unlink()
    with atomic_write(path, durable=True) as partial:
        partial.write_bytes(b"safe")
    assert flushed == [(str(partial), False), (str(tmp_path), True)]


def test_what_may_be_overwritten(tmp_path):
    path = tmp_path / "m.hrvol"
    assert check_file(str(path), MODEL, overwrite=False) == path
    path.write_bytes(b"damaged")
    assert check_file(path, MODEL, overwrite=True) == path
    with pytest.raises(OutputExistsError, match=r"m\.hrvol: exists already"):
        check_file(path, MODEL, overwrite=False)
    other = tmp_path / "m.txt"
    other.write_bytes(b"notes")
    with pytest.raises(OutputExistsError, match=r"m\.txt: found no model, expected"):
        check_file(other, MODEL, overwrite=True)
    with pytest.raises(UsageError, match=r"found \.txt, expected \.png"):
        check_picture(other, overwrite=True)
    with pytest.raises(UsageError, match="no such folder"):
        check_file(tmp_path / "no" / "m.hrvol", MODEL, overwrite=True)
