"""Which dataset of an HDF5 file is taken, what is said if that is not clear, and values in other files."""

import pickle

import numpy as np
import pytest

from hrvol.errors import InputError, MissingExtraError
from hrvol.info import describe
from hrvol.volume.importers import hdf5_search
from hrvol.volume.volume import open_labels, open_volume

h5py = pytest.importorskip("h5py")
VALUES = np.random.default_rng(0).integers(0, 999, (5, 6, 7)).astype(np.uint16)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "v.h5"


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name.replace("__", "/")] = values


def equal(source, values=VALUES):
    np.testing.assert_array_equal(open_volume(source).read(), values)


def test_the_only_3d_dataset(path):
    write(path, angles=np.arange(5.0), scan__flat=VALUES[0], scan__recon=VALUES, note="text")
    equal(path)
    np.testing.assert_array_equal(open_labels(path).read(), VALUES)


def test_the_only_image(path):
    write(path, angles=np.arange(5.0), flat=VALUES[0])
    assert open_volume(path).ndim == 2


@pytest.mark.parametrize(
    "known",
    ["exchange/data", "entry0000/reconstruction/results/data", "entry/final_result_tomo/data", "data"],
)
def test_layouts_of_programs(path, known):
    write(path, **{known: VALUES, "exchange/data_white": VALUES[:2], "raw/projections": VALUES + 1})
    equal(path)


def test_several(path):
    write(path, a=VALUES, b__c=VALUES[:2], flat=VALUES[0])
    with pytest.raises(InputError, match=r"found 3 datasets.*/a \(5 x 6 x 7 uint16\), /b/c \(2 x 6 x 7"):
        open_volume(path)
    equal(f"{path}::/a")
    equal(f"{path}::/b", VALUES[:2])  # a group with one
    assert pickle.loads(pickle.dumps(open_volume(f"{path}::/a"))).shape == VALUES.shape
    with pytest.raises(InputError, match=r"found no /c; found 3 datasets"):
        open_volume(f"{path}::/c")
    listed = describe(str(path))
    assert listed["kind"] == "datasets"
    assert listed["datasets"]["/b/c"] == "2 x 6 x 7 uint16"
    assert describe(f"{path}::/b")["dataset"] == "/b/c"


def nexus(path, default=True):
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        for name, values in (("raw", VALUES + 1), ("recon", VALUES)):
            group = entry.create_group(name)
            group.attrs["NX_class"] = "NXdata"
            group["values"] = values
            if default or name == "recon":
                group.attrs["signal"] = "values"
        recon = entry["recon"]
        recon.attrs["axes"] = ["z", "y", "."] if default is None else ["z", "y", "x"]
        for name, step in zip("zyx", (2.0, 0.5, 0.25), strict=True):
            recon[name] = np.arange({"z": 5, "y": 6, "x": 7}[name]) * step
            recon[name].attrs["units"] = "um"
        if default:
            file.attrs["default"], entry.attrs["default"] = "entry", "recon"


def test_signal_of_nexus(path):
    nexus(path)
    equal(path)
    volume = open_volume(path)
    assert volume.voxel_size == pytest.approx((2.0, 0.5, 0.25))
    assert (volume.unit, volume.voxel_size_from) == ("micrometer", "NXdata axes")
    del volume  # HDF5 writes no file that is open
    nexus(path, default=False)  # the only signal
    equal(path)


def test_signals_that_are_marked_as_before_2014(path):
    write(path, entry__data__counts=VALUES, other=VALUES)
    with h5py.File(path, "r+") as file:
        file["entry/data"].attrs["NX_class"] = "NXdata"
        file["entry/data/counts"].attrs["signal"] = 1
    equal(path)


def test_sizes(path):
    write(path, a=VALUES)
    with h5py.File(path, "r+") as file:
        file["a"].attrs["element_size_um"] = [3.0, 2.0, 1.0]
    volume = open_volume(path)
    assert (volume.voxel_size, volume.unit) == ((3.0, 2.0, 1.0), "micrometer")
    del volume
    reconstruction = "entry0000/reconstruction"
    options = f"{reconstruction}/configuration/processing_options/reconstruction/voxel_size_cm"
    write(path, **{f"{reconstruction}/results/data": VALUES, options: 1.3e-4})
    volume = open_volume(path)
    assert volume.voxel_size == pytest.approx((1.3e-4,) * 3)
    assert (volume.unit, volume.voxel_size_from) == ("centimeter", "configuration of nabu")


def test_channels(path):
    write(path, a=np.stack([VALUES, VALUES * 2, VALUES * 3]))
    with pytest.raises(InputError, match=r"found shape \(3, 5, 6, 7\), .* --channel N"):
        open_volume(path)
    np.testing.assert_array_equal(open_volume(path, channel=1).read(), VALUES * 2)
    np.testing.assert_array_equal(open_volume(path, channel="mean").read(), VALUES * 2)


def test_axes_of_length_1(path):
    write(path, a=VALUES[:, None, :, None, :])
    equal(path)


def test_virtual_datasets(tmp_path, path):
    layout = h5py.VirtualLayout((10, 6, 7), np.uint16)
    for part in range(2):
        write(tmp_path / f"part{part}.h5", a=VALUES + part)
        layout[5 * part : 5 * part + 5] = h5py.VirtualSource(f"part{part}.h5", "a", (5, 6, 7))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("v", layout)
    equal(path, np.concatenate([VALUES, VALUES + 1]))
    assert {name.rpartition("/")[2] for name, _ in open_volume(path).opened} == {
        "v.h5",
        "part0.h5",
        "part1.h5",
    }
    write(tmp_path / "part1.h5", b=VALUES)
    with pytest.raises(InputError, match=r"v\.h5: found no a in part1\.h5"):
        open_volume(path)
    (tmp_path / "part1.h5").unlink()  # HDF5 itself reads zeros
    with pytest.raises(InputError, match=r"v\.h5: found no file part1\.h5, which the virtual dataset names"):
        open_volume(path)


def test_external_links(tmp_path, path):
    write(tmp_path / "detector.h5", entry__data=VALUES)
    with h5py.File(path, "w") as file:
        file["scan"] = h5py.ExternalLink("detector.h5", "/entry/data")
        file["soft"] = h5py.SoftLink("/nowhere")
    equal(path)
    assert [name.rpartition("/")[2] for name, _ in open_volume(path).opened] == ["v.h5", "detector.h5"]
    (tmp_path / "detector.h5").unlink()
    with pytest.raises(InputError, match=r"nowhere: /scan -> detector\.h5:/entry/data, /soft -> /nowhere"):
        open_volume(path)
    with pytest.raises(InputError, match=r"found a broken link /scan -> detector\.h5:/entry/data"):
        open_volume(f"{path}::/scan")


def test_a_default_signal_that_is_elsewhere(path):
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "data"
        file.create_group("data").attrs["signal"] = "values"
        file["data/values"] = h5py.ExternalLink("gone.h5", "/values")
        file["other"] = VALUES
    with pytest.raises(InputError, match=r"broken link to its default signal, /data/values -> gone\.h5:"):
        open_volume(path)


def test_values_in_raw_files(tmp_path, path):
    (tmp_path / "values.bin").write_bytes(VALUES.tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("a", VALUES.shape, VALUES.dtype, external=[("values.bin", 0, VALUES.nbytes)])
    equal(path)  # beside the file, not in the current folder
    (tmp_path / "values.bin").unlink()
    with pytest.raises(InputError, match=r"found no file values\.bin"):
        open_volume(path)


def test_compressions_of_hdf5plugin(path):
    plugins = pytest.importorskip("hdf5plugin")
    for options in (plugins.Bitshuffle(), plugins.Zstd(), plugins.Blosc(), plugins.LZ4()):
        with h5py.File(path, "w") as file:
            file.create_dataset("a", data=VALUES, chunks=(2, 3, 7), **options)
        equal(path)
        assert open_volume(path).chunks == (2, 3, 7)


def test_chunks_are_what_is_read(path):
    with h5py.File(path, "w") as file:
        file["rows"] = VALUES
        file.create_dataset("planes", data=VALUES, chunks=(1, 6, 7))
    assert open_volume(f"{path}::/rows").chunks == (1, 1, 7)
    assert open_volume(f"{path}::/planes").chunks == (1, 6, 7)


def test_types_that_are_no_images(path):
    write(path, text=np.full((3, 4, 5), b"x"), waves=VALUES * 1j, table=np.zeros((3, 4), [("a", "f4")]))
    with pytest.raises(InputError, match="no dataset of numbers"):
        open_volume(path)
    with pytest.raises(InputError, match="found type complex128 in /waves"):
        open_volume(f"{path}::/waves")


def test_circles_of_links(path):
    write(path, a__b=VALUES)
    with h5py.File(path, "r+") as file:
        file["a/up"] = file["/"]
        file["a/again"] = file["a/b"]
        file["a/soft"] = h5py.SoftLink("/a")
    equal(path)


def test_files_of_too_many_objects(path, monkeypatch):
    write(path, **{f"g{i}__a": i for i in range(30)})
    monkeypatch.setattr(hdf5_search, "NODES", 20)
    with pytest.raises(InputError, match="among its first 20 objects"):
        open_volume(path)


def test_without_h5py(path, monkeypatch):
    write(path, a=VALUES)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"v\.h5: .* read with h5py: pip install 'hrvol\[io\]'"):
        open_volume(path)


def test_at_a_url(path):
    fsspec = pytest.importorskip("fsspec")
    write(path, a=VALUES, b=VALUES[0])
    fsspec.filesystem("memory").pipe("/folder/v.h5", path.read_bytes())
    equal("memory://folder/v.h5")
    equal("memory://folder/v.h5::/a")
    volume = pickle.loads(pickle.dumps(open_volume("memory://folder/v.h5")))
    np.testing.assert_array_equal(volume.read((slice(1, 3), slice(0, 2), slice(3, 6))), VALUES[1:3, 0:2, 3:6])
    with pytest.raises(InputError, match="no such file"):
        open_volume("memory://folder/w.h5")
