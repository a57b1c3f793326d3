"""Zarr arrays: their metadata, versions 2 and 3, and their chunks."""

from __future__ import annotations

import gzip
import os
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from damage import flipped, key_paths, removed, replaced

from benchmarks.runs.hostile.case import (
    EITHER,
    REFUSE,
    SAME,
    Case,
    Damage,
    changed,
    dotted,
    drawn_odd,
    edited,
    odd_values,
    written,
)

V3, V2, CHUNKS = "Zarr 3 metadata", "Zarr 2 metadata", "Zarr chunks"

_ODD = (None, True, -1, 1.5, float("nan"), 10**30, "", "x", "../..", [], {"x": 1})

_FEW = (None, -1, 10**30, "x", [], {"x": 1})


def compare(name: str) -> tuple[str, ...]:
    """Return the command that reads every voxel of an array and compares it with the sound one."""
    return ("evaluate", name, "noise.zarr" if name != "noise.zarr" else "raw.zarr", "--json")


def cases() -> Iterator[Case]:
    yield from _version_3()
    yield from _version_2()
    yield from _chunks()
    yield from _drawn()


def _metadata() -> Any:
    """Return metadata like those of a sound array; only their key paths are used."""
    grid = {"name": "regular", "configuration": {"chunk_shape": [2, 40, 36]}}
    keys = {"name": "default", "configuration": {"separator": "/"}}
    zstd = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
    return {
        **{"shape": [4, 80, 72], "data_type": "uint8", "chunk_grid": grid, "chunk_key_encoding": keys},
        **{
            "fill_value": 0,
            "codecs": [{"name": "bytes"}, zstd],
            "attributes": {},
            "zarr_format": 3,
            "node_type": "array",
        },
    }


_SECOND: dict[str, Any] = {
    **{
        "shape": [4, 80, 72],
        "chunks": [2, 40, 36],
        "dtype": "|u1",
        "fill_value": 0,
        "order": "C",
        "filters": None,
    },
    **{
        "dimension_separator": ".",
        "zarr_format": 2,
        "compressor": {"id": "zstd", "level": 0},
    },
}


def _version_3() -> Iterator[Case]:
    file, command = "noise.zarr/zarr.json", compare("noise.zarr")

    def case(name: str, damage: Damage, expect: str = SAME, **more: Any) -> Case:
        return Case(V3, name, command, damage, expect, ("noise.zarr",), **more)

    sound = _metadata()
    for path in key_paths(sound)[1:]:
        for name, change in odd_values(sound, [path], _ODD if len(path) == 1 else _FEW):
            yield case(name, edited(file, change))
        yield case(f"no {dotted(path)}", edited(file, lambda old, p=path: removed(old, p)))
    yield from _texts(case, file)
    for kind in (
        "object",
        "string",
        "r8",
        "r80000000000",
        "complex64",
        "float16",
        "numpy.datetime64",
        "fixed_length_utf_32",
        "struct",
        "null_terminated_bytes",
        "bool",
        "int8",
        "uint64",
        "\x1b[31mred",
    ):
        expect = SAME if kind not in ("bool", "int8") else EITHER
        yield case(f"data type {kind!a}", edited(file, lambda old, k=kind: old | {"data_type": k}), expect)
    for shape in (
        [0, 80, 72],
        [4, 80],
        [4],
        [],
        [1, 4, 80, 72, 1],
        [4, 80, 72, 1, 1, 1, 1, 1],
        [1] * 70,
        [4, 80, 10**9],
        [2**40] * 3,
        [10**10] * 3,
    ):
        yield case(f"shape {shape[:6]}", edited(file, lambda old, s=shape: old | {"shape": s}), REFUSE)
    for chunks in (
        [0, 40, 36],
        [2, 40],
        [2, 40, 36, 1],
        [2**31, 1, 1],
        [2**20] * 3,
        [2, 40, 35],
        [1, 1, 1],
        [10**10] * 3,
    ):
        grid = {"name": "regular", "configuration": {"chunk_shape": chunks}}
        yield case(
            f"chunks {chunks}",
            edited(file, lambda old, g=grid: old | {"chunk_grid": g}),
            REFUSE if chunks != [1, 1, 1] else EITHER,
        )
    codecs: dict[str, list[Any]] = {
        "unknown": [{"name": "rot13"}],
        "none": [],
        "only bytes": [{"name": "bytes"}],
        "bytes twice": [{"name": "bytes"}, {"name": "bytes"}],
        "numcodecs pickle": [{"name": "numcodecs.pickle"}],
        "shuffled": [{"name": "zstd"}, {"name": "bytes"}],
        "gzip": [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 5}}],
        "a thousand": [{"name": "bytes"}] + [{"name": "crc32c"}] * 1000,
        "transpose": [{"name": "transpose", "configuration": {"order": [0, 0, 0]}}, {"name": "bytes"}],
        "sharded": [
            {
                "name": "sharding_indexed",
                "configuration": {"chunk_shape": [0, 1, 1], "codecs": [], "index_codecs": []},
            }
        ],
        "vlen": [{"name": "vlen-bytes"}],
        "a module": [{"name": "os.system"}],
    }
    for name, values in codecs.items():
        yield case(f"codecs {name}", edited(file, lambda old, v=values: old | {"codecs": v}), REFUSE)
    for fill in (1, 7, 255):
        yield case(f"fill value {fill}", edited(file, lambda old, f=fill: old | {"fill_value": f}))
    yield case(
        "dimensions of escapes",
        edited(file, lambda old: old | {"dimension_names": ["\x1b[31m", "y", "x"]}),
        EITHER,
    )
    yield case(
        "dimensions y, y, x", edited(file, lambda old: old | {"dimension_names": ["y", "y", "x"]}), EITHER
    )
    yield case(
        "dimensions x, y, z", edited(file, lambda old: old | {"dimension_names": ["x", "y", "z"]}), EITHER
    )
    yield case(
        "must understand", edited(file, lambda old: old | {"extra": {"must_understand": True}}), EITHER
    )


def _version_2() -> Iterator[Case]:
    file, command = "two.zarr/.zarray", compare("two.zarr")

    def case(name: str, damage: Damage, expect: str = SAME, **more: Any) -> Case:
        return Case(V2, name, command, damage, expect, ("two.zarr",), **more)

    for path in key_paths(_SECOND)[1:]:
        for name, change in odd_values(_SECOND, [path], _ODD if len(path) == 1 else _FEW):
            yield case(name, edited(file, change))
        yield case(f"no {dotted(path)}", edited(file, lambda old, p=path: removed(old, p)))
    yield from _texts(case, file)
    for kind in (
        "|O",
        "<U8",
        "|S1000000",
        "|V8",
        "<M8[s]",
        "<c16",
        "<f2",
        ">u1",
        "|b1",
        [["a", "<u1"]],
        [["a", "|O"]],
        "|u16",
        "<i1000",
    ):
        expect = EITHER if kind in (">u1", "|b1") else SAME
        yield case(f"dtype {kind}", edited(file, lambda old, k=kind: old | {"dtype": k}), expect)
    for codec in (
        "pickle",
        "json2",
        "msgpack2",
        "vlen-utf8",
        "vlen-array",
        "categorize",
        "rot13",
        "base64",
        "os.system",
        "\x1b[31m",
    ):
        for key in ("compressor", "filters"):
            values: Any = {"id": codec} if key == "compressor" else [{"id": codec, "dtype": "|O"}]
            yield case(f"{key} {codec!a}", edited(file, lambda old, k=key, v=values: old | {k: v}), REFUSE)
    yield case("order F", edited(file, lambda old: old | {"order": "F"}), EITHER)
    yield case("attributes are a list", written("two.zarr/.zattrs", "[]"))
    yield case("attributes nested", written("two.zarr/.zattrs", '{"a":' * 100_000))
    yield case("attributes garbage", written("two.zarr/.zattrs", b"\xff\xfe\0"))
    yield case(
        "both versions", written("two.zarr/zarr.json", '{"zarr_format": 3, "node_type": "group"}'), EITHER
    )


def _texts(case: Callable[..., Case], file: str) -> Iterator[Case]:
    for name, data in {
        "empty": b"",
        "null": b"null",
        "a list": b"[]",
        "a number": b"3",
        "no JSON": b"<html>",
        "binary": bytes(range(256)),
        "nested lists": b"[" * 200_000,
        "nested attributes": b'{"attributes":' * 100_000,
        "5,000 digits": b'{"zarr_format": ' + b"3" * 5000 + b"}",
        "UTF-16": '{"zarr_format": 3}'.encode("utf-16"),
        "a group": b'{"zarr_format": 3, "node_type": "group"}',
    }.items():
        yield case(f"text: {name}", written(file, data), REFUSE)
    yield case("text: a folder", _instead(file, lambda path: path.mkdir()), REFUSE)
    yield case("text: a pipe", _instead(file, os.mkfifo), REFUSE)
    yield case("text: /dev/zero", _instead(file, lambda path: path.symlink_to("/dev/zero")), REFUSE)
    yield case("text: cut", changed(file, lambda data: data[: len(data) // 2]), REFUSE)
    yield case("text: a comma", changed(file, lambda data: data.replace(b"}", b",}", 1)), REFUSE)
    yield case("text: a byte order mark", changed(file, lambda data: b"\xef\xbb\xbf" + data), SAME)


def _instead(name: str, make: Callable[[Path], object]) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage


def _chunks() -> Iterator[Case]:
    """Damage of one chunk that its codec, or its length, can tell."""
    kinds = {
        "noise.zarr": "c/0/0/0",
        "crc.zarr": "c/1/1/0",
        "gzip.zarr": "c/0/1/1",
        "raw.zarr": "c/1/0/0",
        "sharded.zarr": "c/0/0/0",
        "two.zarr": "0.0.1",
    }
    harms: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda data: b"",
        "one byte": lambda data: data[:1],
        "cut": lambda data: data[: len(data) // 2],
        "a byte less": lambda data: data[:-1],
        "garbage": lambda data: b"garbage" * 20,
        "zeros": lambda data: b"\0" * (len(data) + 3),
        "ones": lambda data: b"\xff" * (len(data) + 1),
        "a head more": lambda data: b"\0\0\0\0" + data,
    }
    instead: dict[str, Callable[[Path], object]] = {
        "a folder": lambda path: path.mkdir(),
        "a folder with files": lambda path: (path.mkdir(), (path / "x").write_text("x")),
        "a dangling link": lambda path: path.symlink_to("nowhere"),
        "a link to itself": lambda path: path.symlink_to(path),
        "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "a pipe": os.mkfifo,
    }
    for array, chunk in kinds.items():
        command, file = compare(array), f"{array}/{chunk}"
        for name, harm in harms.items():
            yield Case(CHUNKS, f"{array}: {name}", command, changed(file, harm), REFUSE, (array,))
        for name, make in instead.items():
            yield Case(CHUNKS, f"{array}: {name}", command, _instead(file, make), REFUSE, (array,))
    shorter = gzip.compress(b"\1" * 100)
    longer = gzip.compress(b"\1" * 10**6)
    for name, data in {
        "shorter inside": shorter,
        "longer inside": longer,
        "no end": zlib.compress(b"\1" * 2880),
    }.items():
        yield Case(
            CHUNKS,
            f"gzip.zarr: {name}",
            compare("gzip.zarr"),
            written("gzip.zarr/c/0/1/1", data),
            REFUSE,
            ("gzip.zarr",),
        )


def _drawn() -> Iterator[Case]:
    rng = random.Random(4)
    for number in range(40):
        array, chunk = rng.choice(
            (("crc.zarr", "c/1/1/0"), ("crc.zarr", "c/0/0/1"), ("sharded.zarr", "c/0/0/0"))
        )
        places = [rng.randrange(10**6) for _ in range(rng.choice((1, 2)))]
        yield Case(
            CHUNKS,
            f"{array}: drawn flips {number}",
            compare(array),
            changed(f"{array}/{chunk}", lambda data, p=places: flipped(data, p)),
            SAME,
            (array,),
            generated=True,
        )
    for number in range(40):
        second = rng.random() < 0.4
        array, file, values, group = (
            ("two.zarr", ".zarray", _SECOND, V2) if second else ("noise.zarr", "zarr.json", _metadata(), V3)
        )
        path, value = drawn_odd(values, rng)

        def change(old: Any, path: Any = path, value: Any = value) -> Any:
            return replaced(old, path, value)

        yield Case(
            group,
            f"drawn value {number}",
            compare(array),
            edited(f"{array}/{file}", change),
            SAME,
            (array,),
            generated=True,
        )
    for number in range(40):
        places = [rng.randrange(10**6)]
        array, file, group = (
            ("two.zarr", ".zarray", V2) if rng.random() < 0.4 else ("noise.zarr", "zarr.json", V3)
        )
        yield Case(
            group,
            f"drawn flips {number}",
            compare(array),
            changed(f"{array}/{file}", lambda data, p=places: flipped(data, p)),
            SAME,
            (array,),
            generated=True,
        )
