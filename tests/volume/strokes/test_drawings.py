"""Points, polygons and ROIs become the pixels that they cover, in files as other programs write them."""

import json
import zipfile

import numpy as np
import pytest
from roifile import ROI_TYPE, ImagejRoi

from hrvol.errors import InputError, StrokesError
from hrvol.volume.strokes.open_strokes import open_strokes
from hrvol.volume.strokes.source import StrokesSource
from hrvol.volume.volume import open_volume

VOLUME = open_volume(np.zeros((4, 40, 50), np.uint8))


def labels_of(source, **options):
    strokes = open_strokes(source, VOLUME, **options)
    return strokes.read(np.s_[0:4, 0:40, 0:50]), strokes


def points_by_hand(path):
    path.write_text("z,y,x,class,radius\n1,10,20,2,2.5\n0, 3,4,1,\n1,10,21,1,0\n")
    expected = np.zeros(VOLUME.shape, np.uint16)
    y, x = np.indices(VOLUME.shape[1:])
    expected[1][(y - 10) ** 2 + (x - 20) ** 2 <= 6.25] = 2
    expected[0, 3, 4] = expected[1, 10, 21] = 1  # drawn later
    return expected


def test_points(tmp_path):
    expected = points_by_hand(tmp_path / "points.csv")
    found, strokes = labels_of(tmp_path / "points.csv")
    assert np.array_equal(found, expected)
    assert strokes.classes is None
    moved = open_strokes(StrokesSource(tmp_path / "points.csv", (2, 5, 6)), VOLUME).read(
        np.s_[0:4, 0:40, 0:50]
    )
    assert np.array_equal(moved[2:, 5:, 6:], expected[:2, :-5, :-6])


def test_named_classes(tmp_path):
    (tmp_path / "p.csv").write_text("z,y,x,class\n0,1,1,solid\n0,2,2,pore\n0,3,3,solid\n")
    found, strokes = labels_of(tmp_path / "p.csv")
    assert [(info.value, info.name) for info in strokes.classes] == [(1, "pore"), (2, "solid")]
    assert found[0, 1, 1] == found[0, 3, 3] == 2
    found, strokes = labels_of(tmp_path / "p.csv", names=["solid", "pore"])
    assert found[0, 1, 1] == 1
    with pytest.raises(StrokesError, match="found class pore, expected solid, binder"):
        labels_of(tmp_path / "p.csv", names=["solid", "binder"])


@pytest.fixture(scope="module")
def napari_layers():
    pytest.importorskip("napari")
    from napari.layers import Points, Shapes

    points = Points(
        np.array([[0, 5, 6], [2, 7, 8], [2, 9.4, 9.6]]), features={"class": ["a", "b", "a"]}, size=3
    )
    shapes = Shapes(ndim=3)
    square = [[1, 10, 10], [1, 10, 14], [1, 13, 14], [1, 13, 10]]
    shapes.add(np.array(square), shape_type="polygon")
    shapes.add(np.array([[3, 5, 5], [3, 5, 9]]), shape_type="line")
    shapes.add(np.array([[3, 20, 20], [3, 20, 30], [3, 28, 30], [3, 28, 20]]), shape_type="ellipse")
    return points, shapes


def save(layer, path):
    """Save a layer as napari does; its plugins, which choose the writer, are off in tests."""
    from napari_builtins.io import napari_write_points, napari_write_shapes

    data, meta, kind = layer.as_layer_data_tuple()
    assert {"points": napari_write_points, "shapes": napari_write_shapes}[kind](str(path), data, meta)


def test_points_that_napari_saves(tmp_path, napari_layers):
    save(napari_layers[0], tmp_path / "points.csv")
    found, strokes = labels_of(tmp_path / "points.csv")
    places = {(0, 5, 6): 1, (2, 7, 8): 2, (2, 9, 10): 1}
    assert {tuple(p): int(found[tuple(p)]) for p in np.argwhere(found).tolist()} == places
    assert [info.name for info in strokes.classes] == ["a", "b"]


def test_shapes_that_napari_saves(tmp_path, napari_layers):
    save(napari_layers[1], tmp_path / "shapes.csv")
    with pytest.raises(StrokesError, match=r"found no class of shape 1, expected .*shapes\.csv::CLASS"):
        labels_of(tmp_path / "shapes.csv")
    found, strokes = labels_of(f"{tmp_path}/shapes.csv::fibre")
    assert np.argwhere(found == 1)[:, 0].tolist() == sorted(np.argwhere(found == 1)[:, 0].tolist())
    assert found[1, 10:14, 10:15].all()
    assert np.count_nonzero(found[1]) == 20
    assert found[3, 5, 5:10].all()
    y, x = np.indices(VOLUME.shape[1:])
    ellipse = ((y - 24) / 4) ** 2 + ((x - 25) / 5) ** 2 <= 1
    assert np.array_equal(found[3] > 0, ellipse | ((y == 5) & (x >= 5) & (x <= 9)))
    assert [info.name for info in strokes.classes] == ["fibre"]


def test_geojson_of_qupath(tmp_path):
    square = [[5, 5], [15, 5], [15, 12], [5, 12], [5, 5]]
    hole = [[8, 7], [10, 7], [10, 9], [8, 9], [8, 7]]
    cell = {"objectType": "annotation", "classification": {"name": "Cell", "color": [200, 0, 10]}}
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [square, hole],
                "plane": {"c": -1, "z": 2, "t": 0},
            },
            "properties": cell,
        },
        {
            "type": "Feature",
            "geometry": {"type": "MultiPoint", "coordinates": [[20.5, 30.5], [21.9, 31.0]]},
            "properties": {"class": "Background", "z": 1},
        },
        {
            "type": "Feature",
            "geometry": {"type": "LineString", "coordinates": [[30.5, 10.5, 3], [40.5, 10.5, 3]]},
            "properties": {"class": "Cell", "width": 3},
        },
    ]
    file = tmp_path / "cells.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    found, strokes = labels_of(file)
    expected = np.zeros(VOLUME.shape, np.uint16)
    expected[2, 5:12, 5:15] = 2  # edges of pixels at whole numbers: as many pixels as the area
    expected[2, 7:9, 8:10] = 0
    expected[1, 30, 20] = expected[1, 31, 21] = 1
    expected[3, 9:12, 29:42] = 2
    assert np.array_equal(found, expected)
    assert [(info.name, info.colour) for info in strokes.classes][1] == ("Cell", (200, 0, 10))


def test_rois_of_imagej(tmp_path):
    def roi(points, kind=ROI_TYPE.POLYGON, **fields):
        made = ImagejRoi.frompoints(np.array(points))
        made.roitype = kind
        for name, value in fields.items():
            setattr(made, name, value)
        return made

    rois = {
        "pore-1": roi([[5, 5], [15, 5], [15, 12], [5, 12]], position=3),
        "solid": roi([[30, 10], [40, 10]], ROI_TYPE.POLYLINE, z_position=4),
        "pore-2": ImagejRoi(roitype=ROI_TYPE.RECT, top=20, left=22, bottom=24, right=30, position=1),
        "pore_3": ImagejRoi(roitype=ROI_TYPE.OVAL, top=30, left=10, bottom=38, right=20, position=1),
        "solid 2": roi([[7, 8], [9, 9]], ROI_TYPE.POINT, position=2),
    }
    for name, one in rois.items():
        one.name = name
        one.tofile(tmp_path / "RoiSet.zip")
    found, strokes = labels_of(tmp_path / "RoiSet.zip")
    assert [info.name for info in strokes.classes] == ["pore", "solid"]
    expected = np.zeros(VOLUME.shape, np.uint16)
    expected[2, 5:12, 5:15] = 1
    expected[3, 10, 30:41] = 2
    expected[0, 20:24, 22:30] = 1
    y, x = np.indices(VOLUME.shape[1:])
    expected[0][((y - 33.5) / 4) ** 2 + ((x - 14.5) / 5) ** 2 <= 1] = 1
    expected[1, 8, 7] = expected[1, 9, 9] = 2
    assert np.array_equal(found, expected)

    many = roi([[1, 2], [3, 4], [5, 6]], ROI_TYPE.POINT, group=1)
    many.counters, many.counter_positions = np.array([0, 0, 0], "u1"), np.array([1, 3, 3], "u4")
    many.tofile(tmp_path / "points.roi")
    found = labels_of(tmp_path / "points.roi")[0]
    assert np.argwhere(found == 1).tolist() == [[0, 2, 1], [2, 4, 3], [2, 6, 5]]

    one = rois["pore-1"]
    one.group, one.name = 2, "0003-0008-0010"
    one.tofile(tmp_path / "one.roi")
    assert labels_of(tmp_path / "one.roi")[0][2, 6, 6] == 2
    one.group = 0
    one.tofile(tmp_path / "unnamed.roi")
    with pytest.raises(StrokesError, match="found no class of shape 1"):
        labels_of(tmp_path / "unnamed.roi")
    assert labels_of(f"{tmp_path}/unnamed.roi::3")[0].max() == 3


BAD = {
    "empty.csv": ("", "found columns none, expected z, y, x, class"),
    "columns.csv": ("a,b\n1,2\n", "found columns a, b, expected z, y, x"),
    "word.csv": ("z,y,x,class\n0,one,2,1\n", "line 2: found 'one' as y, expected a number"),
    "nan.csv": ("z,y,x,class\n0,nan,2,1\n", "line 2: found 'nan' as y"),
    "huge.csv": ("z,y,x,class\n0,1e300,2,1\n", "line 2: found '1e300' as y"),
    "outside.csv": ("z,y,x,class\n9,1,2,1\n", r"found shape 1 \(z 9, y 1, x 2\) outside of the volume"),
    "swapped.csv": ("z,y,x,class\n1,45,2,1\n", r"shape 1 \(z 1, y 45, x 2\) outside"),
    "flat.csv": ("y,x,class\n1,2,1\n", r"found no plane \(z\) of shape 1"),
    "none.csv": ("z,y,x\n1,1,2\n", "found no class of shape 1"),
    "zero.csv": ("z,y,x,class\n1,1,2,0\n", "found class 0, expected 1 to 65535 or a name"),
    "mixed.csv": ("z,y,x,class\n1,1,2,1\n1,2,2,pore\n", "found classes pore and 1, expected only names"),
    "more.csv": ("z,y,x,class\n1,1,2,1,5,6\n", "line 2: found more values than columns"),
    "disc.csv": ("z,y,x,class,radius\n1,1,2,1,1e6\n", "found a shape of .* pixels, expected at most"),
    "binary.csv": (b"\xff\xfe\x00\x01", "found no text"),
    "a.geojson": ("[1, 2]", "feature 1: found no geometry"),
    "b.geojson": ("{", "expected JSON"),
    "c.geojson": ('{"geometry": {"type": "Circle", "coordinates": [1, 2]}}', "found Circle, expected points"),
    "d.geojson": ('{"geometry": {"type": "Polygon", "coordinates": [[["a", 2]]]}}', "no list of coordinates"),
    "e.geojson": (
        '{"geometry": {"type": "Point", "coordinates": [1, 2]}, "properties": {"z": 0.5, "class": 1}}',
        "found z 0.5, expected",
    ),
    "f.geojson": ('{"geometry": {"type": "Polygon", "coordinates": []}}', "found a polygon without rings"),
    "x.roi": (b"Iout" + bytes(100), "ROI"),
    "y.roi": (b"", "ROI"),
    "x.zip": (b"PK\x03\x04 and nothing", "zip archive of ROIs"),
    "x.ilp": (b"\x89HDF\r\n\x1a\n" + bytes(200), "expected an ilastik project"),
    "y.ilp": (b"no HDF5", "expected an ilastik project"),
}


@pytest.mark.parametrize("name", BAD)
def test_damaged_and_odd_files_are_one_line(tmp_path, name):
    content, message = BAD[name]
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        labels_of(file)
    assert str(caught.value).startswith(str(file))
    assert str(caught.value).isprintable()


def test_truncated_rois_and_projects_are_one_line(tmp_path):
    from strokes_data import write_project

    drawn = np.zeros(VOLUME.shape, np.uint8)
    drawn[1, 4:20, 5:30] = 1
    write_project(tmp_path / "p.ilp", [("scan", drawn)])
    ImagejRoi.frompoints(np.array([[1, 2], [30, 4], [5, 6]])).tofile(tmp_path / "r.roi")
    rng = np.random.default_rng(0)
    for name in ("p.ilp", "r.roi"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(8):
            damaged = bytearray(whole)
            if rng.random() < 0.5:
                damaged = damaged[: rng.integers(1, len(whole))]
            else:
                for place in rng.integers(0, len(whole), 20):
                    damaged[place] = rng.integers(0, 256)
            file = tmp_path / f"damaged{name[-4:]}"
            file.write_bytes(bytes(damaged))
            try:
                labels_of(file)
            except InputError as error:
                message = str(error)
            else:
                message = str(file)
            assert message.startswith(str(file))


def test_a_bomb_of_rois_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.roi", bytes(2**28 + 1))
    with pytest.raises(StrokesError, match="at most 268,435,456 bytes"):
        labels_of(tmp_path / "bomb.zip")


def test_projects_that_lead_to_other_files_are_refused(tmp_path):
    import h5py
    from strokes_data import write_project

    drawn = np.ones((1, 4, 4), np.uint8)
    write_project(tmp_path / "p.ilp", [("scan", drawn)])
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes([1]) * 16)
    with h5py.File(tmp_path / "p.ilp", "a") as project:
        group = project["PixelClassification/LabelSets/labels000"]
        attributes = dict(group["block0000"].attrs)
        del group["block0000"]
        group.create_dataset("block0000", (1, 4, 4, 1), "u1", external=[(str(secret), 0, 16)])
        group["block0000"].attrs.update(attributes)
    with pytest.raises(StrokesError, match="expected whole numbers in this file"):
        labels_of(tmp_path / "p.ilp")
    with h5py.File(tmp_path / "p.ilp", "a") as project:
        group = project["PixelClassification/LabelSets/labels000"]
        del group["block0000"]
        group["block0000"] = h5py.ExternalLink("other.h5", "/x")
    with pytest.raises(StrokesError, match="found a link"):
        labels_of(tmp_path / "p.ilp")
