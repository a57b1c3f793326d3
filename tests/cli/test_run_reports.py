"""Reports that runs write beside their outputs."""

import json

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from run_data import make_volume

from hrvol import save_model
from hrvol.cli import main
from hrvol.cli.common.reporting import SWITCH
from hrvol.run import block as block_module


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("reports")
    zarr.save_array(folder / "volume.zarr", make_volume()[0])
    save_model(model, folder / "m.hrvol")
    return folder


def segment(files, out, *more, code=0):
    command = ("segment", files / "volume.zarr", out, "-m", files / "m.hrvol", "--engine", "serial")
    return run(*command, *more, code=code)


def figures(page):
    assert page.read_text().startswith("<!doctype html>")
    assert page.with_name(f"{page.stem}-fractions.csv").is_file()
    return json.loads(page.with_suffix(".json").read_text())


def test_a_run_writes_a_report_once(files, tmp_path):
    out, page = tmp_path / "labels.ome.zarr", tmp_path / "labels-report.html"
    printed = segment(files, out).stdout
    assert printed.splitlines()[-1] == f"{page}: the report"
    assert figures(page)["status"]["state"] == "complete"
    assert str(files / "volume.zarr") in page.read_text()
    written = page.stat().st_mtime_ns
    assert "the report" not in segment(files, out).stdout  # nothing was computed: it stays as it is
    assert page.stat().st_mtime_ns == written
    page.unlink()
    assert "the report" in segment(files, out).stdout
    assert figures(page)["status"]["state"] == "complete"
    before = page.read_text()
    segment(files, out, "--fresh", "--roi", "0:2,:,:", "--yes")
    assert page.read_text() != before


def test_of_parts_the_last_one_writes_it(files, tmp_path):
    out, page = tmp_path / "labels", tmp_path / "labels-report.html"
    segment(files, out, "--part", "1/2")
    assert not page.exists()
    segment(files, out, "--part", "2/2")
    assert figures(page)["status"]["state"] == "complete"


def test_it_can_be_elsewhere_or_left_out(files, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = tmp_path / "a.ome.zarr"
    segment(files, out, "--no-report")
    monkeypatch.setenv(SWITCH, "0")
    segment(files, tmp_path / "b.ome.zarr")
    assert not list(tmp_path.glob("*.html"))
    segment(files, out, "--report", elsewhere / "page.html")
    assert figures(elsewhere / "page.html")["status"]["state"] == "complete"
    assert not list(tmp_path.glob("*.html"))


def test_a_file_of_others_stays_and_the_run_is_no_failure(files, tmp_path):
    page = tmp_path / "labels-report.html"
    page.write_text("mine")
    result = segment(files, tmp_path / "labels.ome.zarr")
    (line,) = [one for one in result.stderr.splitlines() if "warning" in one]
    assert line.startswith("hrvol: warning: the report was not written: ")
    assert str(page) in line
    assert page.read_text() == "mine"
    assert not page.with_suffix(".json").exists()


def test_the_report_of_another_output_stays(files, tmp_path):
    page = tmp_path / "labels-report.html"
    segment(files, tmp_path / "labels.ome.zarr")
    before = page.read_bytes()
    result = segment(files, tmp_path / "labels.zarr", "--roi", "0:2,:,:")
    assert "the report was not written: " in result.stderr
    assert "exists" in result.stderr
    segment(files, tmp_path / "other.zarr", "--report", page)
    assert page.read_bytes() == before


def test_failed_blocks_are_in_it(files, tmp_path, monkeypatch):
    predict_part = block_module.predict_part

    def failing(raw, volume, block, *arguments, **keywords):
        if block.index == (1, 0, 0):
            raise ValueError("no such luck")
        return predict_part(raw, volume, block, *arguments, **keywords)

    monkeypatch.setattr(block_module, "predict_part", failing)
    page = tmp_path / "labels-report.html"
    result = segment(files, tmp_path / "labels.ome.zarr", code=1)
    assert "the report" in result.stdout
    found = figures(page)
    assert found["status"]["state"] != "complete"
    assert found["status"]["failed"] == 1
    monkeypatch.undo()
    monkeypatch.delenv(SWITCH, raising=False)
    segment(files, tmp_path / "labels.ome.zarr")
    assert figures(page)["status"]["state"] == "complete"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--report", "a.html", "--no-report"), "choose one"),
        (("--report", "a.txt"), "expected a name that ends in .html"),
    ],
)
def test_options_that_make_no_sense(files, tmp_path, options, message):
    assert message in segment(files, tmp_path / "no", *options, code=2).stderr
    assert not (tmp_path / "no").exists()


def test_a_report_of_labels_in_the_input_is_refused(files, tmp_path):
    command = ("segment", files / "volume.zarr", "--into-input", "-m", files / "m.hrvol")
    assert "an output of its own" in run(*command, "--report", tmp_path / "a.html", code=2).stderr
    assert not (tmp_path / "a.html").exists()


def test_cluster_writes_one(files, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "features: {kind: classical, classical: {filters: [gaussian], sigmas: [1, 2]}}\n"
        "cluster: {clusters: 6, samples: 2000}\n"
    )
    out = tmp_path / "classes.ome.zarr"
    command = ("cluster", files / "volume.zarr", out, "--recipe", recipe, "--engine", "serial")
    run(*command, "--classes", 2)
    found = figures(tmp_path / "classes-report.html")
    assert len(found["classes"]) == 2
    assert np.isclose(sum(row["fraction"] for row in found["classes"]), 1)
