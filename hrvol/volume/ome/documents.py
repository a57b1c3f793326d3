"""Know the metadata of an output: compare what is stored with what was written, and restore what differs.

A document is the ``zarr.json`` of one group or array. All of them follow from the settings of a run. They are
also recorded with a checksum in the attributes of the group ``ledger``, because other versions of Zarr may
write other documents, and because the settings themselves are in a document that may be damaged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.metadata import ArrayV3Metadata
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from hrvol.errors import InputError
from hrvol.volume.storage.location import MARK, Location
from hrvol.volume.storage.records import Records, sealed, unsealed

LOG = logging.getLogger("hrvol.volume")

Document = Mapping[str, Any]

RECORD = "ledger"
"""Group whose attributes hold the record of the documents."""

_OURS = "hrvol"

_OPEN = ("ome", _OURS)
"""Attributes to which other programs may add keys."""

_STATE = ("complete", "begun")
"""Keys of the provenance that change during a run."""


@dataclass(frozen=True)
class Documents:
    """The documents of an output by path, ``""`` for the root.

    Attributes
    ----------
    begun
        Of an output without coarser levels, marked incomplete.
    whole
        Of a complete output.
    """

    begun: Mapping[str, Document]
    whole: Mapping[str, Document]

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Settings that the root carries."""
        provenance: Mapping[str, Any] = self.begun[""]["attributes"][_OURS]
        return provenance

    def kept_by(self, written: Documents | None) -> Documents:
        """Return the documents as they were written, if those are of the same arrays, else these."""
        if written is None or written.whole.keys() != self.whole.keys():
            return self
        if any(_layout(written.whole[path]) != _layout(self.whole[path]) for path in self.whole):
            return self
        return written


def documents_in(store: MemoryStore) -> dict[str, Document]:
    """Return the documents of a hierarchy in memory."""

    async def read() -> dict[str, Document]:
        found = {}
        async for key in store.list():
            if key.rpartition("/")[2] == MARK:
                value = await store.get(key, default_buffer_prototype())
                assert value is not None
                found[key.removesuffix(MARK).rstrip("/")] = json.loads(value.to_bytes())
        return found

    return sync(read())


def create_documents(location: Location, documents: Documents) -> None:
    """Write the documents of a new output."""
    root = documents.begun[""]
    # Not an image until it has arrays, but marked as an output from the start, so that it can be resumed.
    marked = {_OURS: {**root["attributes"][_OURS], "begun": True}}
    location.write_json(MARK, {**root, "attributes": marked})
    for path, document in documents.begun.items():
        if path:
            location.write_json(f"{path}/{MARK}", document)
    location.write_json(MARK, root)
    record_documents(location, documents)


def as_found(location: Location, documents: Documents) -> Documents:
    """Return documents with the provenance and the codecs that an output without a record has.

    Another version may have written it. Other differences are damage.
    """
    stored = _stored(location, documents)
    begun, whole = (
        {path: _as_stored(document, stored[path]) for path, document in some.items()}
        for some in (documents.begun, documents.whole)
    )
    return Documents(begun, whole)


def restore_documents(location: Location, documents: Documents) -> list[str]:
    """Restore documents that are missing or changed; several processes may do so at once.

    Arrays keep their data. What other programs added stays: attributes, keys of ``ome``, names of labels. An
    output in which anything was restored is marked incomplete, until a run has checked all of it.

    Parameters
    ----------
    location
        Of the output.
    documents
        What it should have.

    Returns
    -------
    list of str
        Paths of the restored documents.
    """
    stored = _stored(location, documents)
    root = stored[""]
    complete = _provenance_of(root).get("complete") is True
    restored = []
    for path, whole in documents.whole.items():
        begun, present = documents.begun.get(path), stored[path]
        if begun is None and present is None and not complete and location.sizes([_key(path)]) == [None]:
            continue  # a coarser level that is not made yet
        choices = [choice for choice in (begun, whole) if choice is not None]
        if not any(fits(present, choice) for choice in choices):
            restored.append(path)
            if path:
                location.write_json(_key(path), merged(present, choices[-1] if complete else choices[0]))
    if restored:
        choice = documents.whole[""] if complete else documents.begun[""]
        document = merged(root, choice)
        if "begun" not in _provenance_of(root):  # else its creation was interrupted
            LOG.warning("%s: restored missing or changed metadata: %s", location, _few(restored))
        provenance = {**document["attributes"][_OURS], "complete": False}
        provenance.pop("begun", None)
        location.write_json(MARK, {**document, "attributes": {**document["attributes"], _OURS: provenance}})
    return restored


def _stored(location: Location, documents: Documents) -> dict[str, dict[str, Any] | None]:
    values = location.read_documents(map(_key, documents.whole))
    return dict(zip(documents.whole, values, strict=True))


def record_documents(location: Location, documents: Documents) -> None:
    """Record the documents in the output."""
    changing = {path: doc for path, doc in documents.begun.items() if doc != documents.whole[path]}
    values = {"documents": {"begun": changing, "whole": documents.whole, "created": list(documents.begun)}}
    Records(location, read_only=False).put(RECORD, sealed(values))


def recorded_documents(location: Location) -> Documents | None:
    """Return the recorded documents of an output; ``None`` if the record is missing or damaged."""
    values: Any = (unsealed(Records(location).get(RECORD)) or {}).get("documents")
    try:
        whole, changing = dict(values["whole"]), values["begun"]
        documents = Documents({path: changing.get(path, whole[path]) for path in values["created"]}, whole)
        provenance = documents.provenance
        entries = (*documents.begun.values(), *whole.values())
        sound = all(isinstance(entry, dict) and isinstance(entry["attributes"], dict) for entry in entries)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return documents if sound and isinstance(provenance, dict) else None


def fits(stored: Document | None, expected: Document) -> bool:
    """Whether a stored document holds all that is expected, and nothing more but others' additions."""
    if stored is None or not isinstance(attributes := stored.get("attributes", {}), Mapping):
        return False
    if stored.keys() - expected.keys() - {"attributes", "consolidated_metadata"}:
        return False
    plain = expected.keys() - {"attributes"}
    ours = expected.get("attributes", {})
    return _same(stored, expected, plain) and all(
        _attribute_fits(name, attributes.get(name), value) for name, value in ours.items()
    )


def merged(stored: Document | None, expected: Document) -> dict[str, Any]:
    """Return the expected document with what others added to the stored one."""
    before = (stored or {}).get("attributes")
    before = before if isinstance(before, Mapping) else {}
    attributes = _with_additions(before, expected.get("attributes", {}))
    for name in _OPEN:
        if name in attributes and isinstance(inner := before.get(name), Mapping):
            attributes[name] = _with_additions(inner, attributes[name])
    return {**expected, "attributes": attributes}


def _attribute_fits(name: str, stored: Any, expected: Any) -> bool:
    if name not in _OPEN:
        return _text(stored) == _text(expected)
    if not isinstance(stored, Mapping):
        return False
    if name == _OURS:
        state = stored.get("complete")
        return isinstance(state, bool) and _same(stored, expected, expected.keys() - set(_STATE))
    if "labels" in expected:
        names = stored.get("labels")
        if not isinstance(names, list) or not all(isinstance(label, str) for label in names):
            return False
        if not set(expected["labels"]) <= set(names):
            return False
    return _same(stored, expected, expected.keys() - {"labels"})


def _with_additions(stored: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with the further keys of a stored one, but for ours that have a changed letter."""
    lost = expected.keys() - stored.keys()
    more = {
        name: value
        for name, value in stored.items()
        if name not in expected and not any(_misspelt(name, key) for key in lost)
    }
    result = {**more, **expected}
    if isinstance(names := stored.get("labels"), list) and isinstance(expected.get("labels"), list):
        gone = [name for name in expected["labels"] if name not in names]
        result["labels"] = expected["labels"] + [
            name
            for name in names
            if isinstance(name, str)
            and name not in expected["labels"]
            and not any(_misspelt(name, key) for key in gone)
        ]
    return result


def _misspelt(name: str, key: str) -> bool:
    return len(name) == len(key) and sum(a != b for a, b in zip(name, key, strict=True)) <= 2


def _as_stored(expected: Document, stored: Document | None) -> Document:
    """Return a document with the provenance, or the codecs, of the stored one where those are sound."""
    if stored is None:
        return expected
    provenance = _provenance_of(stored)
    if provenance and _OURS in expected["attributes"]:
        known = {name: value for name, value in provenance.items() if name not in _STATE}
        ours = {**expected["attributes"][_OURS], **known}
        return {**expected, "attributes": {**expected["attributes"], _OURS: ours}}
    if expected["node_type"] == "array" and _layout(stored) == _layout(expected):
        try:
            ArrayV3Metadata.from_dict({**expected, "codecs": stored.get("codecs")})
        except Exception:  # whatever codecs make of their settings
            return expected
        return {**expected, "codecs": stored["codecs"]}
    return expected


def _layout(document: Document) -> Any:
    """Return what decides where an array's values are stored, and as which type."""
    if document.get("node_type") != "array":
        return document.get("node_type")
    try:
        inner = document["codecs"][0]["configuration"].get("chunk_shape")
        names = ("shape", "data_type", "chunk_grid", "chunk_key_encoding")
        return _text([inner, *(document[name] for name in names)])
    except (KeyError, TypeError, IndexError, AttributeError):
        return None


def _provenance_of(document: Document | None) -> Mapping[str, Any]:
    attributes = (document or {}).get("attributes")
    provenance = attributes.get(_OURS) if isinstance(attributes, Mapping) else None
    return provenance if isinstance(provenance, Mapping) else {}


def _same(stored: Document, expected: Document, names: Any) -> bool:
    return all(name in stored and _text(stored[name]) == _text(expected[name]) for name in names)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)  # 1, 1.0 and true are equal in Python


def _few(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(map(_key, paths[:3])) + more


def _key(path: str) -> str:
    return f"{path}/{MARK}".lstrip("/")


def check_scale(source: str, *numbers: float) -> None:
    """Raise :class:`InputError` unless voxel sizes and positions can be written as JSON."""
    for number in numbers:
        if not abs(number) < float("inf"):
            raise InputError(f"{source}: found the voxel size or position {number}, expected finite numbers")
