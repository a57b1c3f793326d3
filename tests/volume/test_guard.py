"""No output replaces, holds or is inside of an input, however their paths are written."""

import os

import numpy as np
import pytest
import zarr

from hrvol.errors import UsageError
from hrvol.volume.guard import file_or_none, keep_inputs
from hrvol.volume.storage.location import Location
from hrvol.volume.volume import open_volume


@pytest.fixture
def volume(tmp_path):
    zarr.create_array(tmp_path / "in" / "v.zarr", data=np.zeros((2, 8, 8), np.uint8))
    return tmp_path / "in" / "v.zarr"


SPELLINGS = [
    "{}/",
    "{}/.",
    "{}/../v.zarr",
    "file://{}",
    "file://{}/",
    "FILE://{}",
    "local://{}",
    "simplecache::file://{}",
    "{}/c/0",
    "{}/labels/new",
    "{}/..",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_output_in_another_spelling_is_recognised(volume, spelling):
    out = spelling.format(volume)
    for given in (volume, str(volume), Location.of(volume), open_volume(volume), zarr.open(volume, mode="r")):
        with pytest.raises(UsageError, match=r"is .or holds, or is inside. the input"):
            keep_inputs(out, None, given)
        with pytest.raises(UsageError, match=r"is .or holds, or is inside. the input"):
            keep_inputs(Location.of(out), given)


def test_links_and_relative_paths_are_followed(volume, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(volume.parent)
    model = tmp_path / "m.hrvol"
    model.write_bytes(b"model")
    os.link(model, tmp_path / "same.hrvol")
    monkeypatch.chdir(volume.parent)
    for out, given in (
        ("v.zarr", volume),
        ("./v.zarr/new", volume),
        (tmp_path / "link" / "v.zarr", "v.zarr"),
        (tmp_path / "same.hrvol", model),
        (tmp_path / "link", volume),
    ):
        with pytest.raises(UsageError):
            keep_inputs(out, given)


@pytest.mark.parametrize(
    ("out", "given"),
    [
        ("s3://bucket/v.zarr", "s3://bucket/v.zarr/"),
        ("S3://Bucket/v.zarr/./", "s3a://bucket/x/../v.zarr"),
        ("s3://bucket/v.zarr/labels/a", "simplecache::s3://bucket/v.zarr"),
        ("s3://bucket", "s3://bucket/v.zarr"),
        ("https://host/v.zarr", "https://HOST//v.zarr"),
    ],
)
def test_urls_are_compared_by_what_they_name(out, given):
    with pytest.raises(UsageError):
        keep_inputs(out, given)


def test_what_is_elsewhere_is_accepted(volume, tmp_path):
    for out in (
        tmp_path / "out.zarr",
        volume.parent / "v.zarr2",
        "s3://bucket/v.zarr2",
        f"{volume}.ome.zarr",
    ):
        keep_inputs(out, volume, "s3://bucket/v.zarr", "s3://bucket/V.zarr2", np.zeros(3), None, "a\0b")
    assert file_or_none("fast") is None
    assert file_or_none(volume) is None
    (tmp_path / "r.yaml").touch()
    assert file_or_none(str(tmp_path / "r.yaml")) == tmp_path / "r.yaml"
