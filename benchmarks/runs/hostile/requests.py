"""Values and paths of the command line, scheduler files, storage options, files of weights."""

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
from damage import shown

VALUES, PATHS, SCHEDULERS = "command-line values", "paths", "scheduler files"
STORAGE, WEIGHTS = "storage options", "weights files"

_TRAIN = ("train", "v.zarr", "s.zarr", "-o", "new.hrvol", "--recipe", "r.yaml")


def cases() -> Iterator[Case]:
    yield from _values()
    yield from _paths()
    yield from _outputs()
    yield from _schedulers()
    yield from _storage()
    yield from _weights()


def _values() -> Iterator[Case]:
    numbers = ("", "x", "-1", "1.5", "NaN", "9" * 5000, "٣", "0x10", " 1", "1e3", "\x1b[31m")
    options: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {
        SEGMENT: ("--level", (*numbers, "7", str(10**30))),
        SEGMENT[:-2]: (
            "--engine",
            (
                "",
                "nonsense",
                "tcp://",
                "tcp://:0",
                "http://127.0.0.1:9",
                "ucx://127.0.0.1:9",
                "tcp://127.0.0.1:99999",
                "inproc://x",
                "\x1b[31m",
                "tcp://[::1",
                "tcp://" + "a" * 500,
            ),
        ),
        _TRAIN: ("--seed", (*numbers, str(2**32), str(10**30))),
        ("evaluate", "noise.zarr", "raw.zarr"): ("--classes", ("", ",", "a", ",".join("abcdefghij" * 100))),
        ("info", "v.zarr"): ("--nonsense", ("1",)),
        ("nonsense",): ("--x", ("1",)),
    }
    for words, (option, values) in options.items():
        for value in values:
            expect = (
                EITHER
                if value in (" 1", "٣", str(2**32), str(10**30), "9" * 5000)
                and option == "--seed"
                or option == "--classes"
                else REFUSE
            )
            if option == "--level" and value in (" 1", "٣"):
                expect = EITHER
            yield Case(
                VALUES,
                f"{words[0]} {option} {shown(value)}",
                (*words, option, value),
                nothing,
                expect,
                (
                    option,
                    "engine",
                    "seed",
                    "level",
                    "address",
                    "class",
                    "option",
                    "command",
                    value[:20] or "''",
                ),
                files=("v.zarr", "s.zarr"),
            )
    for roi in (
        "",
        "1",
        "0:1",
        "0:1,0:1,0:1,0:1",
        "a:b,:,:",
        "3:1,:,:",
        ":,:,90:95",
        "-1:2,:,:",
        "0:99999999999999999999,:,:",
        ":,:",
        "::,:,:",
        "0:0,:,:",
        "4:,:,:",
        f"{'9' * 5000}:,:,:",
        "٠:١,:,:",
    ):
        expect = EITHER if roi in ("0:99999999999999999999,:,:", ":,:", "٠:١,:,:") else REFUSE
        yield Case(
            VALUES,
            f"segment --roi {shown(roi)}",
            (*SEGMENT, "--roi", roi),
            nothing,
            expect,
            ("roi", "region", "v.zarr"),
        )
    for part in (
        "",
        "1",
        "0/1",
        "2/1",
        "1/0",
        "x/y",
        "1/2/3",
        "-1/2",
        "1/10000000000",
        "9" * 5000 + "/1",
        "1.0/2",
    ):
        yield Case(
            VALUES,
            f"segment --part {shown(part)}",
            (*SEGMENT, "--part", part),
            nothing,
            EITHER if part == "1/10000000000" else REFUSE,
            ("part",),
        )
    for value in ("0", "-1", "x", "", "1.5"):
        yield Case(
            VALUES,
            f"segment --workers {shown(value)}",
            (*SEGMENT[:-1], "local", "--workers", value),
            nothing,
            REFUSE,
            ("--workers",),
        )
    for value in ("x", "", ",", "0,0", "-1", "GPU-x", "99"):
        yield Case(
            VALUES,
            f"segment --devices {shown(value)}",
            (*SEGMENT, "--devices", value),
            nothing,
            EITHER if value in ("99", "GPU-x", "0,0") else REFUSE,
            ("device", "GPU"),
        )
    for point in ("", "1", "a,b", "1,2,3,4", "-1,2", "9999,9999", "1,,2"):
        words = ("similar", "v.tif", "--at", point, "--recipe", "r.yaml")
        yield Case(VALUES, f"similar --at {shown(point)}", words, nothing, REFUSE, ("--at", "point", "v.tif"))
    for planes in ("", "x", "0", "-1", "1,x", "99,", "1,,2", "9" * 5000):
        words = ("pca", "v.zarr", "-o", "new.png", "--recipe", "r.yaml", "--planes", planes)
        yield Case(
            VALUES,
            f"pca --planes {shown(planes)}",
            words,
            nothing,
            EITHER if planes == "9" * 5000 else REFUSE,
            ("planes", "plane"),
        )
    for words in (
        (),
        ("--version", "x"),
        ("segment",),
        ("segment", "v.zarr"),
        ("train",),
        ("evaluate", "noise.zarr"),
        ("status",),
    ):
        yield Case(VALUES, f"words {' '.join(words) or 'none'}", words or ("--help",), nothing, EITHER)
    for count in ("0", "-1", "x", "1", "2.5", "1000000000"):
        yield Case(
            VALUES,
            f"cluster --clusters {count}",
            (
                "cluster",
                "v.zarr",
                "new.ome.zarr",
                "--engine",
                "serial",
                "--recipe",
                "r.yaml",
                "--clusters",
                count,
            ),
            nothing,
            REFUSE,
            ("clusters",),
            files=("v.zarr",),
        )


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
        yield Case(
            PATHS, f"segment into {where[:20]!r}", ("segment", "v.zarr", where, *SEGMENT[3:]), nothing, REFUSE
        )


def _schedulers() -> Iterator[Case]:
    command = (*SEGMENT[:5], "--scheduler-file", "new.json")
    for name, data in {
        "empty": b"",
        "no JSON": b"<html>",
        "null": b"null",
        "a list": b"[]",
        "nested": b"[" * 100_000,
        "no address": b'{"type": "Scheduler", "id": "x", "workers": {}}',
        "address null": b'{"address": null}',
        "address a number": b'{"address": 1}',
        "address a list": b'{"address": ["tcp://127.0.0.1:9"]}',
        "address empty": b'{"address": ""}',
        "tls": b'{"address": "tls://127.0.0.1:9"}',
        "ucx": b'{"address": "ucx://127.0.0.1:9"}',
        "http": b'{"address": "http://127.0.0.1:9"}',
        "unknown protocol": b'{"address": "gopher://127.0.0.1:9"}',
        "port 99999": b'{"address": "tcp://127.0.0.1:99999"}',
        "port text": b'{"address": "tcp://127.0.0.1:x"}',
        "no port": b'{"address": "tcp://127.0.0.1"}',
        "escapes": b'{"address": "\\u001b[31m"}',
        "binary": bytes(range(256)),
        "nobody listens": b'{"address": "tcp://127.0.0.1:9"}',
    }.items():
        yield Case(
            SCHEDULERS,
            name,
            command,
            written("new.json", data),
            REFUSE,
            ("new.json", "scheduler", "127.0.0.1"),
        )
    for name, make in {
        "missing": lambda path: None,
        "a folder": lambda path: path.mkdir(),
        "a pipe": os.mkfifo,
        "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    }.items():
        yield Case(
            SCHEDULERS,
            name,
            command,
            lambda folder, m=make: m(folder / "new.json"),
            REFUSE,
            ("new.json", "scheduler"),
        )


def _storage() -> Iterator[Case]:
    for option in (
        "",
        "=",
        "=x",
        "key",
        "a=b",
        "anon=maybe",
        "\x1b[31m=1",
        "a=" + "x" * 100_000,
        "endpoint_url=nonsense",
        "a={",
        "client_kwargs=1",
    ):
        for path in ("v.zarr", "file:///none.zarr"):
            expect = EITHER if "=" in option and option[0] != "=" and path == "v.zarr" else REFUSE
            yield Case(
                STORAGE,
                f"{shown(option)} of {path}",
                ("info", path, "--storage-option", option),
                nothing,
                expect,
                ("storage", "file:///none.zarr", "v.zarr"),
            )
    for option in (
        "endpoint_url=nonsense",
        "endpoint_url=ftp://x",
        "anon=maybe",
        "client_kwargs=1",
        "nonsense=1",
        "secret=x",
        "config_kwargs={",
    ):
        words = ("info", "s3://none/none.zarr", "--storage-option", option, "--storage-option", "key=x")
        more = (
            () if option.startswith("endpoint") else ("--storage-option", "endpoint_url=http://127.0.0.1:9")
        )
        yield Case(
            STORAGE, f"{option} of a bucket", (*words, *more), nothing, REFUSE, ("s3://", "storage", option)
        )
    yield Case(
        STORAGE,
        "one key twice",
        ("info", "v.zarr", "--storage-option", "a=1", "--storage-option", "a=2"),
        nothing,
        EITHER,
    )


def _weights() -> Iterator[Case]:
    command = (
        "train",
        "v.zarr",
        "s.zarr",
        "-o",
        "new.hrvol",
        "--recipe",
        "deep.yaml",
        "--offline",
        "--weights",
    )

    def tensors(header: Any, data: bytes = bytes(64)) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    one = {"cls_token": {"dtype": "F32", "shape": [1, 1, 16], "data_offsets": [0, 64]}}
    files: dict[str, bytes] = {
        "empty": b"",
        "garbage": b"garbage" * 100,
        "header only": struct.pack("<Q", 100),
        "header of 2^63": struct.pack("<Q", 2**63) + b"{}",
        "header of 200 MB": struct.pack("<Q", 200 * 2**20) + b"{}",
        "header null": tensors(b"null"),
        "header nested": tensors(b'{"a":' * 10_000),
        "no tensors": tensors({}),
        "one tensor": tensors(one),
        "offsets outside": tensors({"cls_token": one["cls_token"] | {"data_offsets": [0, 10**9]}}),
        "offsets reversed": tensors({"cls_token": one["cls_token"] | {"data_offsets": [64, 0]}}),
        "dtype odd": tensors({"cls_token": one["cls_token"] | {"dtype": "F99"}}),
        "shape odd": tensors({"cls_token": one["cls_token"] | {"shape": [10**9] * 3}}),
        "shape negative": tensors({"cls_token": one["cls_token"] | {"shape": [-1]}}),
        "names of escapes": tensors({"\x1b[31m": one["cls_token"]}),
        "a thousand tensors": tensors({f"t{n}": one["cls_token"] for n in range(1000)}),
        "metadata odd": tensors({"__metadata__": {"a": 1}, **one}),
        "a pickle": b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.",
        "a pickle in a zip": b"",
        "a numpy file": b"\x93NUMPY\x01\0",
        "HTML": b"<html>404</html>",
        "git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 88\n",
    }
    for suffix in (".safetensors", ".pth"):
        for name, data in files.items():
            file = f"new{suffix}"

            def damage(folder: Path, file: str = file, data: bytes = data, name: str = name) -> None:
                (folder / file).write_bytes(data)
                if name == "a pickle in a zip":
                    with zipfile.ZipFile(folder / file, "w") as archive:
                        archive.writestr("archive/data.pkl", b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR.")
                        archive.writestr("archive/version", "3")

            yield Case(WEIGHTS, f"{file}: {name}", (*command, file), damage, REFUSE, (file,), keep=("pwned",))
    for name, make in {
        "missing": lambda path: None,
        "a folder": lambda path: path.mkdir(),
        "a pipe": os.mkfifo,
        "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    }.items():
        yield Case(
            WEIGHTS,
            name,
            (*command, "new.pth"),
            lambda folder, m=make: m(folder / "new.pth"),
            REFUSE,
            ("new.pth",),
        )
    for name in ("", "nonsense", "../x", "\x1b[31m", "dinov2_vits14/../../x"):
        for action in ("fetch", "path", "verify"):
            words = ("weights", action, name, *(("--offline",) if action == "fetch" else ()))
            yield Case(
                WEIGHTS,
                f"weights {action} {shown(name)}",
                words,
                nothing,
                REFUSE,
                ("network", "weights", name or "''"),
            )
