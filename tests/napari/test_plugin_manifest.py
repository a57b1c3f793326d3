"""What the plugin costs and declares, with and without a window."""

import subprocess
import sys
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "hrvol" / "napari" / "napari.yaml"


def test_importing_the_plugin_loads_neither_torch_nor_qt():
    heavy = ("torch", "qtpy", "PyQt6", "PySide6", "napari", "zarr", "sklearn", "dask", "numpy")
    modules = "hrvol.napari, hrvol.napari.readers, hrvol.napari.commands, hrvol.napari.sample_data"
    code = f"import sys, {modules}, hrvol.napari.writers; print([m for m in sys.modules if m in {heavy!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_dock_loads_neither_torch_nor_scikit_learn():
    pytest.importorskip("qtpy", exc_type=ImportError)
    heavy = ("torch", "sklearn", "skimage")
    code = f"import sys, hrvol.napari.dock; print([m for m in sys.modules if m in {heavy!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if "QtBindingsNotFoundError" in done.stderr:
        pytest.skip("no binding of Qt is installed")
    assert done.stdout.strip() == "[]", done.stderr


THIN = ("napari", "qtpy", "httpx", "zarr", "array-api-compat", "filelock")
"""What docs/how-to/remote.md installs on a machine that only draws, besides a binding of Qt."""

_REFUSE = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
import hrvol.napari.dock
from hrvol import connect
try:
    connect("http://127.0.0.1:9", token="x" * 40)
except Exception as error:
    print(type(error).__name__)
"""


def test_a_machine_that_only_draws_needs_few_packages():
    pytest.importorskip("napari")
    pytest.importorskip("httpx")
    text = " ".join((ROOT / "docs" / "how-to" / "remote.md").read_text(encoding="utf-8").split())
    assert f'pip install "napari[pyqt6]" {" ".join(THIN[1:])}' in text
    needed, ahead = set(), [*THIN, "pyqt6", "pyside6"]
    while ahead:
        name = canonicalize_name(ahead.pop())
        if name in needed:
            continue
        needed.add(name)
        with suppress(PackageNotFoundError):
            wanted = map(Requirement, requires(name) or ())
            ahead += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    refused = sorted(
        module
        for module, owners in packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & (needed | {"hrvol"})
    )
    assert {"torch", "sklearn", "distributed", "timm"} <= set(refused)
    code = _REFUSE.format(refused=set(refused))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if "QtBindingsNotFoundError" in done.stderr:
        pytest.skip("no binding of Qt is installed")
    assert done.stdout.strip() == "ServerError", done.stderr


def test_the_manifest_is_valid_and_its_commands_exist():
    npe2 = pytest.importorskip("npe2", reason="napari is not installed")
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    commands = {command.id for command in manifest.contributions.commands}
    items = manifest.contributions.menus["napari/layers/segment"]
    assert {item.command for item in items} <= commands
    for command in manifest.contributions.commands:
        module, _, name = command.python_name.partition(":")
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
        assert f"def {name}(" in source or f"class {name}(" in source


def test_the_project_declares_the_plugin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["napari.manifest"] == {"hrvol": "hrvol.napari:napari.yaml"}
    assert "Framework :: napari" in project["classifiers"]
    assert not [
        name
        for name in project["optional-dependencies"]["napari"]
        if "pyqt" in name.lower() or "pyside" in name.lower()
    ]


def test_readers_take_the_formats_of_the_library(plugin):
    from hrvol.volume.importers.registry import FORMATS

    patterns = {
        pattern.lower()
        for reader in plugin.get_manifest("hrvol").contributions.readers
        for pattern in reader.filename_patterns
    }
    # Any file may end in .raw, .dat or .bin; PNG and JPEG images are napari's own.
    others = {".raw", ".vol", ".bin", ".dat", ".img", ".png", ".jpg", ".jpeg", ".he5", ".nx5"}
    suffixes = {suffix for known in FORMATS for suffix in known.suffixes} - others
    assert {f"*{suffix}" for suffix in suffixes if suffix.count(".") == 1} <= patterns | {"*.mrcs"}
