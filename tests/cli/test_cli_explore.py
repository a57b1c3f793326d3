"""The commands that look at images without labels: detect, similar, pca."""

import json

import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from matplotlib.image import imread
from see_data import DISCS, RECIPE, discs, use

from hrvol.cli import main

IMAGE, _ = discs()
OTHER, _ = discs(((30, 130, 20),), seed=7)
AT = f"{DISCS[0][0]},{DISCS[0][1]}"


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def fails(*arguments, code=1):
    """Run what must fail; return its one line."""
    result = run(*arguments, code=code)
    assert result.stderr.count("hrvol: error: ") == 1
    assert "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith("hrvol: error: ")
    return line


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("see")
    for name, image in (("a", IMAGE), ("b", OTHER), ("flat", np.full((90, 90), 7, np.uint8))):
        tifffile.imwrite(folder / f"{name}.tif", image)
    zarr.save_array(folder / "stack.zarr", np.stack([OTHER, IMAGE, OTHER]))
    (folder / "recipe.yaml").write_text(RECIPE.to_yaml())
    return folder


@pytest.fixture(autouse=True)
def network(monkeypatch):
    return use(monkeypatch)


@pytest.fixture
def detect(place):
    return "detect", "--recipe", place / "recipe.yaml", "--classes", 2


def test_detect_says_what_it_found(place, detect):
    result = run(*detect, place / "a.tif")
    first, header, *boxes = result.stdout.splitlines()
    assert first.startswith(f"{place}/a.tif: 2 classes, 1 in the foreground, which is ")
    assert header.split() == ["box", "pixels", "y0", "x0", "y1", "x1"]
    assert [line.split()[0] for line in boxes] == ["foreground", "foreground"]
    assert "label: 100 %" in result.stderr
    lonely = run(*detect, place / "a.tif", "--min-size", 100000, "--single")
    assert lonely.stdout.splitlines()[2].startswith("superbox")
    nothing = run(*detect, place / "b.tif", "--classes", 1).stdout.splitlines()
    assert nothing[0].endswith("1 class, 0 in the foreground, which is 0.0 % of the image")
    assert nothing[1:] == ["no objects found"]


def test_detect_json_is_a_line_for_each_image(place, detect):
    lines = run(*detect, place / "a.tif", place / "b.tif", "--json").stdout.splitlines()
    first, second = (json.loads(line) for line in lines)
    assert first["image"].endswith("a.tif")
    assert [len(first["boxes"]), len(second["boxes"])] == [2, 1]
    assert json.loads(run(*detect, place / "a.tif", "--json").stdout) == first


def test_detect_writes_pictures_and_masks(place, detect, tmp_path):
    result = run(*detect, place / "a.tif", "-o", tmp_path / "out")
    assert f"picture: {tmp_path}/out/a.png" in result.stdout
    assert imread(tmp_path / "out" / "a.png").std() > 0.1
    mask = tifffile.imread(tmp_path / "out" / "a_foreground.tif")
    assert set(np.unique(mask)) == {0, 255}
    assert mask.shape == IMAGE.shape
    assert "--fresh" in fails(*detect, place / "a.tif", "-o", tmp_path / "out")
    run(*detect, place / "a.tif", "-o", tmp_path / "out", "--fresh")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_one_bad_image_does_not_stop_the_others(place, detect, tmp_path):
    images = (place / "a.tif", place / "flat.tif", place / "none.tif", place / "stack.zarr", place / "b.tif")
    result = run(*detect, *images, "-o", tmp_path / "out", code=1)
    assert [path.name for path in sorted((tmp_path / "out").glob("*.png"))] == ["a.png", "b.png"]
    *_, flat, none, stack, last = result.stderr.splitlines()
    assert "flat.tif: found one grey value" in flat
    assert "none.tif: no such file" in none
    assert "stack.zarr: found a stack of 3 planes" in stack
    assert last.startswith("hrvol: error: 3 of 5 images failed; the first: ")


def test_detect_stops_at_once_without_weights(place, monkeypatch, tmp_path):
    from hrvol.errors import WeightsError
    from hrvol.features import featuriser

    def missing(*arguments, **options):
        raise WeightsError("no weights here")

    monkeypatch.setattr(featuriser, "load_backbone", missing)
    line = fails("detect", place / "a.tif", place / "b.tif", "--recipe", place / "recipe.yaml")
    assert line == "hrvol: error: no weights here"


def test_detect_takes_a_plane_of_a_stack(place, detect):
    said = json.loads(run(*detect, place / "stack.zarr", "--plane", 1, "--json").stdout)
    alone = json.loads(run(*detect, place / "a.tif", "--json").stdout)
    assert said["plane"] == 1
    assert said["boxes"] == alone["boxes"]
    line = fails(*detect, place / "stack.zarr", code=2)
    assert "--plane z" in line
    assert "hrvol cluster" in line


def similar(place, *arguments):
    return "similar", *arguments, "--recipe", place / "recipe.yaml"


def test_similar_prints_matches_and_draws_them(place, tmp_path):
    out = tmp_path / "alike.png"
    result = run(*similar(place, place / "a.tif", place / "b.tif", "--at", AT, "--top", 2, "-o", out))
    header, *rows, last = result.stdout.splitlines()
    assert header.split() == ["target", "point", "rank", "y", "x", "similarity"]
    assert [row.split()[:3] for row in rows] == [["b.tif", "1", "1"], ["b.tif", "1", "2"]]
    assert last == f"picture: {out}"
    assert imread(out).std() > 0.1
    assert "compare: 100 %" in result.stderr
    assert "--fresh" in fails(*similar(place, place / "a.tif", "--at", AT, "-o", out))


def test_similar_json_and_planes(place):
    said = json.loads(
        run(*similar(place, place / "stack.zarr", "--at", f"1,{AT}", "--at", "1,5,5", "--json")).stdout
    )
    assert said["plane"] == said["targets"][0]["plane"] == 1
    best = said["targets"][0]["matches"][0]
    assert f"{best['y']},{best['x']}" == AT
    assert best["similarity"] == pytest.approx(1)
    said = json.loads(
        run(
            *similar(place, place / "a.tif", place / "stack.zarr", "--at", AT),
            *("--plane", 0, "--plane", 2, "--json"),
        ).stdout
    )
    assert [target["plane"] for target in said["targets"]] == [0, 2]


def test_pca_draws_planes(place, tmp_path):
    out = tmp_path / "p.png"
    command = ("pca", place / "stack.zarr", place / "a.tif", "--recipe", place / "recipe.yaml", "-o", out)
    result = run(*command, "--planes", 2, "--attention")
    assert [line.split()[0] for line in result.stdout.splitlines()[1:4]] == ["red", "green", "blue"]
    assert result.stdout.splitlines()[-1] == f"{out}: 3 planes"
    assert imread(out).std() > 0.1
    assert "--fresh" in fails(*command)
    assert run(*command, "--planes", "1,", "--fresh").stdout.endswith("2 planes\n")
    assert run(*command, "--planes", "0,2", "--fresh").stdout.endswith("3 planes\n")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("detect",), "IMAGE"),
        (("detect", "a.tif", "--merge", "1", "--classes", "2"), "choose one"),
        (("detect", "a.tif", "--recipe", "classical"), "no attention"),
        (("detect", "a.tif", "--recipe", "none.yaml"), "none.yaml"),
        (("detect", "a.tif", "--classes", "99"), "99"),
        (("detect", "a.tif", "b/a.tif", "-o", "."), "found the name of a.tif"),
        (("similar", "a.tif"), "--at"),
        (("similar", "a.tif", "--at", "12"), "'12'"),
        (("similar", "a.tif", "--at", "1,b"), "'1,b'"),
        (("similar", "a.tif", "--at", "-3,4"), "y,x in pixels"),
        (("similar", "a.tif", "--at", "1,2,3,4"), "'1,2,3,4'"),
        (("similar", "{a}", "--at", "500,3"), "y=500, x=3, expected it inside 130 x 170"),
        (("similar", "{a}", "--at", "1,1", "-o", "p.jpg"), "found .jpg, expected .png"),
        (("pca", "a.tif"), "--output"),
        (("pca", "a.tif", "-o", "p.png", "--planes", "1,x"), "'1,x'"),
        (("pca", "a.tif", "-o", "p.png", "--planes", ""), "how many planes"),
        (("pca", "a.tif", "-o", "p.png", "--planes", "0"), "'0,' is plane 0"),
        (("pca", "{stack}", "-o", "p.png", "--planes", "7,8"), "found plane 7"),
        (("pca", "{a}", "-o", "no/such/p.png"), "no such folder"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(place, network, arguments, found):
    paths = {"a": place / "a.tif", "stack": place / "stack.zarr"}
    assert found in fails(*(argument.format(**paths) for argument in arguments), code=2)
    assert network.seen == []


@pytest.mark.parametrize("command", [("detect",), ("similar", "--at", "1,1"), ("pca", "-o", "p.png")])
def test_bad_images_are_one_line(place, tmp_path, command):
    (tmp_path / "text.tif").write_text("not an image")
    plain = np.full((50, 60, 3), (10, 90, 200), np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", plain, photometric="rgb")
    for image, found in (
        (tmp_path / "none.tif", "no such file"),
        (tmp_path / "text.tif", "cannot be read"),
        (tmp_path / "rgb.tif", "one grey value"),
        (place / "flat.tif", "one grey value"),
    ):
        line = fails(*command, image, "--recipe", place / "recipe.yaml")
        assert image.name in line
        assert found in line
