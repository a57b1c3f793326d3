"""Shared fixtures: where the micrographs are, and the network loaded once."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the shared micrographs: $HRVOL_DATA, else ../shared/data beside the repository."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("HRVOL_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set HRVOL_DATA")
    return folder


@pytest.fixture(scope="session")
def vits14():
    """DINOv2 ViT-S/14 with its real weights."""
    from hrvol.features.backbone import load_backbone

    return load_backbone("dinov2_vits14")
