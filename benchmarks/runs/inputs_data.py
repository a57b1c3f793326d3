"""Volumes of ``benchmarks.runs.inputs``: many planes that take little disk space, read like any others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks.runs.scale_run import BRIGHT, DARK, write_volume
from hrvol.arrays import Shape3

PATTERNS = 16
"""Different planes of a stack."""

FILLED = 16
"""Of so many planes of an HDF5 file one is written, the others are holes: dark, and read like any others."""

KINDS = ("zarr", "tiff-zlib", "png", "tiff-plain", "hdf5-contiguous", "hdf5-virtual")
"""Chunks of 64 x 64 x 64; folders of images; plain bytes; planes of a compressed HDF5 file, repeated."""


def make_input(folder: Path, kind: str, shape: Shape3) -> Path:
    """Write a volume of two grey values and return its path."""
    path = folder / kind
    if kind == "zarr":
        write_volume(path, shape)
    elif kind == "hdf5-contiguous":
        path = path.with_suffix(".h5")
        _contiguous(path, shape)
    elif kind == "hdf5-virtual":
        path = path.with_suffix(".h5")
        _virtual(path, shape)
    else:
        path.mkdir()
        suffix = "png" if kind == "png" else "tif"
        for number in range(PATTERNS):
            _image(folder / f"{kind}.{number}.{suffix}", plane(shape, number), kind)
        for z in range(shape[0]):
            os.link(folder / f"{kind}.{z * 7 % PATTERNS}.{suffix}", path / f"plane_{z:05d}.{suffix}")
    return path


def plane(shape: Shape3, number: int) -> NDArray[np.uint8]:
    """Return a plane of blobs (y, x)."""
    noise = np.random.default_rng(number).normal(size=shape[1:]).astype(np.float32)
    values: NDArray[np.uint8] = np.where(ndimage.gaussian_filter(noise, 3) > 0, BRIGHT, DARK).astype(np.uint8)
    return values


def _image(path: Path, values: NDArray[np.uint8], kind: str) -> None:
    if kind == "png":
        Image.fromarray(values).save(path)
    else:
        packed = "zlib" if kind == "tiff-zlib" else None
        tifffile.imwrite(path, values, compression=packed, rowsperstrip=len(values))


def _contiguous(path: Path, shape: Shape3) -> None:
    creation: Any = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT8, space, dcpl=creation)
        for z in range(0, shape[0], FILLED):
            file["data"][z] = plane(shape, z // FILLED % PATTERNS)


def _virtual(path: Path, shape: Shape3) -> None:
    source = path.with_name("hdf5-planes.h5")
    with h5py.File(source, "w") as file:
        count = min(PATTERNS, shape[0])
        data = file.create_dataset(
            "data", (count, *shape[1:]), "u1", chunks=(1, *shape[1:]), compression="gzip"
        )
        for number in range(count):
            data[number] = plane(shape, number)
        layout = h5py.VirtualLayout(shape, "u1")
        planes = h5py.VirtualSource(data)
        for z in range(shape[0]):
            layout[z] = planes[z * 7 % count]
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout)
