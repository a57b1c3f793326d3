"""Network weights: sources, cache, verification and errors."""

import json
import multiprocessing
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from hrvol.cli import main
from hrvol.errors import WeightsError
from hrvol.features.deep.backbone import load_backbone, random_backbone
from hrvol.features.weights import registry as weights

CONVERTED = "2e8c00abee02cf1f2c3ed9b78ab698f5e05b9692d19ebdfd34baf69adb683ab8"


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path


@pytest.fixture(scope="module")
def state():
    return {key: value.clone() for key, value in random_backbone("dinov2_vits14").net.state_dict().items()}


def test_names_and_errors():
    names = [info.name for info in weights.list_weights()]
    assert {"dinov2_vits14", "dinov2_vitl14_reg", "dino_vits8", "deit_small_patch16", "dinov3_vits16"} <= set(
        names
    )
    with pytest.raises(WeightsError, match="'resnet50' are not known; expected one of dinov2_vits14,"):
        weights.fetch_weights("resnet50")


def test_an_offline_miss_names_every_place_and_the_remedy(empty_cache):
    with pytest.raises(WeightsError) as caught:
        weights.fetch_weights("dinov2_vits14", offline=True)
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        str(empty_cache / "cache"),
        "torch-hub cache",
        "Hugging Face",
        "hrvol weights fetch dinov2_vits14",
    ):
        assert part in message
    with pytest.raises(WeightsError, match="hrvol weights fetch dinov2_vits14"):
        weights.weights_path("dinov2_vits14")


def test_another_network_in_the_cache_is_one_line(empty_cache):
    file = empty_cache / "cache" / "weights" / "dinov2_vits14.safetensors"
    file.parent.mkdir(parents=True)
    other = {"cls_token": torch.zeros(1, 1, 768)}
    save_file(other, file)
    file.with_suffix(".json").write_text(json.dumps({"content_sha256": weights.content_sha256(other)}))
    with pytest.raises(WeightsError, match="holds another network") as caught:
        load_backbone("dinov2_vits14", offline=True)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_the_torch_hub_cache_is_used(empty_cache, state):
    folder = empty_cache / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save({**state, "mask_token": torch.zeros(1, 384)}, folder / "dinov2_vits14_pretrain.pth")
    file = weights.fetch_weights("dinov2_vits14", offline=True)
    assert file == weights.weights_path("dinov2_vits14")
    assert weights.content_sha256(load_file(file)) == weights.content_sha256(state)
    assert weights.verify_weights("dinov2_vits14") == weights.content_sha256(state)


def test_a_changed_or_truncated_cache_file_is_an_error(empty_cache, state, tmp_path):
    folder = weights.cache_dir()
    folder.mkdir(parents=True)
    file = folder / "dinov2_vits14.safetensors"
    save_file(state, file)
    file.with_suffix(".json").write_text(json.dumps({"content_sha256": weights.content_sha256(state)}))
    assert weights.verify_weights("dinov2_vits14") == weights.content_sha256(state)
    save_file({**state, "norm.bias": state["norm.bias"] + 1}, file)
    with pytest.raises(WeightsError, match=r"content SHA-256 is .* expected"):
        weights.verify_weights("dinov2_vits14")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        weights.load_verified("dinov2_vits14")


def test_a_users_file_is_checked_against_the_architecture(empty_cache, state):
    good = empty_cache / "good.safetensors"
    save_file(state, good)
    assert weights.fetch_weights("dinov2_vits14", path=good) == good
    for name, problem in (
        ("dino_vits8", r"patch_embed.proj.weight is \(384, 3, 14, 14\), expected shape \(384, 3, 8, 8\)"),
        ("dinov2_vitb14", "does not hold dinov2_vitb14"),
    ):
        with pytest.raises(WeightsError, match=problem):
            weights.fetch_weights(name, path=good)
    with pytest.raises(WeightsError, match="no such weights file"):
        weights.fetch_weights("dinov2_vits14", path=empty_cache / "absent.pth")
    for suffix in (".pth", ".safetensors", ".whl", ".onnx"):
        bad = empty_cache / f"bad{suffix}"
        bad.write_bytes(b"nonsense")
        with pytest.raises(WeightsError, match=f"bad{suffix}"):
            weights.fetch_weights("dinov2_vits14", path=bad)


def test_damaged_weights_are_named_not_used_and_fetched_again(empty_cache, state):
    folder = empty_cache / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / "dinov2_vits14_pretrain.pth")
    file = weights.fetch_weights("dinov2_vits14", offline=True)
    digest = weights.verify_weights("dinov2_vits14")
    data = bytearray(file.read_bytes())
    data[-5000:-1000] = bytes(4000)
    file.write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        load_backbone("dinov2_vits14", offline=True)
    message = str(caught.value)
    assert message.startswith(f"{file}: content SHA-256 is ")
    assert message.endswith(f"expected {digest}; run: hrvol weights fetch dinov2_vits14")
    assert file.read_bytes() == data
    # A record that is lost or damaged is no reason to trust the file.
    note = file.with_suffix(".json")
    for record in (None, "", "[]", '{"content_sha256": 3}', "[" * 100_000, "\0" * 200_000):
        note.unlink() if record is None else note.write_text(record)
        with pytest.raises(WeightsError, match=r"\.json: found no digest, .*run: hrvol weights fetch"):
            weights.load_verified("dinov2_vits14", offline=True)
    assert weights.fetch_weights("dinov2_vits14", offline=True) == file
    assert load_backbone("dinov2_vits14", offline=True).sha256 == digest


def test_damaged_weights_that_nothing_replaces_stay_and_are_named(empty_cache, state):
    file = weights.cache_file("dinov2_vits14")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"cache .*safetensors: damaged \(.*not a whole safetensors file"):
        weights.fetch_weights("dinov2_vits14", offline=True)
    assert file.read_bytes() == b"damaged"


def test_a_converted_file_that_was_damaged_is_converted_again(empty_cache, state):
    torch.save(state, empty_cache / "mine.pth")
    mine = weights.fetch_weights("dinov2_vits14", path=empty_cache / "mine.pth")
    whole = mine.read_bytes()
    mine.write_bytes(whole[:-4000] + bytes(4000))
    assert weights.fetch_weights("dinov2_vits14", path=empty_cache / "mine.pth") == mine
    assert mine.read_bytes() == whole


def test_other_users_may_read_the_cache(empty_cache, state):
    torch.save(state, empty_cache / "mine.pth")
    mask = os.umask(0o022)
    try:
        mine = weights.fetch_weights("dinov2_vits14", path=empty_cache / "mine.pth")
    finally:
        os.umask(mask)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (mine, mine.with_suffix(".json"), mine.parent)]
    assert modes == [0o644, 0o644, 0o755]


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (Harmful(), "found damaged data or objects other than tensors, expected the tensors of"),
        ({"a": {"b": 1}, 3: torch.zeros(2)}, "does not hold dinov2_vits14: cls_token is missing"),
        ({"patch_embed.proj.weight": "text"}, "does not hold dinov2_vits14"),
        ([1, 2], "not a readable weights file"),
        (torch.zeros(3), "not a readable weights file"),
    ],
)
def test_a_checkpoint_without_the_tensors_is_one_line_of_ours(empty_cache, content, problem, monkeypatch):
    monkeypatch.chdir(empty_cache)
    torch.save(content, empty_cache / "odd.pth")
    with pytest.raises(WeightsError, match=problem) as caught:
        weights.fetch_weights("dinov2_vits14", path=empty_cache / "odd.pth")
    assert str(caught.value).startswith(str(empty_cache / "odd.pth"))
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (empty_cache / "harmed").exists()


def test_a_compressed_checkpoint_is_refused(empty_cache):
    torch.save({"a": torch.zeros(10**6)}, empty_cache / "plain.pth")
    with (
        zipfile.ZipFile(empty_cache / "plain.pth") as plain,
        zipfile.ZipFile(empty_cache / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    with pytest.raises(WeightsError, match=r"bomb\.pth: found a compressed archive"):
        weights.fetch_weights("dinov2_vits14", path=empty_cache / "bomb.pth")


def _fetch(queue):
    queue.put(str(weights.fetch_weights("dinov2_vits14", offline=True)))


def test_two_processes_at_once_leave_one_whole_file(empty_cache, state):
    folder = empty_cache / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / "dinov2_vits14_pretrain.pth")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_fetch, args=(queue,)) for _ in range(2)]
    for process in processes:
        process.start()
    paths = {queue.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert paths == {str(weights.weights_path("dinov2_vits14"))}
    assert weights.verify_weights("dinov2_vits14") == weights.content_sha256(state)
    assert not list(weights.cache_dir().glob(".*.safetensors"))


def verify(*names):
    done = CliRunner().invoke(main, ["weights", "verify", *names])
    return done.exit_code, done.stdout.splitlines(), done.stderr


def test_the_command_verify_has_a_line_for_each_file(empty_cache, state):
    assert verify() == (0, [f"no weights in {weights.cache_dir()}"], "")
    code, lines, error = verify("dinov2_vits14")
    assert (code, lines) == (1, [])
    assert "are not in the cache" in error
    folder = weights.cache_dir()
    digest = weights.content_sha256(state)
    torch.save(state, empty_cache / "mine.pth")
    mine = weights.fetch_weights("dinov2_vits14", path=empty_cache / "mine.pth")
    (folder / ".dinov2_vits14.1a2b3c4d.safetensors").write_bytes(b"being written")  # by another process
    assert verify() == (0, [f"OK       {mine.stem}  SHA-256 {digest}"], "")
    file = folder / "dinov2_vits14.safetensors"
    save_file(state, file)
    code, lines, _ = verify()
    assert code == 1
    assert lines[0].startswith("problem  dinov2_vits14  ")
    assert lines[0].endswith(
        "found no digest, expected that of dinov2_vits14.safetensors; run: hrvol weights fetch dinov2_vits14"
    )
    assert lines[1:] == [f"OK       {mine.stem}  SHA-256 {digest}"]
    file.with_suffix(".json").write_text(json.dumps({"content_sha256": digest}))
    assert verify("dinov2_vits14") == (0, [f"OK       dinov2_vits14  SHA-256 {digest}"], "")
    file.write_bytes(file.read_bytes()[:1000])
    for names in ((), ("dinov2_vits14",)):
        code, lines, _ = verify(*names)
        assert (code, len(lines)) == (1, 1 if names else 2)
        assert lines[0].startswith(f"problem  dinov2_vits14  {file}: not a whole safetensors file")
    code, lines, error = verify("dinov2_vits15")
    assert (code, lines) == (1, [])
    assert "'dinov2_vits15' are not known; did you mean dinov2_vits14?" in error


@pytest.mark.weights
def test_the_real_weights_are_the_real_ones():
    assert weights.content_sha256(weights.load_verified("dinov2_vits14")[0]) == CONVERTED


def test_importing_weights_imports_no_torch():
    code = "import sys, hrvol.features.weights.registry; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parent).returncode == 0
    )


# Licences that must be accepted


def fetch(*options):
    done = CliRunner().invoke(main, ["weights", "fetch", *options])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def no_network(monkeypatch):
    """Have every look at the hub fail, and count them."""
    asked = []
    monkeypatch.setattr(weights, "_answers", lambda url: bool(asked.append(url)))
    return asked


def test_a_licence_is_accepted_before_a_download(empty_cache, no_network):
    code, out, error = fetch("dinov3_vits16plus")
    assert (code, out) == (1, "")
    shown, problem = error.splitlines()
    url = "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"
    assert shown == f"dinov3_vits16plus: DINOv3 licence, {url}"
    assert f"read the DINOv3 licence, {url}" in problem
    assert "hrvol weights fetch dinov3_vits16plus --accept-licence" in problem
    assert not no_network
    with pytest.raises(WeightsError, match="licence must be accepted"):
        load_backbone("dinov3_vits16plus")
    assert not no_network
    code, _, error = fetch("dinov3_vits16plus", "--accept-licence")
    assert code == 1
    assert "were not found; tried" in error
    assert len(no_network) == 1


def test_other_licences_are_shown_and_nothing_is_asked(empty_cache, no_network):
    for name, licence in (("dinosaw_vits14_alibi", "MIT"), ("dinov2_vitb14", "Apache-2.0")):
        _, _, error = fetch(name)
        assert error.startswith(f"{name}: {licence}\n")
        assert "were not found; tried" in error
    assert len(no_network) == 2


def test_weights_on_this_machine_were_accepted_elsewhere(empty_cache, no_network):
    state = random_backbone("dinov3_vits16").net.state_dict()
    folder = empty_cache / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / "dinov3_vits16_pretrain_lvd1689m-08c60483.pth")
    for options in (("--weights", str(folder / "dinov3_vits16_pretrain_lvd1689m-08c60483.pth")), ()):
        code, out, _ = fetch("dinov3_vits16", *options)
        assert code == 0
        note = json.loads(Path(out.strip()).with_suffix(".json").read_text())
        assert note["licence"] == "DINOv3 licence"
    assert not no_network


def test_the_list_shows_licences():
    lines = CliRunner().invoke(main, ["weights", "list"]).stdout.splitlines()
    assert any("dinov3_vitb16" in line and "DINOv3 licence" in line for line in lines)
    assert any("dinosaw_vits14_nope" in line and "MIT" in line for line in lines)
    assert "--accept-licence" in lines[-1]
    assert "https://ai.meta.com/" in lines[-1]
