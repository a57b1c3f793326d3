"""The sound files that the cases damage: small volumes, strokes, models and outputs."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, GzipCodec, ZstdCodec

from benchmarks.runs.hostile.runner import call

SHAPE, CHUNKS = (4, 80, 72), (2, 40, 36)
TALL = (2, 296, 40)

RECIPE = """\
features: {kind: classical, classical: {filters: [gaussian, sobel], sigmas: [1, 2]}}
classifier: {trees: 4, samples_per_class: 200}
tiles: {core: 64, overlap: 12, planes: 2}
"""

KINDS = {"boosted": "boosting", "mlp": "mlp", "linear": "logistic"}
"""Names of model files and their kinds of classifier."""

READ = ("noise.zarr", "truth.zarr")

SEGMENT = ("segment", "v.zarr", "new.ome.zarr", "-m", "m.hrvol", "--engine", "serial")
WARM = (
    ("info", "v.zarr", "--json"),
    ("info", "noise.tif", "--json"),
    ("info", "m.hrvol", "--json"),
    ("evaluate", "noise.zarr", "noise.tif", "--json"),
    ("train", "v.zarr", "s.zarr", "-o", "w.hrvol", "--recipe", "r.yaml"),
    ("segment", "v.zarr", "w.ome.zarr", "-m", "m.hrvol", "--engine", "serial"),
    ("status", "w.ome.zarr", "--json"),
)
"""Commands whose imports are done once."""


def make_volumes(folder: Path) -> None:
    """Write volumes, strokes, images and recipes; the same ones each time."""
    rng = np.random.default_rng(0)
    _, y, x = np.indices(SHAPE)
    truth = np.where((y // 16 + x // 14) % 2 == 0, 1, 2).astype(np.uint8)
    image = np.clip(np.where(truth == 2, 150, 90) + rng.normal(0, 12, SHAPE), 0, 255).astype(np.uint8)
    strokes = np.zeros_like(truth)
    strokes[[0, 3], :, 5::11] = truth[[0, 3], :, 5::11]
    noise = rng.integers(1, 4, SHAPE).astype(np.uint8)  # each voxel matters
    mask = np.zeros_like(truth)
    mask[:2] = 1
    for name, values in {"v": image, "s": strokes, "truth": truth, "noise": noise, "mask": mask}.items():
        _array(folder / f"{name}.zarr", values, chunks=CHUNKS)
    _array(folder / "crc.zarr", noise, chunks=CHUNKS, codecs=[ZstdCodec(), Crc32cCodec()])
    _array(folder / "gzip.zarr", noise, chunks=CHUNKS, codecs=[GzipCodec()])
    _array(folder / "raw.zarr", noise, chunks=CHUNKS, codecs=[])
    sharded = zarr.create_array(
        folder / "sharded.zarr",
        shape=SHAPE,
        dtype="u1",
        shards=(4, 80, 72),
        chunks=CHUNKS,
        compressors=[ZstdCodec(), Crc32cCodec()],
    )
    sharded[:] = noise
    second = zarr.create_array(folder / "two.zarr", shape=SHAPE, dtype="u1", chunks=CHUNKS, zarr_format=2)
    second[:] = noise
    _ome(folder / "image.ome.zarr", noise)
    _ome(folder / "labels.ome.zarr", noise, labels=True)
    tall = np.clip(rng.normal(100, 20, TALL), 0, 255).astype(np.uint8)
    tall[:, 100:200] //= 2
    _array(folder / "tall.zarr", tall, chunks=(2, 64, 40))
    make_tiffs(folder, noise)
    (folder / "r.yaml").write_text(RECIPE)
    (folder / "deep.yaml").write_text("features: {kind: deep, deep: {offsets: 1, flips: false}}\n")


def make_tiffs(folder: Path, noise: np.ndarray[Any, Any]) -> None:
    """Write a volume as TIFF files of several kinds, of which each declares the number of its planes."""
    tifffile.imwrite(folder / "noise.tif", noise, photometric="minisblack", metadata={"axes": "ZYX"})
    tifffile.imwrite(
        folder / "imagej.tif", noise, imagej=True, metadata={"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    )
    meta = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeZ": 2.0}
    tifffile.imwrite(folder / "noise.ome.tif", noise, photometric="minisblack", metadata=meta)
    for name, options in {
        "tiled.tif": {"tile": (16, 16), "compression": "zlib"},
        "deflate.tif": {"compression": "zlib", "rowsperstrip": 16},
    }.items():
        # Page by page, so that each has its own directory and data.
        with tifffile.TiffWriter(folder / name) as writer:
            for number, plane in enumerate(noise):
                description = json.dumps({"shape": list(SHAPE)}) if number == 0 else None
                writer.write(
                    plane, description=description, metadata=None, photometric="minisblack", **options
                )
    with tifffile.TiffWriter(folder / "pages.tif") as writer:
        for number, plane in enumerate(noise):
            description = f"ImageJ=1.11a\nimages={SHAPE[0]}\nslices={SHAPE[0]}\n" if number == 0 else None
            writer.write(plane, description=description, metadata=None, photometric="minisblack")


def make_outputs(folder: Path) -> None:
    """Train models and segment volumes with the package under test; run in a child."""
    os.chdir(folder)
    train = ("train", "v.zarr", "s.zarr", "--recipe")
    _check(call((*train, "r.yaml", "-o", "m.hrvol", "--classes", "matrix,disc")))
    for name, kind in KINDS.items():
        extra = "hidden: [8], max_iter: 20, trees: 4" if kind == "mlp" else "trees: 4"
        text = RECIPE.replace("trees: 4", f"kind: {kind}, {extra}")
        (folder / f"{name}.yaml").write_text(text)
        _check(call((*train, f"{name}.yaml", "-o", f"{name}.hrvol")))
    run = ("segment", "tall.zarr", "out.ome.zarr", "-m", "m.hrvol", "--engine", "serial", "--uncertainty")
    _check(call(run))
    _check(call((*run[:2], "part.ome.zarr", *run[3:], "--part", "1/2")))
    cluster = ("cluster", "v.zarr", "c.ome.zarr", "--recipe", "cluster.yaml", "--engine", "serial")
    (folder / "cluster.yaml").write_text(
        RECIPE + "cluster: {clusters: 6, samples: 500, sample_tiles: 2, classes: 2}\n"
    )
    call((*cluster, "--model", "clusters.hrvol"))


def _check(code: int) -> None:
    if code:
        raise RuntimeError(f"a sound command ended with exit code {code}")


def _array(path: Path, values: np.ndarray[Any, Any], chunks: tuple[int, ...], codecs: Any = "auto") -> None:
    options = {} if codecs == "auto" else {"compressors": codecs, "serializer": BytesCodec()}
    array = zarr.create_array(path, shape=values.shape, chunks=chunks, dtype=values.dtype, **options)
    array[:] = values


def _ome(path: Path, values: np.ndarray[Any, Any], labels: bool = False) -> None:
    group = zarr.open_group(path, mode="w")
    array = group.create_array("0", shape=values.shape, chunks=CHUNKS, dtype=values.dtype)
    array[:] = values
    half = group.create_array(
        "1", shape=tuple(side // 2 for side in values.shape), chunks=CHUNKS, dtype=values.dtype
    )
    half[:] = values[::2, ::2, ::2]
    scales = ([2.0, 0.5, 0.25], [4.0, 1.0, 0.5])
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    datasets = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for n, scale in enumerate(scales)
    ]
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [{"name": "image", "axes": axes, "datasets": datasets}],
    }
    if labels:
        ome["image-label"] = {
            "colors": [{"label-value": n, "rgba": [80 * n, 100, 200, 255]} for n in (1, 2, 3)],
            "properties": [{"label-value": n, "class": f"class {n}"} for n in (1, 2, 3)],
        }
    group.attrs["ome"] = ome


BARE_TAGS = {
    256: (4, 1, 8),
    257: (4, 1, 8),
    258: (3, 1, 8),
    259: (3, 1, 1),
    262: (3, 1, 1),
    273: (4, 1, 200),
    277: (3, 1, 1),
    278: (4, 1, 8),
    279: (4, 1, 64),
}
"""Type, count and value by tag, of a directory of 8 x 8 pixels."""


def bare_tiff(entries: dict[int, tuple[int, int, int]], data: bytes = b"", following: int = 0) -> bytes:
    """Return a TIFF of one directory: type, count and value by tag. The data follow it."""
    body = struct.pack("<H", len(entries))
    for tag, (kind, count, value) in sorted(entries.items()):
        body += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", following) + data
