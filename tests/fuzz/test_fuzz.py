"""Damaged files are read, or refused in one line; the damage is drawn with a fixed seed."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from damages import READERS, fails

CORPUS = Path(__file__).parents[1] / "corpus"
EXAMPLES = {
    "models": 60,
    "students": 100,
    "recipes": 120,
    "zarr2": 120,
    "zarr3": 120,
    "omes": 150,
    "tiffs": 200,
    "ledgers": 120,
}


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            made[name] = READERS[name](tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.mark.parametrize("name", READERS)
def test_what_is_damaged_is_read_or_refused_in_one_line(readers, tmp_path, name):
    reader = readers(name)

    # By a fixed seed: a failure is the same on all machines.
    @settings(
        max_examples=EXAMPLES[name],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def reads(data):
        damaged = data.draw(reader.damaged)
        problem = fails(reader, damaged, tmp_path)
        assert problem is None, f"{problem}; the bytes: {damaged[:300]!r}"

    reads()


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read(readers, tmp_path, name):
    reader = readers(name)
    reader.read(reader.valid, tmp_path)


@pytest.mark.parametrize(
    "path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_files_that_once_failed_are_read_or_refused_in_one_line(readers, tmp_path, path):
    assert fails(readers(path.parent.name), path.read_bytes(), tmp_path) is None
