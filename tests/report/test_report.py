"""Reports: what they show of small runs of all kinds; texts of files stay texts; files that exist stay."""

import csv
import json
import re
import shlex
import shutil
import subprocess
from contextlib import suppress
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from run_data import QUICK, draw, make_volume
from student_data import student_model, taught

from hrvol import cluster_volume, measure_labels, open_volume, save_model, segment_volume, write_report
from hrvol.cli import main
from hrvol.engine.stop import Stop
from hrvol.errors import InputError, OutputExistsError, StoppedError, UsageError
from hrvol.report import planes as counting
from hrvol.report import sections as drawing
from hrvol.report import view as viewing
from hrvol.run.clean.clean_labels import clean_labels
from hrvol.training.train import train_model
from hrvol.volume.volume import open_labels
from hrvol.volume.write_image import write_image

HOSTILE = ("<script>alert(1)</script>", "\"><img src='https://x.example/a' onerror=alert(1)> $x_{$ {{ 7*7 }}")
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module", autouse=True)
def compared():
    """Runs compare volumes with the strokes, which tests/conftest.py switches off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HRVOL_DRIFT", raising=False)
        yield


class Page(HTMLParser):
    """The elements, attributes and texts of a page."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.texts, self.headings = [], [], []
        self.feed(Path(path).read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.elements[-1:] and self.elements[-1][0] not in ("style", "script"):
            self.texts.append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def sections(self):
        return [entry["id"] for entry in self.of("h2")]


def check_page(path):
    """Check what holds for every page, and return it."""
    page = Page(path)
    assert path.stat().st_size < 8_000_000
    assert len(page.of("script")) == 1
    assert len(page.of("style")) == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
        for name in ("src", "href"):
            value = attributes.get(name, "#")
            assert value.startswith(("#", "data:")), (tag, value[:80])
            if value.startswith("#") and len(value) > 1:
                assert value[1:] in ids
    assert all(image["alt"] and image["width"] and image["height"] for image in page.of("img"))
    assert all(cell.get("scope") in ("col", "row") for cell in page.of("th"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.of("html")[0]["lang"] == "en"
    return page


@pytest.fixture(scope="module")
def run(tmp_path_factory, model, data):
    """A complete output with uncertainty, its input and its truth, with a voxel size."""
    folder = tmp_path_factory.mktemp("run")
    image, truth, _ = data
    write_image(folder / "grey.ome.zarr", open_volume(image, voxel_size=(0.5, 0.2, 0.2), unit="um"))
    tifffile.imwrite(folder / "truth.tif", truth, photometric="minisblack")
    save_model(model, folder / "m.hrvol")
    segment_volume(folder / "grey.ome.zarr", folder / "out.ome.zarr", folder / "m.hrvol", uncertainty=True)
    return folder


def test_a_report_shows_what_the_output_has(run, tmp_path):
    measure_labels(run / "out.ome.zarr", tmp_path / "measures", chords=False, correlation=False)
    files = write_report(
        run / "out.ome.zarr",
        tmp_path / "r.html",
        truth=run / "truth.tif",
        measurement=tmp_path / "measures",
        title="Two textures",
    )
    page = check_page(files.page)
    assert page.sections == [
        *("slices", "fractions", "sizes", "uncertainty", "drift", "accuracy", "made", "cite")
    ]
    labels = open_labels(run / "out.ome.zarr").read()
    values = json.loads(files.figures.read_text())
    assert [row["voxels"] for row in values["classes"]] == [int((labels == v).sum()) for v in (1, 2)]
    assert sum(row["fraction"] for row in values["classes"]) == pytest.approx(1)
    assert values["classes"][0]["volume"] == pytest.approx((labels == 1).sum() * 0.5 * 0.2 * 0.2)
    assert values["status"]["state"] == "complete"
    plane = [float((labels[3] == v).mean()) for v in (1, 2)]
    np.testing.assert_allclose([values["planes"]["fractions"][name][3] for name in ("matrix", "disc")], plane)
    doubt = open_volume(run / "out.ome.zarr" / "uncertainty").read() / 255
    np.testing.assert_allclose(values["uncertainty"]["means"], doubt.mean(axis=(1, 2)))
    assert values["uncertainty"]["highest"][0]["plane"] == int(np.argmax(doubt.mean(axis=(1, 2))))
    truth = tifffile.imread(run / "truth.tif")
    both = [((labels == v) & (truth == v)).sum() / ((labels == v) | (truth == v)).sum() for v in (1, 2)]
    assert list(values["accuracy"]["iou"].values()) == pytest.approx(both)
    components = list(csv.DictReader((tmp_path / "measures" / "components.csv").open()))
    assert sum(row["components"] for row in values["sizes"]["classes"]) == len(components)
    for text in ("Two textures", "5 x 150 x 130", "complete", "Scale bar 5 µm", "hrvol segment", "Docherty"):
        assert text in page.text, text
    assert "No grey values" not in page.text
    table = list(csv.DictReader(files.table.open()))
    assert [row["class"] for row in table] == ["matrix", "disc"]
    assert [int(row["voxels"]) for row in table] == [row["voxels"] for row in values["classes"]]


@pytest.fixture(scope="module")
def structure(run, tmp_path_factory):
    """A measurement with thickness and tortuosity."""
    pytest.importorskip("edt")
    pytest.importorskip("taufactor")
    folder = tmp_path_factory.mktemp("structure") / "measures"
    options = {"thickness": True, "max_thickness": "12", "tortuosity": "all"}
    measure_labels(run / "out.ome.zarr", folder, chords=False, correlation=False, **options)
    return folder


def test_thickness_and_tortuosity_are_shown(run, structure, tmp_path):
    files = write_report(run / "out.ome.zarr", tmp_path / "r.html", measurement=structure)
    page = check_page(files.page)
    assert page.sections[2:5] == ["sizes", "thickness", "tortuosity"]
    values = json.loads(files.figures.read_text())
    summary = json.loads((structure / "summary.json").read_text())
    expected = {row["name"]: row for row in summary["thickness"]["classes"]}
    assert values["thickness"]["unit"] == "micrometer"
    for row in values["thickness"]["classes"]:
        for name, key in (("mean", "mean"), ("d10", "10 %"), ("d50", "median"), ("d90", "90 %")):
            assert row[name] == pytest.approx(expected[row["class"]][f"{key} [micrometer]"])
    assert "Balls of more than 12 voxels were not tested" in page.text
    for row, found in zip(summary["tortuosity"]["results"], values["tortuosity"]["results"], strict=True):
        assert found["tortuosity_factor"] == row["tortuosity factor"]
        assert row["status"] in page.text
    # Without these tables the sections are left out.
    measure_labels(run / "out.ome.zarr", tmp_path / "plain", chords=False, correlation=False)
    plain = write_report(run / "out.ome.zarr", tmp_path / "p.html", measurement=tmp_path / "plain")
    assert not {"thickness", "tortuosity"} & set(check_page(plain.page).sections)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("thickness [voxel]", "<script>", "found no columns"),
        ("matrix,3,", "matrix,9,", "no distribution"),
        ("matrix,3,", "matrix,x,", "expected rows of a table"),
    ],
)
def test_a_damaged_table_of_thickness_is_one_line(run, structure, tmp_path, old, new, message):
    shutil.copytree(structure, tmp_path / "measures")
    table = tmp_path / "measures" / "thickness.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        write_report(run / "out.ome.zarr", tmp_path / "r.html", measurement=tmp_path / "measures")


def test_equal_outputs_give_equal_bytes(run, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_report(run / "out.ome.zarr", tmp_path / name / "r.html")
    for file in ("r.html", "r.json", "r-fractions.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_intervals_are_those_of_a_measurement(tmp_path):
    image, truth = make_volume(shape=(24, 150, 130))
    recipe = QUICK.with_(**{"tiles.across": 2})
    model = train_model([(image, draw(truth, planes=(10, 14)))], recipe=recipe, classes=["matrix", "disc"])
    volume = open_volume(image, voxel_size=(0.5, 0.2, 0.2), unit="um")
    segment_volume(volume, tmp_path / "out.ome.zarr", model)
    files = write_report(tmp_path / "out.ome.zarr", tmp_path / "r.html", volume=volume)
    result = measure_labels(tmp_path / "out.ome.zarr", components=False, chords=False, correlation=False)
    expected = [row["fraction_95"] for row in result.summary["classes"]]
    assert None not in expected
    assert [row["fraction_95"] for row in files.values["classes"]] == expected
    page = check_page(files.page)
    assert f"over {result.summary['intervals']['cells']} cells" in page.text
    # Blocks of several tiles have seams.
    assert "seams" in page.sections
    assert f"of {files.values['seams']['pixels']:,} pixels had different labels" in page.text


def test_names_from_files_stay_text(tmp_path, data):
    image, truth, strokes = data
    model = train_model([(image, strokes)], recipe=QUICK, classes=list(HOSTILE))
    segment_volume(image, tmp_path / "out.ome.zarr", model, uncertainty=True)
    root = zarr.open_group(tmp_path / "out.ome.zarr", mode="r+")
    changed = dict(root.attrs["hrvol"])
    changed["input"] = {**changed["input"], "source": "https://x.example/<script>alert(2)</script>"}
    changed["versions"] = {"<b onclick=alert(3)>": "</style><script>alert(4)</script>"}
    changed["device"] = "\x1b[2J\u202e</pre><script>"
    root.attrs["hrvol"] = changed
    measure_labels(tmp_path / "out.ome.zarr", tmp_path / "measures", chords=False, correlation=False)
    files = write_report(
        tmp_path / "out.ome.zarr",
        tmp_path / "r.html",
        truth=truth,
        measurement=tmp_path / "measures",
        title="<svg onload=alert(5)>",
    )
    page = check_page(files.page)
    for text in (*HOSTILE, "<script>alert(2)</script>", "<svg onload=alert(5)>", "\\x1b[2J\\u202e</pre>"):
        assert text in page.text, text
    assert "No grey values" in page.text  # no recorded address is opened
    raw = files.page.read_text()
    assert raw.count("<script") == 1
    assert raw.count("</script>") == 1
    assert "\x1b" not in raw


def test_an_unfinished_output_is_reported_as_such(run, tmp_path, data):
    image = np.concatenate([data[0]] * 4)
    stop = Stop()

    def after_some(stage, done, total):
        if stage == "segment" and done > total // 3:
            stop.request()

    with pytest.raises(StoppedError):
        segment_volume(
            image,
            tmp_path / "out.ome.zarr",
            run / "m.hrvol",
            stop=stop,
            progress=after_some,
            uncertainty=True,
        )
    files = write_report(tmp_path / "out.ome.zarr", tmp_path / "r.html", volume=image)
    page, status = check_page(files.page), files.values["status"]
    assert status["state"] == "stopped"
    assert 0 < status["done"] < status["total"]
    assert f"{status['done']} of {status['total']} blocks are done" in page.text
    labels = open_labels(tmp_path / "out.ome.zarr").read()
    assert files.values["status"]["voxels"] == np.count_nonzero(labels)
    # Slices are taken where blocks are done.
    position = int(re.search(r"xy, z = (\d+)", page.text)[1])
    assert labels[position].any()
    with pytest.raises(InputError, match="unfinished output, expected a complete one for a truth"):
        write_report(tmp_path / "out.ome.zarr", tmp_path / "s.html", truth=np.ones_like(labels))


def test_blocks_that_failed_are_listed(run, tmp_path):
    image, _ = make_volume(shape=(5, 150, 400))
    array = zarr.create_array(tmp_path / "grey.zarr", shape=image.shape, chunks=(5, 25, 65), dtype="uint8")
    array[:] = image
    chunk = tmp_path / "grey.zarr" / "c" / "0" / "5" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    report = segment_volume(tmp_path / "grey.zarr", tmp_path / "out.ome.zarr", run / "m.hrvol")
    assert report.failed
    files = write_report(tmp_path / "out.ome.zarr", tmp_path / "r.html", volume=image)
    page = check_page(files.page)
    assert files.values["status"]["state"] == "failed"
    assert "Failed blocks" in page.text
    for failure in report.failed:
        assert str(failure.index) in page.text
    assert len(files.values["failures"]) == len(report.failed)
    recorded = write_report(tmp_path / "out.ome.zarr", tmp_path / "s.html")
    assert "grey values cannot be read" in check_page(recorded.page).text


ODD = [None, True, -1, 10**30, "x" * 10**4, [], {}, [[1, [2]]], {"source": 7, "shape": "a", "sha256": []}]


@pytest.mark.parametrize(
    "keys",
    [("window", "versions", "model", "mask", "outputs", "device", "clusters", "weights_sha256"), ("input",)],
)
def test_odd_attributes_give_a_page_or_one_line(run, tmp_path, data, keys):
    segment_volume(data[0][2, :64, :64], tmp_path / "out.ome.zarr", run / "m.hrvol")
    root = zarr.open_group(tmp_path / "out.ome.zarr", mode="r+")
    recorded = dict(root.attrs["hrvol"])
    pages = 0
    for number, value in enumerate([*ODD, {"share": [1], "count": "many", "foreground": 3}]):
        root.attrs["hrvol"] = recorded | dict.fromkeys(keys, value)
        page = tmp_path / f"{number}.html"
        with suppress(InputError):  # a message is one line by its type
            write_report(tmp_path / "out.ome.zarr", page)
            check_page(page)
            pages += 1
    assert pages == (0 if keys == ("input",) else len(ODD) + 1)


def test_many_classes_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(1, 41, (4, 20, 20)), 4, axis=1).repeat(4, axis=2).astype(np.uint8)
    image = (truth * 6).astype(np.uint8)
    model = train_model([(image, truth)], recipe=QUICK)
    segment_volume(image, tmp_path / "out.ome.zarr", model)
    files = write_report(tmp_path / "out.ome.zarr", tmp_path / "r.html", volume=image, truth=truth)
    page = check_page(files.page)
    assert "The 12 most frequent of 40 classes are shown" in page.text
    assert "The first 12 of 40 classes are shown" in page.text
    assert len(files.values["planes"]["fractions"]) == 40


@pytest.mark.parametrize("shape", [(1, 150, 130), (150, 130)])
def test_planes_and_images_have_no_slices_along_z(run, tmp_path, data, shape):
    image = data[0][2].reshape(shape)
    segment_volume(image, tmp_path / "out.ome.zarr", run / "m.hrvol", uncertainty=True)
    files = write_report(tmp_path / "out.ome.zarr", tmp_path / "r.html", volume=image)
    page = check_page(files.page)
    assert page.sections == ["slices", "fractions", "uncertainty", "drift", "made", "cite"]
    assert "xz" not in page.text
    assert "Montage" not in page.text
    assert not [entry for entry in page.of("input") if entry["type"] == "range"]
    assert re.search(r"Scale bar \d+ voxels", page.text)
    assert "No voxel size is known" in page.text
    assert files.values["planes"] is None
    assert files.values["classes"][0]["unit"] is None


def test_classes_found_without_strokes_are_matched(tmp_path):
    image, truth = make_volume(shape=(4, 84, 90))
    recipe = QUICK.with_(
        **{
            "cluster.clusters": 8,
            "cluster.samples": 1500,
            "cluster.classes": 2,
            "cluster.distance": "euclidean",
        }
    )
    cluster_volume(image, tmp_path / "out.ome.zarr", recipe=recipe)
    files = write_report(tmp_path / "out.ome.zarr", tmp_path / "r.html", volume=image, truth=truth)
    page = check_page(files.page)
    assert page.sections == ["slices", "fractions", "accuracy", "clusters", "made", "cite"]
    assert "Classes were matched to the true ones first" in page.text
    assert "hrvol cluster" in files.values["command"]
    assert files.values["clusters"]["count"] == 8


def test_a_student_shows_how_it_agrees_with_its_teacher(tmp_path):
    agreement = {"miou": 0.8123, "iou": [0.9, 0.75, None], "share": 0.95, "lowest_tile": 0.5}
    model = taught(
        student_model(),
        agreement=agreement,
        on_training={**agreement, "miou": 0.8377},
        teacher={"source": "<i>teacher</i>.hrvol"},
        tiles=12,
        kept_back=3,
        problems=["rare <b>classes</b>"],
    )
    save_model(model, tmp_path / "student.hrvol")
    image = np.random.default_rng(0).integers(0, 255, (3, 64, 64), np.uint8)
    segment_volume(image, tmp_path / "out.ome.zarr", tmp_path / "student.hrvol")
    files = write_report(tmp_path / "out.ome.zarr", tmp_path / "r.html", volume=image)
    page = check_page(files.page)
    for text in ("<i>teacher</i>.hrvol", "0.812", "0.838", "rare <b>classes</b>", "3 others were kept back"):
        assert text in page.text, text
    (tmp_path / "student.hrvol").unlink()
    files = write_report(tmp_path / "out.ome.zarr", tmp_path / "s.html", volume=image)
    assert "student" not in check_page(files.page).sections


def test_labels_inside_of_an_image(run, tmp_path, data):
    write_image(tmp_path / "grey.ome.zarr", open_volume(data[0]))
    segment_volume(tmp_path / "grey.ome.zarr", None, run / "m.hrvol", into_input=True)
    files = write_report(tmp_path / "grey.ome.zarr" / "labels" / "hrvol", tmp_path / "r.html")
    page = check_page(files.page)
    assert "No grey values" not in page.text
    assert "times" not in page.sections
    labels = open_labels(tmp_path / "grey.ome.zarr").read()
    assert [row["voxels"] for row in files.values["classes"]] == [int((labels == v).sum()) for v in (1, 2)]


def test_a_volume_with_coarser_levels_is_read_from_them(run, tmp_path, monkeypatch):
    image, _ = make_volume(shape=(4, 540, 530))
    write_image(tmp_path / "grey.ome.zarr", open_volume(image))
    segment_volume(tmp_path / "grey.ome.zarr", tmp_path / "out.ome.zarr", run / "m.hrvol", uncertainty=True)
    every = write_report(tmp_path / "out.ome.zarr", tmp_path / "a.html").values
    monkeypatch.setattr(counting, "COUNTED_VOXELS", image.size // 2)
    files = write_report(tmp_path / "out.ome.zarr", tmp_path / "b.html")
    level = files.values["planes"]["level"]
    assert every["planes"]["level"] == 0
    assert level == 1
    coarse = open_labels(tmp_path / "out.ome.zarr", level=1).read()
    shares = [(plane == 2).mean() for plane in coarse]
    np.testing.assert_allclose(files.values["planes"]["fractions"]["disc"], shares)
    assert [row["voxels"] for row in files.values["classes"]] == [row["voxels"] for row in every["classes"]]
    assert "at resolution level 1" in check_page(files.page).text
    assert files.values["uncertainty"]["mean"] == pytest.approx(every["uncertainty"]["mean"], abs=0.02)
    # Nothing is small enough: no figures of planes, and pictures of a part.
    monkeypatch.setattr(counting, "COUNTED_VOXELS", 100)
    monkeypatch.setattr(viewing, "PLANE_VOXELS", 10_000)
    files = write_report(tmp_path / "out.ome.zarr", tmp_path / "c.html")
    assert files.values["planes"] is None
    assert files.values["uncertainty"] is None
    assert "a part around the middle" in check_page(files.page).text


def test_a_slider_has_fewer_planes_where_they_are_large(run, tmp_path, monkeypatch):
    files = write_report(run / "out.ome.zarr", tmp_path / "a.html")
    planes = len(re.findall(r"<figure data-title", files.page.read_text()))
    size = files.page.stat().st_size
    monkeypatch.setattr(drawing, "SLIDER_BYTES", size // 4)
    files = write_report(run / "out.ome.zarr", tmp_path / "b.html")
    assert planes == 5
    assert 1 < len(re.findall(r"<figure data-title", files.page.read_text())) < planes
    check_page(files.page)


def test_a_changed_input_is_not_shown(run, tmp_path):
    shutil.copytree(run / "out.ome.zarr", tmp_path / "out.ome.zarr")
    grey = open_volume(run / "grey.ome.zarr").read()
    write_image(tmp_path / "grey.ome.zarr", open_volume(grey + 1))
    root = zarr.open_group(tmp_path / "out.ome.zarr", mode="r+")
    changed = dict(root.attrs["hrvol"])
    changed["input"] = {**changed["input"], "source": str(tmp_path / "grey.ome.zarr")}
    root.attrs["hrvol"] = changed
    files = write_report(tmp_path / "out.ome.zarr", tmp_path / "r.html")
    assert "the recorded input has changed" in check_page(files.page).text


def test_cleaned_labels_show_their_steps(run, tmp_path):
    steps = ["remove disc 5", "majority 1"]
    clean_labels(run / "out.ome.zarr", tmp_path / "clean.ome.zarr", steps)
    files = write_report(tmp_path / "clean.ome.zarr", tmp_path / "r.html")
    page = check_page(files.page)
    assert page.sections == ["slices", "fractions", "made", "cite"]
    assert "remove disc 5; majority 1" in page.text
    assert "give the grey volume with --volume" in page.text
    labels = open_labels(tmp_path / "clean.ome.zarr").read()
    assert [row["voxels"] for row in files.values["classes"]] == [int((labels == v).sum()) for v in (1, 2)]
    words = shlex.split(files.values["command"])[1:]
    words[2] = str(tmp_path / "again.ome.zarr")
    assert CliRunner().invoke(main, [*words, "--engine", "serial"]).exit_code == 0
    np.testing.assert_array_equal(open_labels(tmp_path / "again.ome.zarr").read(), labels)
    with_grey = write_report(tmp_path / "clean.ome.zarr", tmp_path / "s.html", volume=run / "grey.ome.zarr")
    assert "No grey values" not in check_page(with_grey.page).text


def test_files_that_exist_are_kept(run, tmp_path):
    out = run / "out.ome.zarr"
    write_report(out, tmp_path / "r.html")
    with pytest.raises(OutputExistsError, match="exists already"):
        write_report(out, tmp_path / "r.html")
    write_report(out, tmp_path / "r.html", title="Again", overwrite=True)
    assert "Again" in (tmp_path / "r.html").read_text()
    for name, text in (
        ("p.html", "<!doctype html>\n<p>mine"),
        ("q.json", "{}"),
        ("o-fractions.csv", "a,b\n"),
    ):
        (tmp_path / name).write_text(text)
        page = tmp_path / f"{name[0]}.html"
        with pytest.raises(OutputExistsError, match="it is not overwritten"):
            write_report(out, page, overwrite=True)
        assert (tmp_path / name).read_text() == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "r.txt"}, "found .txt, expected .html"),
        ({"path": "none/r.html"}, "no such folder"),
        ({"path": "out.ome.zarr/r.html"}, "is inside"),
        ({"volume": np.zeros((2, 3, 4), np.uint8)}, r"found shape \(2, 3, 4\), expected \(5, 150, 130\)"),
        ({"truth": np.ones((2, 3, 4), np.uint8)}, "expected"),
        ({"measurement": "none"}, "found no such file"),
        ({"measurement": "truth.tif"}, "expected"),
        ({"measurement": "m.csv"}, "found no columns"),
        ({"model": "truth.tif"}, "expected"),
        ({"surfaces": ["nickel"]}, "found 'nickel', expected one of disc, matrix"),
        ({"title": "a\nb"}, "expected 1 to 200 characters"),
        ({"out": "grey.ome.zarr"}, "expected an output of hrvol segment"),
        ({"out": "none.ome.zarr"}, "expected an output of hrvol segment"),
    ],
)
def test_bad_input_gives_one_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(run)
    (run / "m.csv").write_text("a,b\n1,2\n")
    request = {"out": "out.ome.zarr", "path": tmp_path / "r.html", **arguments}
    with pytest.raises((InputError, UsageError), match=message) as caught:
        write_report(request.pop("out"), request.pop("path"), **request)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_measurement_of_other_labels_is_refused(run, tmp_path):
    measure_labels(np.ones((4, 20, 20), np.uint8), tmp_path / "measures", chords=False, correlation=False)
    with pytest.raises(InputError, match=r"shape \(4, 20, 20\), expected \(5, 150, 130\) as the output"):
        write_report(run / "out.ome.zarr", tmp_path / "r.html", measurement=tmp_path / "measures")


def test_the_command(run, tmp_path):
    out, page = str(run / "out.ome.zarr"), str(tmp_path / "r.html")
    done = CliRunner().invoke(main, ["report", out, "-o", page, "--surface", "disc"])
    assert done.exit_code == 0, done.output
    assert "r.html" in done.output
    check_page(Path(page))
    again = CliRunner().invoke(main, ["report", out, "-o", page])
    assert again.exit_code == 1
    assert "--fresh replaces an earlier output" in again.output
    fresh = CliRunner().invoke(main, ["report", out, "-o", page, "--fresh", "--json"])
    assert fresh.exit_code == 0, fresh.output
    assert json.loads(fresh.stdout)["classes"][1]["class"] == "disc"


def test_the_recorded_command_repeats_the_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = tmp_path / "first.ome.zarr"
    arguments = ["segment", str(run / "grey.ome.zarr"), str(first), "-m", str(run / "m.hrvol")]
    arguments += [
        "--roi",
        "1:4,:,20:120",
        "--uncertainty",
        "--class-weight",
        "disc=0.5",
        "--engine",
        "serial",
    ]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    files = write_report(first, tmp_path / "r.html")
    words = shlex.split(files.values["command"])[1:]
    words[words.index(str(first))] = str(tmp_path / "second.ome.zarr")
    done = CliRunner().invoke(main, [*words, "--engine", "serial"])
    assert done.exit_code == 0, done.output
    kept = [
        dict(zarr.open_group(tmp_path / f"{name}.ome.zarr").attrs["hrvol"]) for name in ("first", "second")
    ]
    assert kept[0] == kept[1]
    np.testing.assert_array_equal(open_labels(first).read(), open_labels(tmp_path / "second.ome.zarr").read())


def test_the_command_has_the_options_of_segment(run, tmp_path, data):
    segment_volume(data[0][2, :64, :64], tmp_path / "out.ome.zarr", run / "m.hrvol")
    root = zarr.open_group(tmp_path / "out.ome.zarr", mode="r+")
    recorded = dict(root.attrs["hrvol"])
    beside = {"backend": {"name": "openvino", "versions": {}}, "companion": {"source": "student.hrvol"}}
    network = {"weights_sha256": "0" * 64}
    for number, (more, expected) in enumerate(
        [
            (beside, {"backend": "openvino", "companion": "student.hrvol"}),
            (network, {"backend": "torch", "companion": None}),
            ({}, {"backend": "auto", "companion": None}),
        ]
    ):
        root.attrs["hrvol"] = recorded | more
        files = write_report(tmp_path / "out.ome.zarr", tmp_path / f"{number}.html")
        words = shlex.split(files.values["command"])[2:]
        given = main.commands["segment"].make_context("segment", words).params
        assert {name: given[name] for name in expected} == expected


@pytest.mark.data
def test_a_report_of_real_data(data_dir, tmp_path):
    image = tifffile.imread(data_dir / "xct_fibres" / "volume.tif")[:24, :160, :160]
    truth = tifffile.imread(data_dir / "xct_fibres" / "labels.tif")[:24, :160, :160]
    strokes = np.zeros(truth.shape, np.uint8)
    values = np.unique(truth)
    compact = np.searchsorted(values, truth).astype(np.uint8) + 1
    strokes[[4, 18], ::9] = compact[[4, 18], ::9]
    recipe = QUICK.with_(**{"tiles.core": 128})
    volume = open_volume(image, voxel_size=(1.1, 1.1, 1.1), unit="um")
    model = train_model([(volume, strokes)], recipe=recipe)
    segment_volume(volume, tmp_path / "out.ome.zarr", model, uncertainty=True)
    files = write_report(tmp_path / "out.ome.zarr", tmp_path / "r.html", volume=volume, truth=compact)
    check_page(files.page)
    assert files.values["accuracy"]["miou"] > 0.5
    assert "In 3D" in files.page.read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_shows_it_and_keeps_its_policy(run, tmp_path):
    page = tmp_path / "r.html"
    write_report(run / "out.ome.zarr", page, truth=run / "truth.tif")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    options += " --disable-background-networking --disable-component-update --enable-logging=stderr"

    def opened(file):
        command = [CHROMIUM, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
        return subprocess.run(
            [*command, file.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )

    done = opened(page)
    assert 'class="viewer live"' in done.stdout  # the script is the one that the policy allows
    assert re.search(r'<figure data-title="[^"]*" class="now">', done.stdout)
    assert "CONSOLE" not in done.stderr
    # A script or a style that somebody adds is refused.
    harmed = tmp_path / "harmed.html"
    harmed.write_text(page.read_text().replace("</body>", "<script>document.title='harmed'</script></body>"))
    done = opened(harmed)
    assert "<title>harmed" not in done.stdout
    assert "Content Security Policy" in done.stderr
