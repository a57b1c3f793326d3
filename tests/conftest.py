"""Shared fixtures: where the micrographs are, and the network loaded once."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # processes side by side: more threads would wait for each other
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

# They take seconds of each run; their own tests switch them on.
os.environ.setdefault("HRVOL_REPORT", "0")
os.environ.setdefault("HRVOL_DRIFT", "0")

from multiprocessing import forkserver
from pathlib import Path

import dask
import pytest
from fault_data import ARRAYS, FORK, PRELOAD, Case, not_waited, progress_of
from run_data import QUICK, draw, make_volume

from hrvol.training.train import train_model

# Files that take a minute or more: started first, so that none is left alone at the end.
SLOW = (
    "test_prefect_flow",
    "test_snakefile",
    "test_sbatch",
    "test_slurm_itself",
    "test_faults_of_storage",
    "test_faults",
    "test_s3",
)


os.fsync = not_waited


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


@pytest.fixture(scope="session", autouse=True)
def imported_once():
    """Have the process that Dask workers are forked from import what all tests use."""
    # Not at the top: distributed sets up its logging when it is imported, and pytest has to be there first.
    from distributed.utils import get_mp_context

    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context()  # names what to import, to which ours is added
        FORK.set_forkserver_preload(PRELOAD)
        yield


@pytest.fixture
def own_forkserver(monkeypatch):
    """Fork workers from a process that starts with the test, as the first run of a Python process does."""
    server = forkserver._forkserver
    for name in ("address", "alive_fd", "pid"):
        monkeypatch.setattr(server, f"_forkserver_{name}", None)
    yield
    if server._forkserver_alive_fd is not None:
        os.close(server._forkserver_alive_fd)  # ends it


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
    from hrvol.features.deep.backbone import load_backbone

    return load_backbone("dinov2_vits14")


@pytest.fixture(scope="session")
def quick():
    return QUICK


@pytest.fixture(scope="session")
def data():
    image, truth = make_volume()
    return image, truth, draw(truth)


@pytest.fixture(scope="session")
def model(data, quick):
    image, _, strokes = data
    return train_model([(image, strokes)], recipe=quick, classes=["matrix", "disc"])


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file of random weights: what is found does not matter here, that it is found does."""
    from safetensors.torch import save_file

    from hrvol.features.deep.backbone import random_backbone

    file = tmp_path_factory.mktemp("weights") / "random.safetensors"
    state = random_backbone("dinov2_vits14").net.state_dict()
    save_file({name: values.contiguous() for name, values in state.items()}, file)
    return file


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    made = Case.make(tmp_path_factory.mktemp("case"))
    assert len(made.blocks) == 18
    assert set(ARRAYS) <= made.expected.keys()
    return made


@pytest.fixture(scope="module")
def unfinished(case):
    """An output that was stopped after 8 blocks, to be copied."""
    out = case.begin(case.folder / "unfinished.ome.zarr")
    assert 5 < progress_of(out)[0] < 10
    return out
