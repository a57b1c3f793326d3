"""Names that a terminal obeys or hides, or that look like markup: nothing of them may reach it raw."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from damage import replaced, with_json

from benchmarks.runs.hostile.case import EITHER, Case, Damage, changed, edited, written
from benchmarks.runs.hostile.sound import SEGMENT

GROUP = "names with escapes and markup"

ODD = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;title\x07",
    "clear": "\x1b[2J\x1b[H",
    "C1": "\x9b31m",
    "bell": "a\x07b",
    "return": "pore\rfake",
    "line break": "pore\nhrvol: error: fake",
    "bidi": "a\u202eb",
    "zero width": "a\u200bb",
    "closing tag": "a [/b]",
    "style tag": "pore [red]",
    "link tag": "[link=http://x]y[/link]",
    "percent": "%s %(x)s {0} {x}",
}


def cases() -> Iterator[Case]:
    for name, text in ODD.items():
        yield from _model(name, text)
        yield from _labels(name, text)
        yield from _files(name, text)
        yield from _outputs(name, text)
        yield from _requests(name, text)


def _case(
    title: str, command: tuple[str, ...], damage: Damage, files: tuple[str, ...] = (), shows: str = ""
) -> Iterator[Case]:
    shows = shows if shows.isascii() and shows.isprintable() else ""  # others may be shown escaped
    for tty in (False, True):
        name = f"{title}, {'terminal' if tty else 'pipe'}"
        yield Case(GROUP, name, command, damage, EITHER, files=files, tty=tty, shows=shows)


def _model(name: str, text: str) -> Iterator[Case]:
    def renamed(path: tuple[str | int, ...], member: str) -> Damage:
        return changed("m.hrvol", lambda data: with_json(data, member, lambda old: replaced(old, path, text)))

    yield from _case(
        f"class of a model: {name}", ("info", "m.hrvol"), renamed((0, "name"), "classes.json"), shows=text
    )
    yield from _case(
        f"class of a model, used: {name}", SEGMENT, renamed((0, "name"), "classes.json"), ("v.zarr",), text
    )
    yield from _case(
        f"source of a model: {name}", ("info", "m.hrvol"), renamed(("trained_on", 0, "source"), "info.json")
    )
    yield from _case(
        f"versions of a model: {name}", ("info", "m.hrvol"), renamed(("versions", "numpy"), "info.json")
    )


def _ome(change: Callable[[Any], Any], store: str) -> Damage:
    def whole(values: Any) -> Any:
        values["attributes"]["ome"] = change(values["attributes"]["ome"])
        return values

    return edited(f"{store}/zarr.json", whole)


def _labels(name: str, text: str) -> Iterator[Case]:
    named = _ome(
        lambda old: replaced(old, ("image-label", "properties", 0, "class"), text), "labels.ome.zarr"
    )
    yield from _case(f"class of labels: {name}", ("info", "labels.ome.zarr"), named, shows=text)
    yield from _case(
        f"class of labels, evaluated: {name}",
        ("evaluate", "labels.ome.zarr", "noise.zarr"),
        named,
        shows=text,
    )
    unit = _ome(lambda old: replaced(old, ("multiscales", 0, "axes", 2, "unit"), text), "image.ome.zarr")
    yield from _case(f"unit: {name}", ("info", "image.ome.zarr"), unit)
    axis = _ome(lambda old: replaced(old, ("multiscales", 0, "axes", 2, "name"), text), "image.ome.zarr")
    yield from _case(f"axis: {name}", ("info", "image.ome.zarr"), axis)
    path = _ome(lambda old: replaced(old, ("multiscales", 0, "datasets", 0, "path"), text), "image.ome.zarr")
    yield from _case(f"path: {name}", ("info", "image.ome.zarr"), path)
    kind = edited("noise.zarr/zarr.json", lambda old: old | {"data_type": text})
    yield from _case(f"type: {name}", ("info", "noise.zarr"), kind)


def _files(name: str, text: str) -> Iterator[Case]:
    file = text.replace("/", "_") + ".zarr"

    def renamed(folder: Path) -> None:
        shutil.copytree(folder / "v.zarr", folder / file)

    yield from _case(f"file: {name}", ("info", file), renamed, ("v.zarr",))
    train = ("train", file, "s.zarr", "-o", "new.hrvol", "--recipe", "r.yaml")
    yield from _case(f"file of a training: {name}", train, renamed, ("v.zarr",))
    yield from _case(f"file of a run: {name}", ("segment", file, *SEGMENT[2:]), renamed, ("v.zarr",))

    def damaged(folder: Path) -> None:
        renamed(folder)
        (folder / file / "zarr.json").write_text("{")

    yield from _case(f"damaged file: {name}", ("info", file), damaged, ("v.zarr",))

    def group(folder: Path) -> None:
        (folder / "new" / file).mkdir(parents=True)
        (folder / "new" / "zarr.json").write_text(
            '{"zarr_format": 3, "node_type": "group", "attributes": {}}'
        )
        shutil.copytree(folder / "v.zarr", folder / "new" / file, dirs_exist_ok=True)
        shutil.copytree(folder / "v.zarr", folder / "new" / f"{file}2")

    yield from _case(f"array of a group: {name}", ("info", "new"), group, ("v.zarr",))
    key = json.dumps(text)
    yield from _case(
        f"recipe key: {name}",
        ("train", "v.zarr", "s.zarr", "-o", "new.hrvol", "--recipe", "r.yaml"),
        written("r.yaml", f"{key}: 1\n"),
    )
    value = f"combine: {key}\n"
    yield from _case(
        f"recipe value: {name}",
        ("train", "v.zarr", "s.zarr", "-o", "new.hrvol", "--recipe", "r.yaml"),
        written("r.yaml", value),
    )


def _outputs(name: str, text: str) -> Iterator[Case]:
    def settings(path: tuple[str | int, ...]) -> Damage:
        def whole(values: Any) -> Any:
            values["attributes"]["hrvol"] = replaced(values["attributes"]["hrvol"], path, text)
            return values

        return edited("out.ome.zarr/zarr.json", whole)

    yield from _case(f"source of an output: {name}", ("info", "out.ome.zarr"), settings(("model", "source")))
    other = ("segment", "tall.zarr", "out.ome.zarr", "-m", "m.hrvol", "--engine", "serial")
    yield from _case(f"another run: {name}", other, settings(("input", "dtype")))

    def host(folder: Path) -> None:
        from hrvol.run.ledger import sealed

        path = next(path for path in sorted((folder / "part.ome.zarr" / "ledger").glob("*/zarr.json")))
        values = json.loads(path.read_bytes())
        head = {key: value for key, value in values["attributes"].items() if key != "seal"}
        values["attributes"] = sealed(head | {"host": text, "engine": text, "state": "running"})
        path.write_text(json.dumps(values))

    yield from _case(f"host in a ledger: {name}", ("status", "part.ome.zarr"), host)
    yield from _case(f"name of a lane: {name}", ("status", "part.ome.zarr"), _lane(text))


def _lane(text: str) -> Damage:
    def damage(folder: Path) -> None:
        ledger = folder / "part.ome.zarr" / "ledger"
        lane = next(path for path in sorted(ledger.iterdir()) if path.is_dir())
        os.rename(lane, ledger / text.replace("/", "_"))

    return damage


def _requests(name: str, text: str) -> Iterator[Case]:
    def nothing(folder: Path) -> None:
        pass

    train = ("train", "v.zarr", "s.zarr", "-o", "new.hrvol", "--recipe", "r.yaml")
    yield from _case(
        f"class of a request: {name}",
        (*train, "--classes", f"{text.replace(',', ' ')},b"),
        nothing,
        shows=text.replace(",", " "),
    )
    yield from _case(f"missing file: {name}", ("info", text), nothing)
    yield from _case(f"option: {name}", ("info", "v.zarr", f"--{text}"), nothing)
    yield from _case(f"command: {name}", (text,), nothing)
    yield from _case(f"region: {name}", (*SEGMENT, "--roi", text), nothing)
