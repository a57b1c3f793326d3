"""Whatever a volume is stored in, it is read as (z, y, x) with its voxel size."""

import pickle
import shutil
import warnings

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr

from hrvol.classes import ClassInfo
from hrvol.errors import InputError
from hrvol.volume.ome.metadata import Level, read_multiscale
from hrvol.volume.volume import class_info, open_labels, open_volume

VALUES = np.random.default_rng(0).integers(0, 60_000, (5, 6, 7)).astype(np.uint16)
BOX = (slice(1, 4), slice(2, 6), slice(0, 3))


def write_ome(path, values, axes, *, version="0.5", scale=None, units=None, labels=None, extra=None):
    """Write a small OME-Zarr image whose second level is every other voxel."""
    zarr_format = 3 if version == "0.5" else 2
    scale = scale or [1.0] * len(axes)
    kind = {"t": "time", "c": "channel"}
    entries = [
        {"name": a, "type": kind.get(a, "space")} | ({"unit": units[a]} if units and a in units else {})
        for a in axes
    ]
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": [s * 2**i for s in scale]}]}
        for i in (0, 1)
    ]
    multiscale = {"axes": entries, "datasets": datasets, **(extra or {})}
    ome = {"multiscales": [multiscale], "version": version}
    if version == "0.4":
        multiscale["version"] = "0.4"
    attributes = {"ome": ome} if version == "0.5" else ome
    root = zarr.create_group(path, zarr_format=zarr_format, attributes=attributes)
    for i in (0, 1):
        root.create_array(str(i), data=values[(slice(None, None, 2**i),) * values.ndim])
    if labels:
        group = root.create_group("labels", attributes={"ome": {"labels": list(labels)}})
        for name, (value, about) in labels.items():
            inner = write_ome(path / "labels" / name, value, axes, version=version, scale=scale)
            inner.attrs["ome"] = {**inner.attrs["ome"], **about}
        assert group is not None
    return root


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", ["|u1", ">u2", "<i4", ">f4", "<f8", "|i1", "<u8"])
def test_zarr_arrays_of_any_real_type(tmp_path, zarr_format, dtype):
    zarr.create_array(
        tmp_path / "v.zarr", data=VALUES.astype(dtype), chunks=(2, 3, 4), zarr_format=zarr_format
    )
    volume = open_volume(tmp_path / "v.zarr")
    assert (volume.shape, volume.chunks, volume.ndim) == ((5, 6, 7), (2, 3, 4), 3)
    assert volume.dtype == np.dtype(dtype).newbyteorder("=")
    read = volume.read(BOX)
    assert read.dtype == volume.dtype
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, VALUES.astype(dtype)[BOX])
    assert volume.voxel_size == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "xyz", "yzx", "tczyx", "czyx"])
def test_ome_zarr_axes_in_any_order(tmp_path, version, axes):
    order = [("zyx").index(a) for a in axes if a in "zyx"]
    stored = VALUES.transpose(order).reshape(
        [VALUES.shape["zyx".index(a)] if a in "zyx" else 1 for a in axes]
    )
    size = {"z": 3.0, "y": 0.5, "x": 0.25, "t": 9.0, "c": 1.0}
    write_ome(
        tmp_path / "v.zarr",
        stored,
        axes,
        version=version,
        scale=[size[a] for a in axes],
        units=dict.fromkeys("zyx", "micrometer"),
    )
    volume = open_volume(str(tmp_path / "v.zarr"))
    assert volume.shape == VALUES.shape
    assert volume.voxel_size == (3.0, 0.5, 0.25)
    assert volume.unit == "micrometer"
    np.testing.assert_array_equal(volume.read(BOX), VALUES[BOX])


def test_levels_and_arrays_inside_images_keep_their_voxel_size(tmp_path):
    write_ome(tmp_path / "v.zarr", VALUES, "zyx", scale=[2.0, 1.0, 1.0])
    assert open_volume(tmp_path / "v.zarr", level=1).voxel_size == (4.0, 2.0, 2.0)
    inside = open_volume(tmp_path / "v.zarr" / "1")
    assert inside.voxel_size == (4.0, 2.0, 2.0)
    assert inside.shape == (3, 3, 4)
    with pytest.raises(InputError, match="found 2 levels, expected one numbered 2"):
        open_volume(tmp_path / "v.zarr", level=2)


def test_scale_of_the_whole_image_and_translation(tmp_path):
    extra = {
        "coordinateTransformations": [
            {"type": "scale", "scale": [2.0, 3.0, 4.0]},
            {"type": "translation", "translation": [10.0, 20.0, 30.0]},
        ]
    }
    write_ome(tmp_path / "v.zarr", VALUES, "zyx", scale=[1.0, 1.0, 0.5], extra=extra)
    volume = open_volume(tmp_path / "v.zarr")
    assert volume.voxel_size == (2.0, 3.0, 2.0)
    assert volume.translation == (10.0, 20.0, 30.0)


def test_transforms_apply_level_first_then_image():
    def moves(scale, step):
        return [{"type": "scale", "scale": [scale] * 2}, {"type": "translation", "translation": [step] * 2}]

    level = {"path": "0", "coordinateTransformations": moves(2.0, 5.0)}
    image = {"axes": ["y", "x"], "datasets": [level], "coordinateTransformations": moves(10.0, 1.0)}
    found = read_multiscale({"multiscales": [image]}, "v")
    assert found.levels == (Level("0", (20.0, 20.0), (51.0, 51.0)),)


def test_mixed_units_become_that_of_x(tmp_path):
    units = {"z": "nanometer", "y": "micrometer", "x": "micrometer"}
    write_ome(tmp_path / "v.zarr", VALUES, "zyx", scale=[50.0, 0.5, 0.5], units=units)
    volume = open_volume(tmp_path / "v.zarr")
    assert volume.voxel_size == pytest.approx((0.05, 0.5, 0.5))
    assert volume.unit == "micrometer"


def test_2d_images(tmp_path):
    write_ome(tmp_path / "v.zarr", VALUES[0], "yx", scale=[0.5, 0.25])
    for volume in (open_volume(tmp_path / "v.zarr"), open_volume(VALUES[0])):
        assert (volume.shape, volume.ndim) == ((1, 6, 7), 2)
        np.testing.assert_array_equal(volume.read(), VALUES[:1])
    assert open_volume(tmp_path / "v.zarr").voxel_size == (1.0, 0.5, 0.25)
    assert open_volume(VALUES[:1]).ndim == 3


def test_group_of_one_array(tmp_path):
    group = zarr.create_group(tmp_path / "g.zarr")
    with pytest.raises(InputError, match=r"g\.zarr: found a group with no array"):
        open_volume(tmp_path / "g.zarr")
    group.create_array("a", data=VALUES)
    np.testing.assert_array_equal(open_volume(tmp_path / "g.zarr").read(), VALUES)
    group.create_array("b", data=VALUES)
    with pytest.raises(InputError, match=r"2 arrays \(a, b\)"):
        open_volume(tmp_path / "g.zarr")


def test_named_dimensions_of_a_plain_array(tmp_path):
    stored = np.ascontiguousarray(VALUES.transpose(2, 1, 0))
    zarr.create_array(tmp_path / "v.zarr", data=stored, dimension_names=["x", "y", "z"])
    np.testing.assert_array_equal(open_volume(tmp_path / "v.zarr").read(BOX), VALUES[BOX])


def test_arrays_in_memory(tmp_path):
    spoilt = VALUES.copy()
    chunked = da.from_array(spoilt, chunks=(2, 3, 7))
    coords = {
        "z": np.arange(5) * 2.0,
        "y": np.arange(6) * 0.5,
        "x": ("x", np.arange(7) * 0.5, {"units": "um"}),
    }
    labelled = xr.DataArray(VALUES.transpose(1, 2, 0), dims=("y", "x", "z"), coords=coords)
    for source in (VALUES, VALUES[None], chunked, labelled, labelled.chunk(2), zarr.array(VALUES)):
        volume = open_volume(source)
        np.testing.assert_array_equal(volume.read(BOX), VALUES[BOX])
        assert open_volume(volume) is volume
    assert open_volume(chunked).chunks == (2, 3, 7)
    found = open_volume(labelled)
    assert (found.voxel_size, found.unit) == ((2.0, 0.5, 0.5), "micrometer")


def test_dask_computes_only_what_is_read():
    def slab(block_info=None):
        if block_info[None]["chunk-location"][0] != 1:
            raise RuntimeError("computed what nobody asked for")
        return np.ones((2, 4, 4), np.uint8)

    lazy = da.map_blocks(
        slab, chunks=((2, 2, 2), (4,), (4,)), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
    )
    assert open_volume(lazy).read((slice(2, 4), slice(0, 4), slice(0, 4))).all()


def test_what_is_read_is_a_copy():
    values = VALUES.copy()
    open_volume(values).read()[:] = 0
    np.testing.assert_array_equal(values, VALUES)


def test_boxes_outside_are_refused():
    volume = open_volume(VALUES)
    for bad in (slice(0, 6), slice(-1, 2), slice(2, 2)):
        with pytest.raises(IndexError):
            volume.read((bad, slice(0, 1), slice(0, 1)))


def test_pickled_volumes_reopen(tmp_path):
    write_ome(tmp_path / "v.zarr", VALUES, "zyx", labels={"truth": (VALUES % 3, {})})
    for volume in (open_volume(tmp_path / "v.zarr", level=1), open_labels(tmp_path / "v.zarr")):
        message = pickle.dumps(volume)
        assert len(message) < 500
        again = pickle.loads(message)
        assert again.shape == volume.shape
        np.testing.assert_array_equal(again.read(), volume.read())
    in_memory = pickle.loads(pickle.dumps(open_volume(VALUES)))
    np.testing.assert_array_equal(in_memory.read(), VALUES)


def test_labels_of_an_image(tmp_path):
    about = {
        "image-label": {
            "colors": [
                {"label-value": 1, "rgba": [1, 2, 3, 255]},
                {"label-value": 2, "rgba": [4, 5, 6, 255]},
            ],
            "properties": [{"label-value": 1, "class": "pore"}],
        }
    }
    some = (VALUES % 3).astype(np.uint8)
    write_ome(tmp_path / "one.zarr", VALUES, "zyx", labels={"truth": (some, about)})
    for path in (tmp_path / "one.zarr", tmp_path / "one.zarr" / "labels", tmp_path / "one.zarr/labels/truth"):
        np.testing.assert_array_equal(open_labels(path).read(), some)
        assert class_info(path) == (ClassInfo(1, "pore", (1, 2, 3)), ClassInfo(2, "class 2", (4, 5, 6)))
    assert class_info(open_labels(tmp_path / "one.zarr")) is not None
    assert class_info(some) is None
    np.testing.assert_array_equal(open_volume(tmp_path / "one.zarr").read(), VALUES)

    two = {"a": (some, {}), "b": (1 - some // 2, {})}
    write_ome(tmp_path / "two.zarr", VALUES, "zyx", labels=two)
    with pytest.raises(InputError, match="found labels a, b, expected the name of one of them"):
        open_labels(tmp_path / "two.zarr")
    with pytest.raises(InputError, match="found labels a, b, expected 'c'"):
        open_labels(tmp_path / "two.zarr", name="c")
    np.testing.assert_array_equal(open_labels(tmp_path / "two.zarr", name="b").read(), two["b"][0])
    write_ome(tmp_path / "hrvol.zarr", VALUES, "zyx", labels={**two, "hrvol": (some, {})})
    np.testing.assert_array_equal(open_labels(tmp_path / "hrvol.zarr").read(), some)


def test_labels_are_whole_numbers():
    np.testing.assert_array_equal(open_labels(VALUES > 30_000).read(), (VALUES > 30_000).astype(np.uint8))
    with pytest.raises(InputError, match="found labels of type float32, expected whole numbers"):
        open_labels(VALUES.astype(np.float32))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 40, 50, 4), np.uint8), r"4 samples per pixel .* \(2, 40, 50, 4\)"),
        (np.zeros((2, 5, 40, 50), np.uint8), r"found shape \(2, 5, 40, 50\)"),
        (np.zeros(5), r"found shape \(5,\)"),
        (np.zeros((0, 5)), "empty"),
        (np.zeros((4, 5), complex), "found type complex128"),
        (np.zeros((4, 5), object), "found type object"),
        ("not a path at all", "no such file"),
        (17, "found int, expected a path"),
    ],
)
def test_what_is_no_volume(values, message):
    with pytest.raises(InputError, match=message) as caught:
        open_volume(values)
    assert "\n" not in str(caught.value)


def test_channels(tmp_path):
    write_ome(tmp_path / "v.zarr", np.stack([VALUES, VALUES]), "czyx")
    with pytest.raises(InputError, match=r"v\.zarr: found 2 channels in shape \(2, 5, 6, 7\)"):
        open_volume(tmp_path / "v.zarr")


def test_paths_that_hold_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("not a volume")
    for name in ("empty", "notes.txt"):
        with pytest.raises(
            InputError, match=f"{name}: found neither a Zarr array or group nor a file of another"
        ):
            open_volume(tmp_path / name)


def test_damaged_stores(tmp_path):
    root = write_ome(tmp_path / "v.zarr", VALUES, "zyx")
    chunk = next(p for p in (tmp_path / "v.zarr" / "0").rglob("*") if p.is_file() and p.name != "zarr.json")
    chunk.write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"v\.zarr: cannot read z 0:5, y 0:6, x 0:7"):
        open_volume(tmp_path / "v.zarr").read()
    shutil.rmtree(tmp_path / "v.zarr" / "0")
    with pytest.raises(InputError, match="found no array at '0'"):
        open_volume(tmp_path / "v.zarr")
    root.attrs["ome"] = {"multiscales": [{"datasets": [{}]}]}
    with pytest.raises(InputError, match=r"OME-Zarr metadata: multiscales\[0\].datasets\[0\]"):
        open_volume(tmp_path / "v.zarr")


def test_bioformats2raw_layout(tmp_path):
    zarr.create_group(tmp_path / "v.zarr", attributes={"ome": {"bioformats2raw.layout": 3, "version": "0.5"}})
    write_ome(tmp_path / "v.zarr" / "0", VALUES, "zyx")
    np.testing.assert_array_equal(open_volume(tmp_path / "v.zarr").read(), VALUES)


def test_opening_is_silent(tmp_path):
    write_ome(tmp_path / "v.zarr", VALUES, "zyx", labels={"hrvol": (VALUES % 3, {})})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_volume(tmp_path / "v.zarr").read()
        open_labels(tmp_path / "v.zarr").read()


def test_identity_tells_inputs_apart(tmp_path):
    other = VALUES.copy()
    other[-1, -1, -1] ^= 1
    a, b = open_volume(VALUES).identity(), open_volume(other).identity()
    assert a["sha256"] != b["sha256"]
    assert a == open_volume(VALUES.astype(">u2")).identity()
    assert a["shape"] == [5, 6, 7]
    assert open_volume(VALUES[0]).identity()["shape"] == [6, 7]
