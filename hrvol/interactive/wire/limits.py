"""Sizes and times that a server and its clients agree on."""

from __future__ import annotations

REQUEST_BYTES = 32 * 2**20
"""Most bytes of the body of a request."""

ANSWER_BYTES = 2**30
"""Most bytes of an answer, packed or not."""

BOX_BYTES = 64 * 2**20
"""Most bytes of voxels of one answer."""

CHANGE_BYTES = 16 * 2**20
"""Most bytes of one change of strokes."""

ASKS = 64
"""Questions that are open at once."""

POLL_SECONDS = 8.0
"""Time after which the server answers a client that waits for news, if there are none."""

LEASE_SECONDS = 20.0
"""Time without a request after which another client may draw."""
