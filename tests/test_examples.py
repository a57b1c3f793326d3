"""The examples that need a network run as they stand, here with a very simple one."""

import runpy
import sys
from pathlib import Path

import pytest
import tifffile
from matplotlib.image import imread
from see_data import discs, use

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
