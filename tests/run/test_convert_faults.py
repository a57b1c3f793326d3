"""Conversions that are killed, damaged, or given odd values: nothing is lost, and nothing is claimed."""

import os
import signal

import numpy as np
import pytest
import tifffile
import yaml
import zarr
from PIL import Image

from hrvol import convert_volume, open_volume, run_status
from hrvol.errors import BlockError, InputError, OutputExistsError
from hrvol.run import cache_choice
from hrvol.run.convert.convert_volume import _forget_ledger
from hrvol.run.ledger import LEDGER, Ledger
from hrvol.series.run_series import run_series
from hrvol.volume.cache_plan import plan_cache
from hrvol.volume.ome.pyramid import mean_reduce
from hrvol.volume.storage.location import Location

SMALL = {"chunks": (4, 16, 16), "shards": (8, 32, 32)}

VERSIONS = pytest.mark.parametrize("version", ["0.5", "0.4"])


@pytest.fixture
def source(tmp_path):
    values = np.random.default_rng(0).integers(0, 60_000, (9, 300, 40)).astype("u2")
    np.save(tmp_path / "a.npy", values)
    return tmp_path / "a.npy"


def tree(folder):
    """Return the bytes of all files in a folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def spoil(out):
    array = zarr.open_array(out / "0", mode="r+")
    array[8, 40, 30] = array[8, 40, 30] + 1


def killed_in(wanted, convert):
    """Convert in a process that is killed when it reports a stage."""

    def kill(stage, done, total):
        if stage == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            convert(progress=kill)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@VERSIONS
def test_a_complete_image_that_differs_from_its_source_is_kept(tmp_path, source, version):
    out, given = tmp_path / "a.ome.zarr", {"ome_zarr": version, **SMALL}
    convert_volume(source, out, **given)
    spoil(out)
    before = tree(out)
    with pytest.raises(BlockError, match=r"found 1 of 40 blocks that differ .* \(--fresh starts over\)"):
        convert_volume(source, out, verify=True, **given)
    assert tree(out) == before


@VERSIONS
def test_blocks_that_differ_are_written_again_and_meanwhile_there_is_no_image(tmp_path, source, version):
    out, given = tmp_path / "a.ome.zarr", {"ome_zarr": version, "verify": True, **SMALL}
    convert_volume(source, tmp_path / "whole/a.ome.zarr", **given)

    def damage(stage, done, total):
        if stage == "verify" and not done:
            spoil(out)

    with pytest.raises(BlockError, match=r"found 1 of 40 blocks that differ .*run the same command"):
        convert_volume(source, out, progress=damage, **given)
    assert set(zarr.open_group(out, mode="r").attrs) == {"hrvol"}
    with pytest.raises(InputError, match="unfinished conversion"):
        open_volume(out)
    with pytest.raises(InputError, match="unfinished conversion"):
        open_volume(out / "0")
    assert convert_volume(source, out, **given).verified == 40
    assert tree(out) == tree(tmp_path / "whole/a.ome.zarr")


@VERSIONS
@pytest.mark.parametrize("verify", [False, True])
def test_a_comparison_that_was_killed_is_done_by_the_next_run(tmp_path, source, version, verify):
    out, given = tmp_path / "a.ome.zarr", {"ome_zarr": version, **SMALL}
    killed_in("verify", lambda progress: convert_volume(source, out, verify=True, progress=progress, **given))
    assert run_status(out)["state"] == "complete"
    assert (out / LEDGER).exists()
    if verify:
        spoil(out)
    report = convert_volume(source, out, verify=verify, **given)
    assert (report.complete, report.verified) == (True, 40 * verify)
    assert not (out / LEDGER).exists()
    np.testing.assert_array_equal(open_volume(out).read(), np.load(source))


def test_a_part_that_starts_while_the_last_one_ends_leaves_the_image_complete(tmp_path, source, monkeypatch):
    out = tmp_path / "a.ome.zarr"
    convert_volume(source, out, part=(1, 2), **SMALL)
    enter, late = Ledger.__enter__, []

    def after_the_other_part(ledger):
        if not late:
            late.append(True)
            assert convert_volume(source, out, part=(2, 2), **SMALL).complete
        return enter(ledger)

    monkeypatch.setattr(Ledger, "__enter__", after_the_other_part)
    report = convert_volume(source, out, part=(1, 2), verify=True, **SMALL)
    assert report.complete
    assert report.verified == 20
    assert not (out / LEDGER).exists()
    np.testing.assert_array_equal(open_volume(out).read(), np.load(source))


def test_several_parts_may_delete_the_ledger_at_once(tmp_path):
    for _ in range(5):
        for number in range(300):
            path = tmp_path / f"a.ome.zarr/{LEDGER}/main/{number:06d}/zarr.json"
            path.parent.mkdir(parents=True)
            path.write_text("{}")
        children = []
        for _ in range(3):
            children.append(os.fork())
            if not children[-1]:
                try:
                    _forget_ledger(Location.of(tmp_path / "a.ome.zarr"))
                    os._exit(0)
                finally:
                    os._exit(1)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 3
        assert not (tmp_path / f"a.ome.zarr/{LEDGER}").exists()


def test_parts_choose_the_same_shards_whatever_memory_there_is(tmp_path, monkeypatch):
    (tmp_path / "planes").mkdir()
    for z in range(70):
        Image.fromarray(np.full((600, 600), z, np.uint8)).save(tmp_path / f"planes/{z}.png")
    for number, memory in ((1, 0), (2, 10**9)):
        monkeypatch.setattr(
            cache_choice,
            "plan_cache",
            lambda *a, memory=memory, **values: plan_cache(
                *a, **{**values, "memory": memory, "usual": 2**20}
            ),
        )
        # As if both had begun at the same moment.
        convert_volume(tmp_path / "planes", tmp_path / f"{number}.ome.zarr", part=(number, 2), pyramid="none")
    shapes = [zarr.open_array(tmp_path / f"{k}.ome.zarr/0", mode="r").shards for k in (1, 2)]
    assert shapes[0] == shapes[1]


def layout(out):
    return dict(zarr.open_group(out, mode="r").attrs)["hrvol"]["layout"]


def test_shards_of_other_chunks_have_no_more_voxels_than_usual_ones(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((130, 9, 9), "u1"))
    for number, (chunk, shard) in enumerate(
        {
            (16, 64, 64): (64, 512, 512),
            (1, 64, 64): (64, 512, 512),
            (24, 64, 64): (48, 512, 512),
            (128, 128, 128): (128, 256, 512),
            (1, 4096, 4096): (1, 4096, 4096),
            (2000, 1, 2048): (2000, 4, 2048),
        }.items()
    ):
        out = tmp_path / f"{number}.ome.zarr"
        convert_volume(tmp_path / "a.npy", out, chunks=np.array(chunk))
        assert layout(out)["block"] == list(shard)


def test_chunks_of_odd_shards_are_no_single_voxels(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((5, 200, 300), "u1"))
    convert_volume(tmp_path / "a.npy", tmp_path / "a.ome.zarr", shards=(5, 89, 97))
    array = zarr.open_array(tmp_path / "a.ome.zarr/0", mode="r")
    assert (array.shards, array.chunks) == ((5, 89, 97), (5, 89, 97))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [2**39] * 3, "block": [1, 1, 1]}, "found .* blocks, expected at most"),
        ({"block": [2**39] * 3}, "expected at most 1,073,741,824 voxels"),
    ],
)
def test_layouts_that_no_memory_holds_are_one_line(tmp_path, source, changes, message):
    out = tmp_path / "a.ome.zarr"
    convert_volume(source, out, **SMALL)
    attributes = dict(zarr.open_group(out, mode="r").attrs)
    attributes["hrvol"]["layout"] |= changes
    zarr.open_group(out, mode="r+").attrs.put(attributes)
    with pytest.raises(InputError, match=message):
        run_status(out)
    with pytest.raises((InputError, OutputExistsError)):
        convert_volume(source, out)


@pytest.mark.parametrize("kind", ["u8", "i8"])
def test_means_of_the_largest_numbers_are_exact(kind):
    limits = np.iinfo(kind)
    values = np.random.default_rng(0).integers(limits.min, limits.max, (4, 6, 7), kind, endpoint=True)
    values[:2, :2, :2], values[2:, :2, :2] = limits.max, limits.min
    padded = np.pad(values, ((0, 0), (0, 0), (0, 1)), mode="edge").astype(object)
    cells = [padded[a::2, b::2, c::2] for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    expected = (2 * sum(cells) + 8) // 16
    np.testing.assert_array_equal(mean_reduce(values, (2, 2, 2)), expected.astype(kind))


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("png", lambda data: data[: len(data) // 2]),
        ("tif", lambda data: data.replace(data[400:900], bytes(500))),
    ],
)
def test_the_damaged_plane_of_many_is_named(tmp_path, kind, damage):
    planes = np.random.default_rng(0).integers(0, 255, (20, 60, 80), "u1")
    (tmp_path / "scan").mkdir()
    for z, plane in enumerate(planes):
        file = tmp_path / f"scan/{z:04d}.{kind}"
        if kind == "png":
            Image.fromarray(plane).save(file)
        else:
            tifffile.imwrite(file, plane, compression="zlib")
    file = tmp_path / f"scan/0013.{kind}"
    data = file.read_bytes()
    file.write_bytes(damage(data))
    out, given = tmp_path / "a.ome.zarr", {"chunks": (8, 32, 40), "shards": (8, 64, 80)}
    report = convert_volume(tmp_path / "scan", out, **given)
    assert [failure.index for failure in report.failed] == [(1, 0, 0)]
    assert f"0013.{kind}: " in report.failed[0].reason
    assert "\n" not in report.failed[0].reason
    assert not report.complete
    assert run_status(out)["state"] == "failed"
    file.write_bytes(data)
    assert convert_volume(tmp_path / "scan", out, verify=True, **given).verified == 3
    np.testing.assert_array_equal(open_volume(out).read(), planes)


def test_a_position_that_is_no_number_is_one_line(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("0", data=np.ones((4, 8, 8), "u2"))
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [1e308] * 3}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    with pytest.raises(InputError, match=r"a\.zarr: found .* inf.*, expected finite numbers"):
        convert_volume(tmp_path / "a.zarr", tmp_path / "b.ome.zarr", roi=(slice(2, 4), slice(8), slice(8)))
    assert not (tmp_path / "b.ome.zarr").exists()


def test_a_workflow_compares_what_was_not_compared_before_a_kill(tmp_path, source):
    out = tmp_path / "results/a.volume.ome.zarr"
    step = {"convert": {"verify": True, "chunks": [4, 16, 16], "shards": [8, 32, 32]}}
    file = tmp_path / "series.yaml"
    file.write_text(yaml.safe_dump({"volumes": "a.npy", "options": {"engine": "serial"}, "steps": step}))

    def state(**given):
        [outcome] = run_series(file, **given).outcomes
        return outcome.state

    killed_in("convert.a: verify", lambda progress: run_series(file, progress=progress))
    assert run_status(out)["state"] == "complete"
    assert state(dry_run=True) == "unfinished"
    assert state() in ("done", "up to date")
    assert not (out / LEDGER).exists()
    assert state(dry_run=True) == state() == "up to date"


def test_a_workflow_names_a_folder_for_scratch_files(tmp_path, source):
    file = tmp_path / "series.yaml"
    options = {"engine": "serial", "scratch": "fast"}
    file.write_text(yaml.safe_dump({"volumes": "a.npy", "options": options, "steps": {"convert": {}}}))
    [outcome] = run_series(file).outcomes
    assert outcome.state == "failed"
    assert "fast: found no folder, expected one for scratch files" in outcome.reason
    (tmp_path / "fast").mkdir()
    [outcome] = run_series(file).outcomes
    assert outcome.state == "done"
