"""Places to draw next of a volume and its strokes, without a session of one's own."""

import csv
import json

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image
from run_data import QUICK, draw, make_volume

from hrvol import open_volume, suggest_places
from hrvol.cli import main
from hrvol.errors import OutputExistsError, StrokesError, UsageError
from hrvol.interactive.suggest import WINDOW
from hrvol.volume.write_image import write_image

SHAPE = (8, 150, 400)


@pytest.fixture(scope="module")
def grey():
    """Planes whose right part is unlike the left one, where all strokes are."""
    image, truth = make_volume(shape=SHAPE)
    image[:, :, 260:] = (image[:, :, 260:].astype(int) + 110) // 2
    return image, truth


@pytest.fixture(scope="module")
def strokes(grey):
    drawn = draw(grey[1], planes=(1,))
    drawn[:, :, 200:] = 0
    return drawn


def test_places_are_where_no_stroke_is_like_it(grey, strokes):
    found = suggest_places(grey[0], strokes, count=6, recipe=QUICK, tiles=16)
    assert len(found) == 6
    assert len({(one.z, one.y, one.x) for one in found}) == 6
    beside = [one for one in found if one.x >= 250]
    assert len(beside) >= 4
    for one in found:
        assert 0 <= one.z < SHAPE[0]
        assert one.rows == (0, 150)  # the whole plane: it is smaller than a window
        assert one.columns[0] <= one.x < one.columns[1] <= SHAPE[2]
        assert one.columns[1] - one.columns[0] == WINDOW
        assert 0 <= one.uncertainty <= 1
    assert found == suggest_places(grey[0], strokes, count=6, recipe=QUICK, tiles=16)


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def files(grey, strokes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("suggest")
    from dataclasses import replace

    sized = {"voxel_size": (2.0, 0.5, 0.5), "unit": "micrometer", "translation": (10.0, 0.0, 0.0)}
    write_image(folder / "volume.ome.zarr", replace(open_volume(grey[0]), **sized))
    tifffile.imwrite(folder / "strokes.tif", strokes, photometric="minisblack")
    (folder / "quick.yaml").write_text(QUICK.to_yaml())
    return folder


def test_the_command_writes_a_table_and_a_picture(files, tmp_path):
    before = (files / "strokes.tif").read_bytes()
    command = ("suggest", files / "volume.ome.zarr", files / "strokes.tif", "--recipe", files / "quick.yaml")
    table, picture = tmp_path / "next.csv", tmp_path / "next.png"
    printed = run(*command, "-n", 3, "--tiles", 8, "-o", table, "--picture", picture).stdout
    assert printed.splitlines()[0].split() == ["place", "z", "y", "x", "rows", "columns", "uncertainty"]
    rows = list(csv.DictReader(table.open()))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    for row in rows:
        assert float(row["z (micrometer)"]) == 10 + 2 * int(row["z"])
        assert float(row["x (micrometer)"]) == 0.5 * int(row["x"])
        assert int(row["column_stop"]) - int(row["column_start"]) == WINDOW
    image = np.asarray(Image.open(picture))
    assert image.shape == (150, 3 * WINDOW + 8, 3)
    assert ((image == (255, 210, 0)).all(axis=-1).sum(axis=0) > 0)[WINDOW + 4 :].any()
    values = json.loads(run(*command, "-n", 3, "--tiles", 8, "--json").stdout)
    assert [(one["z"], one["y"], one["x"]) for one in values] == [
        (int(row["z"]), int(row["y"]), int(row["x"])) for row in rows
    ]
    assert "(--fresh replaces" in run(*command, "-o", table, code=1).stderr
    run(*command, "-n", 1, "--tiles", 4, "-o", table, "--fresh")
    assert len(list(csv.DictReader(table.open()))) == 1
    assert (files / "strokes.tif").read_bytes() == before


def test_what_cannot_be_used_is_one_line(grey, strokes, tmp_path):
    with pytest.raises(UsageError, match="count: found 0, expected at least 1"):
        suggest_places(grey[0], strokes, count=0)
    with pytest.raises(UsageError, match=r"expected \.csv"):
        suggest_places(grey[0], strokes, table=tmp_path / "a.txt")
    with pytest.raises(UsageError, match=r"expected \.png"):
        suggest_places(grey[0], strokes, picture=tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(OutputExistsError):
        suggest_places(grey[0], strokes, table=tmp_path / "a.csv", overwrite=True)
    with pytest.raises(StrokesError, match="found strokes of 1 classes, expected at least 2"):
        suggest_places(grey[0], (strokes == 1).astype(np.uint8), recipe=QUICK)
    with pytest.raises(StrokesError):
        suggest_places(grey[0], strokes[:, :10], recipe=QUICK)
