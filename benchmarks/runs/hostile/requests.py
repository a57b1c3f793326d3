"""Values of options on the command line."""

from __future__ import annotations

from collections.abc import Iterator

from damage import shown

from benchmarks.runs.hostile.case import EITHER, REFUSE, Case, nothing
from benchmarks.runs.hostile.sound import SEGMENT

VALUES = "command-line values"

_TRAIN = ("train", "v.zarr", "s.zarr", "-o", "new.hrvol", "--recipe", "r.yaml")


def cases() -> Iterator[Case]:
    yield from _values()


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
                if (value in (" 1", "٣", str(2**32), str(10**30), "9" * 5000) and option == "--seed")
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
        yield Case(
            VALUES,
            f"similar --at {shown(point)}",
            words,
            nothing,
            REFUSE,
            ("--at", "point", "v.tif", "similar"),
        )
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
