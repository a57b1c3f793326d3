"""Secrets of file systems come from the environment or a private file, and are shown nowhere."""

import json
import os

import pytest
import zarr
from click.testing import CliRunner

from hrvol.cli import main
from hrvol.errors import UsageError
from hrvol.volume.storage.location import Location
from hrvol.volume.storage.options import from_environment, merged, read_options, secrets_in

SECRET = "wJalrXUtnFEMI"


def private(path, text, mode=0o600):
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "text", [json.dumps({"secret": SECRET, "a": {"b": 3}}), f"secret: {SECRET}\na:\n  b: 3\n"]
)
def test_a_private_file_holds_json_or_yaml(tmp_path, text):
    assert read_options(private(tmp_path / "o", text)) == {"secret": SECRET, "a": {"b": 3}}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o666, 0o610])
def test_a_file_that_others_can_use_is_refused(tmp_path, mode):
    file = private(tmp_path / "o", f"secret: {SECRET}", mode)
    with pytest.raises(UsageError, match=f"found mode 0{mode:o}, expected 0600") as caught:
        read_options(file)
    assert SECRET not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_account_is_refused(tmp_path):
    file = private(tmp_path / "o", "a: 1")
    os.chown(file, 65534, 65534)
    with pytest.raises(UsageError, match="found a file of account 65534, expected your own"):
        read_options(file)


@pytest.mark.parametrize(
    "text",
    [f"secret: [{SECRET}", f"- {SECRET}", SECRET, f"{{1: {SECRET}}}", f"a: *{SECRET}", "\x00", "["]
    + [f"a: !!{kind} {SECRET}" for kind in ("bool", "timestamp", "int")],
)
def test_a_damaged_file_is_one_line_without_what_it_holds(tmp_path, text):
    with pytest.raises(UsageError) as caught:
        read_options(private(tmp_path / "o", text))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/o")
    assert SECRET not in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["nothing", ".", "pipe"])
def test_what_is_no_file_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UsageError, match="expected a JSON or YAML file"):
        read_options(tmp_path / name)


def test_values_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("BEAMLINE_SECRET", "123")
    options = {"secret": "env:BEAMLINE_SECRET", "client_kwargs": {"key": "env:BEAMLINE_SECRET"}, "anon": True}
    found = {"secret": "123", "client_kwargs": {"key": "123"}, "anon": True}
    assert from_environment(options) == found
    with pytest.raises(UsageError, match="option secret: found no environment variable NOWHERE"):
        from_environment({"secret": "env:NOWHERE"})


def test_the_command_line_overrides_a_file():
    file = {"a": 1, "client_kwargs": {"region_name": "eu", "verify": False}}
    given = {"client_kwargs": {"region_name": "us"}}
    assert merged(file, given) == {"a": 1, "client_kwargs": {"region_name": "us", "verify": False}}


def test_secrets_are_recognised_by_their_names():
    options = {"key": "1", "secret": "2", "client_kwargs": {"aws_session_token": "3"}, "password": "env:P"}
    assert list(secrets_in({**options, "keep_alive": "4", "endpoint_url": "5", "monkey": "6"})) == [
        "key",
        "secret",
        "aws_session_token",
    ]


def test_the_command_line_takes_both_and_warns_of_a_secret_in_it(tmp_path, monkeypatch):
    zarr.create_array(
        Location.of("memory://secrets/a.zarr").store(read_only=False), data=zarr.zeros((8, 8))[:]
    )
    monkeypatch.setenv("STORAGE_TOKEN", SECRET)
    file = private(tmp_path / "o", f'{{"secret": "{SECRET}"}}')
    quiet = ["--storage-options-file", str(file), "--storage-option", "token=env:STORAGE_TOKEN"]
    for options, warned in ((quiet, False), (["--storage-option", f"token={SECRET}"], True)):
        result = CliRunner().invoke(main, ["info", "memory://secrets/a.zarr", *options])
        assert result.exit_code == 0, result.output
        assert SECRET not in result.output
        assert ("warning: --storage-option token=..." in result.stderr) == warned
        assert len(result.stderr.splitlines()) == warned
    file.chmod(0o644)
    refused = CliRunner().invoke(main, ["info", "memory://secrets/a.zarr", *quiet])
    assert refused.exit_code == 2
    assert "expected 0600" in refused.stderr
