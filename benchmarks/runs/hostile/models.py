"""Model archives, their class tables, and the estimators inside of them."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from damage import flipped, removed, replaced, spliced, with_json, with_member, zip_members, zipped

from benchmarks.runs.hostile.case import EITHER, REFUSE, SAME, Case, changed, drawn_odd, odd_values

ARCHIVES, TABLES, ESTIMATORS = "model archives", "class tables", "estimators inside"

MODEL = "m.hrvol"
INFO = ("info", MODEL, "--json")

Change = Callable[[bytes], bytes]

_ODD = (None, True, -1, 1.5, 10**30, "", "x", "\x1b[31mred\n", [], {"x": 1})


def cases() -> Iterator[Case]:
    yield from _archives()
    yield from _info()
    yield from _tables()
    yield from _windows()
    yield from _drawn()


def case(group: str, name: str, change: Change, expect: str = REFUSE, **more: Any) -> Case:
    """Return a case of a changed model file."""
    command = more.pop("command", INFO)
    return Case(group, name, command, changed(MODEL, change), expect, more.pop("names", (MODEL,)), **more)


def json_case(
    group: str, member: str, name: str, change: Callable[[Any], Any], expect: str = REFUSE, **more: Any
) -> Case:
    """Return a case of a changed JSON member of a model file."""
    return case(group, f"{member}: {name}", lambda data: with_json(data, member, change), expect, **more)


def _archives() -> Iterator[Case]:
    whole: dict[str, tuple[Change, str]] = {
        "empty file": (lambda data: b"", REFUSE),
        "one byte": (lambda data: b"P", REFUSE),
        "text": (lambda data: b"a model, honestly\n", REFUSE),
        "signature only": (lambda data: b"PK\x03\x04", REFUSE),
        "empty archive": (lambda data: zipped({}), REFUSE),
        "trailing garbage": (lambda data: data + b"x" * 1000, SAME),
        "leading garbage": (lambda data: b"x" * 1000 + data, SAME),
        "twice": (lambda data: data + data, SAME),
        "comment": (lambda data: data[:-2] + b"\xff\xff" + b"x" * 65535, SAME),
        "encrypted": (lambda data: _flag(data, 1), REFUSE),
        "unknown compression": (lambda data: _method(data, 99), REFUSE),
        "lzma": (lambda data: zipped(zip_members(data), zipfile.ZIP_LZMA), SAME),
        "bzip2": (lambda data: zipped(zip_members(data), zipfile.ZIP_BZIP2), SAME),
        "damaged lzma": (lambda data: _method(data, 14), REFUSE),
        "damaged bzip2": (lambda data: _method(data, 12), REFUSE),
        "wrong sizes": (lambda data: _sizes(data, 10), REFUSE),
        "huge sizes": (lambda data: _sizes(data, 2**31), REFUSE),
        "a zip of a zip": (lambda data: zipped({"m.hrvol": data}), REFUSE),
        "an office document": (lambda data: zipped({"[Content_Types].xml": b"<x/>"}), REFUSE),
        "a member more": (lambda data: with_member(data, "more.json", b"{}"), SAME),
        "a member outside": (lambda data: with_member(data, "../../outside.json", b"{}"), SAME),
        "a thousand members": (
            lambda data: zipped(zip_members(data) | {f"{n}.json": b"" for n in range(5000)}),
            SAME,
        ),
        "a name of escapes": (lambda data: with_member(data, "\x1b[31m.json", b"{}"), SAME),
        "a folder for info.json": (lambda data: _renamed(data, "info.json", "info.json/"), REFUSE),
    }
    for name, (change, expect) in whole.items():
        yield case(ARCHIVES, name, change, expect)
    for percent in (5, 20, 40, 60, 80, 95, 99):
        yield case(ARCHIVES, f"the first {percent} %", lambda data, p=percent: data[: len(data) * p // 100])
    for member in ("info.json", "recipe.json", "classes.json", "window.npy", "estimator_all.skops"):
        yield case(ARCHIVES, f"no {member}", lambda data, m=member: with_member(data, m, None))
        yield case(ARCHIVES, f"{member} empty", lambda data, m=member: with_member(data, m, b""))
        yield case(ARCHIVES, f"{member} twice", lambda data, m=member: _twice(data, m))
        yield case(ARCHIVES, f"{member} garbage", lambda data, m=member: with_member(data, m, b"\xff\xfe\0x"))
    texts = {
        "null": b"null",
        "a list": b"[]",
        "nested": b"[" * 200_000,
        "nested mappings": b'{"a":' * 100_000,
        "NaN": b"NaN",
        "5,000 digits": b"9" * 5000,
        "UTF-16": "{}".encode("utf-16"),
        "lone surrogate": b'{"format": "\\ud800"}',
    }
    for member in ("info.json", "recipe.json", "classes.json"):
        for name, data in texts.items():
            yield case(
                ARCHIVES,
                f"{member}: {name}",
                lambda old, m=member, d=data: with_member(old, m, d),
                EITHER if name == "UTF-16" else REFUSE,
            )


def _info() -> Iterator[Case]:
    free = {
        "trained_on",
        "versions",
        "weights_sha256",
    }  # for people: any JSON value, as long as it is printed well
    shape = {
        "format": "",
        "format_version": 1,
        "channels": ["a"],
        "members": [],
        "trained_on": [],
        "versions": {},
    }
    paths = [(key,) for key in (*shape, "weights_sha256")]
    paths += [
        ("channels", 0),
        ("members", 0),
        ("members", 0, "name"),
        ("members", 0, "columns"),
        ("members", 0, "columns", 1),
    ]
    for path in paths:
        for name, change in odd_values({}, [path], _ODD):
            expect = EITHER if path[0] in free else SAME
            if path == ("channels", 0):
                expect = EITHER
            yield json_case(ARCHIVES, "info.json", name, change, expect)
        yield json_case(
            ARCHIVES,
            "info.json",
            f"no {path}",
            lambda old, p=path: removed(old, p),
            EITHER if path[0] in free else REFUSE,
        )
    for path in (
        ("trained_on", 0, "source"),
        ("trained_on", 0, "samples"),
        ("trained_on", 0),
        ("versions", "numpy"),
    ):
        for name, change in odd_values({}, [path], _ODD):
            yield json_case(ARCHIVES, "info.json", name, change, EITHER)
    recipe = (
        ("tiles",),
        ("tiles", "core"),
        ("features", "classical", "sigmas"),
        ("classifier", "trees"),
        ("seed",),
        ("combine",),
    )
    for path in recipe:
        for name, change in odd_values({}, [path], (None, -1, 10**9, float("nan"), "x", [])):
            expect = EITHER if path in (("seed",), ("classifier", "trees")) else SAME
            yield json_case(ARCHIVES, "recipe.json", name, change, expect)


def _tables() -> Iterator[Case]:
    for path in ((0,), (0, "value"), (0, "name"), (0, "colour"), (0, "colour", 0)):
        for name, change in odd_values({}, [path], _ODD):
            expect = EITHER if path == (0, "name") else SAME
            yield json_case(TABLES, "classes.json", name, change, expect)
    yield json_case(TABLES, "classes.json", "no name", lambda old: removed(old, (0, "name")))
    yield json_case(TABLES, "classes.json", "no value", lambda old: removed(old, (0, "value")))
    yield json_case(TABLES, "classes.json", "one class", lambda old: old[:1])
    yield json_case(TABLES, "classes.json", "a class more", lambda old: [*old, old[0] | {"value": 3}])
    yield json_case(TABLES, "classes.json", "none", lambda old: [])
    yield json_case(TABLES, "classes.json", "one value twice", lambda old: [old[0], old[1] | {"value": 1}])
    yield json_case(TABLES, "classes.json", "reversed", lambda old: old[::-1])
    yield json_case(
        TABLES, "classes.json", "100,000 classes", lambda old: [old[0] | {"value": n} for n in range(100_000)]
    )
    for value in (0, 256, 65535, 65536, 10**9, 2**31, 2**63):
        yield json_case(
            TABLES, "classes.json", f"value {value}", lambda old, v=value: replaced(old, (1, "value"), v)
        )
    for colour in (
        [0, 0],
        [0, 0, 0, 0],
        [256, 0, 0],
        [-1, 0, 0],
        ["a", 0, 0],
        [1.5, 0, 0],
        "red",
        [10**30, 0, 0],
    ):
        yield json_case(
            TABLES,
            "classes.json",
            f"colour {colour}",
            lambda old, c=colour: replaced(old, (0, "colour"), c),
            EITHER if colour == [0, 0, 0, 0] else REFUSE,
        )


def _windows() -> Iterator[Case]:
    arrays = {
        "NaN": np.array([np.nan, 1.0]),
        "infinity": np.array([0.0, np.inf]),
        "reversed": np.array([255.0, 0.0]),
        "equal": np.array([1.0, 1.0]),
        "three values": np.zeros(3),
        "no dimension": np.float64(0),
        "integers": np.array([0, 255]),
        "text": np.array(["a", "b"]),
        "complex": np.array([0j, 255]),
        "no values": np.zeros(0),
    }
    for name, values in arrays.items():
        yield case(
            ARCHIVES, f"window.npy: {name}", lambda data, v=values: with_member(data, "window.npy", npy(v))
        )
    big = npy(np.array([0.0, 255.0]).astype(">f8"))
    yield case(ARCHIVES, "window.npy: big-endian", lambda data: with_member(data, "window.npy", big), SAME)
    for name, header in {
        "an object": "{'descr': '|O', 'fortran_order': False, 'shape': (2,)}",
        "a call": "{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (2,)}",
        "negative shape": "{'descr': '<f8', 'fortran_order': False, 'shape': (-2,)}",
        "nested header": "(" * 9000,
        "no header": "",
        "odd dtype": "{'descr': 'zzz', 'fortran_order': False, 'shape': (2,)}",
        "shape of text": "{'descr': '<f8', 'fortran_order': False, 'shape': 'x'}",
    }.items():
        yield case(
            ARCHIVES,
            f"window.npy: {name}",
            lambda data, h=header: with_member(data, "window.npy", raw_npy(h)),
        )


def _drawn() -> Iterator[Case]:
    rng = random.Random(1)
    for number in range(40):
        places = [rng.randrange(10**6) for _ in range(rng.choice((1, 1, 2, 4)))]
        yield case(
            ARCHIVES, f"drawn flips {number}", lambda data, p=places: flipped(data, p), SAME, generated=True
        )
    for number in range(15):
        start, length, to = rng.random(), rng.randrange(1, 400), rng.random()
        yield case(
            ARCHIVES,
            f"drawn splice {number}",
            lambda data, s=start, n=length, t=to: spliced(
                data, int(s * len(data)), int(s * len(data)) + n, int(t * len(data))
            ),
            SAME,
            generated=True,
        )
    for number in range(45):
        member, seed = rng.choice(("info.json", "recipe.json", "classes.json")), rng.random()

        def change(values: Any, seed: float = seed) -> Any:
            return replaced(values, *drawn_odd(values, random.Random(seed)))

        yield json_case(ARCHIVES, member, f"drawn value {number}", change, EITHER, generated=True)


def npy(values: Any) -> bytes:
    """Return an array as a file."""
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def raw_npy(header: str, data: bytes = b"\0" * 16) -> bytes:
    """Return an array file with any header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + data


def _each_header(data: bytes, change: Callable[[bytearray, int, bool], None]) -> bytes:
    """Change the local headers (``False``) and the entries of the directory (``True``) of a zip."""
    raw = bytearray(data)
    for signature, central in ((b"PK\x03\x04", False), (b"PK\x01\x02", True)):
        at = raw.find(signature)
        while at >= 0:
            change(raw, at, central)
            at = raw.find(signature, at + 4)
    return bytes(raw)


def _flag(data: bytes, flag: int) -> bytes:
    def change(raw: bytearray, at: int, central: bool) -> None:
        raw[at + (8 if central else 6)] |= flag

    return _each_header(data, change)


def _method(data: bytes, method: int) -> bytes:
    def change(raw: bytearray, at: int, central: bool) -> None:
        struct.pack_into("<H", raw, at + (10 if central else 8), method)

    return _each_header(data, change)


def _sizes(data: bytes, size: int) -> bytes:
    def change(raw: bytearray, at: int, central: bool) -> None:
        struct.pack_into("<I", raw, at + (24 if central else 22), size)

    return _each_header(data, change)


def _renamed(data: bytes, old: str, new: str) -> bytes:
    members = zip_members(data)
    return zipped({new if name == old else name: values for name, values in members.items()})


def _twice(data: bytes, name: str) -> bytes:
    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"{}")
    return stream.getvalue()
