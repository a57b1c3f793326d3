"""Bounds on everything that is read from files, so that no file can make hrvol hang or run out of memory.

They are far above real use, and low enough that what they admit is handled in seconds and megabytes.
"""

VOXELS = 10**15
"""Voxels of a volume; a terabyte of 8-bit voxels has 10**12."""

SIDE = 10**7
"""Voxels along one axis of a volume."""

NAME = 200
"""Characters of a name: of a class, a channel, a unit."""

CLASSES = 1000
"""Classes of a model or an output, and different values of strokes."""

LABEL_VALUE = 65535
"""Largest label value: labels are stored in at most 16 bits."""

JSON_BYTES = 16 * 2**20
"""Bytes of a JSON document: metadata of a Zarr node, a record of the ledger, a member of a model file."""

RECIPE_BYTES = 2**20
"""Bytes of a recipe file."""

MODEL_BYTES = 4 * 2**30
"""Bytes of a model file, compressed or not."""

CHUNK_BYTES = 4 * 2**30
"""Uncompressed bytes of one chunk or shard of an array."""
