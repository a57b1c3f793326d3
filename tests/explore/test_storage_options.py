"""Options of a file system reach every volume that is read by what works without labels."""

import pytest
import zarr
from click.testing import CliRunner
from see_data import RECIPE, discs, use

from hrvol.cli import main
from hrvol.explore.detect import detect_objects
from hrvol.explore.pca import pca_picture
from hrvol.explore.similar import find_similar
from hrvol.training.cluster import fit_classes
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.remote import RemoteStore

OPTIONS = {"token": "abc"}
URLS = ["memory://options/a.zarr", "memory://options/b.zarr"]


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """Two images at URLs; return the options that each URL was opened with."""
    use(monkeypatch)
    for seed, url in enumerate(URLS):
        store = Location.of(url).store(read_only=False)
        zarr.create_array(store, data=discs(seed=seed)[0], overwrite=True)
    seen = {}
    at = RemoteStore.at

    def noted(url, options, **rest):
        seen.setdefault(url, []).append(dict(options))
        return at(url, options, **rest)

    monkeypatch.setattr(RemoteStore, "at", noted)
    return seen


def run(name, tmp_path, *arguments):
    (tmp_path / "recipe.yaml").write_text(RECIPE.to_yaml())
    options = ("--recipe", str(tmp_path / "recipe.yaml"), "--storage-option", "token=abc")
    result = CliRunner().invoke(main, [name, *arguments, *options])
    assert result.exit_code == 0, (result.output, result.exception)


def check(opened, urls, expected=OPTIONS):
    assert opened.keys() >= set(urls)
    for options in opened.values():  # of groups above them too
        assert all(each == expected for each in options)


@pytest.mark.parametrize("function", [fit_classes, detect_objects])
def test_options_reach_one_volume(opened, function):
    function(URLS[0], recipe=RECIPE, classes=2, storage_options=OPTIONS)
    check(opened, URLS[:1])


def test_options_reach_all_images_of_similar(opened):
    find_similar(URLS[0], [(40, 45)], [URLS[1]], recipe=RECIPE, storage_options=OPTIONS)
    check(opened, URLS)


def test_options_reach_all_volumes_of_pca(opened, tmp_path):
    pca_picture(URLS, tmp_path / "p.png", recipe=RECIPE, storage_options=OPTIONS)
    check(opened, URLS)


@pytest.mark.parametrize("name", ["detect", "similar", "pca"])
def test_options_of_commands_reach_all_images(opened, tmp_path, name):
    more = {
        "detect": ["--classes", "2"],
        "similar": ["--at", "40,45"],
        "pca": ["-o", str(tmp_path / "p.png")],
    }
    run(name, tmp_path, *URLS, *more[name])
    check(opened, URLS)


def test_without_options_there_are_none(opened):
    detect_objects(URLS[0], recipe=RECIPE, classes=2)
    check(opened, URLS[:1], {})
