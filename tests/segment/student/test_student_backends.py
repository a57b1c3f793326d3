"""Students computed by OpenVINO: the same network, the same bits from any thread, and one backend a run."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from student_data import CUBIC, FLAT, KINDS, grey, student, student_model

import hrvol.backend as backend_module
from hrvol.backend import choose_backend
from hrvol.cli import main
from hrvol.errors import DeviceError, OtherRunError, UsageError
from hrvol.run.segment import segment_volume
from hrvol.segment.model.model import save_model
from hrvol.segment.student.runner import StudentRunner
from hrvol.segment.student.spec import StudentSpec

pytest.importorskip("openvino")

FINEST = StudentSpec(widths=(4, 6), stem=(1, 1, 1), pools=((1, 4, 4),), depth_kernels=(1, 1), planes=3)
ALONE = FLAT.model_copy(update={"normalisation": "alone", "decoder_convolutions": 2})
BFLOAT16 = choose_backend("auto", "cpu").name == "openvino-bf16"
FAST = choose_backend("auto", "cpu").name


def window_of(spec, seed=0):
    cell = (8, 64, 64) if spec.is_3d else (2, 64, 64)
    shape = [side + 2 * around for side, around in zip(cell, spec.halo, strict=True)]
    return np.random.default_rng(seed).random(shape, np.float32)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("spec", [*KINDS.values(), FINEST, ALONE], ids=repr)
def test_openvino_computes_the_network_of_torch(spec, classes):
    taught = student(spec, range(1, classes + 1), temperature=1.5)
    expected = np.asarray(StudentRunner(taught).scores(window_of(spec)).values)
    found = StudentRunner(taught, backend="openvino").scores(window_of(spec)).values
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.skipif(not BFLOAT16, reason="this processor has no instructions for bfloat16")
@pytest.mark.parametrize("spec", [FLAT, CUBIC], ids=repr)
def test_bfloat16_changes_few_labels(spec):
    taught = student(spec)
    exact = np.asarray(StudentRunner(taught).scores(window_of(spec)).values)
    rounded = np.asarray(StudentRunner(taught, backend="openvino-bf16").scores(window_of(spec)).values)
    assert not np.array_equal(exact, rounded)
    assert (exact.argmax(0) != rounded.argmax(0)).mean() < 0.02


def test_threads_and_earlier_windows_change_no_bit():
    runner = StudentRunner(student(FLAT), backend=FAST)
    windows = [window_of(FLAT, seed) for seed in range(4)]
    one_by_one = [np.array(runner.scores(window).values) for window in windows]
    with ThreadPoolExecutor(3) as pool:
        at_once = list(pool.map(lambda window: runner.scores(window).values, windows * 3))
    for number, found in enumerate(at_once):
        np.testing.assert_array_equal(found, one_by_one[number % 4])


def test_a_run_is_resumed_with_its_backend_only(tmp_path):
    volume, model = grey((2, 100, 90)), student_model()
    assert not segment_volume(volume, tmp_path / "torch", model, part=(1, 2), backend="torch").failed
    assert "backend" not in zarr.open_group(tmp_path / "torch").attrs["hrvol"]
    out = tmp_path / "out"
    segment_volume(volume, out, model, backend="openvino")
    recorded = zarr.open_group(out).attrs["hrvol"]["backend"]
    assert recorded["name"] == "openvino"
    assert set(recorded["versions"]) == {"openvino"}
    with pytest.raises(OtherRunError, match=r'backend\.name was "openvino", now null'):
        segment_volume(volume, out, model, backend="torch")
    with pytest.raises(OtherRunError, match=r'backend\.name was null, now "openvino"'):
        segment_volume(volume, tmp_path / "torch", model, part=(2, 2), backend="openvino")
    segment_volume(volume, out, model, backend="openvino")


def test_auto_is_the_fastest_that_is_installed(monkeypatch):
    assert choose_backend("auto", "cpu").name in ("openvino", "openvino-bf16")
    assert choose_backend("auto", "cuda").name == "torch"
    monkeypatch.setattr(backend_module, "_PACKAGE", "openvino_is_not_installed")
    choice = choose_backend("auto", "cpu")
    assert (choice.name, "hrvol[cpu]" in choice.why) == ("torch", True)


def test_what_cannot_be_had_is_said(tmp_path, monkeypatch, capsys):
    with pytest.raises(UsageError, match="found openvino for the device cuda, expected torch"):
        choose_backend("openvino", "cuda")
    with pytest.raises(UsageError, match="backend: found 'onnx', expected auto, torch, "):
        segment_volume(grey((1, 64, 64)), tmp_path / "out", student_model(), backend="onnx")
    monkeypatch.setattr(backend_module, "_PACKAGE", "openvino_is_not_installed")
    with pytest.raises(DeviceError, match=r"openvino: found no openvino on .*hrvol\[cpu\]"):
        StudentRunner(student(FLAT), backend="openvino")
    zarr.create_array(tmp_path / "v.zarr", data=grey((1, 64, 64)))
    save_model(student_model(), tmp_path / "m.hrvol")
    volume, model, out = (str(tmp_path / name) for name in ("v.zarr", "m.hrvol", "o"))
    with pytest.raises(SystemExit) as ended:
        main(["segment", volume, out, "-m", model, "--backend", "openvino"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code != 0
    assert len(lines) == 1
    assert "found no openvino" in lines[0]
    assert not (tmp_path / "o").exists()
