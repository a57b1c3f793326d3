"""Memory that is returned to the system."""

from __future__ import annotations

import sys

import psutil
import pytest

from hrvol.memory import release_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc keeps freed memory")
def test_freed_memory_between_what_is_in_use_is_returned() -> None:
    process = psutil.Process()
    release_memory()
    blocks = [bytearray(b"x" * 2**14) for _ in range(12_000)]  # each below the size that is mapped by itself
    kept = blocks[::8]
    before = process.memory_info().rss
    del blocks
    release_memory()
    assert process.memory_info().rss < before - 120 * 2**20
    assert len(kept) == 1500
