"""Paths that lead to something else than a volume, and outputs in places where other files are."""

from __future__ import annotations

import json
import os
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runs.hostile.case import EITHER, REFUSE, Case, nothing, written
from benchmarks.runs.hostile.sound import SEGMENT

PATHS = "paths"

_TRAIN = ("train", "v.zarr", "s.zarr", "-o", "new.hrvol", "--recipe", "r.yaml")


def cases() -> Iterator[Case]:
    yield from _paths()
    yield from _outputs()


def _foreign() -> dict[str, Callable[[Path], object]]:
    """Return what a path may lead to that is no volume."""

    def folder_of(name: str, data: bytes, count: int = 3) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            path.mkdir()
            for number in range(count):
                (path / f"{name.format(number)}").write_bytes(data)

        return make

    return {
        "nothing": lambda path: None,
        "an empty file": lambda path: path.write_bytes(b""),
        "an empty folder": lambda path: path.mkdir(),
        "a folder of TIFFs": folder_of("plane_{:04d}.tif", b"II*\0", 50),
        "a folder of pictures": folder_of("plane_{:04d}.png", b"\x89PNG\r\n\x1a\n"),
        "a folder of DICOM": folder_of("IM{:04d}.dcm", b"\0" * 128 + b"DICM"),
        "a folder of text": folder_of("{}.txt", b"x"),
        "text": lambda path: path.write_text("not a volume\n"),
        "HDF5": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(500)),
        "PNG": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500)),
        "JPEG": lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(500)),
        "NumPy": lambda path: np.save(path.open("wb"), np.zeros((4, 5, 6))),
        "MRC": lambda path: path.write_bytes(
            struct.pack("<4i", 72, 80, 4, 0) + bytes(192) + b"MAP DA\0\0" + bytes(900)
        ),
        "NIfTI": lambda path: path.write_bytes(struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(500)),
        "DICOM": lambda path: path.write_bytes(bytes(128) + b"DICM" + bytes(500)),
        "a zip": lambda path: zipfile.ZipFile(path, "w").close(),
        "a pickle": lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR."),
        "a pipe": os.mkfifo,
        "a socket": lambda path: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)),
        "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "/dev/full": lambda path: path.symlink_to("/dev/full"),
        "a link to itself": lambda path: path.symlink_to(path),
        "a dangling link": lambda path: path.symlink_to("nowhere"),
        "a group of 300 arrays": _group,
        "an empty group": lambda path: (
            path.mkdir(),
            (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}'),
        ),
    }


def _group(path: Path) -> None:
    path.mkdir()
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    array = json.dumps(
        {
            **{
                "zarr_format": 3,
                "node_type": "array",
                "shape": [4, 4],
                "data_type": "uint8",
                "fill_value": 0,
                "attributes": {},
            },
            **{
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 4]}},
                "codecs": [{"name": "bytes"}],
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        }
    )
    for number in range(300):
        (path / f"array_{number:04d}").mkdir()
        (path / f"array_{number:04d}" / "zarr.json").write_text(array)


def _paths() -> Iterator[Case]:
    for name, make in _foreign().items():
        for word in ("new", "new.tif", "new.zarr", "new.hrvol"):
            if word != "new" and name in (
                "a folder of pictures",
                "a folder of DICOM",
                "a folder of text",
                "MRC",
                "JPEG",
                "DICOM",
            ):
                continue

            def damage(folder: Path, make: Any = make, word: str = word) -> None:
                os.chdir(folder)
                make(folder / word)

            yield Case(PATHS, f"info {word}: {name}", ("info", word), damage, REFUSE, (word,))
        for command in (
            ("status", "new"),
            ("evaluate", "noise.zarr", "new"),
            (*SEGMENT[:4], "new", *SEGMENT[5:]),
        ):

            def damage_(folder: Path, make: Any = make) -> None:
                os.chdir(folder)
                make(folder / "new")

            yield Case(PATHS, f"{command[0]}: {name}", command, damage_, REFUSE, ("new",))
    for word in (
        "",
        ".",
        "..",
        "/",
        "//",
        "~",
        "x" * 300,
        "x/" * 3000,
        "\udcff\udcfe.tif",
        "a\nb.tif",
        "\x1b[31m.tif",
        "a\u202eb.tif",
        "[red].tif",
        "file:///none",
        "file://host/none",
        "http://",
        "http://127.0.0.1:9/x.zarr",
        "s3://",
        "gs://x/y",
        "nonsense://x",
        "v.zarr/../none",
        "v.zarr/0/1",
        "v.zarr/c/0/0/0",
        "memory://x",
        "zip://x::y",
        "simplecache::file:///x",
        "github://x:y@z/",
    ):
        for command in ("info", "status"):
            yield Case(
                PATHS, f"{command} {ascii(word)[:30]}", (command, word), nothing, REFUSE, files=("v.zarr",)
            )


def _outputs() -> Iterator[Case]:
    """Outputs in places where something else is, which must stay as it is."""
    office = b"PK\x03\x04" + bytes(26)

    def document(folder: Path) -> None:
        with zipfile.ZipFile(folder / "thesis.docx", "w") as archive:
            archive.writestr("word/document.xml", "<x/>")

    yield Case(
        PATHS,
        "train -o thesis.docx --fresh",
        ("train", "v.zarr", "s.zarr", "-o", "thesis.docx", "--recipe", "r.yaml", "--fresh"),
        document,
        REFUSE,
        ("thesis.docx",),
        keep=("thesis.docx",),
    )
    for name, data in {
        "text.hrvol": b"my notes",
        "picture.png": b"\x89PNG\r\n\x1a\nmine",
        "volume.tif": b"II*\0mine",
        "zip.hrvol": office,
        "notes.yaml": b"my: notes\n",
    }.items():
        fresh = ("--fresh",)
        yield Case(
            PATHS,
            f"train -o {name} --fresh",
            (*_TRAIN[:4], name, *_TRAIN[5:], *fresh),
            written(name, data),
            EITHER if name == "zip.hrvol" else REFUSE,
            (name,),
            keep=() if name == "zip.hrvol" else (name,),
        )
        yield Case(
            PATHS,
            f"train -o {name}",
            (*_TRAIN[:4], name, *_TRAIN[5:]),
            written(name, data),
            REFUSE,
            (name,),
            keep=(name,),
        )
        yield Case(
            PATHS,
            f"segment {name} --fresh",
            ("segment", "v.zarr", name, *SEGMENT[3:], *fresh),
            written(name, data),
            REFUSE,
            (name,),
            keep=(name,),
        )
        yield Case(
            PATHS,
            f"features {name} --fresh",
            ("features", "v.zarr", name, "--recipe", "r.yaml", *fresh),
            written(name, data),
            REFUSE,
            (name,),
            keep=(name,),
        )
    run = SEGMENT
    inputs: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "onto the volume": (("segment", "v.zarr", "v.zarr", *run[3:], "--fresh"), ("v.zarr",)),
        "onto the volume by ./": (("segment", "v.zarr", "./v.zarr", *run[3:], "--fresh"), ("v.zarr",)),
        "onto the model": (("segment", "v.zarr", "m.hrvol", *run[3:], "--fresh"), ("m.hrvol",)),
        "onto its mask": (
            ("segment", "v.zarr", "mask.zarr", *run[3:], "--mask", "mask.zarr", "--fresh"),
            ("mask.zarr",),
        ),
        "onto an output that masks": (
            ("segment", "tall.zarr", "out.ome.zarr", *run[3:], "--mask", "out.ome.zarr", "--fresh"),
            ("out.ome.zarr",),
        ),
        "onto an output that masks, by ./": (
            ("segment", "tall.zarr", "./out.ome.zarr", *run[3:], "--mask", "out.ome.zarr/", "--fresh"),
            ("out.ome.zarr",),
        ),
        "onto an output that is the volume": (
            ("segment", "out.ome.zarr", "out.ome.zarr", *run[3:], "--fresh"),
            ("out.ome.zarr",),
        ),
        "onto the strokes": ((*_TRAIN[:4], "s.zarr", *_TRAIN[5:], "--fresh"), ("s.zarr",)),
        "onto the recipe": ((*_TRAIN[:4], "r.yaml", *_TRAIN[5:], "--fresh"), ("r.yaml",)),
        "onto a folder": (("segment", "v.zarr", "folder", *run[3:], "--fresh"), ("folder",)),
        "into the volume": (("segment", "v.zarr", "v.zarr/new", *run[3:]), ("v.zarr",)),
        "features onto the volume": (
            ("features", "v.zarr", "v.zarr", "--recipe", "r.yaml", "--fresh"),
            ("v.zarr",),
        ),
        "clusters onto the volume": (
            ("cluster", "v.zarr", "v.zarr", "--recipe", "cluster.yaml", "--engine", "serial", "--fresh"),
            ("v.zarr",),
        ),
        "a model of clusters onto the volume": (
            (
                "cluster",
                "v.zarr",
                "new.ome.zarr",
                "--recipe",
                "cluster.yaml",
                "--engine",
                "serial",
                "--fresh",
                "--model",
                "v.zarr",
            ),
            ("v.zarr",),
        ),
        "a picture onto the volume": (
            ("pca", "noise.tif", "-o", "noise.tif", "--recipe", "r.yaml", "--fresh"),
            ("noise.tif",),
        ),
        "boxes onto the recipe": (
            (
                "cluster",
                "v.zarr",
                "new.ome.zarr",
                "--recipe",
                "cluster.yaml",
                "--engine",
                "serial",
                "--fresh",
                "--boxes",
                "cluster.yaml",
            ),
            ("cluster.yaml",),
        ),
    }

    def folder_of_mine(folder: Path) -> None:
        (folder / "folder").mkdir()
        (folder / "folder" / "mine.txt").write_text("mine")

    for name, (words, keep) in inputs.items():
        damage = folder_of_mine if name == "onto a folder" else nothing
        yield Case(
            PATHS,
            name,
            words,
            damage,
            REFUSE,
            (*keep, "output", "volume"),
            files=("out.ome.zarr", "r.yaml", "cluster.yaml"),
            keep=keep,
        )
    for where in (
        "/dev/full",
        "/proc/new.hrvol",
        "/none/none/new.hrvol",
        "v.zarr/zarr.json/new.hrvol",
        "x" * 300 + ".hrvol",
        "",
    ):
        yield Case(PATHS, f"train -o {where[:20]!r}", (*_TRAIN[:4], where, *_TRAIN[5:]), nothing, REFUSE)
        # Missing folders on the way of an output are made, where that is allowed.
        expect = EITHER if where.startswith("/none") else REFUSE
        yield Case(
            PATHS, f"segment into {where[:20]!r}", ("segment", "v.zarr", where, *SEGMENT[3:]), nothing, expect
        )
