"""Models of the networks that recipes may name, with random weights: trained, and the phantom segmented."""

import numpy as np
import pytest
import zarr
from safetensors.torch import save_file

from hrvol.features.deep.backbone import random_backbone
from hrvol.phantom import draw_strokes, make_phantom
from hrvol.recipe.recipe import PRESETS
from hrvol.run.segment import segment_volume
from hrvol.training.train import train_model

PRESET = {"dinov3": "dinov3", "dinosaw": "dino-saw"}

NETWORKS = (
    *("dinov3_vits16", "dinov3_vits16plus", "dinov3_vitb16"),
    *("dinosaw_vits14_alibi", "dinosaw_vits14_nope"),
)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom((2, 112, 112))


def random_weights(folder, name):
    file = folder / f"{name}.safetensors"
    state = random_backbone(name).net.state_dict()
    save_file({key: values.contiguous() for key, values in state.items()}, file)
    return file


@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_of_random_weights_segments_the_phantom(name, phantom, tmp_path):
    file = random_weights(tmp_path, name)
    recipe = PRESETS[PRESET[name.split("_")[0]]].with_(
        **{"features.kind": "deep", "features.deep.weights": name, "features.deep.block": 2}
    )
    strokes = draw_strokes(phantom.labels, [0])
    model = train_model([(phantom.image, strokes)], recipe=recipe, weights_path=file, backend="torch")
    assert model.recipe.features.deep.weights == name
    assert not segment_volume(phantom.image, tmp_path / "out", model, weights_path=file).failed
    found = zarr.open_group(tmp_path / "out")["labels/hrvol/0"][1]  # a plane without strokes
    truth = phantom.labels[1]
    # Deep features alone, of random projections of patches: better than the commonest class everywhere.
    assert np.mean(found == truth) > np.bincount(truth.ravel()).max() / truth.size + 0.05
