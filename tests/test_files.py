"""Files are written whole or not at all."""

import os
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from hrvol.errors import OutputExistsError, UsageError
from hrvol.figures.overlays import ComponentRow, draw_components
from hrvol.files import MODEL, atomic_write, check_file, check_picture
from hrvol.volume.mask import write_mask


def test_a_file_appears_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with atomic_write(path) as partial:
        assert (partial.parent, partial.suffix) == (tmp_path, ".png")
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(path) as partial:  # noqa: PT012
        partial.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_durable_file_is_flushed_before_its_name_is(tmp_path, monkeypatch):
    path, flushed, fsync = tmp_path / "m.hrvol", [], os.fsync

    def watched(handle):
        flushed.append((os.readlink(f"/proc/self/fd/{handle}"), path.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    with atomic_write(path) as partial:
        partial.write_bytes(b"quick")
    assert flushed == []
    path.unlink()
    with atomic_write(path, durable=True) as partial:
        partial.write_bytes(b"safe")
    assert flushed == [(str(partial), False), (str(tmp_path), True)]


def test_what_may_be_overwritten(tmp_path):
    path = tmp_path / "m.hrvol"
    assert check_file(str(path), MODEL, overwrite=False) == path
    path.write_bytes(b"PK\3\4damaged")
    assert check_file(path, MODEL, overwrite=True) == path
    with pytest.raises(OutputExistsError, match=r"m\.hrvol: exists already"):
        check_file(path, MODEL, overwrite=False)
    mine = tmp_path / "mine.hrvol"
    mine.write_bytes(b"notes on horses")
    with pytest.raises(OutputExistsError, match=r"mine\.hrvol: found no model, expected"):
        check_file(mine, MODEL, overwrite=True)
    other = tmp_path / "m.txt"
    other.write_bytes(b"notes")
    with pytest.raises(OutputExistsError, match=r"m\.txt: found no model, expected"):
        check_file(other, MODEL, overwrite=True)
    with pytest.raises(UsageError, match=r"found \.txt, expected \.png"):
        check_picture(other, overwrite=True)
    with pytest.raises(UsageError, match="no such folder"):
        check_file(tmp_path / "no" / "m.hrvol", MODEL, overwrite=True)


def archive(path, **members):
    with zipfile.ZipFile(path, "w") as made:
        for name, text in members.items():
            made.writestr(name.replace("_", "."), text)
    return path


def test_any_zip_is_not_a_model(tmp_path):
    thesis = archive(tmp_path / "thesis.docx", word_xml="years of work")
    before = thesis.read_bytes()
    zips = [archive(tmp_path / f"{i}.zip", info_json=text) for i, text in enumerate(("{}", "[", "[1]"))]
    for other in (thesis, *zips):
        with pytest.raises(OutputExistsError, match="found no model, expected an earlier one"):
            check_file(other, MODEL, overwrite=True)
    assert thesis.read_bytes() == before
    ours = archive(tmp_path / "m.model", info_json='{"format": "hrvol model"}')
    assert check_file(ours, MODEL, overwrite=True) == ours


def test_any_picture_is_not_one_of_ours(tmp_path):
    volume, figure = tmp_path / "volume.tif", tmp_path / "figure.png"
    tifffile.imwrite(volume, np.zeros((3, 8, 8), np.uint8))
    Image.new("L", (8, 8)).save(figure)
    (tmp_path / "half.png").write_bytes(figure.read_bytes()[:30])
    for other, name in ((volume, "mask"), (figure, "picture"), (tmp_path / "half.png", "picture")):
        before = other.read_bytes()
        with pytest.raises(OutputExistsError, match=f"found no {name} of hrvol"):
            check_picture(other, overwrite=True)
        assert other.read_bytes() == before
    write_mask(tmp_path / "mask.tif", np.zeros((4, 4), bool))
    row = ComponentRow("a", np.zeros((4, 4), np.float32), np.zeros((4, 4, 3), np.uint8), None)
    draw_components(tmp_path / "own.png", [row])
    for name in ("mask.tif", "own.png"):
        assert check_picture(tmp_path / name, overwrite=True) == tmp_path / name


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_only_files_are_replaced(tmp_path, kind):
    path = tmp_path / "m.hrvol"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "nothing")
    else:
        os.mkfifo(path)
    with pytest.raises(OutputExistsError, match="found no model"):
        check_file(path, MODEL, overwrite=True)
