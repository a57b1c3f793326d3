"""What a user imports, and the scripts a user copies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hrvol
from hrvol.errors import HrvolError

ROOT = Path(__file__).parents[1]


def test_public_names_exist_and_are_documented():
    for name in hrvol.__all__:
        assert getattr(hrvol, name).__doc__, name
    assert set(dir(hrvol)) >= set(hrvol.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = hrvol.nonsense


def test_importing_hrvol_imports_nothing_heavy():
    code = "import sys, hrvol, hrvol.cli, hrvol.recipe.recipe; print([m for m in sys.modules if m in %r])"
    heavy = ("torch", "dask", "distributed", "napari", "sklearn", "zarr")
    done = subprocess.run([sys.executable, "-c", code % (heavy,)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "hrvol", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"hrvol, version {hrvol.__version__}\n"


def test_every_error_has_an_exit_code_and_a_doc():
    kinds = [HrvolError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {kind.exit_code for kind in kinds} == {1, 2, 75}
    assert all(kind.__doc__ for kind in kinds)


def script(*arguments, cwd):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_local_workflow_runs_as_it_stands(tmp_path):
    import tifffile

    from hrvol.phantom import draw_strokes, make_phantom
    from hrvol.volume.volume import class_info, open_labels

    phantom = make_phantom((4, 96, 96), seed=0)
    labels = phantom.labels.clip(max=3)  # the script names three classes
    tifffile.imwrite(tmp_path / "volume.tif", phantom.image, photometric="minisblack")
    strokes = draw_strokes(labels, (1,), strokes=2)
    tifffile.imwrite(tmp_path / "strokes.tif", strokes, photometric="minisblack")
    (tmp_path / "quick.yaml").write_text("features: {kind: classical}\nclassifier: {trees: 5}\n")
    done = script(
        *(ROOT / "workflows" / "local_node.py", "volume.tif", "strokes.tif", "out.ome.zarr"),
        *("--recipe", "quick.yaml", "--workers", "1"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert open_labels(tmp_path / "out.ome.zarr").read().all()
    assert [info.name for info in class_info(tmp_path / "out.ome.zarr")] == ["pore", "binder", "particle"]


def test_the_array_example_runs_as_it_stands(tmp_path):
    done = script(ROOT / "examples" / "train_on_arrays.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 0.45
