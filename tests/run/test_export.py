"""Exports: read back by other programs, whole or not at all, in bounded memory."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import h5py
import neuroglancer
import nrrd
import numpy as np
import pytest
import SimpleITK
import tensorstore
import tifffile
import zarr
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hrvol
from hrvol.classes import ClassInfo
from hrvol.cli import main
from hrvol.engine.stop import Stop
from hrvol.errors import InputError, OutputExistsError, ResourceError, StoppedError, UsageError
from hrvol.run.export.export_volume import export_volume
from hrvol.run.segment import segment_volume
from hrvol.volume.grid.tiling import grid
from hrvol.volume.ome.label_documents import LabelOutputs
from hrvol.volume.ome.labels import create_labels
from hrvol.volume.volume import open_volume
from hrvol.volume.write_image import write_image

SIZE = (2.0, 0.5, 0.25)
CLASSES = (ClassInfo(1, "pore", (200, 10, 20)), ClassInfo(2, "solid, α", (0, 90, 255)))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with complete labels, probabilities and uncertainty; their values are returned too."""
    folder = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(0)
    labels = (
        rng.integers(0, 3, (9, 33, 75))
        .repeat(4, 0)
        .repeat(4, 1)
        .repeat(4, 2)
        .astype(np.uint8)[:33, :130, :299]
    )
    probabilities = rng.integers(0, 256, (2, *labels.shape), np.uint8)
    like = replace(
        open_volume(labels), voxel_size=SIZE, unit="micrometer", translation=(4.0, 0.0, 1.0), source="x"
    )
    store = create_labels(
        folder / "labels.ome.zarr",
        like,
        classes=CLASSES,
        block_shape=(32, 64, 64),
        attributes={},
        outputs=LabelOutputs(probabilities=True, uncertainty=True),
    )
    for block in grid(labels.shape, (32, 64, 64)):
        core = block.core
        store.write(core, labels[core], probabilities[(slice(None), *core)], probabilities[(0, *core)])
    store.finish()
    return folder, labels, probabilities


def read_tiff(path):
    return tifffile.imread(path)


def read_folder(path):
    return np.stack([tifffile.imread(file) for file in sorted(path.iterdir())])


def read_hdf5(path):
    with h5py.File(path) as file:
        entry = file[file.attrs["default"]]
        data = entry[entry.attrs["default"]]
        return data[data.attrs["signal"]][...]


def read_itk(path):
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def read_nrrd(path):
    return nrrd.read(str(path), index_order="C")[0]


def read_raw(path):
    return read_nrrd(path.with_suffix(".nhdr"))


def read_precomputed(path, level=0):
    where = {"driver": "file", "path": f"{path}/"}
    store = tensorstore.open(
        {"driver": "neuroglancer_precomputed", "kvstore": where, "scale_index": level}
    ).result()
    return store.read().result()[..., 0].transpose(2, 1, 0)


READERS = {
    "o.tif": read_tiff,
    "o": read_folder,
    "o.h5": read_hdf5,
    "o.mha": read_itk,
    "o.mhd": read_itk,
    "o.nrrd": read_nrrd,
    "o.raw": read_raw,
    "o.precomputed": read_precomputed,
}

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "f4", "f8"]


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_round_trip(tmp_path_factory, name, data):
    types = TYPES[:7] if name != "o.precomputed" else [t for t in TYPES if t not in ("f8", "u8")]
    dtype = np.dtype(data.draw(st.sampled_from(TYPES if name != "o.precomputed" else types)))
    dtype = dtype.newbyteorder(data.draw(st.sampled_from("<>")))
    flat = data.draw(st.booleans()) and name != "o.precomputed"
    shape = data.draw(st.tuples(*[st.integers(1, 19)] * (2 if flat else 3)))
    seed, compress = data.draw(st.integers(0, 999)), data.draw(st.booleans())
    rng = np.random.default_rng(seed)
    top = 2**31 if dtype.kind == "f" else np.iinfo(dtype).max
    values = rng.integers(0, top, shape, np.uint64 if dtype.kind == "u" else np.int64).astype(dtype)
    what = "labels" if dtype.kind == "u" and data.draw(st.booleans()) else "image"
    memory = 2**22
    out = tmp_path_factory.mktemp("trip") / name
    roi = None if flat else (slice(shape[0] // 3, None), slice(None), slice(shape[2] // 4, shape[2]))
    export_volume(values, out, what=what, compress=compress, memory=memory, roi=roi)
    found = READERS[name](out)
    expected = values if roi is None else values[roi]
    assert found.dtype.kind == dtype.kind
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("name", READERS)
def test_labels_of_an_output_in_several_slabs(place, tmp_path, name):
    folder, labels, _ = place
    reports = []
    report = export_volume(
        folder / "labels.ome.zarr",
        tmp_path / name,
        memory=2**22,
        progress=lambda *progress: reports.append(progress),
    )
    assert report.files == (tmp_path / name,)
    np.testing.assert_array_equal(READERS[name](tmp_path / name), labels)
    assert reports[-1][1] == reports[-1][2] == report.voxels


def test_tiff_has_what_imagej_shows(place, tmp_path):
    folder, labels, _ = place
    export_volume(folder / "labels.ome.zarr", tmp_path / "o.tif")
    with tifffile.TiffFile(tmp_path / "o.tif") as file:
        assert file.is_imagej
        assert not file.is_bigtiff
        metadata = file.imagej_metadata
        assert (metadata["images"], metadata["slices"], metadata["spacing"]) == (33, 33, 2.0)
        assert (metadata["unit"], metadata["xorigin"]) == ("um", -4.0)
        assert "2 solid, α #005aff" in metadata["Info"]
        page = file.pages[5]
        assert page.photometric.name == "PALETTE"
        np.testing.assert_array_equal(
            page.colormap[:, :3] // 257, np.array([(0, 0, 0), (200, 10, 20), (0, 90, 255)]).T
        )
        numerator, denominator = file.pages[0].tags["XResolution"].value
        assert numerator / denominator == pytest.approx(4)
    volume = open_volume(tmp_path / "o.tif")
    assert (volume.voxel_size, volume.unit) == (SIZE, "micrometer")
    export_volume(labels.astype(np.uint16), tmp_path / "wide.tif", classes=["a", "b"])
    with tifffile.TiffFile(tmp_path / "wide.tif") as file:
        assert file.imagej_metadata["max"] == 2.0
        assert file.pages[0].photometric.name == "MINISBLACK"


def test_a_bigtiff_from_four_gigabytes_on(place, tmp_path, monkeypatch):
    from hrvol.volume.exporters import tiff

    folder, labels, _ = place
    monkeypatch.setattr(tiff, "_CLASSIC", labels.nbytes - 1)
    export_volume(folder / "labels.ome.zarr", tmp_path / "o.tif")
    with tifffile.TiffFile(tmp_path / "o.tif") as file:
        assert file.is_bigtiff
        assert file.is_imagej
        np.testing.assert_array_equal(file.asarray(), labels)


def test_metadata_of_other_formats(place, tmp_path):
    folder, *_ = place
    for name in ("o.h5", "o.mha", "o.mhd", "o.nrrd", "r.raw", "o.precomputed"):
        export_volume(folder / "labels.ome.zarr", tmp_path / name)
    with h5py.File(tmp_path / "o.h5") as file:
        labels = file["entry/data/labels"]
        assert labels.chunks is not None
        assert labels.compression == "gzip"
        assert list(labels.attrs["class_names"]) == [info.name for info in CLASSES]
        assert labels.attrs["class_values"].tolist() == [1, 2]
        assert labels.attrs["class_colours"].tolist() == [list(info.colour) for info in CLASSES]
        z = file["entry/data/z"]
        assert z.attrs["units"] == "um"
        np.testing.assert_allclose(z[:3], [4, 6, 8])
    for name in ("o.mha", "o.mhd", "o.nrrd", "r.nhdr"):
        image = SimpleITK.ReadImage(str(tmp_path / name))
        assert image.GetSpacing() == SIZE[::-1]
        assert image.GetOrigin() == (1.0, 0.0, 4.0)
    assert b"DistanceUnits = um" in (tmp_path / "o.mha").read_bytes()[:600]
    header = nrrd.read_header(str(tmp_path / "o.nrrd"))
    assert header["space units"] == ["um"] * 3
    assert header["Segment1_Name"].startswith("solid,")  # pynrrd drops other letters than English ones
    assert "Segment1_Name:=solid, α\n".encode() in (tmp_path / "o.nrrd").read_bytes()[:2000]
    assert header["Segment1_LabelValue"] == "2"
    info = json.loads((tmp_path / "o.precomputed" / "info").read_text())
    assert info["scales"][0]["resolution"] == [250, 500, 2000]
    assert len(info["scales"]) == 2
    names = json.loads((tmp_path / "o.precomputed" / "segment_properties" / "info").read_text())
    assert names["inline"]["properties"][0]["values"] == [info.name for info in CLASSES]
    coarse = zarr.open_array(folder / "labels.ome.zarr" / "labels" / "hrvol" / "1", mode="r")[...]
    np.testing.assert_array_equal(read_precomputed(tmp_path / "o.precomputed", 1), coarse)


def test_silx_displays_the_hdf5(place, tmp_path):
    nxdata = pytest.importorskip("silx.io.nxdata")
    folder, labels, _ = place
    export_volume(folder / "labels.ome.zarr", tmp_path / "o.h5")
    with h5py.File(tmp_path / "o.h5") as file:
        found = nxdata.get_default(file)
        assert found.is_valid, found.issues
        assert found.signal.shape == labels.shape
        assert found.axes_names == ["z (um)", "y (um)", "x (um)"]


@pytest.mark.parametrize("name", READERS)
def test_a_mask_per_class(place, tmp_path, name):
    folder, labels, _ = place
    report = export_volume(folder / "labels.ome.zarr", tmp_path / name, per_class=True)
    suffix = os.path.splitext(name)[1]
    assert [file.name for file in report.files] == [f"o_1_pore{suffix}", f"o_2_solid{suffix}"]
    for value, file in enumerate(report.files, 1):
        np.testing.assert_array_equal(READERS[name](file), np.where(labels == value, 255, 0))
    report = export_volume(labels, tmp_path / f"p{suffix}", per_class=True, only=["2"])
    assert [file.name for file in report.files] == [f"p_2_class_2{suffix}"]


def test_probabilities_uncertainty_and_grey_values(place, tmp_path):
    folder, labels, probabilities = place
    out = folder / "labels.ome.zarr"
    report = export_volume(out, tmp_path / "p.tif", what="probabilities")
    assert [file.name for file in report.files] == ["p_1_pore.tif", "p_2_solid.tif"]
    for values, file in zip(probabilities, report.files, strict=True):
        np.testing.assert_array_equal(read_tiff(file), values)
    export_volume(out, tmp_path / "u.nrrd", what="uncertainty", level=1)
    assert read_nrrd(tmp_path / "u.nrrd").shape == zarr.open_array(out / "uncertainty/1", mode="r").shape
    assert export_volume(out, tmp_path / "q.tif", what="probabilities", only=["pore"]).files == (
        tmp_path / "q_1_pore.tif",
    )
    with pytest.raises(InputError, match="found no probabilities"):
        export_volume(labels, tmp_path / "x.tif", what="probabilities")
    grey = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    export_volume(grey, tmp_path / "g.tif", what="image")
    np.testing.assert_array_equal(read_tiff(tmp_path / "g.tif"), grey)
    with pytest.raises(InputError, match="whole numbers"):
        export_volume(grey, tmp_path / "h.tif")


def test_levels_regions_and_names(place, tmp_path):
    folder, labels, _ = place
    out = folder / "labels.ome.zarr"
    coarse = zarr.open_array(out / "labels/hrvol/1", mode="r")[...]
    export_volume(out, tmp_path / "a.mha", level=1)
    np.testing.assert_array_equal(read_itk(tmp_path / "a.mha"), coarse)
    export_volume(out, tmp_path / "b.mha", roi=(slice(5, 7), slice(None, 9), slice(3, None)), name="hrvol")
    np.testing.assert_array_equal(read_itk(tmp_path / "b.mha"), labels[5:7, :9, 3:])
    assert SimpleITK.ReadImage(str(tmp_path / "b.mha")).GetOrigin() == (1.75, 0.0, 14.0)
    export_volume(out, tmp_path / "c.nrrd", classes=["x", "y"])
    assert nrrd.read_header(str(tmp_path / "c.nrrd"))["Segment0_Name"] == "x"
    assert nrrd.read_header(str(tmp_path / "c.nrrd"))["Segment0_Color"].startswith("0.784")
    with pytest.raises(InputError, match="labels"):
        export_volume(out, tmp_path / "d.mha", name="other")


def test_a_state_of_neuroglancer(place, tmp_path):
    folder, labels, _ = place
    out = folder / "labels.ome.zarr"
    with pytest.raises(UsageError, match="--url"):
        export_volume(out, tmp_path / "s.json")
    export_volume(out, tmp_path / "s.json", url="https://host/labels.ome.zarr/")
    values = json.loads((tmp_path / "s.json").read_text())
    state = neuroglancer.ViewerState(values)
    layer = state.layers["labels"].layer
    assert isinstance(layer, neuroglancer.SegmentationLayer)
    assert layer.source[0].url == "https://host/labels.ome.zarr/labels/hrvol/|zarr3:"
    assert dict(layer.segment_colors) == {1: "#c80a14", 2: "#005aff"}
    assert list(state.dimensions.names) == ["z", "y", "x"]
    np.testing.assert_allclose(state.dimensions.scales, np.array(SIZE) * 1e-6)
    assert neuroglancer.parse_url(neuroglancer.to_url(state)).to_json() == state.to_json()
    image = write_image(tmp_path / "image.ome.zarr", open_volume(labels))
    export_volume(image.source, tmp_path / "i.json", what="image", url="https://host/image")
    assert (
        json.loads((tmp_path / "i.json").read_text())["layers"][0]["source"] == "https://host/image/|zarr3:"
    )


@pytest.mark.parametrize("name", [*READERS, "s.json", "o.stl"])
def test_only_earlier_exports_are_replaced(place, tmp_path, name):
    folder, *_ = place
    out, target = folder / "labels.ome.zarr", tmp_path / name
    more = {"url": "https://host"} if name == "s.json" else {}
    first = export_volume(out, target, **more).files[0]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(OutputExistsError, match="exists already"):
        export_volume(out, target, **more)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    export_volume(out, target, overwrite=True, **more)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    if first.is_dir():
        (first / "mine.txt" if name == "o" else first / "info").write_text("{}")
    else:
        first.write_bytes(b"mine")
    if name == "o.raw":
        (tmp_path / "o.nhdr").write_text("NRRD0005\n")
    with pytest.raises(OutputExistsError, match="not overwritten"):
        export_volume(out, target, overwrite=True, **more)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", [*READERS, "o.ply"])
def test_nothing_is_left_of_an_export_that_fails(place, tmp_path, name):
    folder, *_ = place
    seen = []

    def progress(stage, done, total):
        if done:
            seen.append(sorted(path.name for path in tmp_path.iterdir()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_volume(folder / "labels.ome.zarr", tmp_path / name, memory=2**22, progress=progress)
    assert len(seen[0]) == 1
    assert seen[0][0].startswith(f".{name[:1]}")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused_in_one_line(place, tmp_path):
    folder, *_ = place
    out = folder / "labels.ome.zarr"
    for target, keywords, error, text in (
        ("o.xyz", {}, UsageError, r"suffix \.xyz"),
        ("o.tif", {"format": "jpeg"}, UsageError, "jpeg"),
        ("o.tif", {"mesh": "obj"}, UsageError, "obj"),
        ("o.stl", {"per_class": True}, UsageError, "per class"),
        ("o.tif", {"url": "x"}, UsageError, "url"),
        ("o.tif", {"only": ["pore"]}, UsageError, "only"),
        ("o.tif", {"only": ["air"], "per_class": True}, UsageError, "1 pore, 2 solid"),
        ("o.tif", {"what": "colours"}, UsageError, "colours"),
        ("o.tif", {"level": 9}, InputError, "level"),
        ("o.tif", {"memory": 100}, UsageError, "memory"),
        ("no/o.tif", {}, UsageError, "no such folder"),
        ("s3://bucket/o.tif", {}, UsageError, "URL"),
        (out, {"format": "tiff"}, UsageError, "input"),
        (out / "o.tif", {}, UsageError, "input"),
    ):
        path = target if "://" in str(target) else tmp_path / target
        with pytest.raises(error, match=text) as refused:
            export_volume(out, path, **keywords)
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="type float64"):
        export_volume(np.ones((3, 4, 5)), tmp_path / "o.precomputed", what="image")
    with pytest.raises(InputError, match="label -1"):
        export_volume(np.full((2, 3, 4), -1, np.int16), tmp_path / "o.tif", per_class=True)
    with pytest.raises(InputError, match="more than 255"):
        export_volume(np.arange(300).reshape(1, 20, 15), tmp_path / "o.tif", per_class=True)
    with pytest.raises(UsageError, match="mesh"):
        export_volume(np.ones((4, 5), np.uint8), tmp_path / "o.stl")
    with pytest.raises(ResourceError, match="--memory"):
        export_volume(np.broadcast_to(np.uint8(1), (1, 4000, 4000)), tmp_path / "o.tif", memory=2**22)
    assert not list(tmp_path.iterdir())


def test_no_file_of_the_input_is_replaced(tmp_path):
    values = np.arange(8 * 64 * 64, dtype=np.uint8).reshape(8, 64, 64)
    export_volume(values, tmp_path / "v.mhd")
    export_volume(values, tmp_path / "w.raw")
    box = (slice(0, 2), slice(0, 64), slice(0, 64))
    before = (tmp_path / "v.raw").read_bytes()
    for source, out in (("v.raw", "v.mhd"), ("v.mhd", "v.mhd"), ("w.nhdr", "w.raw"), ("w.raw", "w.raw")):
        with pytest.raises(UsageError, match=r"is .*the input"):
            export_volume(tmp_path / source, tmp_path / out, roi=box, overwrite=True)
    assert (tmp_path / "v.raw").read_bytes() == (tmp_path / "w.raw").read_bytes() == before


def test_thousands_of_classes(tmp_path):
    labels = np.ones((2, 64, 64), np.uint16)
    classes = tuple(ClassInfo(i, f"class {i}", (1, 2, 3)) for i in range(1, 9001))
    store = create_labels(
        tmp_path / "v.ome.zarr", open_volume(labels), classes=classes, block_shape=(2, 64, 64), attributes={}
    )
    store.write((slice(0, 2), slice(0, 64), slice(0, 64)), labels)
    store.finish()
    for number, (name, read) in enumerate(READERS.items()):
        out = tmp_path / str(number) / name
        out.parent.mkdir()
        export_volume(tmp_path / "v.ome.zarr", out)
        np.testing.assert_array_equal(read(out), labels)
    with h5py.File(next(tmp_path.rglob("o.h5"))) as file:
        assert list(file["entry/data/labels"].attrs["class_names"][-2:]) == ["class 8999", "class 9000"]


def test_the_earlier_export_is_there_again_if_publishing_fails(tmp_path):
    from hrvol.volume.exporters.publish import Product, published

    files = tmp_path / "v.raw", tmp_path / "v.mhd"
    for file in files:
        file.write_text("earlier")
    product = Product(files[1], files, lambda path: True)
    with pytest.raises(IsADirectoryError), published((product,), overwrite=True) as place:  # noqa: PT012
        place(files[0]).write_text("new")
        place(files[1]).write_text("new")
        (place(files[0]).parent / "replaced" / "v.raw").mkdir(parents=True)
    assert [file.read_text() for file in files] == ["earlier", "earlier"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_bigtiff_counts_the_directories_of_its_pages(tmp_path, monkeypatch):
    from hrvol.volume.exporters import tiff

    labels = np.ones((100, 8, 8), np.uint8)
    monkeypatch.setattr(tiff, "_CLASSIC", 2**16)  # of 6,400 bytes of values and 100 palettes
    export_volume(labels, tmp_path / "o.tif", compress=False)
    with tifffile.TiffFile(tmp_path / "o.tif") as file:
        assert file.is_bigtiff


def test_an_unfinished_run_is_refused(data, model, tmp_path):
    image, *_ = data
    stop = Stop()

    def progress(stage, done, total):
        if done:
            stop.request()

    with pytest.raises(StoppedError):
        segment_volume(image, tmp_path / "out.ome.zarr", model, stop=stop, progress=progress)
    for source in (
        tmp_path / "out.ome.zarr",
        tmp_path / "out.ome.zarr/labels/hrvol",
        tmp_path / "out.ome.zarr/labels/hrvol/0",
    ):
        with pytest.raises(InputError, match=r"blocks are done \(stopped\)"):
            export_volume(source, tmp_path / "o.tif")
        export_volume(source, tmp_path / "o.tif", unfinished=True, overwrite=True)
    found = read_tiff(tmp_path / "o.tif")
    assert 0 < np.count_nonzero(found) < found.size
    segment_volume(image, tmp_path / "out.ome.zarr", model)
    export_volume(tmp_path / "out.ome.zarr", tmp_path / "o.tif", overwrite=True)
    assert np.all(read_tiff(tmp_path / "o.tif"))


def test_options_of_reading(place, tmp_path):
    folder, *_ = place
    values = np.arange(2 * 3 * 4, dtype=">u2").reshape(2, 3, 4)
    (tmp_path / "v.raw").write_bytes(values.tobytes())
    layout = ["--raw-shape", "2,3,4", "--raw-dtype", ">u2", "--voxel-size", "3,2,1", "--unit", "nm"]
    result = CliRunner().invoke(main, ["export", f"{tmp_path}/v.raw", "-o", f"{tmp_path}/v.nrrd", *layout])
    assert not result.exit_code, result.output
    np.testing.assert_array_equal(read_nrrd(tmp_path / "v.nrrd"), values)
    volume = open_volume(tmp_path / "v.nrrd")
    assert (volume.voxel_size, volume.unit) == ((3.0, 2.0, 1.0), "nanometer")
    words = [
        "export",
        f"{folder}/labels.ome.zarr",
        "--voxel-size",
        "3,2,1",
        "-o",
        f"{tmp_path}/o.precomputed",
    ]
    assert not CliRunner().invoke(main, words).exit_code
    info = json.loads((tmp_path / "o.precomputed/info").read_text())
    assert [scale["resolution"] for scale in info["scales"]] == [
        [1000, 2000, 3000]
    ]  # no levels of another size
    result = CliRunner().invoke(main, [*words[:-1], f"{tmp_path}/o.h5", "--what", "uncertainty"])
    assert result.exit_code
    assert "found a voxel size for uncertainty" in result.output


def test_command_line(place, tmp_path):
    folder, labels, _ = place
    out = str(folder / "labels.ome.zarr")

    def run(*words, code=0):
        result = CliRunner().invoke(main, ["export", out, *map(str, words)])
        assert result.exit_code == code, result.output
        return result

    assert run("-o", tmp_path / "o.tif").stdout.split() == [str(tmp_path / "o.tif")]
    assert "--fresh replaces" in run("-o", tmp_path / "o.tif", code=1).stderr
    run("-o", tmp_path / "o.tif", "--fresh", "--no-compress", "--memory", "0.01")
    assert tifffile.TiffFile(tmp_path / "o.tif").pages[0].compression == 1
    run("-o", f"{tmp_path}/planes/", "--roi", "3:5,:,:")
    np.testing.assert_array_equal(read_folder(tmp_path / "planes"), labels[3:5])
    lines = run("-o", tmp_path / "m", "--mesh", "STL", "--classes", "a,b", "--only", "b").stdout.split()
    assert lines == [str(tmp_path / "m_2_b.stl")]
    from hrvol.cli.export import FORMATS
    from hrvol.volume.exporters.formats import NAMES

    assert FORMATS == NAMES
    assert hrvol.export_volume is export_volume


PROGRAM = """
import sys
from pathlib import Path
from hrvol.run.export.export_volume import export_volume

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

source, folder, *suffixes = sys.argv[1:]
some = slice(0, 32), slice(None), slice(0, 320)
for suffix in suffixes:
    export_volume(source, f"{folder}/warm{suffix}", roi=(slice(0, 3), slice(0, 99), slice(0, 300)))
for suffix in suffixes:
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size again
    before = peak()
    export_volume(source, f"{folder}/out{suffix}", memory=2**22, roi=some if suffix == ".ply" else None)
    print(peak() - before)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Labels of 162 MiB, compressed to little."""
    path = tmp_path_factory.mktemp("large") / "large.zarr"
    shape = (416, 640, 640)
    array = zarr.create_array(path, shape=shape, chunks=(32, 128, 128), shards=(32, 256, 256), dtype="u1")
    z, y, x = np.ogrid[:32, :640, :640]
    array[:32] = 1 + ((z // 16 + y // 256 + x // 256) % 2).astype(np.uint8)
    for start in range(32, shape[0], 32):
        array[start : start + 32] = array[:32]
    return path


def test_memory_is_bounded(large, tmp_path):
    suffixes = (".tif", "", ".h5", ".mha", ".nrrd", ".ply")
    command = [sys.executable, "-c", PROGRAM, str(large), str(tmp_path), *suffixes]
    grown = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=200).stdout.split()
    # KiB: the 4 MiB requested, and what Zarr and its threads need for shards; not the 162 MiB of the labels.
    assert all(int(number) < 100 * 1024 for number in grown), dict(zip(suffixes, grown, strict=True))


def test_an_interrupted_command_leaves_nothing(large, tmp_path):
    command = [sys.executable, "-m", "hrvol", "export", str(large), "-o", str(tmp_path / "o.h5")]
    process = subprocess.Popen([*command, "--memory", "0.01"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".o.h5*/o.h5")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "hrvol: interrupted"
    assert not list(tmp_path.iterdir())
