"""Other accounts of a machine stay out of a run of engine local: its ports, its folders, its imports."""

import os
import stat
import tempfile
from multiprocessing import forkserver, resource_tracker

import pytest
from other_account import intrusions, listening

from hrvol.engine.engine import open_engine
from hrvol.engine.spec import EngineSpec

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as another account")


def own_process(task):
    return os.getpid()


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    """A folder for temporary files in which another account has prepared what Dask used to use."""
    folder = tmp_path_factory.mktemp("shared")
    victim = folder / "victim"
    victim.write_text("a thesis")
    (folder / "dask-scratch-space").mkdir()
    for name in ("global.lock", "purge.lock"):
        (folder / "dask-scratch-space" / name).symlink_to(victim)
    patch = pytest.MonkeyPatch()
    patch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def run(temporary):
    """A run with two workers: its ports, and the modes of its folders."""
    before = listening(os.getpid())
    with open_engine(EngineSpec("local", 2)) as engine:
        workers = {outcome.value for outcome in engine.map_bounded(own_process, range(8))}
        addresses = [address for address in listening(os.getpid(), *workers) if address not in before]
        yield addresses


def test_all_ports_are_on_the_loopback_interface(run):
    assert {host for host, _ in run} == {"127.0.0.1"}
    assert len(run) == 1 + 2 + 2  # of the scheduler, nannies, workers: none for HTTP


@as_root
def test_another_account_gets_nothing_from_any_port(run, tmp_path):
    tmp_path.chmod(0o755)
    assert intrusions(run, tmp_path) == []


def test_the_folder_of_a_run_is_private_and_has_a_name_of_its_own(run, temporary):
    assert (temporary / "victim").read_text() == "a thesis"
    (folder,) = (path for path in temporary.iterdir() if path.name.startswith("hrvol-"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in (temporary / "dask-scratch-space").iterdir()) == [
        "global.lock",
        "purge.lock",
    ]


TRAP = "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\nraise SystemExit(1)\n"


@pytest.fixture
def trapped(tmp_path, monkeypatch, own_forkserver):
    """The current folder, which has modules with the names of the standard library's."""
    for name in ("signal", "struct", "selectors", "pickle", "threading"):
        (tmp_path / f"{name}.py").write_text(TRAP)
    monkeypatch.chdir(tmp_path)
    # Helper processes start anew, and import no more than they need.
    monkeypatch.setattr(forkserver._forkserver, "_preload_modules", [])
    tracker = resource_tracker._resource_tracker
    handle, process = tracker._fd, tracker._pid
    tracker._fd = tracker._pid = None
    yield tmp_path
    if tracker._fd is not None and tracker._fd != handle:
        os.close(tracker._fd)
    tracker._fd, tracker._pid = handle, process


def test_nothing_in_the_current_folder_is_imported(trapped):
    with open_engine(EngineSpec("local", 1)) as engine:
        (outcome,) = engine.map_bounded(own_process, [0])
    assert outcome.ok
    assert list(trapped.glob("*.ran")) == []
