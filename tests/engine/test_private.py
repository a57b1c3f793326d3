"""Keys of a run, private folders, the search path of child processes, and places of sockets."""

import multiprocessing.util
import os
import ssl
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from hrvol.engine.private import RunKeys, prepare_sockets, private_folder
from hrvol.engine.safe_path import safe_path
from hrvol.engine.stop import Abandoned


def test_keys_are_new_for_each_run_and_only_for_it(tmp_path):
    one, other = RunKeys.create(), RunKeys.create()
    assert one.key != other.key
    assert one.key not in repr(one)
    saved = one.saved(tmp_path)
    for path in (saved.certificate, saved.key):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    context = saved.security().get_listen_args("worker")["ssl_context"]
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    with pytest.raises(FileExistsError):
        one.saved(tmp_path)


def test_a_private_folder_leaves_nothing_behind(tmp_path):
    with suppress(Abandoned), private_folder("hrvol-", tmp_path) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "inside").mkdir()
        sys.path.insert(0, str(folder / "inside"))
        raise Abandoned("SIGTERM")
    assert list(tmp_path.iterdir()) == []
    assert not [entry for entry in sys.path if entry.startswith(str(tmp_path))]


def test_the_variable_of_the_search_path_is_restored(monkeypatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "yes")
    with safe_path():
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert os.environ["PYTHONSAFEPATH"] == "yes"


def test_the_search_path_is_safe_as_long_as_anybody_needs_it(monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    one, other = safe_path(), safe_path()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert os.environ["PYTHONSAFEPATH"] == "1"
    other.__exit__(None, None, None)
    assert "PYTHONSAFEPATH" not in os.environ


def test_a_long_path_of_temporary_files_is_no_obstacle_for_sockets(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    monkeypatch.delitem(multiprocessing.current_process()._config, "tempdir", raising=False)
    prepare_sockets()
    folder = Path(multiprocessing.util.get_temp_dir())
    assert len(str(folder)) < 60
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert tempfile.tempdir == str(deep)
