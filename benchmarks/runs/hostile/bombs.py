"""Small files that claim, or become, gigabytes, and requests for absurd amounts."""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from damage import replaced, with_member, zip_members

from benchmarks.runs.hostile import tiff_bombs
from benchmarks.runs.hostile.bomb_data import gzipped, with_bomb, zlibbed
from benchmarks.runs.hostile.case import EITHER, REFUSE, Case, Damage, changed, edited, nothing, written_by
from benchmarks.runs.hostile.estimators import inner
from benchmarks.runs.hostile.models import INFO, raw_npy
from benchmarks.runs.hostile.omes import ome
from benchmarks.runs.hostile.outputs import PART, RESUME
from benchmarks.runs.hostile.sound import SEGMENT
from benchmarks.runs.hostile.volumes import compare

GROUP = "bombs"

TRAIN = ("train", "v.zarr", "s.zarr", "-o", "new.hrvol", "--recipe", "r.yaml")


def cases() -> Iterator[Case]:
    yield from _archives()
    yield from _arrays()
    yield from _chunks()
    yield from tiff_bombs.cases()
    yield from _texts()
    yield from _requests()


def _archives() -> Iterator[Case]:
    def case(name: str, change: Callable[[bytes], bytes]) -> Case:
        return Case(GROUP, name, INFO, changed("m.hrvol", change), REFUSE, ("m.hrvol",))

    for member, prefix in {
        "info.json": b"{}",
        "recipe.json": b"{}",
        "classes.json": b"[]",
        "window.npy": b"\x93NUMPY\x01\0",
        "estimator_all.skops": b"PK",
    }.items():
        yield case(
            f"a model's {member} of 3 GB", lambda data, m=member, p=prefix: with_bomb(data, m, p, 3 * 2**30)
        )
    yield case(
        "a model's window of 8 TB",
        lambda data: with_member(
            data, "window.npy", raw_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}")
        ),
    )
    yield case(
        "a model's window of 10^30",
        lambda data: with_member(
            data, "window.npy", raw_npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**30},)}}")
        ),
    )
    yield case("a model of 60,000 members", _many)
    for name, kind in (("schema", "schema.json"), ("array", "0.npy")):
        yield case(f"an estimator's {name} of 3 GB", lambda data, k=kind: _inside(data, k))

    def header(schema: Any, members: dict[str, bytes]) -> None:
        for name in members:
            members[name] = raw_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}")

    yield case("an estimator's arrays of 8 TB", inner(header))
    for name, text in (("3,000 channels", ["c" * 10] * 3000), ("a million channels", ["c"] * 10**6)):
        yield case(
            f"a model of {name}",
            lambda data, t=text: with_member(
                data, "info.json", lambda old: json.dumps(json.loads(old) | {"channels": t}).encode()
            ),
        )
    yield case(
        "a model's class 10^9",
        lambda data: with_member(
            data,
            "classes.json",
            lambda old: json.dumps(replaced(json.loads(old), (1, "value"), 10**9)).encode(),
        ),
    )


def _many(data: bytes) -> bytes:
    import io

    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a") as archive:
        for number in range(60_000):
            archive.writestr(zipfile.ZipInfo(f"{number}.json"), b"")
    return stream.getvalue()


def _inside(data: bytes, name: str) -> bytes:
    packed = with_bomb(zip_members(data)["estimator_all.skops"], name, b"", 3 * 2**30)
    return with_member(data, "estimator_all.skops", packed)


def _arrays() -> Iterator[Case]:
    for name, shape, chunks in (
        ("10^15 voxels", [10**5] * 3, [64] * 3),
        ("10^30 voxels", [10**10] * 3, [64] * 3),
        ("10^18 chunks", [10**6] * 3, [1] * 3),
        ("a chunk of 10^15", [10**5] * 3, [10**5] * 3),
        ("a chunk of 64 GB", [4096] * 3, [4096] * 3),
        ("10,000 dimensions", [1] * 10_000, [1] * 10_000),
    ):
        for command in (("info", "noise.zarr", "--json"), compare("noise.zarr")):

            def change(old: Any, shape: Any = shape, chunks: Any = chunks) -> Any:
                return old | {
                    "shape": shape,
                    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
                }

            # Metadata of what may exist are shown.
            expect = EITHER if name in ("10^15 voxels", "10^18 chunks") and command[0] == "info" else REFUSE
            yield Case(
                GROUP,
                f"an array of {name}, {command[0]}",
                command,
                edited("noise.zarr/zarr.json", change),
                expect,
                ("noise.zarr",),
            )
    for name, words in {
        "trained": ("train", "noise.zarr", "s.zarr", *TRAIN[3:]),
        "segmented": ("segment", "noise.zarr", *SEGMENT[2:]),
        "as mask": (*SEGMENT, "--mask", "noise.zarr"),
    }.items():

        def huge(old: Any) -> Any:
            return old | {"shape": [10**10] * 3}

        yield Case(
            GROUP,
            f"an array of 10^30 voxels, {name}",
            words,
            edited("noise.zarr/zarr.json", huge),
            REFUSE,
            ("noise.zarr",),
            files=("v.zarr",),
        )

    def text(folder: Path) -> None:
        values = json.loads((folder / "noise.zarr" / "zarr.json").read_bytes())
        (folder / "noise.zarr" / "zarr.json").write_text(
            json.dumps(values | {"attributes": {"a": ["x" * 1000] * 300_000}})
        )

    yield Case(GROUP, "attributes of 300 MB", ("info", "noise.zarr"), text, REFUSE, ("noise.zarr",))
    for kind in ("strokes", "truth", "labels"):

        def colours(folder: Path) -> None:
            values = np.zeros((4, 80, 72), np.uint32)
            values[0, :40], values[3, 40:] = 1, 10**9
            array = zarr.create_array(
                folder / "new.zarr", shape=values.shape, chunks=values.shape, dtype=values.dtype
            )
            array[:] = values

        words = {
            "strokes": ("train", "v.zarr", "new.zarr", *TRAIN[3:]),
            "truth": ("evaluate", "noise.zarr", "new.zarr"),
            "labels": ("evaluate", "new.zarr", "noise.zarr"),
        }[kind]
        yield Case(
            GROUP,
            f"a label of 10^9 in {kind}",
            words,
            colours,
            REFUSE if kind == "strokes" else EITHER,
            ("new.zarr", "noise.zarr"),
        )


def _chunks() -> Iterator[Case]:
    yield Case(
        GROUP,
        "a gzip chunk of 3 GB",
        compare("gzip.zarr"),
        written_by("gzip.zarr/c/0/0/0", lambda: gzipped(3 * 2**30)),
        REFUSE,
        ("gzip.zarr",),
    )

    def zstd() -> bytes:
        # Frames of 128 MB, one after the other; a decoder that reads on makes 2 GB of them.
        return numcodecs.Zstd(level=1).encode(np.ones(2**27, np.uint8)) * 16

    def claimed() -> bytes:
        # A frame whose header claims 2^40 bytes.
        return b"\x28\xb5\x2f\xfd" + bytes([0xC0 | 0x20]) + struct.pack("<Q", 2**40) + b"\x03\0\0" + bytes(30)

    yield Case(
        GROUP,
        "a zstd chunk of 2 GB",
        compare("noise.zarr"),
        written_by("noise.zarr/c/0/0/0", zstd),
        REFUSE,
        ("noise.zarr",),
    )
    yield Case(
        GROUP,
        "a zstd chunk that claims 1 TB",
        compare("noise.zarr"),
        written_by("noise.zarr/c/0/0/0", claimed),
        REFUSE,
        ("noise.zarr",),
    )

    def second(codec: dict[str, Any], data: Callable[[], bytes]) -> Damage:
        def damage(folder: Path) -> None:
            file = folder / "two.zarr" / ".zarray"
            file.write_text(json.dumps(json.loads(file.read_bytes()) | {"compressor": codec}))
            for chunk in (folder / "two.zarr").glob("[0-9]*"):
                chunk.write_bytes(data())

        return damage

    def bz2() -> bytes:
        import bz2

        return bz2.compress(b"\1" * 2**27) * 16

    def lzma() -> bytes:
        import lzma

        return lzma.compress(b"\1" * 2**27, preset=1) * 16

    kinds: dict[str, tuple[dict[str, Any], Callable[[], bytes]]] = {
        "zlib of 3 GB": ({"id": "zlib", "level": 1}, lambda: zlibbed(3 * 2**30)),
        "gzip of 3 GB": ({"id": "gzip", "level": 1}, lambda: gzipped(3 * 2**30)),
        "bz2 of 2 GB": ({"id": "bz2", "level": 1}, bz2),
        "lzma of 2 GB": ({"id": "lzma", "format": 1, "check": -1, "preset": None, "filters": None}, lzma),
        "lz4 that claims 2 GB": (
            {"id": "lz4", "acceleration": 1},
            lambda: struct.pack("<i", 2**31 - 1) + bytes(100),
        ),
        "blosc that claims 2 GB": (
            {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1},
            lambda: struct.pack("<4BIII", 2, 1, 0x21, 1, 2**31 - 17, 2**20, 116) + bytes(100),
        ),
        "blosc of 1 GB": (
            {"id": "blosc", "cname": "zstd", "clevel": 5, "shuffle": 0},
            lambda: bytes(numcodecs.Blosc(cname="zstd").encode(np.ones(2**30, np.uint8))),
        ),
    }
    for name, (codec, data) in kinds.items():
        yield Case(
            GROUP, f"a Zarr 2 chunk, {name}", compare("two.zarr"), second(codec, data), REFUSE, ("two.zarr",)
        )
    yield Case(
        GROUP,
        "a gzip chunk of 3 GB, segmented",
        ("segment", "gzip.zarr", *SEGMENT[2:]),
        written_by("gzip.zarr/c/0/0/0", lambda: gzipped(3 * 2**30)),
        REFUSE,
        ("gzip.zarr",),
    )


def _texts() -> Iterator[Case]:
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
    )
    texts: dict[str, Callable[[], str]] = {
        "aliases": lambda: laughs,
        "200 MB": lambda: "seed: 0\n" + "#" * 200 * 2**20,
        "10 MB of lists": lambda: "seed: " + "[" * 10 * 2**20,
        "a million keys": lambda: "".join(f"k{n}: 1\n" for n in range(10**6)),
        "an integer of a million digits": lambda: f"seed: {'9' * 10**6}\n",
        "10^9 trees": lambda: "features: {kind: classical}\nclassifier: {trees: 1000000000}\n",
        "10^9 hidden units": lambda: (
            "features: {kind: classical}\nclassifier: {kind: mlp, hidden: [1000000000]}\n"
        ),
        "a million layers": lambda: (
            f"features: {{kind: classical}}\nclassifier: {{kind: mlp, hidden: [{'9, ' * 10**6}]}}\n"
        ),
        "10^9 shifts": lambda: "features: {kind: deep, deep: {shifts: [1000000000]}}\n",
        "sigma 10^9": lambda: (
            "features: {kind: classical, classical: {filters: [gaussian], sigmas: [1.0e+9]}}\n"
        ),
        "tiles of 10^9": lambda: "features: {kind: classical}\ntiles: {core: 1000000000}\n",
    }
    for name, text in texts.items():
        files = ("deep.yaml",)
        yield Case(
            GROUP,
            f"a recipe of {name}",
            TRAIN,
            written_by("r.yaml", lambda t=text: t().encode()),
            REFUSE,
            ("r.yaml",),
            files=files,
        )
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [2.0, 0.5, 0.25]}]}
    yield Case(
        GROUP,
        "a million levels",
        ("info", "image.ome.zarr"),
        ome(lambda old: replaced(old, ("multiscales", 0, "datasets"), [dataset] * 10**6)),
        REFUSE,
        ("image.ome.zarr",),
    )
    many = [{"label-value": n, "class": f"c{n}"} for n in range(10**6)]
    yield Case(
        GROUP,
        "a million classes of labels",
        ("info", "labels.ome.zarr"),
        ome(lambda old: replaced(old, ("image-label", "properties"), many), "labels.ome.zarr"),
        EITHER,
        ("labels.ome.zarr",),
    )

    def settings(change: Callable[[Any], Any]) -> Damage:
        def whole(values: Any) -> Any:
            values["attributes"]["hrvol"] = change(values["attributes"]["hrvol"])
            return values

        return edited(f"{PART}/zarr.json", whole)

    for name, change in {
        "10^15 blocks": lambda old: old | {"region": [[0, 10**6]] * 3, "block_shape": [10] * 3},
        "blocks of nothing": lambda old: old | {"block_shape": [0, 0, 0]},
        "a region of 10^30": lambda old: old | {"region": [[0, 10**30]] * 3},
    }.items():
        for command in (("status", PART), ("info", PART), RESUME[PART]):
            yield Case(
                GROUP, f"an output of {name}, {command[0]}", command, settings(change), EITHER, (PART,)
            )


def _requests() -> Iterator[Case]:
    names = ",".join(f"c{n}" for n in range(20_000))
    for name, words in {
        "part 1 of 10^15": (*SEGMENT, "--part", f"1/{10**15}"),
        "a region of 10^30": (*SEGMENT, "--roi", f"0:{10**30},:,:"),
        "20,000 class names": (*TRAIN, "--classes", names),
        "10^9 components": (
            "features",
            "v.zarr",
            "new.zarr",
            "--recipe",
            "r.yaml",
            "--components",
            "1000000000",
        ),
        "10^12 planes": ("pca", "v.zarr", "-o", "new.png", "--recipe", "r.yaml", "--planes", "1000000000000"),
    }.items():
        yield Case(GROUP, f"a request for {name}", words, nothing, EITHER, files=("v.zarr",))
