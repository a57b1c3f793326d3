"""Text from files reaches the terminal escaped and whole; other libraries print nothing of their own."""

import json
import logging
import os
import threading
import unicodedata
import warnings
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
import zarr

from hrvol.cli import main
from hrvol.cli.common.output import echo, echo_json, echo_lines, news, quiet_libraries
from hrvol.cli.common.progress import BarDisplay, LineDisplay
from hrvol.run.ledger import sealed
from hrvol.segment.model.model import save_model
from hrvol.text import listed, printable

NAMES = ["\x1b[31mred", "a [/b]", "pore [red]", "a\u202eb", "two\nlines", "\x9b2J", "[link=x]y[/link]"]


def hidden(text):
    """Return the characters of a text that a terminal obeys or hides."""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return {letter for letter in text if unicodedata.category(letter) in kinds} - set("\r\n\t")


@pytest.fixture
def terminal(monkeypatch):
    """Return a function that runs a command on a terminal, and returns exit code and text."""
    monkeypatch.setenv("TERM", "dumb")  # rich itself sends no escapes there
    monkeypatch.setenv("COLUMNS", "150")

    def run(*words):
        keyboard, screen = os.openpty()
        text = bytearray()

        def read():
            try:
                while data := os.read(keyboard, 65536):
                    text.extend(data)
            except OSError:  # the last writer has gone
                pass

        reader = threading.Thread(target=read)
        reader.start()
        with os.fdopen(screen, "w") as stream, redirect_stdout(stream), redirect_stderr(stream):
            assert stream.isatty()
            with pytest.raises(SystemExit) as end:
                main([str(word) for word in words])
        reader.join()
        os.close(keyboard)
        return end.value.code, text.decode()

    return run


def shows(text, name):
    """Whether a text has a name, escaped where a terminal would obey it, on one line."""
    return printable(name) in text and not hidden(text)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Labels whose classes, axis units and arrays have odd names."""
    path = tmp_path_factory.mktemp("labels") / "labels [red].ome.zarr"
    group = zarr.open_group(path, mode="w")
    values = np.arange(3 * 40 * 30).reshape(3, 40, 30) % len(NAMES) + 1
    group.create_array("0", data=values.astype(np.uint8), chunks=(3, 40, 30))
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    properties = [{"label-value": n, "class": name} for n, name in enumerate(NAMES, start=1)]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}],
        "image-label": {"properties": properties},
    }
    return path


def test_class_names_of_labels_are_shown_escaped_and_whole(terminal, labels):
    for words in (("info", labels), ("evaluate", labels, labels)):
        code, text = terminal(*words)
        assert not hidden(text), words
        if code == 0:
            assert all(shows(text, name) for name in NAMES)
        else:  # such names may be refused, in one line that shows them
            assert text.count("hrvol: error: ") == 1


def test_json_has_the_names(labels, capsys):
    with pytest.raises(SystemExit) as end:
        main(["info", str(labels), "--json"])
    out = capsys.readouterr().out
    assert not hidden(out)
    if end.value.code == 0:
        assert set(json.loads(out)["classes"].values()) == set(map(printable, NAMES))  # escaped when read


@pytest.mark.parametrize("name", NAMES)
def test_a_model_s_sources_are_shown(terminal, model, tmp_path, name):
    file = tmp_path / f"model {name.replace('/', '|')}.hrvol"
    save_model(model, file)
    code, text = terminal("info", file)
    assert code == 0
    assert shows(text.replace("\r\n", " "), file.name)


@pytest.mark.parametrize("name", NAMES)
def test_messages_show_what_was_asked_for(terminal, tmp_path, name):
    for words in (
        ("info", tmp_path / name),
        ("status", tmp_path / name),
        (name,),
        ("info", "x", f"--{name}"),
    ):
        code, text = terminal(*words)
        assert code in (1, 2)
        assert not hidden(text)
        assert text.count("hrvol: error: ") == 1
        assert len(text.splitlines()) == 1
        if words[0] != "info" or words[1] != "x":  # a name of an option ends at "="
            assert printable(name) in text or printable(" ".join(name.split())) in text


def test_a_ledger_s_hosts_are_shown_escaped(terminal, labels, tmp_path):
    out = tmp_path / "out.ome.zarr"
    group = zarr.open_group(out, mode="w")
    group.create_group("ledger/main", attributes=sealed({"host": NAMES[0], "engine": NAMES[2], "state": "x"}))
    _, text = terminal("status", out)
    assert not hidden(text)


def test_recipes_show_their_keys_escaped(terminal, tmp_path):
    for name in NAMES:
        file = tmp_path / "recipe.yaml"
        file.write_text(f"{json.dumps(name)}: 1\n")
        code, text = terminal("recipe", "show", file)
        assert code == 2
        assert not hidden(text)
        file.write_text(f"features: {{deep: {{weights: {json.dumps(name)}}}}}\n")
        _, text = terminal("recipe", "show", file)
        assert not hidden(text)


def test_bars_and_lines_take_stages_as_they_are(capsys, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    for display in (BarDisplay, LineDisplay):
        for name in NAMES:
            with display() as progress:
                progress(name, 0, 10)
                progress(name, 10, 10)
        text = capsys.readouterr().err
        assert not hidden(text)
        if display is BarDisplay:
            assert all(printable(name) in text for name in NAMES)


def test_lines_are_escaped_one_by_one(capsys):
    echo("a\nb\x1b")
    echo_lines("a: \u202e1\nb: 2")
    assert capsys.readouterr().out == "a\\nb\\x1b\na: \\u202e1\nb: 2\n"


def test_json_has_no_numbers_that_json_lacks(capsys):
    echo_json({"scale": [float("inf"), float("nan"), 1.5]})
    assert json.loads(capsys.readouterr().out) == {"scale": [None, None, 1.5]}


def test_other_libraries_are_quiet(capsys):
    with quiet_libraries():
        logging.getLogger("tifffile").warning("invalid page offset")
        warnings.warn("overflow encountered", RuntimeWarning, stacklevel=1)
        logging.getLogger("hrvol.volume").warning("found a damaged record \x1b[31m")
        with news():
            logging.getLogger("hrvol").info("device: cpu")
    assert capsys.readouterr().err == "found a damaged record \\x1b[31m\ndevice: cpu\n"


def test_debugging_shows_everything(monkeypatch):
    monkeypatch.setenv("HRVOL_DEBUG", "1")
    with quiet_libraries(), pytest.warns(RuntimeWarning):
        warnings.warn("overflow encountered", RuntimeWarning, stacklevel=1)


def test_long_lists_are_shortened():
    assert listed("abc") == "a, b, c"
    assert listed([f"array_{n}" for n in range(300)], 2) == "array_0, array_1 and 298 more"
    assert not hidden(listed(NAMES))
