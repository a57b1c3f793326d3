"""Standard streams that are closed, full or broken change neither what a command does nor its exit code."""

import io
import os
import subprocess
import sys

import pytest
from fault_data import FORK, Case, is_whole, not_waited

from hrvol.cli.common.streams import SafeStream, safe_streams

STREAMS = ("closed", "full", "broken", "not for writing")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return Case.make(tmp_path_factory.mktemp("small"), shape=(1, 120, 88))


def broken(kind):
    """Return a handle that cannot be written to, or ``None`` for none."""
    if kind == "broken":
        reader, writer = os.pipe()
        os.close(reader)
        return writer
    names = {"full": ("/dev/full", os.O_WRONLY), "not for writing": ("/dev/null", os.O_RDONLY)}
    return os.open(*names[kind]) if kind in names else None


def _command(words, kind, numbers):
    os.setsid()
    os.fsync = not_waited
    os.closerange(0, 3)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    for number in numbers:
        handle = broken(kind)
        if handle is None:
            os.close(number)
        else:
            os.dup2(handle, number)
    # As Python itself does when it starts.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115
        except OSError:
            stream = None
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    from hrvol.__main__ import main

    sys.argv = ["hrvol", *words]
    main()


def exit_code(words, kind, numbers=(1, 2)):
    process = FORK.Process(target=_command, args=(list(map(str, words)), kind, numbers), daemon=False)
    process.start()
    process.join(60)
    process.kill()
    return process.exitcode


@pytest.mark.parametrize("kind", STREAMS)
def test_a_run_does_not_depend_on_its_streams(small, tmp_path, kind):
    out = tmp_path / "out.ome.zarr"
    assert exit_code(small.command(out), kind, (0, 1, 2) if kind == "closed" else (1, 2)) == 0
    is_whole(out, small)
    assert exit_code(["segment", tmp_path / "nothing", out, "-m", small.model], kind) == 1
    assert exit_code(["nonsense"], kind) == 2


def test_the_program_itself_runs_without_any_stream(small):
    words = [sys.executable, "-m", "hrvol", "info", str(small.model)]
    done = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-; echo $?', "sh", *words], capture_output=True)
    assert (done.stdout, done.stderr) == (b"0\n", b"")
    script = '"$@" | head -1; "$@" > /dev/full; echo $?; PYTHONIOENCODING=ascii LC_ALL=C "$@" | wc -l'
    done = subprocess.run(["bash", "-c", script, "sh", *words], capture_output=True, text=True)
    first, code, lines = done.stdout.splitlines()
    assert (first.split(), code, int(lines) > 3) == (["kind", "model"], "0", True)
    assert done.stderr == "hrvol: standard output cannot be written: No space left on device\n"


def test_a_stream_writes_letters_that_its_encoding_lacks():
    data = io.BytesIO()
    stream = SafeStream(io.TextIOWrapper(data, encoding="ascii"))
    stream.write("5 µm")
    stream.writelines(["é", "\n"])
    stream.flush()
    assert data.getvalue() == b"5 \\xb5m\\xe9\n"
    assert stream.error is None


def test_what_a_full_disk_refused_is_written_later():
    refuses = [True]

    class Disk(io.RawIOBase):
        written = b""

        def writable(self):
            return True

        def write(self, data):
            if refuses[0]:
                raise OSError(28, "No space left on device")
            Disk.written += bytes(data)
            return len(data)

    stream = SafeStream(io.TextIOWrapper(io.BufferedWriter(Disk()), encoding="utf-8"))
    stream.write("a\n")
    stream.flush()
    refuses[0] = False
    stream.write("b\n")
    stream.flush()
    assert Disk.written == b"a\nb\n"
    assert stream.error.errno == 28


def test_streams_are_restored():
    before = sys.stdin, sys.stdout, sys.stderr
    with safe_streams():
        assert sys.stdout is not before[1]
        print("text", end="")
    assert (sys.stdin, sys.stdout, sys.stderr) == before
