"""The same strokes in every form that can be opened."""

import json

import numpy as np
import zarr

AXISTAGS = {"t": 8, "z": 2, "y": 2, "x": 2, "c": 1}


def tags(axes):
    """Axis tags as vigra writes them."""
    entries = [{"key": a, "typeFlags": AXISTAGS[a], "resolution": 0, "description": ""} for a in axes]
    return json.dumps({"axes": entries})


def boxes_of(strokes, side=40):
    """Boxes around what is drawn, as ilastik stores them: shrunk to what is not 0."""
    for z in range(0, strokes.shape[0]):
        for y in range(0, strokes.shape[1], side):
            for x in range(0, strokes.shape[2], side):
                part = strokes[z, y : y + side, x : x + side]
                if part.any():
                    rows, columns = np.nonzero(part)
                    yield (
                        slice(z, z + 1),
                        slice(y + rows.min(), y + rows.max() + 1),
                        slice(x + columns.min(), x + columns.max() + 1),
                    )


def write_project(path, lanes, names=("matrix", "fibre"), axes="zyxc", *, tagged=True, version="1.4.0"):
    """Write an ilastik project as ilastik does; ``lanes``: nickname and labels (z, y, x) of each lane."""
    import h5py

    own = axes if "z" in axes else axes.replace("t", "z")  # a stack that ilastik took for a series of times
    with h5py.File(path, "w") as project:
        project["ilastikVersion"] = version.encode()
        project["workflowName"] = b"Pixel Classification"
        project["Input Data/StorageVersion"] = b"0.2"
        project["Input Data/Role Names"] = np.array([b"Raw Data", b"Prediction Mask"])
        applet = project.create_group("PixelClassification")
        applet["LabelNames"] = np.array([name.encode() for name in names])
        colours = np.array([[255, 225, 25], [0, 130, 200], [230, 25, 75]], np.int64)[: len(names)]
        applet["LabelColors"] = colours
        for name in ("LabelNames", "LabelColors"):
            applet[name].attrs["isEmpty"] = False
        for number, (nickname, labels) in enumerate(lanes):
            info = project.create_group(f"Input Data/infos/lane{number:04d}/Raw Data")
            info["nickname"] = nickname.encode()
            info["filePath"] = f"/data/{nickname}.h5".encode()
            info["axistags"] = tags(axes).encode()
            sizes = {"t": 1, "c": 1, **dict(zip("zyx", labels.shape, strict=True))}
            info["shape"] = np.array([sizes[a] for a in own])
            group = applet.create_group(f"LabelSets/labels{number:03d}")
            for count, box in enumerate(boxes_of(labels)):
                spans = {"t": slice(0, 1), "c": slice(0, 1), **dict(zip("zyx", box, strict=True))}
                block = labels[box].transpose([["z", "y", "x"].index(a) for a in own if a in "zyx"])
                block = block.reshape([spans[a].stop - spans[a].start for a in own])
                dataset = group.create_dataset(f"block{count:04d}", data=block.astype(np.uint8))
                text = ",".join(f"{spans[a].start}:{spans[a].stop}" for a in own)
                dataset.attrs["blockSlice"] = f"[{text}]".encode()
                if tagged:
                    dataset.attrs["axistags"] = tags(axes)


def write_ome(path, values, translation=(0, 0, 0), scale=(1, 1, 1), chunks=(1, 32, 32), unit="micrometer"):
    """Write an OME-Zarr 0.5 image of one level."""
    group = zarr.create_group(path, zarr_format=3)
    array = group.create_array("0", shape=values.shape, dtype=values.dtype, chunks=chunks, fill_value=0)
    array[...] = values
    axes = [{"name": a, "type": "space", "unit": unit} for a in "zyx"]
    transforms = [{"type": "scale", "scale": list(scale)}]
    transforms.append({"type": "translation", "translation": list(translation)})
    datasets = [{"path": "0", "coordinateTransformations": transforms}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}


def stored(labels):
    """Places (n, 3) and values of what is drawn, in order."""
    places = np.argwhere(labels)
    return places, labels[tuple(places.T)]
