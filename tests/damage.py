"""Ways to damage files: odd values in JSON, flipped bytes, truncation, splicing."""

import copy
import io
import json
import struct
import zipfile

NESTED = None
for _ in range(200):
    NESTED = [NESTED]

ODD = (
    None,
    True,
    -1,
    0,
    1.5,
    float("nan"),
    1e308,
    10**30,
    "",
    "x",
    "\x1b[31mred\n",
    "../..",
    "x" * 5000,
    [],
    [None],
    {},
    {"x": 1},
    NESTED,
)
"""Values of JSON, of Python's JSON at least, that no key expects."""

Key = tuple[str | int, ...]


def shown(value):
    """Return a value for the name of a case."""
    text = ascii(value)
    return text if len(text) <= 24 else f"{text[:12]}...({len(text)})"


def key_paths(values, above=()):
    """Return the paths of all values in nested mappings and lists, the top one included."""
    found = [above]
    if isinstance(values, dict):
        for key, value in values.items():
            found += key_paths(value, (*above, key))
    elif isinstance(values, list):
        for index, value in enumerate(values):
            found += key_paths(value, (*above, index))
    return found


def value_at(values, path):
    for key in path:
        values = values[key]
    return values


def replaced(values, path, new):
    """Return values with another one at a path."""
    if not path:
        return new
    values = copy.deepcopy(values)
    value_at(values, path[:-1])[path[-1]] = new
    return values


def removed(values, path):
    """Return values without the one at a path."""
    values = copy.deepcopy(values)
    del value_at(values, path[:-1])[path[-1]]
    return values


def flipped(data, positions, bits=None):
    """Return bytes with one bit flipped at each position."""
    data = bytearray(data)
    for number, position in enumerate(positions):
        data[position % len(data)] ^= 1 << (position + number if bits is None else bits[number]) % 8
    return bytes(data)


def spliced(data, start, stop, to):
    """Return bytes of which some were copied over others."""
    part = data[start:stop]
    return data[:to] + part + data[to + len(part) :]


def zip_members(data):
    """Return the members of a zip file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members, kind=zipfile.ZIP_DEFLATED):
    """Return a zip file of members; ``None`` for the bytes leaves a member out."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(zipfile.ZipInfo(name), data, kind)
    return stream.getvalue()


def with_member(data, name, new):
    """Return a zip file with another member: bytes, ``None`` (left out), or what a function returns."""
    members = zip_members(data)
    members[name] = new(members[name]) if callable(new) else new
    return zipped(members)


def with_json(data, name, change):
    """Return a zip file one of whose JSON members is changed by a function."""
    return with_member(data, name, lambda old: json.dumps(change(json.loads(old))).encode())


def ifd_offsets(data):
    """Return the places of the image file directories of a classic TIFF."""
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    places = []
    while place and place not in places and place + 2 <= len(data):
        places.append(place)
        (count,) = struct.unpack_from(f"{order}H", data, place)
        (place,) = struct.unpack_from(f"{order}I", data, place + 2 + 12 * count)
    return places


def ifd_entries(data, place):
    """Return tag and place of each entry of a directory."""
    order = "<" if data[:2] == b"II" else ">"
    (count,) = struct.unpack_from(f"{order}H", data, place)
    return {
        struct.unpack_from(f"{order}H", data, at)[0]: at
        for at in range(place + 2, place + 2 + 12 * count, 12)
    }


def ifd_bytes(data):
    """Return the places of all bytes of the header and the directories of a classic TIFF."""
    places = list(range(8))
    for place in ifd_offsets(data):
        places += range(place, place + 2 + 12 * len(ifd_entries(data, place)) + 4)
    return places
