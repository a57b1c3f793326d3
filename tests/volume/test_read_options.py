"""What a user says about an input holds, travels with it, and is checked."""

import json
import pickle

import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner

import hrvol
from hrvol.cli import main
from hrvol.errors import HrvolError, InputError, UsageError
from hrvol.recipe.specs import TileSpec
from hrvol.volume.chunk_cache import ChunkCache, chunk_uses
from hrvol.volume.grid.order import BlockGrid
from hrvol.volume.guard import keep_inputs
from hrvol.volume.input_state import changed_files, input_state
from hrvol.volume.read_options import RawLayout, ReadOptions
from hrvol.volume.storage.location import Location, located
from hrvol.volume.volume import open_volume

VALUES = np.random.default_rng(0).integers(0, 999, (5, 6, 7)).astype(np.uint16)


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "v.raw"
    path.write_bytes(bytes(12) + VALUES.astype(">u2").tobytes())
    return path


LAYOUT = RawLayout((5, 6, 7), "uint16", 12, "big")


def test_voxel_size_and_unit(tmp_path):
    path = tmp_path / "v.tif"
    metadata = {"spacing": 2.0, "unit": "nm", "axes": "ZYX"}
    tifffile.imwrite(path, VALUES, imagej=True, resolution=(4, 4), metadata=metadata)
    assert open_volume(path).voxel_size_from == "ImageJ metadata"
    volume = open_volume(path, voxel_size=(3, 2, 1), unit="um")
    assert (volume.voxel_size, volume.unit) == ((3.0, 2.0, 1.0), "micrometer")
    assert volume.voxel_size_from == "the user"
    again = pickle.loads(pickle.dumps(volume))
    assert (again.voxel_size, again.unit) == ((3.0, 2.0, 1.0), "micrometer")
    assert volume.identity()["voxel_size"] == [3.0, 2.0, 1.0]
    assert volume.identity()["sha256"] == open_volume(path).identity()["sha256"]
    assert open_volume(path, voxel_size=[5.0]).unit == "nanometer"  # that of the file
    assert open_volume(path, unit="um").voxel_size == open_volume(path).voxel_size


@pytest.mark.parametrize("dtype", [">u2", np.dtype(">u2")])
def test_a_type_with_its_byte_order(raw, dtype):
    layout = RawLayout((5, 6, 7), dtype, 12)
    np.testing.assert_array_equal(open_volume(raw, raw=layout).read(), VALUES)
    assert layout.byteorder == "big"
    np.testing.assert_array_equal(
        open_volume(raw, raw=RawLayout((5, 6, 7), "<u2", 12)).read(), VALUES.byteswap()
    )


def test_a_size_that_is_missing_is_noted(tmp_path):
    for name, values in (("v.tif", VALUES), ("i.tif", VALUES[0])):
        tifffile.imwrite(
            tmp_path / name,
            values,
            imagej=True,
            resolution=(4, 4),
            metadata={"unit": "nm", "axes": "ZYX"[-values.ndim :]},
        )
    assert open_volume(tmp_path / "v.tif").notes == (
        "ImageJ metadata: found no size along z, taken as 1 nanometer",
    )
    assert not open_volume(tmp_path / "i.tif").notes


def test_state_of_a_transposed_stack(tmp_path):
    for number, plane in enumerate(VALUES.T):
        tifffile.imwrite(tmp_path / f"{number}.tif", plane)
    volume = open_volume(tmp_path, axis_order="xyz")
    np.testing.assert_array_equal(volume.read(), VALUES)
    box = (slice(0, 5), slice(0, 6), slice(6, 7))
    before = input_state(volume, box)
    tifffile.imwrite(tmp_path / "6.tif", VALUES.T[0][:, :1], metadata=None)
    assert changed_files(volume, before, input_state(volume, box)) == [str(tmp_path / "6.tif")]


def test_sizes_follow_the_axes(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["a"] = VALUES.T
        file["a"].attrs["element_size_um"] = [1.0, 2.0, 3.0]  # of the axes as they are stored
    volume = open_volume(tmp_path / "v.h5", axis_order="xyz")
    np.testing.assert_array_equal(volume.read(), VALUES)
    assert volume.voxel_size == (3.0, 2.0, 1.0)
    assert open_volume(tmp_path / "v.h5").voxel_size == (1.0, 2.0, 3.0)
    metadata = {"spacing": 2.0, "unit": "nm", "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "v.tif", VALUES.T, imagej=True, resolution=(4, 8), metadata=metadata)
    volume = open_volume(tmp_path / "v.tif", axis_order="xyz")
    assert (volume.voxel_size, volume.unit) == ((0.25, 0.125, 2.0), "nanometer")


def test_voxel_sizes_keep_their_digits():
    options = ReadOptions((0.65123456789, 1e-7, 2.0))
    numbers = options.words()[1].split(",")
    assert tuple(map(float, numbers)) == options.voxel_size


def test_raw(raw):
    with pytest.raises(InputError, match=r"v\.raw: found a file of 432 bytes without a header.*--raw-shape"):
        open_volume(raw)
    volume = open_volume(raw, raw=LAYOUT)
    np.testing.assert_array_equal(volume.read(), VALUES)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(), VALUES)
    with pytest.raises(InputError, match=r"found 432 bytes.*expected at least 852"):
        open_volume(raw, raw=RawLayout((5, 6, 7), "uint32", 12))
    with pytest.raises(InputError, match=r"found 432 bytes, expected 420"):
        open_volume(raw, raw=RawLayout((5, 6, 7), "uint16"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("v.raw.info", "! PyHST_SLAVE VOLUME INFO FILE\nNUM_X = 7\nNUM_Y = 6\nNUM_Z = 5\nvoxelSize = 0.65\n"),
        (
            "v.vgi",
            "{volume1}\n[file1]\nSize = 7 6 5\nDatatype = unsigned integer\nBitsPerElement = 16\n"
            "Name = v.raw\nresolution = 0.65 0.65 0.65\nunit = um\n",
        ),
        (
            "v.mhd",
            "NDims = 3\nDimSize = 7 6 5\nElementType = MET_USHORT\nElementSpacing = 0.65 0.65 0.65\n"
            "ElementDataFile = v.raw\n",
        ),
    ],
)
def test_side_files(tmp_path, name, text):
    (tmp_path / "v.raw").write_bytes(VALUES.tobytes())
    (tmp_path / name).write_text(text)
    for path in (tmp_path / name, tmp_path / "v.raw"):
        volume = open_volume(path)
        np.testing.assert_array_equal(volume.read(), VALUES)
        assert volume.voxel_size == (0.65, 0.65, 0.65)
        assert len(volume.opened) == 2
    (tmp_path / "v.raw").write_bytes(b"short")
    with pytest.raises(InputError, match="found 5 bytes"):
        open_volume(tmp_path / name)


def test_axis_order(tmp_path):
    np.save(tmp_path / "v.npy", np.ascontiguousarray(VALUES.T))
    volume = open_volume(tmp_path / "v.npy", axis_order="xyz")
    assert volume.chunks == (5, 1, 1)
    np.testing.assert_array_equal(volume.read(), VALUES)
    np.testing.assert_array_equal(open_volume(VALUES[None].T, axis_order="xyz").read(), VALUES)
    with pytest.raises(InputError, match=r"found 3 axes of shape \(7, 6, 5\)"):
        open_volume(tmp_path / "v.npy", axis_order="yx")
    channels = np.stack([VALUES, VALUES + 1])
    np.testing.assert_array_equal(open_volume(channels, axis_order="czyx", channel=1).read(), VALUES + 1)


def test_channels_of_zarr(tmp_path):
    channels = np.stack([VALUES, VALUES * 2, VALUES * 3])
    array = zarr.create_array(
        tmp_path / "v.zarr",
        shape=channels.shape,
        chunks=(1, 2, 3, 7),
        dtype="u2",
        dimension_names=list("czyx"),
    )
    array[:] = channels
    np.testing.assert_array_equal(open_volume(tmp_path / "v.zarr", channel=2).read(), VALUES * 3)
    np.testing.assert_array_equal(open_volume(tmp_path / "v.zarr", channel="mean").read(), VALUES * 2)


def test_channels_of_zarr_through_the_cache_of_chunks(tmp_path):
    channels = np.stack([VALUES, VALUES * 2, VALUES * 3])
    sides = {"shape": channels.shape, "chunks": (2, 2, 3, 7), "dtype": "u2"}
    array = zarr.create_array(tmp_path / "v.zarr", **sides, dimension_names=list("czyx"))
    array[:] = channels
    for channel, expected in ((0, VALUES), (2, VALUES * 3), ("mean", VALUES * 2)):
        volume = open_volume(tmp_path / "v.zarr", channel=channel)
        box = (slice(1, 4), slice(0, 6), slice(2, 7))
        cache, state = ChunkCache(), input_state(volume, box)
        grid = BlockGrid(volume.shape, TileSpec(core=64, overlap=0), volume.chunks)
        uses = chunk_uses(grid, volume.chunks).along(volume.axes)
        read = volume.read(box, lambda a, selection: cache.read(a, selection, uses, state.version))  # noqa: B023
        np.testing.assert_array_equal(read, expected[box])
        (tmp_path / "v.zarr" / "c" / "1" / "1" / "1" / "0").touch()
        changed = changed_files(volume, state, input_state(volume, box))
        assert bool(changed) is (channel != 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"voxel_size": (1, 0, 1)},
        {"voxel_size": (1, 1, 1, 1)},
        {"voxel_size": (float("nan"),)},
        {"unit": "micrn"},
        {"unit": "s"},
        {"axis_order": "zz"},
        {"axis_order": "zyxq"},
        {"axis_order": "z"},
        {"channel": -1},
        {"channel": " "},
        {"channel": True},
    ],
    ids=str,
)
def test_options_that_are_wrong(wrong):
    with pytest.raises(UsageError, match=r"found .*expected"):
        open_volume(VALUES, **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (5,)},
        {"shape": (5, 0, 7)},
        {"dtype": "object"},
        {"dtype": "\x1b[31m"},
        {"offset": -1},
        {"byteorder": "middle"},
        {"dtype": "<u2", "byteorder": "big"},
    ],
    ids=ascii,
)
def test_layouts_that_are_wrong(wrong):
    with pytest.raises(UsageError, match=r"found .*expected"):
        RawLayout(**{"shape": (5, 6, 7)} | wrong)


def test_an_open_volume_takes_no_options():
    with pytest.raises(UsageError, match="is open already"):
        open_volume(open_volume(VALUES), unit="um")


def test_locations_carry_them(raw):
    location = Location(str(raw), reading=ReadOptions(raw=LAYOUT))
    np.testing.assert_array_equal(open_volume(location).read(), VALUES)
    assert located(location, {"key": "x"}) is location
    assert located(Location("s3://a/b"), {"key": "x"}).options == {"key": "x"}
    assert len(pickle.dumps(Location("v.zarr"))) < 200


def test_a_dataset_inside_of_a_file_is_that_file(tmp_path):
    (tmp_path / "v.h5").touch()
    with pytest.raises(UsageError, match=r"is .*the input"):
        keep_inputs(tmp_path / "v.h5", f"{tmp_path}/v.h5::/data")
    assert Location(f"{tmp_path}/v.h5::/data").path == tmp_path / "v.h5"
    (tmp_path / "odd::").mkdir()
    (tmp_path / "odd::" / "name").touch()
    assert Location(f"{tmp_path}/odd::/name").path == tmp_path / "odd::" / "name"


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit | HrvolError)
    return result


RAW_OPTIONS = ("--raw-shape", "5,6,7", "--raw-dtype", "uint16", "--raw-offset", "12")
RAW_OPTIONS += ("--raw-byteorder", "big")


def test_info(raw):
    result = run("info", raw, *RAW_OPTIONS, "--voxel-size", "3,2,1", "--unit", "um", "--json")
    values = json.loads(result.stdout)
    assert values["shape"] == [5, 6, 7]
    assert values["voxel_size"] == [3.0, 2.0, 1.0]
    assert (values["unit"], values["voxel_size_from"]) == ("micrometer", "the user")
    assert "voxel size from  the user" in run("info", raw, *RAW_OPTIONS, "--voxel-size", "2").output


@pytest.mark.parametrize(
    "wrong",
    [
        ("--voxel-size", "1,2,x"),
        ("--voxel-size", "1,0,1"),
        ("--raw-shape", "5"),
        ("--raw-shape", "5,0,7"),
        ("--raw-dtype", "uint8"),
        ("--channel", "-1"),
        ("--channel", ""),
    ],
)
def test_options_of_the_command_line_that_are_wrong(raw, wrong):
    assert run("info", raw, *wrong).exit_code == 2


def test_every_command_that_opens_volumes_has_them():
    for name in ("info", "train", "tune", "segment", "plan", "cluster", "features", "distil", "evaluate"):
        assert "--raw-shape" in run(name, "--help").output, name
    for name in ("detect", "similar", "pca"):
        assert "--channel" in run(name, "--help").output, name


def test_evaluate(tmp_path):
    labels = (VALUES % 3).astype(np.uint8)
    (tmp_path / "pred.raw").write_bytes(labels.tobytes())
    (tmp_path / "truth.raw").write_bytes(labels.tobytes())
    result = run("evaluate", tmp_path / "pred.raw", tmp_path / "truth.raw", "--raw-shape", "5,6,7", "--json")
    assert json.loads(result.stdout)["miou"] == 1.0


def test_the_command_line_says_the_same(raw):
    reading = ReadOptions((3.0, 2.0, 1.0), "um", "xyz", "mean", LAYOUT)
    words = reading.words()
    for flag in ("--voxel-size", "--unit", "--axis-order", "--channel", *RAW_OPTIONS[::2]):
        assert flag in words
    assert ReadOptions().words() == []


def test_train_and_segment(tmp_path):
    rng = np.random.default_rng(0)
    truth = np.zeros((3, 60, 64), np.uint8)
    truth[:, :, 32:] = 1
    image = (truth * 100 + rng.integers(0, 40, truth.shape)).astype(np.uint8)
    strokes = np.zeros_like(truth)
    strokes[1, 10:20, 5:15], strokes[1, 10:20, 45:55] = 1, 2
    (tmp_path / "v.raw").write_bytes(image.tobytes())
    np.save(tmp_path / "strokes.npy", strokes)
    options = ("--raw-shape", "3,60,64", "--voxel-size", "2,1,1", "--unit", "um")
    asked = ("-o", tmp_path / "m.hrvol", "--recipe", "classical", "--classes", "a,b")
    result = run("train", tmp_path / "v.raw", tmp_path / "strokes.npy", *asked, *options)
    assert result.exit_code == 0, result.output
    asked = ("--engine", "serial", "-m", tmp_path / "m.hrvol", "--mask", tmp_path / "v.raw")
    result = run("segment", tmp_path / "v.raw", tmp_path / "out.ome.zarr", *asked, *options)
    assert result.exit_code == 0, result.output
    labels = hrvol.open_volume(tmp_path / "out.ome.zarr" / "labels" / "hrvol")
    assert (labels.voxel_size, labels.unit) == ((2.0, 1.0, 1.0), "micrometer")
    found = labels.read()
    assert ((found == truth + 1) | (image == 0)).mean() > 0.95


def test_at_a_url(raw, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/f/v.raw", raw.read_bytes())
    for name, values in (("c", VALUES), ("f", np.asfortranarray(VALUES)), ("image", VALUES[0])):
        np.save(tmp_path / f"{name}.npy", values)
        memory.pipe(f"/f/{name}.npy", (tmp_path / f"{name}.npy").read_bytes())
    box = (slice(1, 4), slice(2, 5), slice(3, 7))
    for url, options in (("v.raw", {"raw": LAYOUT}), ("c.npy", {}), ("f.npy", {})):
        volume = open_volume(f"memory://f/{url}", **options)
        np.testing.assert_array_equal(volume.read(), VALUES)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(volume)).read(box), VALUES[box])
    np.testing.assert_array_equal(open_volume("memory://f/image.npy").read()[0], VALUES[0])
    memory.pipe("/f/v.nii", b"x")
    with pytest.raises(InputError, match="found a NIfTI file at a URL, expected a local file"):
        open_volume("memory://f/v.nii")
    memory.pipe("/f/short.npy", (tmp_path / "c.npy").read_bytes()[:-5])
    with pytest.raises(InputError, match="expected at least"):
        open_volume("memory://f/short.npy")
