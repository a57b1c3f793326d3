"""Recipe files: odd values at every key, odd YAML, drawn damage."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from damage import replaced, shown

from benchmarks.runs.hostile.case import EITHER, REFUSE, Case, Damage, changed, dotted, drawn_odd, written

GROUP = "recipes"

FILE = "r.yaml"
TRAIN = ("train", "v.zarr", "s.zarr", "-o", "new.hrvol", "--recipe", FILE)

VALUES: dict[str, Any] = {
    "intensity": {"window": "auto", "percentiles": [1.0, 99.0]},
    "features": {
        "kind": "classical",
        "deep": {
            **{"weights": "dinov2_vits14", "stride": "native", "block": 6, "offsets": 2, "shifts": [1, 2]},
            **{"neighbourhood": "moore", "flips": True, "rotations": False, "placement": "aligned"},
            **{"interpolation": "bilinear", "input_scale": 1.0, "precision": "fp32"},
        },
        "classical": {"filters": ["gaussian", "sobel"], "sigmas": [1.0, 2.0]},
    },
    "combine": "concatenate",
    "classifier": {
        **{
            "kind": "vote",
            "class_weight": "balanced",
            "samples_per_class": 200,
            "grey_share": 0.5,
            "trees": 4,
        },
        **{"max_features": "sqrt", "max_depth": 5, "min_samples_leaf": 2, "learning_rate": 0.1},
        **{"regularisation": 1.0, "hidden": [10, 10], "max_iter": 100},
    },
    "cluster": {
        **{"clusters": 80, "samples": 50000, "sample_tiles": 16, "merge": 1.0, "classes": 3},
        **{"position_degree": 0, "distance": "cosine", "bins": 20, "edge": "upper"},
    },
    "tiles": {"core": 64, "overlap": 12, "blend": 7, "planes": 2, "across": 1},
    "seed": 0,
}
"""A recipe of all keys, whose values differ from null."""

_NAMES = (FILE, "recipe")


def cases() -> Iterator[Case]:
    yield from _keys()
    yield from _texts()
    yield from _files()
    yield from _drawn()


def case(name: str, damage: Damage, expect: str = REFUSE, **more: Any) -> Case:
    """Return a case of a recipe that training reads."""
    return Case(GROUP, name, TRAIN, damage, expect, more.pop("names", _NAMES), **more)


def _leaves(values: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    for key, value in values.items():
        yield (*above, key), value
        if isinstance(value, dict):
            yield from _leaves(value, (*above, key))
        elif isinstance(value, list):
            yield (*above, key, 0), value[0]


def _text(values: Any) -> str:
    return str(yaml.safe_dump(values, sort_keys=False))


_MARKS: dict[str, Callable[[], str]] = {
    "!date": lambda: "2020-01-01",
    "!digits": lambda: "9" * 5000,
    "!million": lambda: f"[{', '.join(['1'] * 10**6)}]",
}
"""Values that YAML's writer would write in another way, or slowly."""


def _keys() -> Iterator[Case]:
    for path, old in _leaves(VALUES):
        odd: dict[str, Any] = {"a mapping": {"x": 1}}
        if isinstance(old, bool):
            odd |= {"text": "perhaps", "2": 2}
        elif isinstance(old, int | float):
            odd |= {
                "NaN": math.nan,
                "infinity": math.inf,
                "-1": -1,
                "a date": "!date",
                "10^9": 10**9,
                "5,000 digits": "!digits",
            }
        elif isinstance(old, str):
            odd |= {"nonsense": "nonsense", "escapes": "\x1b[31mred", "-1": -1}
        elif isinstance(old, list):
            odd |= {"empty": [], "nested": [[1]], "null in it": [None]}
            odd |= {"a million": "!million"} if path[-1] == "shifts" else {}
        else:
            odd = {"null": 7, "a list": [1, 2], "text": "x"}
        for name, value in odd.items():

            def damage(folder: Path, path: Any = path, value: Any = value) -> None:
                text = _text(replaced(VALUES, path, value))
                for mark, new in _MARKS.items():
                    text = text.replace(f"'{mark}'", new())
                (folder / FILE).write_text(text)

            # Large counts, -1 as seed or an empty list may be right: only how it ends is judged.
            free = name in ("10^9", "-1", "empty", "null") or (
                path[-1] == "weights" and name in ("nonsense", "escapes")
            )
            expect = EITHER if free else REFUSE
            yield case(f"{dotted(path)} is {name}", damage, expect)


def _texts() -> Iterator[Case]:
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    sound = "features: {kind: classical, classical: {filters: [gaussian], sigmas: [1]}}\n"
    refused = {
        "empty": "",
        "null": "null",
        "a list": "[1, 2]",
        "text": "just text",
        "billion laughs": laughs,
        "billion laughs in a key": laughs.replace("a0:", "seed:"),
        "merged laughs": "x: &x {a: 1}\n"
        + "".join(
            f"y{n}: &y{n} {{<<: [{', '.join([f'*y{n - 1}' if n else '*x'] * 9)}]}}\n" for n in range(9)
        ),
        "alias of itself": "seed: &a [*a]\n",
        "mapping of itself": "tiles: &a {core: *a}\n",
        "an unknown alias": "seed: *nothing\n",
        "nested lists": "seed: " + "[" * 5000,
        "nested and closed": "seed: " + "[" * 3000 + "]" * 3000,
        "nested mappings": "seed: " + "{a: " * 3000 + "1" + "}" * 3000,
        "nested blocks": "".join(f"{' ' * n}a:\n" for n in range(1500)),
        "a Python object": "seed: !!python/object/apply:os.getcwd []\n",
        "a Python name": "seed: !!python/name:os.system\n",
        "an unknown tag": "seed: !what 1\n",
        "binary": "seed: !!binary aGVsbG8=\n",
        "a set": "seed: !!set {a, b}\n",
        "a bad date": "seed: 2020-99-99\n",
        "a bad float": "seed: !!float x\n",
        "a bad integer": "seed: !!int x\n",
        "sexagesimal overflow": "seed: " + ":".join(["59"] * 400) + "\n",
        "a huge exponent": "seed: 1.0e+999999999\n",
        "tabs": "tiles:\n\tcore: 64\n",
        "a NUL": "seed: 0\0\n",
        "unclosed text": "seed: 'x\n",
        "unclosed list": "tiles: [1, 2\n",
        "two documents": "seed: 0\n---\nseed: 1\n",
        "a key twice": "seed: 0\nseed: 1\n",
        "a list as key": "? [1, 2]\n: 3\n",
        "a number as key": "1: 2\n",
        "escapes in a key": '"\\e[31mred": 1\n',
        "line breaks in a key": '"a\\nb": 1\n',
        "bidi in a key": '"a\\u202eb": 1\n',
        "a long key": f"{'k' * 900}: 1\n",
        "many unknown keys": "".join(f"k{n}: 1\n" for n in range(3000)),
        "a misspelt key": "classifer: {trees: 3}\n",
        "a bad escape": 'seed: "\\q"\n',
        "a directive": "%YAML 9.9\n---\nseed: 0\n",
        "JSON": '{"seed": NaN}',
        "HTML": "<html><body>404</body></html>",
    }
    for name, text in refused.items():
        yield case(name, written(FILE, text))
    for name, data in {
        "UTF-16": "seed: 0\n".encode("utf-16"),
        "Latin-1": b"seed: \xfc\n",
        "a lone surrogate": b'seed: "\xed\xa0\x80"\n',
        "zeros": b"\0" * 1000,
        "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    }.items():
        yield case(name, written(FILE, data), EITHER if name == "UTF-16" else REFUSE)
    for name, text in {
        "CRLF": sound.replace("\n", "\r\n"),
        "a byte order mark": "\ufeff" + sound,
        "merge keys": "features: &f {kind: classical}\n",
        "comments": "# \x85 comment\n" * 100 + sound,
        "10 MB of comments": ("#" + "x" * 99 + "\n") * 100_000 + sound,
    }.items():
        yield case(name, written(FILE, text), EITHER)


def _files() -> Iterator[Case]:
    def instead(make: Any) -> Damage:
        def damage(folder: Path) -> None:
            (folder / FILE).unlink()
            make(folder / FILE)

        return damage

    for name, make in {
        "no file": lambda path: None,
        "a folder": lambda path: path.mkdir(),
        "a pipe": os.mkfifo,
        "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "a link to /dev/random": lambda path: path.symlink_to("/dev/urandom"),
        "a link to /dev/null": lambda path: path.symlink_to("/dev/null"),
        "a link to itself": lambda path: path.symlink_to(path),
        "a dangling link": lambda path: path.symlink_to("nowhere"),
        "a model": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(500)),
    }.items():
        yield case(name, instead(make))
    for word in (
        "",
        "nonsense",
        "../r.yaml",
        "x" * 300,
        "http://127.0.0.1:9/r.yaml",
        "balanced ",
        "\x1b[31mred",
    ):
        words = (*TRAIN[:-1], word)
        yield Case(
            GROUP, f"recipe {shown(word)}", words, lambda folder: None, REFUSE, ("recipe", word or "''")
        )


def _drawn() -> Iterator[Case]:
    rng = random.Random(3)
    for number in range(40):
        path, value = drawn_odd(VALUES, rng)

        def draw(folder: Path, path: Any = path, value: Any = value) -> None:
            (folder / FILE).write_text(_text(replaced(VALUES, path, value)))

        yield case(f"drawn value {number}", draw, EITHER, generated=True)
    letters = "[]{}:,&*!|>'\"%@`#-\t\n \x00\x1b\ufeffé0"
    for number in range(30):
        changes = [
            (rng.random(), rng.choice(letters), rng.random() < 0.5) for _ in range(rng.choice((1, 2, 5)))
        ]

        def change(data: bytes, changes: Any = changes) -> bytes:
            text = _text(VALUES)
            for share, letter, insert in changes:
                at = int(share * len(text))
                text = text[:at] + letter + text[at + (0 if insert else 1) :]
            return text.encode()

        yield case(f"drawn letters {number}", changed(FILE, change), EITHER, generated=True)
