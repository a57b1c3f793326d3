"""Voxels become channels and return as in the network itself, and probabilities are the network's."""

import numpy as np
import pytest
import torch
from student_data import CUBIC, FLAT, KINDS, MIXED, random_network, student

from hrvol.arrays import softmax
from hrvol.segment.student.layout import by_class, gathered, placed
from hrvol.segment.student.network import folded
from hrvol.segment.student.normalise import network_input
from hrvol.segment.student.runner import StudentRunner
from hrvol.segment.student.shapes import array_shapes
from hrvol.segment.student.spec import SIZES, StudentSpec

UNPACKED = StudentSpec(
    widths=(4,), stem=(1, 1, 1), pools=(), depth_kernels=(1,), normalisation="none", decoder_convolutions=2
)
WIDE = StudentSpec(widths=(4,), stem=(1, 4, 4), pools=(), depth_kernels=(1,), encoder_convolutions=3)
ALONE = FLAT.model_copy(update={"normalisation": "alone"})


@pytest.mark.parametrize("spec", [FLAT, CUBIC, MIXED, UNPACKED, WIDE], ids=repr)
def test_channels_are_those_of_the_network(spec):
    network = random_network(spec)
    z, y, x = (side * around for side, around in zip((4, 12, 8), spec.stem, strict=True))
    channels = torch.rand(2, z, y, x)
    source = channels[None] if spec.is_3d else channels.transpose(0, 1)
    expected = network.gather(source)
    found = torch.from_numpy(gathered(list(channels.numpy()), spec.stem))
    found = found.permute(3, 0, 1, 2)[None] if spec.is_3d else found.permute(0, 3, 1, 2)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("spec", [FLAT, CUBIC, MIXED, UNPACKED, WIDE], ids=repr)
def test_voxels_return_to_their_places(spec, kind):
    cells = int(np.prod(spec.stem))
    head = np.random.default_rng(0).random((2, 6, 5, 3 * cells), np.float32) * 200
    as_torch = torch.from_numpy(head.astype(kind))
    source = as_torch.permute(3, 0, 1, 2)[None] if spec.is_3d else as_torch.permute(0, 3, 1, 2)
    expected = random_network(spec).scatter(source)
    planes = by_class(head, 3)
    assert planes.shape == (3, 2, 6, 5, cells)
    found = placed(planes.astype(kind), spec.stem)
    expected = expected[0] if spec.is_3d else expected.transpose(0, 1)
    np.testing.assert_array_equal(found, expected.numpy())
    np.testing.assert_array_equal(placed(planes[1].astype(kind), spec.stem), found[1])


@pytest.mark.parametrize("spec", [*KINDS.values(), UNPACKED, WIDE, ALONE], ids=repr)
def test_probabilities_are_those_of_the_network(spec):
    taught = student(spec, temperature=2.0)
    runner = StudentRunner(taught)
    cell = (8, 64, 64) if spec.is_3d else (1, 64, 64)
    window = [side + 2 * around for side, around in zip(cell, spec.halo, strict=True)]
    grey = np.random.default_rng(0).random(window, np.float32)
    found = runner.probabilities(grey)
    with torch.inference_mode():
        logits = runner.logits(torch.from_numpy(grey))
    expected = torch.softmax(logits, 0).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    cold = StudentRunner(student(spec)).logits(torch.from_numpy(grey)).detach()
    torch.testing.assert_close(logits, cold / 2, rtol=1e-4, atol=1e-4)
    assert found.argmax(0).std() > 0


@pytest.mark.parametrize("spec", [*SIZES.values(), UNPACKED, WIDE, *KINDS.values()], ids=repr)
def test_shapes_are_known_without_torch(spec):
    for classes in (1, 4):
        expected = folded(random_network(spec, classes)).state_dict()
        assert array_shapes(spec, classes) == {name: tuple(v.shape) for name, v in expected.items()}


def test_a_box_filter_is_the_mean_of_neighbours():
    grey = torch.rand(1, 1, 80, 72)
    pools = torch.nn.functional.avg_pool2d(grey, 4)
    box = torch.nn.functional.avg_pool2d(pools, 9, 1)
    from hrvol.segment.student.normalise import _box

    torch.testing.assert_close(_box(_box(pools, -1), -2), box, rtol=1e-5, atol=1e-6)
    assert network_input(grey, "none", 4).shape == (1, 1, 72, 64)


def test_probabilities_of_scores_add_up_to_one():
    scores = np.array([[300.0, -1e4, 0.0], [0.0, -1e4, 0.0]], np.float32)
    np.testing.assert_array_equal(softmax(scores), [[1, 0.5, 0.5], [0, 0.5, 0.5]])
