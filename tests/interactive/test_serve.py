"""Draw on a volume of a server in another process, through a network that is slow and is cut."""

import json
import os
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress

import httpx
import numpy as np
import pytest
import tifffile
from run_data import QUICK, draw, make_volume
from serve_data import TOKEN, Proxy, ServerProcess

import hrvol
from hrvol.classes import default_classes
from hrvol.errors import BusyError, InputError, RecipeError, ServerError, StrokesError, UsageError
from hrvol.interactive.serve.pen import DetachedError, Pen
from hrvol.interactive.serve.token import kept_token
from hrvol.interactive.wire.frame import Frame
from hrvol.interactive.wire.limits import REQUEST_BYTES
from hrvol.segment.model.model import model_bytes
from hrvol.volume.drawing_store.store import DrawingStore
from hrvol.volume.volume import open_volume

SHAPE = (4, 120, 100)
WAIT = 60
CLIENT = "a" * 32


@pytest.fixture(scope="module")
def scene():
    return make_volume(shape=SHAPE)


@pytest.fixture
def folder(tmp_path, scene, monkeypatch):
    monkeypatch.setenv("HRVOL_CACHE_DIR", str(tmp_path / "cache"))
    tifffile.imwrite(tmp_path / "grey.tif", scene[0])
    (tmp_path / "quick.yaml").write_text(QUICK.to_yaml())
    return tmp_path


@pytest.fixture
def server(folder):
    process = ServerProcess(folder, folder / "grey.tif", "--strokes", folder / "drawn.ome.zarr")
    yield process
    process.close()
    assert "Traceback" not in process.output()


@pytest.fixture
def network(server):
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


def paint(drawing, truth, planes=(0, 2), classes=(1, 2), size=60):
    """Draw many small strokes, and return what is drawn."""
    drawn = draw(truth, planes)
    for value in classes:
        where = np.nonzero(drawn == value)
        for i in range(0, len(where[0]), size):
            drawing.paint(tuple(axis[i : i + size] for axis in where), value)
    return drawn


def stored(folder):
    with DrawingStore.open(folder / "drawn.ome.zarr") as store:
        return np.asarray(store.array()), store.classes


def test_what_is_drawn_survives_a_network_that_is_cut(server, folder, scene):
    image, truth = scene
    network = Proxy(server.port, cuts=(9, 15))
    with hrvol.connect(network.url, token_file=server.token_file) as connection:
        np.testing.assert_array_equal(connection.volume.read(), image)
        drawing = connection.drawing
        drawn = paint(drawing, truth)
        with drawing.stroke():
            drawing.paint((slice(1, 2), slice(5, 9), slice(5, 9)), 2)
            drawing.paint((slice(1, 2), slice(7, 12), slice(7, 12)), 1)
        drawing.undo()
        extra = drawing.add_class("extra", (1, 2, 3))
        drawing.paint((slice(3, 4), slice(0, 4), slice(0, 4)), extra)
        drawing.merge_classes(extra, 2)
        drawing.rename_class(1, "matrix")
        drawing.undo()
        drawing.redo()
        drawn[3, :4, :4] = 2
        np.testing.assert_array_equal(np.asarray(drawing.array()), drawn)
        session = connection.session(folder / "quick.yaml")
        session.view(0, slice(0, 120), slice(0, 100))
        preview = session.update().result(WAIT)
        assert preview.exact
        assert preview.version == drawing.version
        assert (preview.labels == truth[0]).mean() > 0.9
        np.testing.assert_allclose(preview.probabilities.sum(axis=0), 1, atol=1e-5)
        model = session.model_bytes()
        assert session.quality().classes[0].name == "matrix"
        assert len(session.next_places(2, "volume")) == 2
    assert network.cut_count == 2
    network.close()
    assert server.stop() == 75
    found, classes = stored(folder)
    np.testing.assert_array_equal(found, drawn)
    assert [info.name for info in classes] == ["matrix", "class 2"]
    local = hrvol.train_model([(folder / "grey.tif", folder / "drawn.ome.zarr")], recipe=QUICK)
    assert model == model_bytes(local)


def test_each_change_is_made_once(tmp_path, scene):
    volume = open_volume(scene[0])
    with (
        DrawingStore.create(tmp_path / "a.ome.zarr", volume, default_classes((1, 2))) as source,
        DrawingStore.create(tmp_path / "b.ome.zarr", volume, default_classes((1, 2))) as store,
    ):
        changes = []
        source._keeper.record = lambda records, table: changes.append(tuple(records))
        for value, at in ((1, 3), (2, 5), (0, 4)):
            source.paint((slice(0, 1), slice(at, at + 4), slice(0, 9)), value)
        pen = Pen(store)
        lineage, received = pen.attach(CLIENT, 0)
        assert received == 0
        assert pen.draw(CLIENT, lineage, 1, changes[:2]) == 2
        assert pen.draw(CLIENT, lineage, 1, changes) == 3  # the receipt of the first two was lost
        assert store.version == 3
        np.testing.assert_array_equal(np.asarray(store.array()), np.asarray(source.array()))
        assert store.counts().planes == source.counts().planes
        with pytest.raises(DetachedError):
            pen.draw(CLIENT, lineage, 5, changes[:1])  # the fourth is missing
        with pytest.raises(StrokesError, match="damaged"):
            pen.draw(CLIENT, lineage, 4, [(b"\0\0\0\0garbage",)])
        with pytest.raises(BusyError):
            pen.attach("b" * 32, 0)
        pen.release(CLIENT)
        other, _ = pen.attach("b" * 32, 7)
        assert other != lineage
        with pytest.raises(DetachedError):
            pen.draw(CLIENT, lineage, 4, changes[:1])
        assert pen.received("b" * 32) == 7
        # A server that started again knows nobody: the same changes once more are the same strokes.
        again = Pen(store)
        lineage, _ = again.attach(CLIENT, 1)
        again.draw(CLIENT, lineage, 2, changes[1:])
        np.testing.assert_array_equal(np.asarray(store.array()), np.asarray(source.array()))
        source._keeper.record = lambda records, table: None


def test_a_server_that_is_killed_and_started_again(server, network, folder, scene):
    _, truth = scene
    with hrvol.connect(network.url, TOKEN) as connection:
        drawing, changes = connection.drawing, []
        forget = drawing.subscribe(changes.append)
        session = connection.session(folder / "quick.yaml")
        session.view(0, slice(0, 120), slice(0, 100))
        drawn = paint(drawing, truth, planes=(0,))
        server.kill()
        drawn += paint(drawing, truth, planes=(2,))  # while there is no server
        drawing.rename_class(2, "disc")
        with pytest.raises(StrokesError):
            drawing.rename_class(1, "disc")  # errors do not wait for a server
        ticket = session.update()
        server.start()
        assert ticket.result(WAIT).exact
        drawing.flush()
        np.testing.assert_array_equal(np.asarray(drawing.array()), drawn)
        assert "reload" in [change.kind for change in changes]
        assert drawing.undo().classes
        forget()
    server.stop()
    found, classes = stored(folder)
    np.testing.assert_array_equal(found, drawn)
    assert [info.name for info in classes] == ["class 1", "class 2"]


def test_strokes_wait_on_this_machine_for_the_next_connection(server, folder, scene):
    _, truth = scene
    connection = hrvol.connect(f"http://127.0.0.1:{server.port}", TOKEN)
    server.kill()
    drawn = paint(connection.drawing, truth)
    with pytest.raises(ServerError, match="the next connection sends them"):
        connection.close()
    server.start()
    with hrvol.connect(f"http://127.0.0.1:{server.port}", TOKEN) as connection:
        np.testing.assert_array_equal(np.asarray(connection.drawing.array()), drawn)
    assert not list((folder / "cache" / "remote").glob("*.changes"))
    server.stop()
    np.testing.assert_array_equal(stored(folder)[0], drawn)


def test_one_client_draws_at_a_time_and_the_next_one_sees_all(server, folder):
    url = f"http://127.0.0.1:{server.port}"
    with hrvol.connect(url, TOKEN) as first:
        first.drawing.paint((slice(0, 1), slice(2, 5), slice(2, 5)), 1)
        with pytest.raises(BusyError, match="another client"):
            hrvol.connect(url, TOKEN)
    with hrvol.connect(url, TOKEN) as second:
        assert second.drawing.counts().planes == {1: {0: 9}}
        with pytest.raises(RecipeError, match="no such preset"):
            second.session("quickest")
        (folder / "bad.yaml").write_text("features: {kind: none}\n")
        with pytest.raises(RecipeError):
            second.session(folder / "bad.yaml")
        session = second.session(folder / "quick.yaml")
        with pytest.raises(UsageError, match="expected pixels of a volume"):
            session.view(9, slice(0, 10), slice(0, 10))
        session.view(0, slice(0, 50), slice(0, 50))
        lines = []
        session.on_error(lines.append)
        with pytest.raises(StrokesError, match="found 1 classes drawn, expected strokes of at least two"):
            session.update().result(WAIT)
        end = time.monotonic() + 10
        while not lines and time.monotonic() < end:
            time.sleep(0.01)
        assert lines[0].endswith("found 1 classes drawn, expected strokes of at least two")


def test_what_is_not_allowed_is_refused_by_one_line(server):
    url = f"http://127.0.0.1:{server.port}"
    good = {"authorization": f"Bearer {TOKEN}", "x-hrvol-client": CLIENT}
    with httpx.Client(base_url=url, trust_env=False) as client:

        def refused(status, *request, headers=good, **body):
            answer = client.request(*request, headers=headers, **body)
            assert answer.status_code == status
            found = answer.json()
            assert set(found) <= {"error", "message", "received"}
            assert "\n" not in found["message"]
            return found["message"]

        for token in ("", "Bearer", "Bearer " + "x" * 43, f"Basic {TOKEN}", f"Bearer {TOKEN}x"):
            assert "token" in refused(401, "GET", "/v1/volume", headers={"authorization": token})
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", "10.0.0.1"):
            assert "host" in refused(421, "GET", "/v1/volume", headers=good | {"host": host})
        assert client.get("/v1/volume", headers=good | {"host": "localhost:1"}).status_code == 200
        assert "more bytes" in refused(413, "POST", "/v1/strokes", content=bytes(REQUEST_BYTES + 1))
        parts = (b"x" * 2**20 for _ in range(REQUEST_BYTES // 2**20 + 1))
        assert "more bytes" in refused(413, "POST", "/v1/strokes", content=parts)
        refused(404, "GET", "/v1/nothing")
        refused(405, "DELETE", "/v1/volume")
        for box in ("", "0,1", "0,1,0,9,0,x", "0,1,0,9,9,0", "0,9,0,9,0,9", "0,1,0,9,0,-9", "1" * 300):
            refused(400, "GET", "/v1/voxels", params={"level": "0", "box": box})
        refused(400, "GET", "/v1/voxels", params={"level": "7", "box": "0,1,0,9,0,9"})
        assert client.get("/v1/events?after=0", headers=good).status_code == 409  # draws nothing
        refused(400, "POST", "/v1/attach", content=b"{")
        refused(400, "POST", "/v1/attach", content=b'{"received": -1}')
        lineage = client.post("/v1/attach", headers=good, json={"received": 0}).json()["lineage"]
        draws = good | {"x-hrvol-lineage": lineage}
        records = {"records": np.frombuffer(b"\0\0\0\0garbage", np.uint8)}
        for body in (
            b"garbage",
            b"hrvW\xff\xff\xff\xff",
            Frame({"first": 1, "changes": [[5]]}).encode(),
            Frame({"first": 1, "changes": [[11]]}, records).encode(),
            Frame({"first": 1, "changes": [[4]]}, records).encode(),
            Frame({"first": 1, "changes": "x"}, records).encode(),
        ):
            refused(400, "POST", "/v1/strokes", headers=draws, content=body)
        for wanted in (
            b"[]",
            b"{",
            json.dumps({"view": {"plane": -1}}).encode(),
            b'{"asks": [{"kind": "x"}]}',
        ):
            refused(400, "PUT", "/v1/wanted", headers=draws, content=wanted)
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert raw.recv(1000).startswith(b"HTTP/1.1 400")
    with pytest.raises(UsageError, match="wrong token"):
        hrvol.connect(url, "y" * 43)
    for other in (
        "http://10.0.0.1:80",
        "https://127.0.0.1:80",
        "http://evil.example:1",
        "http://127.0.0.1",
        "x",
    ):
        with pytest.raises(UsageError, match="expected http://127"):
            hrvol.connect(other, TOKEN)
    assert len(server.output().splitlines()) < 60


def test_the_token_is_for_its_owner_only(tmp_path):
    path = tmp_path / "token"
    token = kept_token(path)
    assert len(token) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kept_token(path) == token
    path.chmod(0o644)
    with pytest.raises(InputError, match="expected 0600"):
        kept_token(path)
    with pytest.raises(InputError, match="expected 0600"):
        hrvol.connect("http://127.0.0.1:1", token_file=path)
    with pytest.raises(InputError, match="found no token") as caught:
        hrvol.connect("http://127.0.0.1:1", "short secret")
    assert "secret" not in str(caught.value)
    with pytest.raises(ServerError, match="cannot be reached"):
        hrvol.connect("http://127.0.0.1:1", token)


def test_frames_hold_what_was_packed_and_nothing_damaged():
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.random((3, 4, 5), np.float32),
        "b": rng.integers(0, 9, (7, 1)).astype(np.uint16),
        "c": np.zeros((0, 4), np.int64),
        "d": np.asfortranarray(rng.random((4, 6))),
    }
    data = Frame({"n": 1, "text": "é"}, arrays).encode()
    found = Frame.decode(data, "x", 10_000)
    assert found.values == {"n": 1, "text": "é"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
    with pytest.raises(InputError, match="more than"):
        Frame.decode(data, "x", 100)
    for size in range(len(data)):
        with pytest.raises(InputError):
            Frame.decode(data[:size], "x", 10_000)
    for i in range(len(data)):
        for flip in (1, 128):
            damaged = bytearray(data)
            damaged[i] ^= flip
            with suppress(InputError):
                Frame.decode(bytes(damaged), "x", 10_000)
    huge = Frame({}, {"a": np.zeros(2**20)}).encode().replace(b"1048576", b"9048576")
    with pytest.raises(InputError):
        Frame.decode(huge, "x", 2**30)


def test_a_client_imports_nothing_heavy():
    code = (
        "import sys, hrvol; hrvol.connect\n"
        "heavy = {'torch', 'sklearn', 'dask', 'zarr', 'scipy', 'skimage', 'timm', 'tifffile', 'starlette'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("none.tif",), "none.tif"),
        (("grey.tif", "--recipe", "quickest"), "no such recipe file or preset"),
        (("grey.tif", "--token-file", "open-token"), "expected 0600"),
        (("grey.tif", "--port", "{port}"), "cannot be used"),
    ],
)
def test_serving_fails_with_one_line(folder, monkeypatch, capsys, arguments, line):
    from hrvol.cli import main

    monkeypatch.chdir(folder)
    (folder / "open-token").write_text("x" * 40)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        main(["serve", *(part.format(port=taken.getsockname()[1]) for part in arguments)])
    assert ended.value.code in (1, 2)
    captured = capsys.readouterr()
    (error,) = captured.err.splitlines()
    assert line in error
