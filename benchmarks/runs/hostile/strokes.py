"""Strokes, masks and truths that do not fit, or are something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from benchmarks.runs.hostile.case import EITHER, REFUSE, Case, nothing
from benchmarks.runs.hostile.sound import SHAPE

GROUP = "strokes, masks, truths"

TRAIN = ("train", "v.zarr", "new.zarr", "-o", "new.hrvol", "--recipe", "r.yaml")
MASK = ("segment", "v.zarr", "new.ome.zarr", "-m", "m.hrvol", "--engine", "serial", "--mask", "new.zarr")
TRUTH = ("evaluate", "noise.zarr", "new.zarr", "--json")
LABELS = ("evaluate", "new.zarr", "noise.zarr", "--json")


def cases() -> Iterator[Case]:
    few = np.zeros(SHAPE, np.uint8)
    few[0, ::7, 5], few[3, ::5, 40] = 1, 2
    for name, (values, expect) in _strokes(few).items():
        yield Case(GROUP, f"strokes: {name}", TRAIN, _written(values), expect, ("new.zarr",))
    for name, values in {
        "floats": few / 3,
        "NaN": few * np.float32("nan"),
        "one plane less": few[:3],
        "one plane": few[0],
        "transposed": few.transpose(2, 1, 0),
        "text": few.astype("U1"),
        "complex": few * 1j,
        "negative": few.astype(np.int16) - 3,
        "times": few.astype("M8[s]"),
        "nothing": np.zeros(SHAPE, np.uint8),
        "empty": np.zeros((0, 80, 72), np.uint8),
        "four dimensions": few[None],
    }.items():
        expect = EITHER if name in ("negative", "nothing", "floats", "NaN", "four dimensions") else REFUSE
        yield Case(GROUP, f"mask: {name}", MASK, _written(values), expect, ("new.zarr",))
    for name, values in {
        "10^9": few.astype(np.uint32) * 10**9,
        "2^63": few.astype(np.uint64) * 2**62,
        "negative": few.astype(np.int16) - 2,
        "floats": few / 3,
        "NaN": few * np.float32("nan"),
        "one plane less": few[:3],
        "one plane": few[0],
        "transposed": few.transpose(2, 1, 0),
        "text": few.astype("U1"),
        "complex": few * 1j,
        "nothing": np.zeros(SHAPE, np.uint8),
        "every value its own": np.arange(few.size, dtype=np.uint32).reshape(SHAPE),
        "four dimensions": few[None],
        "5 TB of zeros": None,
    }.items():
        for kind, command in (("truth", TRUTH), ("labels", LABELS)):
            expect = (
                EITHER if name in ("10^9", "nothing", "every value its own", "four dimensions") else REFUSE
            )
            yield Case(
                GROUP, f"{kind}: {name}", command, _written(values), expect, ("new.zarr", "noise.zarr")
            )
    yield from _requests()


def _strokes(few: Any) -> dict[str, tuple[Any, str]]:
    rng = np.random.default_rng(0)
    grey = np.clip(rng.normal(100, 20, SHAPE), 0, 255).astype(np.uint8)
    return {
        "a volume": (grey, REFUSE),
        "a volume of 16 bits": (grey.astype(np.uint16) * 250, REFUSE),
        "a volume of floats": (grey / 7, REFUSE),
        "floats": (few.astype(np.float32), EITHER),
        "half a class": (few / 2, REFUSE),
        "NaN": (few * np.float32("nan"), REFUSE),
        "negative": (few.astype(np.int16) - 3, REFUSE),
        "one plane less": (few[:3], REFUSE),
        "one plane": (few[0], REFUSE),
        "transposed": (few.transpose(2, 1, 0), REFUSE),
        "four dimensions": (few[None], EITHER),
        "text": (few.astype("U1"), REFUSE),
        "complex": (few * 1j, REFUSE),
        "times": (few.astype("M8[s]"), REFUSE),
        "truths": (few > 0, REFUSE),
        "nothing": (few * 0, REFUSE),
        "one class": ((few > 0).astype(np.uint8), REFUSE),
        "one voxel each": (_two_voxels(), EITHER),
        "class 10^9": (few.astype(np.uint32) * 5 * 10**8, REFUSE),
        "class 2^63": (few.astype(np.uint64) * 2**62, REFUSE),
        "class 65536": (few.astype(np.uint32) * 32768, REFUSE),
        "classes 1 and 255": (np.where(few == 2, 255, few).astype(np.uint8), EITHER),
        "int64": (few.astype(np.int64), EITHER),
        "big-endian": (few.astype(">u4"), EITHER),
        "empty": (np.zeros((0, 80, 72), np.uint8), REFUSE),
        "5 TB of zeros": (None, REFUSE),
    }


def _two_voxels() -> Any:
    values = np.zeros(SHAPE, np.uint8)
    values[0, 0, 0], values[3, 79, 71] = 1, 2
    return values


def _written(values: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "new.zarr"
        if values is None:
            zarr.create_array(path, shape=(4000, 40000, 32000), chunks=(1, 40000, 32000), dtype="u1")
            return
        array = zarr.create_array(
            path,
            shape=values.shape,
            chunks=values.shape if values.size else (1,) * values.ndim,
            dtype=values.dtype,
        )
        array[...] = values

    return damage


def _requests() -> Iterator[Case]:
    train = ("train", "v.zarr", "s.zarr", "-o", "new.hrvol", "--recipe", "r.yaml")
    for name, words in {
        "swapped": ("train", "s.zarr", "v.zarr", *train[3:]),
        "the volume itself": ("train", "v.zarr", "v.zarr", *train[3:]),
        "the noise": ("train", "v.zarr", "noise.zarr", *train[3:]),
        "a model": ("train", "v.zarr", "m.hrvol", *train[3:]),
        "a recipe": ("train", "v.zarr", "r.yaml", *train[3:]),
        "odd number": ("train", "v.zarr", "s.zarr", "v.zarr", *train[3:]),
        "of another volume": ("train", "tall.zarr", "s.zarr", *train[3:]),
    }.items():
        expect = EITHER if name == "the noise" else REFUSE
        yield Case(GROUP, f"strokes: {name}", words, nothing, expect, ("zarr", "hrvol", "yaml", "paths"))
    for names in (
        "a",
        "a,b,c",
        "a,a",
        ",",
        "a,",
        "",
        " , ",
        "\x1b[31m,b",
        "a\nb,c",
        "a" * 5000 + ",b",
        ",".join("abcdefgh" * 2000),
        "a\u202eb,c",
        "[red],b",
        "[/b],c",
    ):
        expect = (
            EITHER
            if names in ("a\nb,c", "\x1b[31m,b", "a\u202eb,c", "[red],b", "[/b],c") or len(names) == 5002
            else REFUSE
        )
        yield Case(
            GROUP,
            f"class names {ascii(names)[:30]}",
            (*train, "--classes", names),
            nothing,
            expect,
            ("class", "name"),
        )
    for name, command in {"a file": "v.tif", "a missing file": "none.zarr", "a folder": "empty"}.items():
        words = ("evaluate", "noise.zarr", command)
        yield Case(
            GROUP, f"truth: {name}", words, lambda folder: (folder / "empty").mkdir(), REFUSE, (command,)
        )

    def picture(folder: Path) -> None:
        tifffile.imwrite(folder / "new.tif", np.zeros((80, 72, 3), np.uint8), photometric="rgb")

    yield Case(
        GROUP,
        "strokes: a colour picture",
        ("train", "v.zarr", "new.tif", *train[3:]),
        picture,
        REFUSE,
        ("new.tif",),
    )
    yield Case(GROUP, "mask: a colour picture", (*MASK[:-1], "new.tif"), picture, REFUSE, ("new.tif",))
