"""Hypothesis strategies that damage valid files, and readers that must take whatever comes of them.

The property: a reader returns, or raises an error of hrvol whose message is one printable line; within
seconds, and without gigabytes. ``benchmarks/runs/fuzz.py`` runs the same strategies for longer.
"""

import io
import json
import resource
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile
import yaml
import zarr
from damage import (
    ODD,
    flipped,
    ifd_bytes,
    key_paths,
    removed,
    replaced,
    spliced,
    with_json,
    with_member,
    zip_members,
)
from hypothesis import strategies as st
from run_data import QUICK, draw, make_volume
from student_data import student_model

from hrvol.errors import HrvolError, one_line
from hrvol.info import describe
from hrvol.recipe.recipe import Recipe
from hrvol.run.ledger import sealed
from hrvol.run.segment import segment_volume
from hrvol.run.status import run_status
from hrvol.segment.model.model import model_bytes, read_model
from hrvol.text import is_name
from hrvol.training.train import train_model
from hrvol.volume.volume import open_volume

SECONDS = 5
"""Most seconds of CPU time."""

WAITING = 60
"""Seconds after which a reader hangs, on a busy machine too."""

MORE_MB = 300
_LONGEST = 2500  # characters of a message

SHAPE = (3, 70, 66)


@dataclass(frozen=True)
class Reader:
    """A valid file, ways to damage it, and the reader.

    Attributes
    ----------
    suffix
        Of a file that is kept because the reader failed on it.
    valid
        Bytes of the valid file.
    damaged
        Strategy of damaged bytes.
    read
        Reads bytes, in a folder for files.
    """

    suffix: str
    valid: bytes
    damaged: st.SearchStrategy
    read: object = field(compare=False)


def fails(reader, data, folder):
    """Read damaged bytes; return what is wrong with how it ended, or ``None``."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def late(number, frame):
        raise _LateError

    handler = signal.signal(signal.SIGALRM, late)
    signal.alarm(WAITING)
    try:
        reader.read(data, folder)
        problem = None
    except HrvolError as error:
        problem = _of_message(str(error))
    except _LateError:
        problem = f"still reading after {WAITING} s"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        problem = f"raised {one_line(error)}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    if problem is None and time.process_time() - began > SECONDS:
        problem = f"took {time.process_time() - began:.1f} s"
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if problem is None and more > MORE_MB:
        problem = f"took {more:.0f} MB"
    return problem


class _LateError(BaseException):
    """The reader takes too long."""


def _of_message(message):
    if len(message) > _LONGEST:
        return f"a message of {len(message)} characters: {message[:100]!r}"
    return None if is_name(message) else f"a message that is not printable: {message!r}"


# ways to damage

places = st.integers(0, 2**20)
odd = st.sampled_from(ODD)


@st.composite
def damaged_bytes(draw, data, telling=None):
    """Flip some bits (of some bytes), cut, copy a part over another one, or put bytes in."""
    kind = draw(st.sampled_from(("flip", "flip", "cut", "splice", "insert")))
    if kind == "flip":
        chosen = draw(st.lists(places, min_size=1, max_size=4))
        chosen = [place % len(data) if telling is None else telling[place % len(telling)] for place in chosen]
        return flipped(data, chosen, draw(st.lists(st.integers(0, 7), min_size=4, max_size=4)))
    at = draw(places) % (len(data) + 1)
    if kind == "cut":
        return data[:at]
    if kind == "insert":
        return data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
    return spliced(data, at, at + draw(st.integers(1, 64)), draw(places) % len(data))


@st.composite
def damaged_json(draw, values, paths=None):
    """Exchange one to three values, or leave keys out; one of these paths if there are any."""
    for _ in range(draw(st.integers(1, 3 if paths is None else 1))):
        path = draw(st.sampled_from(key_paths(values) if paths is None else paths))
        if path and draw(st.integers(0, 4)) == 0:
            values = removed(values, path)
        else:
            values = replaced(values, path, draw(odd))
        if not isinstance(values, dict | list):
            break
    return values


def as_bytes(values):
    return json.dumps(values).encode()


# models


def models():
    """Model files: bytes, JSON members, estimators' schemas and arrays."""
    image, truth = make_volume(shape=SHAPE)
    recipe = QUICK.model_copy(update={"classifier": QUICK.classifier.model_copy(update={"trees": 3})})
    valid = model_bytes(train_model([(image, draw(truth, planes=(0, 2)))], recipe=recipe, classes=["a", "b"]))
    members = zip_members(valid)
    documents = {name: json.loads(data) for name, data in members.items() if name.endswith(".json")}
    inner = zip_members(members["estimator_all.skops"])
    schema = json.loads(inner["schema.json"])
    paths = key_paths(schema)  # thousands
    arrays = sorted(name for name in inner if name.endswith(".npy"))

    @st.composite
    def damaged(draw):
        kind = draw(st.sampled_from(("bytes", "json", "json", "schema", "schema", "array")))
        if kind == "bytes":
            return draw(damaged_bytes(valid))
        if kind == "json":
            name = draw(st.sampled_from(sorted(documents)))
            return with_member(valid, name, as_bytes(draw(damaged_json(documents[name]))))
        if kind == "schema":
            new = draw(damaged_json(schema, paths))
            estimator = with_json(members["estimator_all.skops"], "schema.json", lambda old: new)
        else:
            name = draw(st.sampled_from(arrays))
            estimator = with_member(members["estimator_all.skops"], name, draw(damaged_bytes(inner[name])))
        return with_member(valid, "estimator_all.skops", estimator)

    return Reader(".hrvol", valid, damaged(), lambda data, folder: read_model(data, "model.hrvol"))


def students():
    """Model files of students: bytes, JSON members, weights."""
    valid = model_bytes(student_model(taught={"volume": {"sha256": "ab" * 32}, "agreement": [0.5, None]}))
    members = zip_members(valid)
    info, weights = json.loads(members["info.json"]), members["student.safetensors"]

    @st.composite
    def damaged(draw):
        kind = draw(st.sampled_from(("bytes", "json", "json", "student", "student", "weights", "header")))
        if kind == "bytes":
            return draw(damaged_bytes(valid))
        if kind == "json":
            return with_member(valid, "info.json", as_bytes(draw(damaged_json(info))))
        if kind == "student":
            changed = info | {"student": draw(damaged_json(info["student"]))}
            return with_member(valid, "info.json", as_bytes(changed))
        if kind == "weights":
            return with_member(valid, "student.safetensors", draw(damaged_bytes(weights)))
        size = 8 + int.from_bytes(weights[:8], "little")
        header = as_bytes(draw(damaged_json(json.loads(weights[8:size]))))
        new = len(header).to_bytes(8, "little") + header + weights[size:]
        return with_member(valid, "student.safetensors", new)

    return Reader(".hrvol", valid, damaged(), lambda data, folder: read_model(data, "model.hrvol"))


# recipes

LETTERS = "[]{}:,&*!|>'\"%@`#-\t\n \x00\x1b\ufeff\u202eé09.~<=?"


def recipes():
    """Recipe files: values, and letters of YAML."""
    values = QUICK.to_dict()
    text = yaml.safe_dump(values, sort_keys=False)

    @st.composite
    def damaged(draw):
        kind = draw(st.sampled_from(("values", "letters", "bytes", "any")))
        if kind == "values":
            return yaml.safe_dump(draw(damaged_json(values)), sort_keys=False).encode(
                "utf-8", "surrogatepass"
            )
        if kind == "bytes":
            return draw(damaged_bytes(text.encode()))
        if kind == "any":
            return draw(st.text(LETTERS + "ab", max_size=60)).encode()
        new = text
        for _ in range(draw(st.integers(1, 5))):
            at = draw(places) % len(new)
            new = new[:at] + draw(st.sampled_from(LETTERS)) + new[at + draw(st.integers(0, 1)) :]
        return new.encode()

    def read(data, folder):
        file = folder / "recipe.yaml"
        file.write_bytes(data)
        Recipe.load(file)

    return Reader(".yaml", text.encode(), damaged(), read)


# volumes


def _open(path):
    volume = open_volume(path)
    describe(str(path))
    shape = tuple(volume.shape)
    if all(side <= 200 for side in shape):  # a valid large array may well be read in parts only
        volume.read(tuple(slice(0, side) for side in shape))


def arrays(version):
    """Metadata of a Zarr array, version 2 or 3, whose chunks stay as they are."""
    name = "zarr.json" if version == 3 else ".zarray"
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(store, shape=(3, 20, 18), chunks=(3, 10, 9), dtype="u1", zarr_format=version)
    array[:] = 1
    files = {key: value.to_bytes() for key, value in store._store_dict.items()}
    values = json.loads(files[name])

    @st.composite
    def damaged(draw):
        if draw(st.integers(0, 2)):
            return as_bytes(draw(damaged_json(values)))
        return draw(damaged_bytes(files[name]))

    def read(data, folder):
        for key, value in (files | {name: data}).items():
            file = folder / "array.zarr" / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(value)
        _open(folder / "array.zarr")

    return Reader(f".v{version}.json", files[name], damaged(), read)


def omes():
    """Attributes of an OME-Zarr image with classes."""
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [
        {"type": "scale", "scale": [2.0, 0.5, 0.5]},
        {"type": "translation", "translation": [0.0, 1.0, 2.0]},
    ]
    values = {
        "version": "0.5",
        "multiscales": [
            {"axes": axes, "name": "a", "datasets": [{"path": "0", "coordinateTransformations": scale}]}
        ],
        "image-label": {
            "colors": [{"label-value": 1, "rgba": [1, 2, 3, 255]}],
            "properties": [{"label-value": 1, "class": "a"}],
        },
    }

    def read(data, folder):
        path = folder / "image.ome.zarr"
        if not path.exists():
            group = zarr.open_group(path, mode="w")
            group.create_array("0", data=np.ones((3, 20, 18), np.uint8), chunks=(3, 20, 18))
        head = b'{"zarr_format": 3, "node_type": "group", "attributes": {"ome": '
        (path / "zarr.json").write_bytes(head + data + b"}}")
        _open(path)

    return Reader(".ome.json", as_bytes(values), damaged_json(values).map(as_bytes), read)


def tiffs():
    """Headers, directories and descriptions of TIFF stacks."""
    pixels = np.arange(3 * 20 * 18, dtype=np.uint8).reshape(3, 20, 18)
    kinds = []
    for options in ({"imagej": True}, {"compression": "zlib", "tile": (16, 16)}, {"ome": True}):
        stream = io.BytesIO()
        tifffile.imwrite(stream, pixels, photometric="minisblack", metadata={"axes": "ZYX"}, **options)
        kinds.append(stream.getvalue())

    @st.composite
    def damaged(draw):
        data = draw(st.sampled_from(kinds))
        text = data.find(b"ImageJ=") if b"ImageJ=" in data else data.find(b"<?xml")
        telling = ifd_bytes(data) + list(range(max(text, 0), max(text, 0) + 300))
        return draw(damaged_bytes(data, [place for place in telling if place < len(data)]))

    def read(data, folder):
        file = folder / "image.tif"
        file.write_bytes(data)
        _open(file)

    return Reader(".tif", kinds[0], damaged(), read)


# outputs


def ledgers(folder):
    """Records of the ledger, and the attributes, of a complete output."""
    image, truth = make_volume(shape=SHAPE)
    out = Path(folder) / "out.ome.zarr"
    model = train_model([(image, draw(truth, planes=(0, 2)))], recipe=QUICK, classes=["a", "b"])
    segment_volume(image, out, model)
    files = {path: path.read_bytes() for path in sorted(out.rglob("zarr.json"))}
    settings = out / "zarr.json"
    heads = [path for path in files if "ledger" in path.parts[len(out.parts) :]]

    @st.composite
    def damaged(draw):
        path = draw(st.sampled_from([settings, settings, *heads]))
        values = json.loads(files[path])
        attributes = values["attributes"]
        kind = draw(st.sampled_from(("values", "values", "bytes")))
        if kind == "bytes":
            data = draw(damaged_bytes(files[path]))
        elif path == settings:
            data = as_bytes(
                values | {"attributes": attributes | {"hrvol": draw(damaged_json(attributes["hrvol"]))}}
            )
        else:  # with a seal that fits, so that the values are read
            new = draw(damaged_json({key: value for key, value in attributes.items() if key != "seal"}))
            data = as_bytes(values | {"attributes": sealed(new) if isinstance(new, dict) else new})
        return str(path.relative_to(out)).encode() + b"\n" + data

    def read(data, folder):
        name, _, content = data.partition(b"\n")
        target = out / name.decode()
        whole = target.read_bytes()
        try:
            target.write_bytes(content)
            run_status(str(out))
            describe(str(out))
        finally:
            target.write_bytes(whole)

    whole = b"zarr.json\n" + files[settings]
    return Reader(".record", whole, damaged(), read)


READERS = {
    "models": lambda folder: models(),
    "students": lambda folder: students(),
    "recipes": lambda folder: recipes(),
    "zarr2": lambda folder: arrays(2),
    "zarr3": lambda folder: arrays(3),
    "omes": lambda folder: omes(),
    "tiffs": lambda folder: tiffs(),
    "ledgers": ledgers,
}
"""Makes a reader, by its name."""
