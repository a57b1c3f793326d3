"""Headers that are easily misread: types, units, files they name, numbers of slices."""

import struct

import numpy as np
import pytest

from hrvol.errors import InputError
from hrvol.volume.read_options import RawLayout
from hrvol.volume.volume import open_volume

VALUES = np.random.default_rng(0).integers(0, 255, (5, 6, 7)).astype(np.uint8)


def mrc(path, values, order="<", stamp=0, flags=0, low=0.0, high=-1.0):
    """Write an MRC file of mode 0."""
    mrcfile = pytest.importorskip("mrcfile")
    with mrcfile.new(path) as file:
        file.set_data(values.view(np.int8))
    data = bytearray(path.read_bytes())
    if order == ">":
        for start in (*range(0, 96, 4), 108, 216, 220):
            data[start : start + 4] = data[start : start + 4][::-1]
        data[212:216] = bytes((0x11, 0x11, 0, 0))
    data[76:84] = struct.pack(f"{order}2f", low, high)
    data[152:160] = struct.pack(f"{order}2i", stamp, flags)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("header", "unsigned"),
    [
        ({}, False),
        ({"stamp": 1146047817}, True),
        ({"stamp": 1146047817, "flags": 1, "low": 0.0, "high": 254.0}, False),
        ({"low": 0.0, "high": 254.0}, True),
        ({"low": 0.0, "high": 100.0}, False),
        ({"low": -128.0, "high": 127.0}, False),
        ({"low": 0.0, "high": 1e6}, False),
    ],
)
def test_bytes_of_mrc(tmp_path, order, header, unsigned):
    volume = open_volume(mrc(tmp_path / "v.mrc", VALUES, order, **header))
    np.testing.assert_array_equal(volume.read(), VALUES if unsigned else VALUES.view(np.int8))
    assert volume.dtype == (np.uint8 if unsigned else np.int8)


def test_half_bytes_of_mrc(tmp_path):
    with pytest.raises(InputError, match="found two values per byte, expected one"):
        open_volume(mrc(tmp_path / "v.mrc", VALUES, stamp=1146047817, flags=16))


META = "ObjectType = Image\nNDims = 3\nDimSize = 7 6 5\nElementType = MET_UCHAR\n"


def test_metaimage(tmp_path):
    (tmp_path / "v.raw").write_bytes(VALUES.tobytes() * 4)
    path = tmp_path / "v.mhd"
    path.write_text(f"{META}DistanceUnits = um\nElementSpacing = 1 2 3\nElementDataFile = v.raw\n")
    assert (open_volume(path).voxel_size, open_volume(path).unit) == ((3.0, 2.0, 1.0), "micrometer")
    path.write_text(f"{META}DistanceUnits = ?\nElementSpacing = 1 2 3\nElementDataFile = v.raw\n")
    assert (open_volume(path).voxel_size, open_volume(path).unit) == ((3.0, 2.0, 1.0), None)
    path.write_text(f"{META}BinaryData = False\nElementDataFile = v.raw\n")
    with pytest.raises(InputError, match="found values as text"):
        open_volume(path)


@pytest.mark.parametrize(
    ("side", "text"),
    [
        ("v.mhd", f"{META}ElementDataFile = w.raw\n"),
        ("v.nhdr", "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 7 6 5\nencoding: raw\ndata file: w.raw\n\n"),
        ("v.info", "NUM_X = 7\nNUM_Y = 6\nNUM_Z = 5\n"),  # of v.vol
    ],
)
def test_a_side_file_of_another_file(tmp_path, side, text):
    for name in ("v.raw", "w.raw", "v.vol"):
        (tmp_path / name).write_bytes((VALUES if name == "v.raw" else VALUES[::-1]).tobytes())
    (tmp_path / side).write_text(text)
    with pytest.raises(InputError, match=rf"v\.raw: found a side file {side} that describes another file"):
        open_volume(tmp_path / "v.raw")
    np.testing.assert_array_equal(
        open_volume(tmp_path / "v.raw", raw=RawLayout(VALUES.shape, "uint8")).read(), VALUES
    )


VGI = """{volume1}
[representation]
size = 7 6 5
datatype = unsigned integer
bitsperelement = 8
[file1]
FileFormat = raw
Size = 7 6 5
Name = v.vol
Datatype = unsigned integer
BitsPerElement = 16
{volumeprimitive1}
[geometry]
resolution = 0.05 0.05 0.1
unit = mm
"""


def test_volume_graphics(tmp_path):
    """The type is that of the file; VG Studio may show it in another one."""
    path = tmp_path / "v.vgi"
    (tmp_path / "v.vol").write_bytes(VALUES.astype("<u2").tobytes())
    path.write_text(VGI)
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    assert open_volume(path).voxel_size == pytest.approx((0.1, 0.05, 0.05))
    path.write_text(VGI + "[file2]\nName = w.vol\n")
    with pytest.raises(InputError, match="found 2 files, expected one raw file"):
        open_volume(path)
    path.write_text(VGI.replace("= raw", "= tiff"))
    with pytest.raises(InputError, match="found values of format tiff, expected one raw file"):
        open_volume(path)


def test_a_raw_file_at_a_url_has_the_size_of_its_shape():
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").pipe("/headers/v.raw", VALUES.tobytes())
    url = "memory://headers/v.raw"
    np.testing.assert_array_equal(open_volume(url, raw=RawLayout((5, 6, 7), "uint8")).read(), VALUES)
    with pytest.raises(InputError, match="found 210 bytes, expected 168 for shape"):
        open_volume(url, raw=RawLayout((4, 6, 7), "uint8"))


def series(folder, planes, **elements):
    """Write a DICOM series; a list of values is one per slice."""
    pydicom = pytest.importorskip("pydicom")
    folder.mkdir()
    for i, plane in enumerate(planes):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = pydicom.uid.CTImageStorage, pydicom.uid.generate_uid()
        data.SeriesInstanceUID, data.InstanceNumber = "1.2", i + 1
        data.Rows, data.Columns = plane.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation, data.PixelData = 7, 0, plane.tobytes()
        for name, value in elements.items():
            setattr(data, name, value[i])
        data.save_as(folder / f"{len(planes) - i}.dcm", enforce_file_format=True)
    return folder


def test_the_state_of_a_box_is_that_of_its_slices(tmp_path, monkeypatch):
    """Of thousands of slices only those are looked at: on file systems in a network that takes a while."""
    from hrvol.volume import input_state

    volume = open_volume(series(tmp_path / "v", VALUES[:, :, :6]))
    looked = []
    monkeypatch.setattr(input_state, "stamp_of", lambda path: looked.append(path) or (0, 0, 0))
    input_state.input_state(volume, (slice(1, 3), slice(0, 6), slice(0, 6)))
    assert sorted(looked) == [str(tmp_path / "v" / name) for name in ("3.dcm", "4.dcm")]


def test_axes_of_a_microscope_are_those_of_the_array():
    from hrvol.volume.importers.rosetta import _size

    axes = [{"index_in_array": i, "scale": 1.0 + i, "units": "nm"} for i in range(3)]
    assert _size(axes[::-1], "zyx", ".dm4").zyx == (1.0, 2.0, 3.0)


def test_gaps_in_the_numbers_of_slices_without_positions(tmp_path):
    even = VALUES[:, :, :6]
    np.testing.assert_array_equal(open_volume(series(tmp_path / "whole", even)).read(), even)
    folder = series(tmp_path / "gap", even, InstanceNumber=[1, 2, 3, 5, 6])
    with pytest.raises(InputError, match="found 5 slices, expected no gaps: 4 missing"):
        open_volume(folder)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("RescaleSlope", [1, 1, 2, 1, 1]),
        ("RescaleIntercept", [0, 0, 0, -1000, 0]),
        (
            "ImageOrientationPatient",
            [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0.99999, 0], *[[1, 0, 0, 0, 0, 1]] * 3],
        ),
    ],
)
def test_slices_of_another_scale(tmp_path, name, values):
    folder = series(tmp_path / "v", VALUES[:, :, :6], **{name: values})
    with pytest.raises(InputError, match=rf"found {name} .*\.dcm, expected .* as in .*\.dcm"):
        open_volume(folder)
