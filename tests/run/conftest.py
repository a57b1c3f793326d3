"""Fixtures of the run tests."""

import pytest
from fault_data import ARRAYS, Case, progress_of
from run_data import QUICK, draw, make_volume

from hrvol.run.pipeline import train_model


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

    from hrvol.features.backbone import random_backbone

    file = tmp_path_factory.mktemp("weights") / "random.safetensors"
    state = random_backbone("dinov2_vits14").net.state_dict()
    save_file({name: values.contiguous() for name, values in state.items()}, file)
    return file


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    made = Case.make(tmp_path_factory.mktemp("case"))
    assert len(made.blocks) == 36
    assert set(ARRAYS) <= made.expected.keys()
    return made


@pytest.fixture(scope="module")
def unfinished(case):
    """An output that was stopped after 14 blocks, to be copied."""
    out = case.begin(case.folder / "unfinished.ome.zarr")
    assert 10 < progress_of(out)[0] < 20
    return out
