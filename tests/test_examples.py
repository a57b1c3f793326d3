"""The examples that need a network run as they stand, here with a very simple one."""

import runpy
import sys
from pathlib import Path

import pytest
import tifffile
from matplotlib.image import imread
from see_data import discs, use

from hrvol import open_volume

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("name", "further"),
    [
        ("classes_from_nothing", ()),
        ("boxes_around_objects", ()),
        ("find_similar", ("40,45",)),
        ("pca_picture", ()),
    ],
)
def test_an_example_draws_its_picture(name, further, tmp_path, monkeypatch, capsys):
    use(monkeypatch)
    image, picture = tmp_path / "image.tif", tmp_path / "picture.png"
    tifffile.imwrite(image, discs()[0])
    monkeypatch.setattr(sys, "argv", [name, str(image), *further, str(picture)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert imread(picture).std() > 0.05
    assert "picture" in capsys.readouterr().out


def test_the_sandstone_has_the_files_of_the_tutorial(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sandstone", str(tmp_path / "stone")])
    runpy.run_path(str(EXAMPLES / "sandstone.py"), run_name="__main__")
    truth = tifffile.imread(tmp_path / "stone" / "truth.tif")
    strokes = tifffile.imread(tmp_path / "stone" / "strokes.tif")
    assert f"{100 * (truth == 1).mean():.2f} % pores" in capsys.readouterr().out
    assert set(strokes[strokes > 0]) == {1, 2}
    assert (strokes[strokes > 0] == truth[strokes > 0]).all()
    scan = open_volume(tmp_path / "stone" / "scan.ome.zarr")
    assert (scan.shape, scan.voxel_size, scan.unit) == (truth.shape, (2.5, 2.5, 2.5), "micrometer")
