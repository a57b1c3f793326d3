"""Small students with random weights, of planes and of volumes, as models."""

from dataclasses import replace

import numpy as np
import torch

from hrvol.classes import default_classes
from hrvol.recipe.recipe import Recipe
from hrvol.segment.model.model import Model
from hrvol.segment.student.network import StudentNetwork, folded, network_arrays
from hrvol.segment.student.runner import StudentRunner
from hrvol.segment.student.spec import StudentSpec
from hrvol.segment.student.student import StudentClassifier, channel_names

FLAT = StudentSpec(widths=(4, 8), pools=((1, 2, 2),), depth_kernels=(1, 1))
BESIDE = StudentSpec(widths=(4, 8), pools=((1, 2, 2),), depth_kernels=(1, 1), planes=3)
MIXED = StudentSpec(widths=(4, 6), pools=((1, 2, 2),), depth_kernels=(3, 3))
CUBIC = StudentSpec(widths=(4, 6), stem=(2, 2, 2), pools=((2, 2, 2),), depth_kernels=(3, 3))
SPECS = (FLAT, BESIDE, MIXED, CUBIC)
KINDS = {"2D": FLAT, "2.5D": BESIDE, "3D": MIXED, "3D of cubes": CUBIC}


def random_network(spec, classes=3):
    """Return a network whose batch norms are no identities."""
    torch.manual_seed(0)
    network = StudentNetwork(spec, classes)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


def student(spec, classes=(1, 2, 3), **properties):
    """Return a student whose classes depend on the image, and not on the place in a cell of the stem."""
    network = random_network(spec, len(classes))
    weight = network.head.weight.detach()
    cells = len(weight) // len(classes)
    weight.copy_(weight.unflatten(0, (-1, cells)).mean(1).repeat_interleave(cells, 0) * 100)
    arrays = network_arrays(folded(network))
    arrays["head.bias"] = np.zeros_like(arrays["head.bias"])
    cell = (8 if spec.is_3d else 1, 64, 64)
    window = grey([side + 2 * around for side, around in zip(cell, spec.halo, strict=True)])
    runner = StudentRunner(StudentClassifier(spec, tuple(classes), arrays))
    with torch.inference_mode():
        typical = runner.logits(torch.from_numpy(window / np.float32(255))).mean((1, 2, 3))
    arrays["head.bias"] = -np.repeat(typical.numpy(), cells)
    return StudentClassifier(spec, tuple(classes), arrays, **properties)


def student_model(spec=FLAT, classes=(1, 2, 3), **properties):
    """Return a model; properties are those of the student."""
    return Model(
        recipe=Recipe(),
        classes=default_classes(classes),
        window=(0.0, 255.0),
        classifier=student(spec, classes, **properties),
        weights_sha256=None,
        channels=channel_names(spec),
    )


def taught(model, **values):
    """Return a model whose student was taught something else."""
    return replace(model, classifier=replace(model.classifier, taught=values))


def grey(shape, seed=0):
    """Return a volume of smooth noise, uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.random([-(-side // 4) + 1 for side in shape])
    fine = coarse
    for axis, side in enumerate(shape):
        fine = np.take(np.repeat(fine, 4, axis), range(side), axis)
    return (255 * (0.7 * fine + 0.3 * rng.random(shape))).astype(np.uint8)
