"""Outputs: records of the ledger, settings of the run, and metadata of groups and arrays."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from damage import flipped, removed, replaced

from benchmarks.runs.hostile.case import EITHER, SAME, Case, Damage, dotted, drawn_odd, edited, odd_values

LEDGER, ATTRIBUTES, METADATA = "ledger", "output attributes", "metadata of outputs"

OUT, PART = "out.ome.zarr", "part.ome.zarr"
_RUN = ("-m", "m.hrvol", "--engine", "serial", "--uncertainty")
RESUME = {out: ("segment", "tall.zarr", out, *_RUN) for out in (OUT, PART)}

_ODD = (None, True, -1, 1.5, float("nan"), 10**30, "", "x", "\x1b[31mred\n", [], {"x": 1})


def cases() -> Iterator[Case]:
    yield from _records()
    yield from _heads()
    yield from _attributes()
    yield from _metadata()
    yield from _drawn()


def resumed(group: str, out: str, name: str, damage: Damage, expect: str = SAME, **more: Any) -> Case:
    """Return a case whose command finishes or checks a damaged output."""
    return Case(group, f"{out}: {name}, resumed", RESUME[out], damage, expect, (out,), **more)


def shown(
    group: str,
    out: str,
    name: str,
    damage: Damage,
    command: str = "status",
    expect: str = EITHER,
    **more: Any,
) -> Case:
    """Return a case of a damaged output that is described."""
    return Case(group, f"{out}: {name}, {command}", (command, out, "--json"), damage, expect, (out,), **more)


def record(change: Callable[[Any], Any], seal: bool = True) -> Damage:
    """Return a damage of the first record of the ledger; its seal fits what it holds unless it is kept."""

    def damage(folder: Path) -> None:
        path = record_of(folder)
        values = json.loads(path.read_bytes())
        attributes = change(values["attributes"])
        if seal and isinstance(attributes, dict) and "seal" in attributes:
            attributes["seal"] = _seal(attributes)
        values["attributes"] = attributes
        path.write_text(json.dumps(values))

    return damage


def record_of(folder: Path) -> Path:
    """Return the first file of the ledger that records blocks."""
    return next(
        path
        for path in sorted((folder / PART / "ledger").rglob("zarr.json"))
        if b'"entries"' in path.read_bytes()
    )


def _seal(values: dict[str, Any]) -> str:
    """Return the checksum that fits a record, so that its values are judged."""
    from hrvol.run.ledger import sealed

    return str(sealed({key: value for key, value in values.items() if key != "seal"})["seal"])


_ENTRY: tuple[str, ...] = (
    "block",
    "state",
    "stamp",
    "voxels",
    "seconds",
    "counts",
    "seams",
    "read",
    "peak",
    "at",
)


def _records() -> Iterator[Case]:
    for key in _ENTRY:
        for name, change in odd_values({}, [("entries", 0, key)], _ODD):
            yield resumed(LEDGER, PART, name, record(change))
            if key in ("block", "state", "counts", "seconds", "at", "voxels"):
                yield shown(LEDGER, PART, name, record(change))
        yield resumed(LEDGER, PART, f"no {key}", record(lambda old, k=key: removed(old, ("entries", 0, k))))
    for path in (("entries",), ("entries", 0), ("seal",), ()):
        for name, change in odd_values({}, [path], _ODD):
            yield resumed(LEDGER, PART, f"record {name}", record(change))
            yield shown(LEDGER, PART, f"record {name}", record(change))
    for name, change in {
        "block 10^9": lambda old: replaced(old, ("entries", 0, "block"), 10**9),
        "a block twice": lambda old: old | {"entries": old["entries"] * 2},
        "all blocks": lambda old: old | {"entries": [old["entries"][0] | {"block": n} for n in range(5)]},
        "100,000 entries": lambda old: old | {"entries": old["entries"] * 100_000},
        "failed": lambda old: replaced(
            old, ("entries", 0), {"block": 0, "state": 2, "reason": "\x1b[31m" * 1000, "at": 0}
        ),
        "failed for an odd reason": lambda old: replaced(
            old, ("entries", 0), {"block": 0, "state": 2, "reason": {"a": 1}}
        ),
        "class 10^9": lambda old: replaced(old, ("entries", 0, "counts"), {"1000000000": 5}),
        "class text": lambda old: replaced(old, ("entries", 0, "counts"), {"x": 5}),
    }.items():
        for seal in (True, False):
            yield resumed(LEDGER, PART, f"{name}{'' if seal else ', no seal'}", record(change, seal))
        yield shown(LEDGER, PART, name, record(change))


def _heads() -> Iterator[Case]:
    def head(change: Callable[[Any], Any]) -> Damage:
        def damage(folder: Path) -> None:
            path = next(path for path in sorted((folder / PART / "ledger").glob("*/zarr.json")))
            values = json.loads(path.read_bytes())
            values["attributes"] = change(values["attributes"])
            if isinstance(values["attributes"], dict) and "seal" in values["attributes"]:
                values["attributes"]["seal"] = _seal(values["attributes"])
            path.write_text(json.dumps(values))

        return damage

    for key in ("engine", "workers", "owner", "host", "pid", "born", "began", "at", "pulse", "state"):
        for name, change in odd_values({}, [(key,)], _ODD):
            yield shown(LEDGER, PART, f"head {name}", head(change))
            if key in ("pid", "at", "state", "host", "pulse"):
                yield resumed(LEDGER, PART, f"head {name}", head(change))
    for name, harm in {
        "no ledger": lambda folder: shutil.rmtree(folder / PART / "ledger"),
        "ledger a file": lambda folder: (
            shutil.rmtree(folder / PART / "ledger"),
            (folder / PART / "ledger").write_text("x"),
        ),
        "a stranger in the ledger": lambda folder: (folder / PART / "ledger" / "x").mkdir(),
        "a name of escapes in the ledger": lambda folder: (folder / PART / "ledger" / "\x1b[31m").mkdir(),
    }.items():
        yield resumed(LEDGER, PART, name, harm)
        yield shown(LEDGER, PART, name, harm)


_SETTINGS: tuple[tuple[str | int, ...], ...] = (
    *(
        (),
        ("recipe",),
        ("recipe", "tiles"),
        ("recipe", "tiles", "core"),
        ("versions",),
        ("model",),
        ("model", "sha256"),
    ),
    *(
        ("window",),
        ("input",),
        ("input", "shape"),
        ("input", "sha256"),
        ("region",),
        ("region", 0),
        ("device",),
        ("level",),
    ),
    *(
        ("mask",),
        ("outputs",),
        ("outputs", "labels"),
        ("outputs", "uncertainty"),
        ("block_shape",),
        ("block_shape", 0),
    ),
    *(("complete",), ("weights_sha256",)),
)


def _attributes() -> Iterator[Case]:
    def settings(change: Callable[[Any], Any], out: str) -> Damage:
        def whole(values: Any) -> Any:
            values["attributes"]["hrvol"] = change(values["attributes"]["hrvol"])
            return values

        return edited(f"{out}/zarr.json", whole)

    for path in _SETTINGS:
        for name, change in odd_values({}, [path], _ODD):
            out = PART if len(path) % 2 else OUT
            # Versions and names are for people; other settings are another run.
            expect = EITHER if path[:1] in (("versions",), ("device",), ("complete",)) else SAME
            yield resumed(
                ATTRIBUTES,
                out,
                f"{dotted(path) or 'all'}{name[len(dotted(path)) :]}",
                settings(change, out),
                expect,
            )
            yield shown(
                ATTRIBUTES,
                OUT,
                f"{dotted(path) or 'all'}{name[len(dotted(path)) :]}",
                settings(change, OUT),
                "status" if len(name) % 2 else "info",
            )
        if path:
            yield resumed(
                ATTRIBUTES, PART, f"no {dotted(path)}", settings(lambda old, p=path: removed(old, p), PART)
            )
    for name, change in {
        "a region of 10^9": lambda old: old | {"region": [[0, 10**9]] * 3},
        "a region reversed": lambda old: old | {"region": [[2, 0], [296, 0], [40, 0]]},
        "blocks of one voxel": lambda old: old | {"block_shape": [1, 1, 1]},
        "blocks of 10^9": lambda old: old | {"block_shape": [10**9] * 3},
        "a shape of 10^15": lambda old: replaced(old, ("input", "shape"), [10**5] * 3),
        "complete too soon": lambda old: old | {"complete": True},
        "a source of escapes": lambda old: replaced(old, ("model", "source"), "\x1b[2J"),
    }.items():
        yield resumed(ATTRIBUTES, PART, name, settings(change, PART))
        for command in ("status", "info"):
            yield shown(ATTRIBUTES, PART, name, settings(change, PART), command)


_NODES = (
    "",
    "labels",
    "labels/hrvol",
    "labels/hrvol/0",
    "labels/hrvol/1",
    "uncertainty",
    "uncertainty/0",
    "uncertainty/1",
    "ledger",
)


def _metadata() -> Iterator[Case]:
    for node in _NODES:
        file = f"{node}/zarr.json".lstrip("/")
        for name, change in {
            "empty": lambda data: b"",
            "cut": lambda data: data[: len(data) // 2],
            "garbage": lambda data: bytes(range(256)),
            "an empty mapping": lambda data: b"{}",
            "a list": lambda data: b"[]",
            "of a group": lambda data: b'{"zarr_format": 3, "node_type": "group", "attributes": {}}',
            "nested": lambda data: b'{"attributes":' * 100_000,
        }.items():
            if node in ("ledger",) and name == "of a group":
                continue
            yield resumed(
                METADATA,
                OUT,
                f"{file} {name}",
                _existing(file, lambda path, c=change: path.write_bytes(c(path.read_bytes()))),
            )
        yield resumed(METADATA, OUT, f"{file} deleted", _existing(file, lambda path: path.unlink()))
        yield resumed(
            METADATA, OUT, f"{file} a folder", _existing(file, lambda path: (path.unlink(), path.mkdir()))
        )
        if node:
            yield resumed(METADATA, OUT, f"{node} deleted", _existing(node, shutil.rmtree))
        for command in ("status", "info"):
            yield shown(
                METADATA,
                OUT,
                f"{file} garbage",
                _existing(file, lambda path: path.write_bytes(bytes(range(256)))),
                command,
            )
    for node in ("labels/hrvol/0", "uncertainty/0"):
        for path in (
            ("shape",),
            ("data_type",),
            ("fill_value",),
            ("codecs",),
            ("chunk_grid",),
            ("dimension_names",),
        ):
            for name, change in odd_values({}, [path], (None, -1, "x", [], 7)):
                yield resumed(
                    METADATA,
                    OUT,
                    f"{node}: {name}",
                    _existing(
                        f"{node}/zarr.json",
                        lambda file, c=change: file.write_text(json.dumps(c(json.loads(file.read_text())))),
                    ),
                )


def _existing(name: str, harm: Callable[[Path], object]) -> Damage:
    """Return a damage of a file or folder of the complete output; an output may lack coarser levels."""

    def damage(folder: Path) -> None:
        path = folder / OUT / name
        if path.exists():
            harm(path)

    return damage


def _drawn() -> Iterator[Case]:
    rng = random.Random(7)
    for number in range(90):
        node, place = rng.choice(_NODES[:-1]), rng.randrange(10**6)
        yield resumed(
            METADATA,
            OUT,
            f"drawn byte {number} of {node or 'the root'}",
            _existing(
                f"{node}/zarr.json", lambda path, p=place: path.write_bytes(flipped(path.read_bytes(), [p]))
            ),
            generated=True,
        )
    for number in range(30):
        seed = rng.random()

        def change(old: Any, seed: float = seed) -> Any:
            return replaced(old, *drawn_odd(old, random.Random(seed)))

        yield resumed(LEDGER, PART, f"drawn value {number}", record(change), generated=True)
        yield shown(LEDGER, PART, f"drawn value {number}", record(change), generated=True)
    for number in range(30):
        places = [rng.randrange(10**6) for _ in range(rng.choice((1, 3)))]

        def flips(folder: Path, places: list[int] = places) -> None:
            path = record_of(folder)
            path.write_bytes(flipped(path.read_bytes(), places))

        yield resumed(LEDGER, PART, f"drawn flips {number}", flips, generated=True)
