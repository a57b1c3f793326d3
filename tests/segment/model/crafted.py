"""Small models, and ways to change what is in their files."""

import functools
import io
import json
import struct
import zipfile

import numpy as np

from hrvol.classes import default_classes
from hrvol.recipe.recipe import Recipe
from hrvol.recipe.specs import ClassifierSpec
from hrvol.segment.model.archive import zip_bytes
from hrvol.segment.model.model import Model, model_bytes, read_model
from hrvol.segment.pixel_classifier import PixelClassifier
from hrvol.segment.strokes import Samples

CLASSES = (1, 3, 7)
MEMBER = "estimator_all.skops"


@functools.cache
def small(kind, classes=CLASSES):
    """Return the bytes of a model of a kind, on six columns."""
    rng = np.random.default_rng(0)
    labels = rng.choice(classes, 90).astype(np.uint16)
    features = (rng.normal(size=(90, 6)) + labels[:, None] * 0.3).astype(np.float32)
    spec = ClassifierSpec(kind=kind, trees=3, hidden=(5, 4), max_iter=20 if kind == "mlp" else 1000)
    classifier = PixelClassifier.fit(Samples(features, labels, np.zeros(90, np.int32)), spec)
    return model_bytes(
        Model(
            recipe=Recipe(classifier=spec),
            classes=default_classes(classes),
            window=(0.0, 255.0),
            classifier=classifier,
            weights_sha256=None,
            channels=tuple("abcdef"),
        )
    )


def members(data):
    """Return the members of an archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_members(data, **changes):
    """Return an archive with members changed; names have ``__`` for a dot."""
    return zip_bytes(members(data) | {name.replace("__", "."): value for name, value in changes.items()})


def with_json(data, member, change):
    """Return a model with the JSON values of a member changed by a function."""
    found = members(data)
    values = json.loads(found[member])
    changed = change(values)
    found[member] = json.dumps(values if changed is None else changed).encode()
    return zip_bytes(found)


def with_estimator(kind, change, classes=CLASSES):
    """Return a model whose estimator was changed by a function, which may return another one."""
    model = read_model(small(kind, classes), "small")
    member = model.classifier.members[0]
    returned = change(member.estimator)
    if returned is not None:
        object.__setattr__(member, "estimator", returned)
    return model_bytes(model)


def with_schema(kind, change):
    """Return a model with the description and the arrays of its estimator's file changed.

    ``change`` gets the description and the members of the file.
    """
    outer = members(small(kind))
    inner = members(outer[MEMBER])
    schema = json.loads(inner["schema.json"])
    change(schema, inner)
    inner["schema.json"] = json.dumps(schema).encode()
    return zip_bytes(outer | {MEMBER: zip_bytes(inner)})


def nodes(schema, loader):
    """Return the nodes of a kind in the description of an estimator."""
    found = []

    def walk(value):
        if isinstance(value, dict):
            if value.get("__loader__") == loader:
                found.append(value)
            for child in value.values():
                walk(child)
        elif isinstance(value, list):
            for child in value:
                walk(child)

    walk(schema)
    return found


def plain(value):
    """Return a node of a plain value."""
    return {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": json.dumps(value),
    }


def listed(values, number=None):
    """Return a node of a list."""
    return {
        "__class__": "list",
        "__module__": "builtins",
        "__loader__": "ListNode",
        "content": values,
        **({} if number is None else {"__id__": number}),
    }


def npy(header, content=b""):
    """Return a ``.npy`` file of any header."""
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def expanding(data, name, mebibytes=400):
    """Return an archive with a member of zeros, which is made without holding them."""
    stream, zeros = io.BytesIO(), bytes(2**20)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for other, content in members(data).items():
            if other != name:
                archive.writestr(other, content)
        with archive.open(name, "w") as member:
            for _ in range(mebibytes):
                member.write(zeros)
    return stream.getvalue()


def claiming(data, name, size):
    """Return an archive whose directory and header claim another size of a deflated member."""
    data = bytearray(data)
    for signature, offset, at in ((b"PK\3\4", 22, 30), (b"PK\1\2", 24, 46)):
        start = -1
        while (start := data.find(signature, start + 1)) >= 0:
            if data[start + at : start + at + len(name)] == name.encode():
                struct.pack_into("<I", data, start + offset, size)
    return bytes(data)


def flagged(data, signatures):
    """Return an archive with bytes of its headers replaced: {(signature, offset): bytes}."""
    data = bytearray(data)
    for (signature, offset), value in signatures.items():
        start = data.rfind(signature)
        data[start + offset : start + offset + len(value)] = value
    return bytes(data)
