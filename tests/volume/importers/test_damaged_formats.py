"""Damaged and truncated files of all formats: one clear line each, in seconds and without gigabytes."""

import gzip
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from damage import flipped

from hrvol.errors import HrvolError, InputError
from hrvol.text import is_name
from hrvol.volume.volume import open_volume

pytestmark = pytest.mark.data

MOST_MB = 300
SECONDS = 5

FILES = {
    "dicom/N2D_0001.dcm": (),
    "dm/2D_test_STEM_image.dm3": (),
    "dm/2D_test-1.dm4": (),
    "dxchange/reader.h5": (),
    "emd/Si100_3D.emd": (),
    "emd/fei_example_tem_stack.emd": (),
    "hspy/example2_v3.1.hspy": (),
    "mrc/EMD-3001.map": (),
    "mrc/EMD-3197.map.bz2": (),
    "mrc/emd_3197.map.gz": (),
    "nexus/savu_pc2_projections.hdf": (),
    "nexus/simple_signal.nxs": (),
    "nifti/example_ct_sm.nii.gz": (),
    "nifti/standard.nii": (),
    "npy/npy_test.uint16-be.npy": (),
    "npy/npy_test.uint64-le.npy": (),
    "nrrd/BallBinary30x30x30.nrrd": (),
    "nrrd/BallBinary30x30x30_bz2.nrrd": (),
    "nrrd/BallBinary30x30x30_gz.nrrd": (),
    "nrrd/BallBinary30x30x30.nhdr": ("nrrd/BallBinary30x30x30.raw",),
    "tiff/single-channel.ome.tiff": (),
    "tiff/webknossos_test.0000.tiff": (),
    "txrm/test_chip00.xrm": (),
    "zspy/signal1d_10x10-ZipStore.zspy": (),
}

SHARES = (0.0, 0.02, 0.3, 0.7)
"""Parts of a file that are left when it is truncated."""


@pytest.fixture(scope="module")
def formats(data_dir):
    folder = data_dir / "formats"
    if not folder.is_dir():
        pytest.skip("no collection of formats in the shared data")
    return folder


def read(path):
    """Open and read all of a file within bounds of time and memory; return the error, if there is one."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        values = open_volume(path).read()
        assert isinstance(values, np.ndarray)
        error = None
    except HrvolError as caught:
        error = caught
    assert time.process_time() - began < SECONDS, path
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MB * 1024, path
    if error is not None:
        assert is_name(str(error)), error
        assert path.name in str(error)
        assert len(str(error)) < 1500
    return error


@pytest.mark.parametrize("relative", FILES)
def test_truncated(formats, tmp_path, relative):
    whole = (formats / relative).read_bytes()
    for other in FILES[relative]:
        shutil.copy(formats / other, tmp_path)
    path = tmp_path / Path(relative).name
    path.write_bytes(whole)
    assert read(path) is None  # the whole file is read
    refused = 0
    for share in SHARES:
        path.write_bytes(whole[: int(share * len(whole))])
        # What is missing at the end may be metadata that are not needed.
        refused += isinstance(read(path), InputError)
    assert refused >= 3


@pytest.mark.parametrize("relative", FILES)
def test_bits_that_are_flipped(formats, tmp_path, relative):
    whole = (formats / relative).read_bytes()
    for other in FILES[relative]:
        shutil.copy(formats / other, tmp_path)
    path = tmp_path / Path(relative).name
    rng = np.random.default_rng(len(whole))
    head = min(len(whole), 2000)
    for number in range(25):
        places = rng.integers(0, head if number % 2 else len(whole), 1 + number % 4)
        path.write_bytes(flipped(whole, [int(place) for place in places]))
        read(path)  # values or one line, whatever it is


def test_a_missing_file_of_values(formats, tmp_path):
    shutil.copy(formats / "nrrd/BallBinary30x30x30.nhdr", tmp_path)
    with pytest.raises(InputError, match=r"found no file BallBinary30x30x30\.raw, which it names"):
        open_volume(tmp_path / "BallBinary30x30x30.nhdr")
    (tmp_path / "BallBinary30x30x30.raw").write_bytes(bytes(1000))
    with pytest.raises(InputError, match=r"found 1,000 bytes in .*, expected at least 54,000"):
        open_volume(tmp_path / "BallBinary30x30x30.nhdr")


def test_a_series_that_lacks_a_slice_or_has_another(formats, tmp_path):
    for number in (1, 2, 4):
        shutil.copy(formats / f"dicom/N2D_000{number}.dcm", tmp_path)
    with pytest.raises(InputError, match=r"N2D_0002\.dcm and N2D_0004\.dcm.* slices are missing"):
        open_volume(tmp_path)
    shutil.copy(formats / "dicom/N2D_0004.dcm", tmp_path / "again.dcm")
    with pytest.raises(InputError, match="two slices at one position"):
        open_volume(tmp_path)


def test_bombs_are_refused_before_they_are_unpacked(formats, tmp_path):
    whole = gzip.decompress((formats / "nifti/standard.nii.gz").read_bytes())
    header = bytearray(whole[:352])
    header[42:48] = np.array([30_000] * 3, "<i2").tobytes()
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(bytes(header) + bytes(10**6)))
    error = read(tmp_path / "v.nii.gz")
    assert "a gzipped NIfTI file of" in str(error)
    assert "decompress it" in str(error)
    # More than what the header says is not read.
    (tmp_path / "w.nii.gz").write_bytes(gzip.compress(whole + bytes(3 * 10**8)))
    np.testing.assert_array_equal(
        open_volume(tmp_path / "w.nii.gz").read(), open_volume(formats / "nifti/standard.nii").read()
    )
    np.lib.format.write_array_header_2_0(
        (tmp_path / "v.npy").open("wb"), {"descr": "<u2", "fortran_order": False, "shape": (10**6,) * 3}
    )
    assert "expected" in str(read(tmp_path / "v.npy"))
    (tmp_path / "v.nrrd").write_bytes(b"NRRD0004\n" + b"# " + b"x" * (30 * 2**20))
    assert isinstance(read(tmp_path / "v.nrrd"), InputError)


def test_objects_in_numpy_files_are_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    np.save(tmp_path / "v.npy", np.array([[Evil(), Evil()]], object), allow_pickle=True)
    with pytest.raises(InputError, match="found type object"):
        open_volume(tmp_path / "v.npy")
    assert not (tmp_path / "ran").exists()
