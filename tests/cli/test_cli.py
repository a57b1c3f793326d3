"""The command line: what it prints, what it writes, how it ends."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from colour_data import make_coloured, write_ome
from run_data import draw

from hrvol.cli import main
from hrvol.features import featuriser
from hrvol.volume.ome.labels import open_label_store
from hrvol.volume.volume import open_labels

RECIPE = """
features: {kind: classical, classical: {filters: [gaussian, sobel], sigmas: [1, 2]}}
classifier: {trees: 5, samples_per_class: 300}
tiles: {core: 64, overlap: 12, planes: 2}
"""
DEEP = RECIPE.replace("kind: classical", "kind: deep", 1)


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def fails(*arguments, code=1):
    """Run what must fail; return its one line."""
    result = run(*arguments, code=code)
    lines = [line for line in result.stderr.splitlines() if line.startswith("hrvol")]
    assert result.stderr.count("hrvol: error: ") == 1
    assert "Traceback" not in result.stderr
    assert lines[-1] == result.stderr.splitlines()[-1]
    return lines[-1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a volume, strokes, truth, a recipe, a model and its result."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    truth = np.ones((3, 70, 100), np.uint8)
    truth[:, 20:50, 30:80] = 2
    image = np.clip(np.where(truth == 2, 160, 80) + rng.normal(0, 15, truth.shape), 0, 255).astype(np.uint8)
    strokes = np.zeros_like(truth)
    strokes[1, :, ::9] = truth[1, :, ::9]
    zarr.save_array(folder / "volume.zarr", image)
    tifffile.imwrite(folder / "strokes.tif", strokes, photometric="minisblack")
    tifffile.imwrite(folder / "truth.tif", truth, photometric="minisblack")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "deep.yaml").write_text(DEEP)
    run(
        *("train", folder / "volume.zarr", folder / "strokes.tif", "-o", folder / "m.hrvol"),
        *("--recipe", folder / "recipe.yaml", "--classes", "matrix, grain"),
    )
    run(
        "segment",
        folder / "volume.zarr",
        folder / "out.ome.zarr",
        "-m",
        folder / "m.hrvol",
        "--engine",
        "serial",
    )
    return folder


def test_help_teaches_every_command():
    text = run("--help").output
    assert "hrvol demo" in text
    assert "hrvol train   volume.ome.zarr strokes.tif -o phases.hrvol" in text
    for name, command in main.commands.items():
        assert name in text
        assert "Example" in run(name, "--help").output, command


def test_without_arguments_the_help_is_shown():
    assert run().output == run("--help").output


def test_version():
    from hrvol import __version__

    assert run("--version").output.strip() == f"hrvol, version {__version__}"


def test_train_says_what_it_used(place):
    result = run(
        *("train", place / "volume.zarr", place / "strokes.tif", "-o", place / "again.hrvol"),
        *("--recipe", place / "recipe.yaml", "--seed", 3),
    )
    assert "class 1" in result.output
    assert "300" in result.output
    assert "features of strokes: 100 %" in result.stderr


def test_segment_writes_labels_and_says_shares_and_rate(place):
    result = run(
        *("segment", place / "volume.zarr", place / "seg.ome.zarr", "-m", place / "m.hrvol"),
        *("--engine", "serial", "--probabilities", "--uncertainty"),
    )
    assert "grain" in result.output
    assert "voxels/s" in result.output
    assert "segment: 100 %" in result.stderr
    store = open_label_store(place / "seg.ome.zarr")
    assert store.complete
    assert [plan.path for plan in store.images] == ["labels/hrvol", "probabilities", "uncertainty"]
    np.testing.assert_array_equal(
        open_labels(place / "seg.ome.zarr").read(), open_labels(place / "out.ome.zarr").read()
    )


def test_segment_with_a_region_and_fresh(place):
    arguments = ("segment", place / "volume.zarr", place / "roi.ome.zarr", "-m", place / "m.hrvol")
    run(*arguments, "--engine", "serial", "--roi", "1:2,:,10:30")
    labels = open_labels(place / "roi.ome.zarr").read()
    assert labels[1, :, 10:30].all()
    assert (labels > 0).sum() == 70 * 20
    run(*arguments, "--engine", "serial", "--fresh")
    assert open_labels(place / "roi.ome.zarr").read().all()


def test_evaluate_as_table_and_as_json(place):
    text = run("evaluate", place / "out.ome.zarr", place / "truth.tif").stdout
    assert text.splitlines()[0].split() == ["class", "IoU", "Dice"]
    assert text.splitlines()[1].startswith("matrix")
    figures = json.loads(run("evaluate", place / "out.ome.zarr", place / "truth.tif", "--json").stdout)
    assert figures["miou"] > 0.9
    assert set(figures["iou"]) == {"matrix", "grain"}
    assert {"dice", "accuracy", "confusion"} <= set(figures)
    named = run("evaluate", place / "out.ome.zarr", place / "truth.tif", "--json", "--classes", "a,b")
    assert set(json.loads(named.stdout)["iou"]) == {"a", "b"}


def test_features_are_stored_reduced_or_whole(place):
    common = ("features", place / "volume.zarr", "--recipe", place / "recipe.yaml")
    run(*common, place / "pca.zarr", "--components", 3, "--roi", "0:2,5:45,:")
    reduced = zarr.open_array(place / "pca.zarr", mode="r")
    assert reduced.shape == (3, 2, 40, 100)
    run(*common, place / "full.zarr", "--full", "--roi", "0:2,5:45,:")
    full = zarr.open_array(place / "full.zarr", mode="r")
    assert full.attrs["hrvol"]["complete"]
    assert full.shape[0] == len(full.attrs["channels"])
    # A principal component is a linear map of the standardised channels.
    columns = full[:].reshape(full.shape[0], -1).T
    design = np.column_stack([columns, np.ones(len(columns))])
    for component in reduced[:].reshape(3, -1):
        fit = design @ np.linalg.lstsq(design, component, rcond=None)[0]
        assert abs(fit - component).max() < 1e-3 * np.ptp(component)


def test_info_of_a_volume_labels_and_a_model(place):
    volume = json.loads(run("info", place / "volume.zarr", "--json").output)
    assert volume["kind"] == "volume"
    assert volume["shape"] == [3, 70, 100]
    assert volume["dtype"] == "uint8"
    labels = json.loads(run("info", place / "out.ome.zarr", "--json").output)
    assert labels["kind"] == "labels"
    assert labels["classes"] == {"1": "matrix", "2": "grain"}
    assert labels["complete"] is True
    model = json.loads(run("info", place / "m.hrvol", "--json").output)
    assert model["kind"] == "model"
    assert model["features"] == "classical"
    assert "3 x 70 x 100" in run("info", place / "volume.zarr").output


def test_weights_are_listed_and_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path))
    assert "dinov2_vits14" in run("weights", "list").output
    assert "fetch" in fails("weights", "path", "dinov2_vits14")
    assert "not known" in fails("weights", "fetch", "dinov9")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No weights anywhere on this machine, nor in this process."""
    monkeypatch.setattr(featuriser, "_LOADED", {})
    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))


def segment_of(place, volume, out, model="m.hrvol"):
    return "segment", volume, out, "-m", place / model, "--engine", "serial"


def test_a_path_that_does_not_exist(place, tmp_path):
    line = fails(*segment_of(place, tmp_path / "none.zarr", tmp_path / "o.ome.zarr"))
    assert "none.zarr: no such file" in line
    assert "none.hrvol" in fails(
        *segment_of(place, place / "volume.zarr", tmp_path / "o", tmp_path / "none.hrvol")
    )
    assert not list(tmp_path.iterdir())


def test_a_zarr_group_with_no_array(place, tmp_path):
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    line = fails(*segment_of(place, tmp_path / "empty.zarr", tmp_path / "o.ome.zarr"))
    assert "empty.zarr: found a group with no array" in line


def test_a_colour_image_and_a_model_of_grey(place, tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((50, 60, 3), np.uint8), photometric="rgb")
    line = fails(*segment_of(place, tmp_path / "rgb.tif", tmp_path / "o.ome.zarr"))
    assert "rgb.tif: found a colour volume (red, green, blue), expected a grey one" in line
    assert "--channel" in line
    run(*segment_of(place, tmp_path / "rgb.tif", tmp_path / "o.ome.zarr"), "--channel", "mean")
    line = fails(*segment_of(place, tmp_path / "rgb.tif", tmp_path / "o.ome.zarr"), "--channel", "1")
    assert 'input.channel was "mean", now 1' in line


def test_colour_from_strokes_to_labels(place, tmp_path):
    colours, truth = make_coloured((2, 70, 100))
    write_ome(tmp_path / "v.ome.zarr", np.moveaxis(colours, 3, 0), "czyx", ("red", "green", "blue"))
    tifffile.imwrite(tmp_path / "s.tif", draw(truth, (0,)), photometric="minisblack")
    (tmp_path / "r.yaml").write_text(RECIPE.replace("sigmas: [1, 2]", "sigmas: [1, 2], colour: channels"))
    trained = ("-o", tmp_path / "m.hrvol", "--recipe", tmp_path / "r.yaml")
    run("train", tmp_path / "v.ome.zarr", tmp_path / "s.tif", *trained)
    assert json.loads(run("info", tmp_path / "m.hrvol", "--json").stdout)["input"] == "colour"
    assert json.loads(run("info", tmp_path / "v.ome.zarr", "--json").stdout)["channels"] == 3
    arguments = segment_of(place, tmp_path / "v.ome.zarr", tmp_path / "o.ome.zarr", tmp_path / "m.hrvol")
    run(*arguments)
    assert (open_labels(tmp_path / "o.ome.zarr").read() == truth).mean() > 0.9
    line = fails(*arguments, "--fresh", "--channel", "green")
    assert "found a grey volume, expected red, green and blue" in line
    assert "trained on colour" in line
    line = fails(*arguments, "--fresh", "--channel", "violet")
    assert "found channels named red, green, blue, expected one named 'violet'" in line
    arguments = segment_of(place, tmp_path / "v.ome.zarr", tmp_path / "p.ome.zarr", tmp_path / "m.hrvol")
    plan = run("plan", *arguments[1:], "--json")
    assert json.loads(plan.stdout)["blocks"] == 2


def test_strokes_of_another_shape(place, tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.ones((3, 70, 99), np.uint8), photometric="minisblack")
    line = fails("train", place / "volume.zarr", tmp_path / "s.tif", "-o", tmp_path / "m.hrvol")
    assert "s.tif" in line
    assert "(3, 70, 99)" in line
    assert "(3, 70, 100)" in line


def test_strokes_with_one_class(place, tmp_path):
    strokes = np.zeros((3, 70, 100), np.uint8)
    strokes[1, 5, 5:50] = 2
    tifffile.imwrite(tmp_path / "s.tif", strokes, photometric="minisblack")
    line = fails("train", place / "volume.zarr", tmp_path / "s.tif", "-o", tmp_path / "m.hrvol")
    assert "s.tif" in line
    assert "only class 2" in line
    assert not (tmp_path / "m.hrvol").exists()


def test_a_model_made_with_other_weights(place, tmp_path):
    from dataclasses import replace

    from hrvol.segment.model.model import load_model, save_model

    save_model(replace(load_model(place / "m.hrvol"), weights_sha256="0" * 64), tmp_path / "m.hrvol")
    line = fails(*segment_of(place, place / "volume.zarr", tmp_path / "o.ome.zarr", tmp_path / "m.hrvol"))
    assert "m.hrvol" in line
    assert "0" * 64 in line
    assert not (tmp_path / "o.ome.zarr").exists()


def test_a_nan_volume(place, tmp_path):
    zarr.save_array(tmp_path / "nan.zarr", np.full((3, 70, 100), np.nan, np.float32))
    line = fails(*segment_of(place, tmp_path / "nan.zarr", tmp_path / "o.ome.zarr"))
    assert "nan.zarr: found nan at z=0, y=0, x=0" in line
    assert "was not written" in line
    assert not (tmp_path / "o.ome.zarr").exists()
    arguments = ("train", tmp_path / "nan.zarr", place / "strokes.tif", "-o", tmp_path / "m.hrvol")
    assert "nan.zarr: found nan" in fails(*arguments, "--recipe", place / "recipe.yaml")


def test_some_blocks_that_fail_are_listed_and_the_output_is_not_complete(place, tmp_path):
    image = zarr.open_array(place / "volume.zarr", mode="r")[:].astype(np.float32)
    image[2, 3, 4] = np.inf
    zarr.save_array(tmp_path / "bad.zarr", image)
    line = fails(*segment_of(place, tmp_path / "bad.zarr", tmp_path / "o.ome.zarr"))
    assert "1 of 4 blocks failed" in line
    assert "is not complete" in line
    assert "inf at z=2, y=3, x=4" in line
    assert not open_label_store(tmp_path / "o.ome.zarr").complete
    result = run("info", tmp_path / "o.ome.zarr", "--json")
    assert json.loads(result.output)["complete"] is False


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_model(place, tmp_path, damage):
    whole = (place / "m.hrvol").read_bytes()
    data = {"cut": whole[: len(whole) // 2], "text": b"not a model", "empty": b""}[damage]
    (tmp_path / "m.hrvol").write_bytes(data)
    line = fails(*segment_of(place, place / "volume.zarr", tmp_path / "o.ome.zarr", tmp_path / "m.hrvol"))
    assert "m.hrvol" in line
    assert not (tmp_path / "o.ome.zarr").exists()


def test_a_missing_weight_offline(place, offline, tmp_path):
    out = tmp_path / "m.hrvol"
    line = fails(
        *("train", place / "volume.zarr", place / "strokes.tif", "-o", out),
        *("--recipe", place / "deep.yaml", "--offline"),
    )
    assert "dinov2_vits14" in line
    assert "hrvol weights fetch dinov2_vits14" in line
    assert not out.exists()
    assert "--classical-only" in fails("demo", "--out", tmp_path / "demo", "--offline")


def test_an_output_that_exists(place):
    line = fails(*segment_of(place, place / "volume.zarr", place / "out.ome.zarr"), "--probabilities")
    assert "out.ome.zarr: found a run with other settings" in line
    assert "--fresh" in line
    line = fails("train", place / "volume.zarr", place / "strokes.tif", "-o", place / "m.hrvol")
    assert "m.hrvol: exists" in line
    assert "--fresh" in line


def test_a_place_where_no_model_can_be_is_refused_before_the_work(place, tmp_path):
    train = ("train", place / "volume.zarr", place / "strokes.tif", "--recipe", place / "recipe.yaml", "-o")
    assert "no such folder" in fails(*train, tmp_path / "none" / "m.hrvol", code=2)
    before = (place / "truth.tif").read_bytes()
    assert "truth.tif: found no model" in fails(*train, place / "truth.tif", "--fresh")
    assert (place / "truth.tif").read_bytes() == before
    assert "found no model" in fails(*train, tmp_path, "--fresh")
    (tmp_path / "m.hrvol").write_bytes(b"PK\3\4cut short")
    run(*train, tmp_path / "m.hrvol", "--fresh")


def test_what_the_system_refuses_is_no_fault_of_hrvol(place):
    line = fails(*segment_of(place, place / "volume.zarr", place / "truth.tif" / "out.ome.zarr"))
    assert line.endswith("out.ome.zarr: Not a directory")


def test_label_values_with_gaps_are_shown_without_the_gaps(tmp_path):
    truth = np.array([[10, 10, 200, 200]], np.uint8)
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    tifffile.imwrite(tmp_path / "pred.tif", np.array([[10, 7, 200, 200]], np.uint8))
    shown = run("evaluate", tmp_path / "pred.tif", tmp_path / "truth.tif").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["class", "7", "10", "200", "mIoU"]
    shown = run("evaluate", tmp_path / "truth.tif", tmp_path / "truth.tif", "--classes", "a,b").stdout
    assert [line.split()[0] for line in shown.splitlines()] == ["class", "a", "b", "mIoU"]


def test_labels_of_other_shapes_are_not_compared(place, tmp_path):
    tifffile.imwrite(tmp_path / "t.tif", np.ones((3, 70, 99), np.uint8), photometric="minisblack")
    assert "(3, 70, 99)" in fails("evaluate", place / "out.ome.zarr", tmp_path / "t.tif")


def test_a_demo_folder_that_holds_something_else(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert "not from hrvol demo" in fails("demo", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("train", "a.tif", "-o", "m.hrvol"), "found 1 paths"),
        (("train", "a.tif", "b.tif"), "--output"),
        (("train", "a.tif", "b.tif", "-o", "m", "--classes", "a,,b"), "empty name"),
        (("train", "a.tif", "b.tif", "-o", "m", "--recipe", "none.yaml"), "none.yaml"),
        (("segment", "a", "b", "-m", "c", "--roi", "1:2"), "z0:z1,y0:y1,x0:x1"),
        (("segment", "a", "b", "-m", "c", "--roi", "1:2,3,:"), "'3'"),
        (("segment", "a", "b", "-m", "c", "--roi", "1:2,9:3,:"), "start < stop"),
        (("segment", "a", "b", "-m", "c", "--roi", "-1:2,:,:"), "start:stop"),
        (("segment", "a", "b", "-m", "c", "--engine", "moon"), "moon"),
        (("segment", "a", "b", "-m", "c", "--workers", "0"), "0"),
        (("features", "a", "b", "--full", "--components", "3"), "choose one"),
        (("sgement",), "sgement"),
        (("weights",), "Missing command"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(arguments, found):
    assert found in fails(*arguments, code=2)


def test_attention_needs_a_network(place, tmp_path):
    line = fails(
        *("features", place / "volume.zarr", tmp_path / "f.zarr"),
        *("--recipe", "classical", "--attention"),
        code=2,
    )
    assert "attention" in line


def test_a_fault_is_one_line_and_the_traceback_is_for_who_asks(place, monkeypatch):
    import hrvol.analysis.evaluate

    def broken(*arguments, **options):
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr(hrvol.analysis.evaluate, "evaluate_volumes", broken)
    monkeypatch.delenv("HRVOL_DEBUG", raising=False)
    line = fails("evaluate", place / "out.ome.zarr", place / "truth.tif")
    assert "ZeroDivisionError: deep inside" in line
    assert "HRVOL_DEBUG=1" in line
    monkeypatch.setenv("HRVOL_DEBUG", "1")
    result = run("evaluate", place / "out.ome.zarr", place / "truth.tif", code=1)
    assert "Traceback" in result.stderr


def test_importing_the_command_line_is_light():
    code = (
        "import sys, hrvol.cli\n"
        "heavy = {'torch', 'dask', 'distributed', 'napari', 'zarr', 'sklearn', 'scipy', 'matplotlib'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def hrvol(*arguments):
    """Arguments of the program as users run it."""
    return [sys.executable, "-c", "from hrvol.cli import main; main()", *map(str, arguments)]


def test_the_program_ends_with_the_code_and_one_line(tmp_path):
    result = subprocess.run(
        hrvol("info", tmp_path / "none.zarr"), capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [f"hrvol: error: {tmp_path}/none.zarr: no such file or folder"]


def listen_to_interrupts():
    """Undo what a shell does to jobs in the background, whose children would ignore Ctrl-C too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_is_exit_130_and_leaves_no_output_that_looks_whole(place, tmp_path):
    out = tmp_path / "o.ome.zarr"
    zarr.save_array(tmp_path / "big.zarr", np.zeros((40, 600, 600), np.uint8))
    process = subprocess.Popen(
        hrvol("segment", tmp_path / "big.zarr", out, "-m", place / "m.hrvol", "--workers", 1),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=listen_to_interrupts,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(out.glob("labels/hrvol/0/c/**/*")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "stopped by SIGINT with" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not open_label_store(out).complete
