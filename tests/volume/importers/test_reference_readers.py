"""Every file of the collection of formats: read equal to its reference reader, or refused in one line."""

import gzip
import importlib
import pickle
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from hrvol.errors import InputError
from hrvol.volume.read_options import RawLayout
from hrvol.volume.volume import open_volume

pytestmark = pytest.mark.data

h5py = pytest.importorskip("h5py")
METRES = {"angstrom": 1e-10, "picometer": 1e-12, "nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3}
HDF5 = {  # what is chosen of each file
    "dxchange/reader.h5": "/exchange/data",
    "nexus/k11_diad/k11-18014.nxs": "/entry/imaging/data",
    "nexus/k11_diad/k11-18014/k11-18014-imaging.h5": "/entry/detector/detector",
    "nexus/nexus_dls_example.nxs": None,  # the only one with three axes
    "nexus/saved_multi_signal.nxs": "/entry1/rocks/data",
    "nexus/simple_signal.nxs": "/entry1/rocks/data",
    "nexus/savu_pc2_projections.hdf": "/entry/data/data",
    "nexus/savu_pco2_flats_00000.hdf": "/entry/data/data",
}
ARCHIVES = {  # files that are unpacked for the test
    "tiff/JEOL-SightX-TEM-mag-dummy.tif.gz",
    "tiff/TVIPS_bin4.zip",
    "tiff/tiff_FEI_Helios.zip",
}
REFUSED = {
    "MANIFEST.tsv": "found neither",
    "npy/generate_npy_examples.py": "no such file|found neither",
    "dxchange/read_stack.h5": "found 26 datasets",
    "emd/fei_example_dpc_titles.emd": "expected one image or FILE::/NUMBER",
    "nexus/k11_diad/k11-18014/k11-18014-pcompPanda.h5": "no dataset of numbers",
    "nifti/example_nifti2.nii.gz": "found 2 along axis 't'",
    "nrrd/BallBinary30x30x30_byteskip_minus_five.nhdr": "byte skip -5",
    "nrrd/test1d_ascii.nrrd": r"found shape \(27,\)",
    "nrrd/test_customFields.nrrd": r"found shape \(27,\)",
    "raw/polymer3d_8bit_128x128x128.raw": "--raw-shape",
    "tiff/olympus_SIS.tif": "found page 1",
    "chunked/simple_zarr_dataset/color/1/": "no such file|found neither",
    "chunked/zarr_v2_from_zarr-python/data.zarr/": "found a group with 26 arrays",
}

COLOUR = {
    "tiff/multi-channel-z-series.ome.tif": 0,
    "tiff/optical_Zeiss_AxioVision_RGB.tif": 2,
    "chunked/zarr.zr/blosc/": 2,
    "chunked/zarr.zr/gzip/": 2,
    "chunked/simple_zarr3_dataset/color/1/": None,
    "chunked/simple_n5_dataset/color/1/": None,
}
"""Files of three channels, and the axis of these as other libraries read it; ``None``: not compared."""

# The header of a NIfTI file is before its values, which the NRRD header does not say.
REFUSED_WHEN_READ = {"nrrd/BallBinary30x30x30_nifti.nhdr": "found more than 54,000 bytes of values"}


def squeezed(values, sizes=None):
    """Return values as (z, y, x), and the sizes of these axes."""
    values = np.asarray(values)
    keep = [i for i, side in enumerate(values.shape) if side > 1 or values.ndim <= 3][-3:]
    keep = keep if len(keep) >= 2 else list(range(values.ndim))[-3:]
    shape = [values.shape[i] for i in keep]
    return values.reshape((*[1] * (3 - len(shape)), *shape))


def by_mrcfile(path):
    mrcfile = pytest.importorskip("mrcfile")
    with mrcfile.open(path, permissive=True) as file:
        size, header = file.voxel_size, file.header
        names = [None, "x", "y", "z"]
        axes = [names[int(header[name])] for name in ("maps", "mapr", "mapc")]
        return file.data.copy(), [float(size[axis]) * 1e-10 for axis in axes]


def by_nibabel(path):
    image = pytest.importorskip("nibabel").load(path)
    unit = {"mm": 1e-3, "micron": 1e-6, "meter": 1.0}.get(image.header.get_xyzt_units()[0], 1.0)
    zooms = [float(zoom) * unit for zoom in image.header.get_zooms()]
    return np.asarray(image.dataobj).T, zooms[:3][::-1]


def by_pynrrd(path):
    values, header = pytest.importorskip("nrrd").read(str(path), index_order="C")
    if "space directions" in header:
        rows = [float(np.linalg.norm(row)) for row in header["space directions"] if not np.isnan(row).any()]
        return values, rows[:3][::-1]
    return values, [float(step) for step in header["spacings"]][::-1]


def by_pydicom(path):
    header = pytest.importorskip("pydicom").dcmread(path)
    return header.pixel_array, [None, *(float(step) * 1e-3 for step in header.PixelSpacing)]


def by_rosettasciio(path):
    module = {".dm3": "digitalmicrograph", ".dm4": "digitalmicrograph"}.get(path.suffix, path.suffix[1:])
    pytest.importorskip("rsciio")
    signal = importlib.import_module(f"rsciio.{module}").file_reader(str(path))[0]
    units = {"nm": 1e-9, "µm": 1e-6, "um": 1e-6, "pm": 1e-12}
    sizes = [
        float(axis["scale"]) * units[str(axis["units"])] if str(axis["units"]) in units else None
        for axis in signal["axes"]
    ]
    return signal["data"], sizes


def by_olefile(path):
    with pytest.importorskip("olefile").OleFileIO(path) as file:

        def number(name, dtype):
            return np.frombuffer(file.openstream(f"ImageInfo/{name}").read(), dtype)[0]

        shape = (number("ImageHeight", "<i4"), number("ImageWidth", "<i4"))
        planes = [
            np.frombuffer(file.openstream(f"ImageData1/Image{n + 1}").read(), "<u2").reshape(shape)
            for n in range(number("ImagesTaken", "<i4"))
        ]
        return np.stack(planes), [float(number("PixelSize", "<f4")) * 1e-6] * 3


def by_tensorstore(path):
    tensorstore = pytest.importorskip("tensorstore")
    if not (path / "attributes.json").exists() or b"blockSize" not in (path / "attributes.json").read_bytes():
        path = next(folder for folder in (path / "s0", path / "gzip") if folder.is_dir())
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{path}/"}}
    return np.asarray(tensorstore.open(spec, read=True).result()).T, None


def by_zarr(path):
    node = zarr.open(path, mode="r")
    return node[:] if isinstance(node, zarr.Array) else node["image"][:], None


def by_zip(path):
    with zarr.storage.ZipStore(path, mode="r") as store:
        return zarr.open_array(store, path="Experiments/__unnamed__/data", mode="r")[:], None


def by_h5py(path, name):
    with h5py.File(path, "r") as file:
        if name is not None:
            return file[name][()], None
        found = []
        file.visititems(lambda _, node: found.append(node) if len(getattr(node, "shape", ())) == 3 else None)
        return found[0][()], None


def by_tifffile(path):
    return tifffile.imread(path), None


READERS = {
    ".mrc": by_mrcfile,
    ".map": by_mrcfile,
    ".nii": by_nibabel,
    ".nrrd": by_pynrrd,
    ".nhdr": by_pynrrd,
    ".dcm": by_pydicom,
    ".dm3": by_rosettasciio,
    ".dm4": by_rosettasciio,
    ".emd": by_rosettasciio,
    ".hspy": by_rosettasciio,
    ".txrm": by_olefile,
    ".xrm": by_olefile,
    ".tif": by_tifffile,
    ".tiff": by_tifffile,
    ".npy": lambda path: (np.load(path), None),
    ".zspy": by_zip,
}


def reference(relative, path):
    if relative in HDF5:
        return by_h5py(path, HDF5[relative])
    if path.is_dir():
        return by_tensorstore(path) if "n5" in relative else by_zarr(path)
    if path.suffix == ".raw":
        return by_pynrrd(path.with_suffix(".nhdr"))
    return READERS[Path(path.name.removesuffix(".gz").removesuffix(".bz2")).suffix](path)


def manifest(data_dir):
    """Return the files and folders of the collection; those of N5 as their folders."""
    folder = data_dir / "formats"
    if not (folder / "MANIFEST.tsv").is_file():
        pytest.skip("no collection of formats in the shared data")
    lines = (folder / "MANIFEST.tsv").read_text().splitlines()[1:]
    names = dict.fromkeys(line.split("\t")[0].removesuffix("attributes.json") for line in lines)
    return folder, list(names)


def is_refused(relative):
    return (
        relative in REFUSED
        or relative.endswith(".json")
        or "data.zarr/1d" in relative
        or relative.endswith(("U7/", "3d.chunked.O/", "s1/", "s2/"))
    )


def unpacked(folder, into):
    """Return the TIFF files of the archives, unpacked."""
    files = []
    for relative in sorted(ARCHIVES):
        if relative.endswith(".gz"):
            files.append(into / Path(relative).stem)
            files[-1].write_bytes(gzip.decompress((folder / relative).read_bytes()))
            continue
        with zipfile.ZipFile(folder / relative) as archive:
            for name in archive.namelist():
                files.append(Path(archive.extract(name, into)))
    return files


def check(path, values, sizes):
    volume = open_volume(path)
    read = volume.read()
    expected = squeezed(values)
    assert read.dtype == expected.dtype.newbyteorder("="), path
    np.testing.assert_array_equal(read, expected, err_msg=str(path))
    z, y, x = (slice(side // 3, max(side // 3 + 1, side - side // 4)) for side in expected.shape)
    np.testing.assert_array_equal(volume.read((z, y, x)), expected[z, y, x], err_msg=str(path))
    assert all(0 < c <= side for c, side in zip(volume.chunks, volume.shape, strict=True))
    if sizes is not None:
        sizes = sizes[-volume.ndim :]
        metres = METRES.get(volume.unit, 1.0)
        for found, size in zip(volume.voxel_size[-len(sizes) :], sizes, strict=True):
            if size is not None and 1e-13 < size < 100:
                assert found * metres == pytest.approx(size, rel=1e-5), path
    return volume


def test_every_file(data_dir, tmp_path):
    folder, names = manifest(data_dir)
    equal, sized = [], 0
    for relative in names:
        path = folder / relative
        if relative in (*ARCHIVES, *COLOUR, *REFUSED_WHEN_READ) or is_refused(relative):
            continue
        volume = check(path, *reference(relative, path))
        equal.append(relative)
        sized += bool(volume.voxel_size_from)
    for path in unpacked(folder, tmp_path):
        check(path, *by_tifffile(path))
        equal.append(path.name)
    raw = RawLayout((128, 128, 128), "uint8")
    path = folder / "raw" / "polymer3d_8bit_128x128x128.raw"
    np.testing.assert_array_equal(open_volume(path, raw=raw).read().ravel(), np.fromfile(path, np.uint8))
    equal.append(path.name)
    for relative, axis in COLOUR.items():
        check_channels(folder / relative, axis)
        equal.append(relative)
    assert len(equal) >= 95
    assert sized >= 40


def check_channels(path, axis):
    colours = open_volume(path)
    assert (colours.channels, colours.colour) == (3, True)
    single = np.stack([open_volume(path, channel=channel).read() for channel in range(3)], axis=-1)
    np.testing.assert_array_equal(colours.read(), single)
    if axis is None:
        return
    stored = tifffile.imread(path) if path.suffix == ".tif" else zarr.open(path, mode="r")[:]
    whole = np.moveaxis(stored, axis, 0)
    for channel in range(3):
        np.testing.assert_array_equal(single[..., channel], squeezed(whole[channel]))
    mean = open_volume(path, channel="mean").read()
    np.testing.assert_array_equal(mean, squeezed(np.rint(whole.mean(0)).astype(whole.dtype)))


def test_every_other_file_is_refused_in_one_line(data_dir):
    folder, names = manifest(data_dir)
    refused = [name for name in names if is_refused(name) and not name.endswith(("s1/", "s2/"))]
    assert len(refused) >= 35
    for relative in [*refused, *ARCHIVES, *REFUSED_WHEN_READ]:
        expected = (REFUSED | REFUSED_WHEN_READ).get(relative, "found")
        with pytest.raises(InputError, match=expected) as caught:  # noqa: PT012
            volume = open_volume(folder / relative)
            if relative in REFUSED_WHEN_READ:
                volume.read()
        message = str(caught.value)
        assert message.isprintable()
        assert Path(relative).name in message


def test_all_parts_of_stores_and_files_that_are_none(data_dir):
    """Chunks, attributes and whatever else lies around: no error of another type."""
    folder, _ = manifest(data_dir)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 400
    messages = []
    for path in files:
        try:
            open_volume(path)
        except InputError as error:
            messages.append(str(error))
    assert all(message.isprintable() for message in messages)


def test_sizes_and_where_they_are_from(data_dir):
    folder, _ = manifest(data_dir)
    expected = {
        "mrc/EMD-3001.map": ((0.3925, 0.44825, 0.45875), "angstrom", "MRC header"),
        "dicom": ((0.666667, 0.666667, 0.699988), "millimeter", "DICOM header"),
        "tiff/test_loading_image_saved_with_imageJ_stack.tif": (
            (2.5, 0.168675, 0.168675),
            "micrometer",
            "ImageJ metadata",
        ),
        "tiff/test_loading_image_saved_with_DM.tif": (
            (1.0, 0.168675, 0.168675),
            "micrometer",
            "tags of Gatan",
        ),
        "nrrd/test2d_ascii.nrrd": ((1.0, 2.0, 1.0458), None, "NRRD header"),
        "txrm/txrm_test_chip_tomo.txrm": (
            (0.155789, 0.155789, 0.155789),
            "micrometer",
            "PixelSize of the microscope's file",
        ),
    }
    for relative, (size, unit, origin) in expected.items():
        volume = open_volume(folder / relative)
        assert volume.voxel_size == pytest.approx(size, rel=1e-4), relative
        assert (volume.unit, volume.voxel_size_from, volume.notes) == (unit, origin, ()), relative
    for relative in ("mrc/20241021_00405_movie.mrc", "nifti/urocell_mito_label_fib1-0-0-0.nii.gz"):
        volume = open_volume(folder / relative)
        assert (volume.voxel_size, volume.unit, volume.voxel_size_from) == ((1, 1, 1), None, "")
        assert volume.notes[0].endswith("taken as unknown")


def test_tags_of_microscopes(data_dir, tmp_path):
    folder, _ = manifest(data_dir)
    files = {path.name: path for path in unpacked(folder, tmp_path)}
    for name, size, origin in (
        ("FEI-Helios-Ebeam-8bits.tif", 3.3724e-6, "tags of FEI"),
        ("TVIPS_bin4.tif", 1.4208036661148071e-9, "tags of TVIPS"),
    ):
        volume = open_volume(files[name])
        assert volume.voxel_size[2] * METRES[volume.unit] == pytest.approx(size)
        assert volume.voxel_size_from == origin


def sums(volumes):
    return [int(volume.read().astype(np.float64).sum()) for volume in volumes]


def test_another_process_reads_the_same(data_dir):
    folder, names = manifest(data_dir)
    kinds = ("mrc", "nexus", "dm", "nrrd", "nifti", "txrm", "npy", "tiff", "emd", "chunked/n5", "zspy")
    chosen = [
        next(n for n in names if n.startswith(kind) and not is_refused(n) and n not in ARCHIVES)
        for kind in kinds
    ]
    volumes = [open_volume(folder / name) for name in (*chosen, "dicom", "tiff/fibre_series_packbits16")]
    assert all(len(pickle.dumps(volume)) < 1000 for volume in volumes)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(sums, volumes).result(120) == sums(volumes)
