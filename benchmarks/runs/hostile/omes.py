"""OME-Zarr metadata of images and labels, and tables of classes in them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from damage import flipped, removed, replaced

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

GROUP, TABLES = "OME metadata", "class tables"

IMAGE, LABELS = "image.ome.zarr", "labels.ome.zarr"
FILE = "zarr.json"
INFO = ("info", IMAGE, "--json")
READ = ("evaluate", IMAGE, "noise.zarr", "--json")
TABLE = ("info", LABELS, "--json")
TABLE_READ = ("evaluate", LABELS, "noise.zarr", "--json")

_ODD = (None, True, -1, 1.5, float("nan"), 10**30, "", "x", "\x1b[31mred\n", [], [None], {}, {"x": 1})

_SCALE = ("multiscales", 0, "datasets", 0, "coordinateTransformations")


def cases() -> Iterator[Case]:
    yield from _keys()
    yield from _meanings()
    yield from _tables()
    yield from _drawn()


def ome(change: Callable[[Any], Any], store: str = IMAGE) -> Damage:
    """Return a damage of the metadata under the key ``ome``."""

    def whole(values: Any) -> Any:
        values["attributes"]["ome"] = change(values["attributes"]["ome"])
        return values

    return edited(f"{store}/{FILE}", whole)


def case(
    name: str, damage: Damage, expect: str = REFUSE, command: tuple[str, ...] = INFO, **more: Any
) -> Case:
    """Return a case of an image."""
    return Case(GROUP, name, command, damage, expect, (command[1],), **more)


def _keys() -> Iterator[Case]:
    paths: list[tuple[str | int, ...]] = [
        *((), ("version",), ("multiscales",), ("multiscales", 0), ("multiscales", 0, "axes")),
        *(
            ("multiscales", 0, "axes", 0),
            ("multiscales", 0, "axes", 0, "name"),
            ("multiscales", 0, "axes", 1, "type"),
        ),
        *(
            ("multiscales", 0, "axes", 2, "unit"),
            ("multiscales", 0, "datasets"),
            ("multiscales", 0, "datasets", 0),
        ),
        *(
            ("multiscales", 0, "datasets", 0, "path"),
            _SCALE,
            (*_SCALE, 0),
            (*_SCALE, 0, "type"),
            (*_SCALE, 0, "scale"),
        ),
        *((*_SCALE, 0, "scale", 0), (*_SCALE, 0, "scale", 2)),
    ]
    free = ("name", "unit")
    for path in paths:
        for name, change in odd_values({}, [path], _ODD):
            expect = EITHER if path and (path[-1] in free or path == ("version",)) else SAME
            if path in ((), ("multiscales",), ("multiscales", 0, "axes", 0, "name")) or name.endswith(
                "= 1.5"
            ):
                expect = EITHER if path[-1:] != ("name",) else SAME
            yield case(name or "= ", ome(change), expect)
        if path and path[-1] != "version":
            yield case(f"no {dotted(path)}", ome(lambda old, p=path: removed(old, p)), EITHER)
    for path in (
        ("multiscales", 0, "datasets", 0, "path"),
        ("multiscales", 0, "axes"),
        ("multiscales", 0, "datasets"),
    ):
        for name, change in odd_values({}, [path], _ODD):
            yield case(f"{name}, read", ome(change), SAME, READ)
    for name, data in {
        "empty": b"",
        "nested": b'{"attributes":' * 100_000,
        "a list": b"[]",
        "binary": bytes(range(256)),
    }.items():
        yield case(f"text: {name}", written(f"{IMAGE}/{FILE}", data))


def _at(path: tuple[str | int, ...], value: Any) -> Damage:
    return ome(lambda old: replaced(old, path, value))


def _meanings() -> Iterator[Case]:
    """Metadata that are well formed, but that cannot be applied as they are."""
    for version in ("0.6", "0.6.dev1", "0.9", "1.0", "9", "latest", "0.5.3.1", "\x1b[31m"):
        expect = EITHER if version == "0.5.3.1" else REFUSE
        yield case(f"version {version!a}", _at(("version",), version), expect)
    for kind, values in {
        "affine": {"affine": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0.5, 1, 0]]},
        "rotation": {"rotation": [[1, 0, 0], [0, 0, 1], [0, 1, 0]]},
        "mapAxis": {"mapAxis": {"x": "y", "y": "x"}},
        "sequence": {"transformations": [{"type": "rotation", "rotation": [0, 1, 1, 0]}]},
        "displacements": {"path": "field"},
        "scale of a file": {"path": "scales"},
        "unheard": {},
    }.items():
        name = "scale" if kind == "scale of a file" else kind
        yield case(f"transformation {kind}", _at(_SCALE, [{"type": name, **values}]))
        yield case(
            f"transformation {kind} beside a scale",
            _at(_SCALE, [{"type": "scale", "scale": [2.0, 0.5, 0.25]}, {"type": name, **values}]),
        )
    for scale in (0, -1, 0.0, -0.5, float("inf"), 1e-320, True):
        expect = EITHER if scale == 1e-320 else REFUSE
        yield case(f"scale of {scale!r}", _at((*_SCALE, 0, "scale", 1), scale), expect)
    for scale in ([1.0], [1.0, 1.0], [1.0] * 4, [1.0] * 100_000, [[1.0] * 3], [1.0, "1.0", 1.0]):
        yield case(
            f"scale of {len(scale)} {type(scale[0]).__name__} {scale[-1]!r}",
            _at((*_SCALE, 0, "scale"), scale),
            EITHER if "1.0" in scale else REFUSE,
        )
    axes: dict[str, list[str]] = {
        "y, y, x": ["y", "y", "x"],
        "z, z, z": ["z"] * 3,
        "z, y": ["z", "y"],
        "four": ["t", "z", "y", "x"],
        "nine": list("abcdefzyx"),
        "unheard": ["a", "b", "c"],
        "long": ["z" * 10_000, "y", "x"],
    }
    for name, names in axes.items():
        yield case(
            f"axes {name}",
            _at(("multiscales", 0, "axes"), [{"name": one, "type": "space"} for one in names]),
            EITHER if name == "unheard" else REFUSE,
        )
    yield case(
        "axes reversed",
        _at(("multiscales", 0, "axes"), [{"name": one, "type": "space"} for one in "xyz"]),
        EITHER,
    )
    for path in (
        "..",
        "../noise.zarr",
        "/etc",
        "0/../../noise.zarr",
        "",
        ".",
        "0\0",
        "2",
        "\x1b[31m",
        "x" * 5000,
        "file:///etc",
        "s3://bucket/x",
        "..\\noise.zarr",
    ):
        yield case(
            f"path {ascii(path)[:30]}",
            _at(("multiscales", 0, "datasets", 0, "path"), path),
            files=("noise.zarr",),
        )
    yield case("path //0", _at(("multiscales", 0, "datasets", 0, "path"), "//0"), EITHER)
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [2.0, 0.5, 0.25]}]}
    yield case("no level", _at(("multiscales", 0, "datasets"), []))
    yield case("100,000 levels", _at(("multiscales", 0, "datasets"), [dataset] * 100_000))
    yield case("a level twice", _at(("multiscales", 0, "datasets"), [dataset] * 2), EITHER)
    yield case("a level that is missing", _at(("multiscales", 0, "datasets"), [dataset | {"path": "7"}]))
    yield case("no image", _at(("multiscales",), []), EITHER)
    yield case("1,000 images", ome(lambda old: old | {"multiscales": old["multiscales"] * 1000}), EITHER)
    yield case(
        "a translation of NaN",
        _at(
            _SCALE,
            [
                {"type": "scale", "scale": [2.0, 0.5, 0.25]},
                {"type": "translation", "translation": [float("nan")] * 3},
            ],
        ),
    )
    yield case("two scales", _at(_SCALE, [{"type": "scale", "scale": [2.0, 0.5, 0.25]}] * 2), EITHER)
    for unit in ("\x1b[31mred", "parsec per fortnight", "u" * 10_000, "a\u202eb", "[red]"):
        yield case(
            f"unit {ascii(unit)[:20]}", _at(("multiscales", 0, "axes", 2, "unit"), unit), EITHER, INFO[:2]
        )
    second = json.dumps({"multiscales": [{"version": "0.4", "axes": [], "datasets": []}]})
    yield case("attributes of version 0.4 beside", written(f"{IMAGE}/.zattrs", second), EITHER)


def _tables() -> Iterator[Case]:
    """Names and colours of classes in the metadata of labels: for people, so most of them may be left out."""
    for path in (
        ("image-label",),
        ("image-label", "properties"),
        ("image-label", "colors"),
        ("image-label", "properties", 0),
    ):
        for name, change in odd_values({}, [path], _ODD):
            yield Case(TABLES, name, TABLE, ome(change, LABELS), EITHER, (LABELS,))
    for path in (
        ("image-label", "properties", 0, "label-value"),
        ("image-label", "properties", 0, "class"),
        ("image-label", "colors", 0, "rgba"),
        ("image-label", "colors", 0, "label-value"),
    ):
        for name, change in odd_values({}, [path], _ODD):
            yield Case(TABLES, name, TABLE, ome(change, LABELS), EITHER, (LABELS,))
        for name, change in odd_values({}, [path], _ODD[:6]):
            yield Case(TABLES, f"{name}, read", TABLE_READ, ome(change, LABELS), EITHER, (LABELS,))
    many = [{"label-value": n, "class": f"c{n}"} for n in range(100_000)]
    for name, properties in {
        "100,000 names": many,
        "value 10^9": [{"label-value": 10**9, "class": "a"}],
        "value 2^63": [{"label-value": 2**63, "class": "a"}],
        "a value twice": [{"label-value": 1, "class": "a"}, {"label-value": 1, "class": "b"}],
        "a name twice": [{"label-value": 1, "class": "a"}, {"label-value": 2, "class": "a"}],
        "a long name": [{"label-value": 1, "class": "n" * 100_000}],
        "a name of escapes": [{"label-value": 1, "class": "\x1b[2J"}],
    }.items():
        for command in (TABLE, TABLE_READ):
            yield Case(
                TABLES,
                f"properties: {name}, {command[0]}",
                command,
                ome(lambda old, p=properties: replaced(old, ("image-label", "properties"), p), LABELS),
                EITHER,
                (LABELS,),
            )


_MODEL: Any = {
    "version": "0.5",
    "multiscales": [
        {
            "name": "image",
            "axes": [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"],
            "datasets": [
                {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}
                for n in (0, 1)
            ],
        }
    ],
}


def _drawn() -> Iterator[Case]:
    rng = random.Random(5)
    for number in range(40):
        path, value = drawn_odd(_MODEL, rng, skip=("unit", "name", 1))
        command = rng.choice((INFO, READ))
        # Without multiscales it is an image of another kind.
        expect = EITHER if path in (("multiscales",), ("version",)) or value == 1.5 else SAME
        yield case(
            f"drawn value {number}",
            ome(lambda old, p=path, v=value: replaced(old, p, v)),
            expect,
            command,
            generated=True,
        )
    for number in range(25):
        places = [rng.randrange(10**6) for _ in range(3)]
        yield case(
            f"drawn flips {number}",
            changed(f"{IMAGE}/{FILE}", lambda data, p=places: flipped(data, p)),
            EITHER,
            READ,
            generated=True,
        )
