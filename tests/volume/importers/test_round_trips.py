"""Whatever is written by other programs is read again: types, byte orders, odd sizes, 2D and 3D."""

import resource
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hrvol.volume.read_options import RawLayout
from hrvol.volume.volume import open_volume

h5py = pytest.importorskip("h5py")
mrcfile = pytest.importorskip("mrcfile")
nibabel = pytest.importorskip("nibabel")
nrrd = pytest.importorskip("nrrd")

TYPES = ("u1", "i1", "<u2", ">u2", "<i2", "<u4", ">u4", "<i4", "<f4", ">f4", "<f8")
OF_MRC = ("i1", "<u2", ">u2", "<i2", "<f4", ">f4")
SETTINGS = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def arrays(types=TYPES, least=2):
    """Strategy of images and volumes with odd sides; floating-point numbers are finite."""
    shapes = hnp.array_shapes(min_dims=least, max_dims=3, min_side=2, max_side=9)
    return st.sampled_from(types).flatmap(
        lambda name: hnp.arrays(
            np.dtype(name),
            shapes,
            elements=st.floats(-1e3, 1e3, width=32) if "f" in name else None,
        )
    )


def check(write, name, values, box_of=None, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path, values)
        volume = open_volume(path, **options)
        expected = values[np.newaxis] if values.ndim == 2 else values
        read = volume.read()
        assert read.dtype == values.dtype.newbyteorder("=")
        np.testing.assert_array_equal(read, expected)
        box = tuple(slice(side // 2, side) for side in expected.shape)
        np.testing.assert_array_equal(volume.read(box), expected[box])
        assert volume.ndim == values.ndim


@SETTINGS
@given(arrays(), st.booleans())
def test_npy(values, fortran):
    check(np.save, "v.npy", np.asfortranarray(values) if fortran else values)


@SETTINGS
@given(arrays(), st.integers(0, 999))
def test_raw(values, offset):
    def write(path, values):
        path.write_bytes(bytes(offset) + values.tobytes())

    order = "big" if values.dtype.str[0] == ">" else "little"
    layout = RawLayout(values.shape, values.dtype.newbyteorder("=").name, offset, order)
    check(write, "v.raw", values, raw=layout)


@SETTINGS
@given(arrays(), st.booleans())
def test_metaimage(values, local):
    kinds = {"u1": "UCHAR", "i1": "CHAR", "u2": "USHORT", "i2": "SHORT", "u4": "UINT", "i4": "INT"}
    kind = (kinds | {"f4": "FLOAT", "f8": "DOUBLE"})[values.dtype.str[1:]]

    def write(path, values):
        big = values.dtype.str[0] == ">"
        data = "LOCAL" if local else "values.raw"
        header = (
            f"ObjectType = Image\nNDims = {values.ndim}\nBinaryData = True\nBinaryDataByteOrderMSB = {big}\n"
            f"ElementSpacing = {' '.join('123'[: values.ndim])}\n"
            f"DimSize = {' '.join(map(str, values.shape[::-1]))}\n"
            f"ElementType = MET_{kind}\nElementDataFile = {data}\n"
        )
        path.write_bytes(header.encode() + (values.tobytes() if local else b""))
        if not local:
            (path.parent / data).write_bytes(values.tobytes())

    check(write, "v.mha" if local else "v.mhd", values)


@SETTINGS
@given(arrays(OF_MRC))
def test_mrc(values):
    def write(path, values):
        with mrcfile.new(path) as file:
            file.set_data(values)

    check(write, "v.mrc", values)


@SETTINGS
@given(arrays(), st.sampled_from(["raw", "gzip", "bzip2", "ascii"]), st.booleans())
def test_nrrd(values, encoding, detached):
    if encoding == "ascii" and (values.dtype.kind == "f" or detached):
        encoding = "raw"

    def write(path, values):
        header = {"encoding": encoding, "spacings": [1.5] * values.ndim}
        nrrd.write(str(path), values, header, index_order="C")

    check(write, "v.nhdr" if detached else "v.nrrd", values)


@SETTINGS
@given(arrays([name for name in TYPES if name[-2:] != "i1"], least=3), st.sampled_from([".nii", ".nii.gz"]))
def test_nifti(values, suffix):
    def write(path, values):
        image = nibabel.Nifti1Image(values.T, np.diag([2, 2, 2, 1]), dtype=values.dtype)
        nibabel.save(image, path)

    check(write, f"v{suffix}", values)


@SETTINGS
@given(arrays(), st.sampled_from([None, "gzip", "lzf"]), st.booleans())
def test_hdf5(values, compression, chunked):
    def write(path, values):
        chunks = tuple(max(1, side // 2) for side in values.shape) if chunked or compression else None
        with h5py.File(path, "w") as file:
            file.create_dataset("scan/values", data=values, compression=compression, chunks=chunks)

    check(write, "v.h5", values)


@SETTINGS
@given(arrays(least=3), st.sampled_from([None, "zlib", "lzw", "packbits", "zstd"]))
def test_folder_of_tiff(values, compression):
    if compression in ("lzw", "packbits", "zstd"):
        pytest.importorskip("imagecodecs")

    def write(path, values):
        path.mkdir()
        for z, plane in enumerate(values):
            tifffile.imwrite(path / f"scan_{z + 7}.tif", plane, compression=compression)

    if values.dtype.str[0] == ">":
        values = values.astype(values.dtype.newbyteorder("="))
    check(write, "folder", values)


@SETTINGS
@given(arrays(["u1", "<u2"], least=3))
def test_folder_of_png(values):
    from PIL import Image

    def write(path, values):
        path.mkdir()
        for z, plane in enumerate(values):
            Image.fromarray(plane).save(path / f"{z}.png")

    check(write, "folder", values)


@SETTINGS
@given(arrays(["u1"], least=2))
def test_orders_of_axes(values):
    order = "zyx"[-values.ndim :][::-1]
    volume = open_volume(values, axis_order=order)
    expected = values.T[np.newaxis] if values.ndim == 2 else values.T
    np.testing.assert_array_equal(volume.read(), expected)


def sparse(path, header, shape, dtype="<u2"):
    """Write a header and values of zeros, which take no space on the disk."""
    path.write_bytes(header)
    with path.open("r+b") as file:
        file.truncate(len(header) + int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return path


LARGE = (1000, 1500, 1500)  # 4.5 GB


def large_files(folder):
    sides = " ".join(map(str, LARGE[::-1]))
    nrrd_header = f"NRRD0004\ntype: uint16\ndimension: 3\nsizes: {sides}\nendian: little\nencoding: raw\n\n"
    yield sparse(folder / "v.nrrd", nrrd_header.encode(), LARGE)
    meta = f"NDims = 3\nDimSize = {sides}\nElementType = MET_USHORT\nElementDataFile = LOCAL\n"
    yield sparse(folder / "v.mha", meta.encode(), LARGE)
    sparse(folder / "w.raw", b"", LARGE)
    (folder / "w.mhd").write_text(meta.replace("LOCAL", "w.raw"))
    yield folder / "w.mhd"
    np.lib.format.open_memmap(folder / "v.npy", "w+", "<u2", LARGE).flush()
    yield folder / "v.npy"
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint16)
    header.set_data_shape(LARGE[::-1])
    header["vox_offset"], header["magic"] = 352, b"n+1"
    yield sparse(folder / "v.nii", header.binaryblock + bytes(4), LARGE)
    mrcfile.new_mmap(folder / "v.mrc", LARGE, 6).close()
    yield folder / "v.mrc"
    with h5py.File(folder / "v.h5", "w") as file:
        file.create_dataset("data", LARGE, "<u2")
    yield folder / "v.h5"


def test_a_box_of_a_large_file_takes_the_memory_of_a_box(tmp_path):
    box = (slice(400, 464), slice(200, 500), slice(1000, 1300))
    for path in large_files(tmp_path):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        volume = open_volume(path)
        assert volume.shape == LARGE, path
        assert not volume.read(box).any()
        # 12 MB of values; and the pages of rows and planes that the operating system maps.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024, path
        del volume
        path.unlink()
