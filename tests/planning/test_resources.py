"""Free memory and disk space, and permissions, as the system reports them."""

import os
import subprocess

import pytest

from hrvol.errors import ResourceError
from hrvol.memory import cgroup_memory, free_memory
from hrvol.planning.resources import (
    check_readable,
    check_writable,
    existing_parent,
    free_disk,
    permission_denied,
)
from hrvol.volume.storage.location import Location

GIB = 2**30


def cgroup(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_free_memory_is_the_minimum_over_nested_cgroups(tmp_path):
    member = tmp_path / "cgroup"
    member.write_text("0::/job/step\n")
    root = tmp_path / "fs"
    root.mkdir()
    assert cgroup_memory(member, root) is None
    cgroup(root / "job/step", memory__max="max", memory__current=GIB, memory__stat="anon 5\ninactive_file 7")
    assert cgroup_memory(member, root) is None
    cgroup(root / "job", memory__max=4 * GIB, memory__current=3 * GIB, memory__stat=f"inactive_file {GIB}")
    assert cgroup_memory(member, root) == 2 * GIB
    cgroup(root / "job/step", memory__max=GIB, memory__current=GIB + 5, memory__stat="inactive_file 1")
    assert cgroup_memory(member, root) == 0


def test_memory_of_cgroups_of_version_1(tmp_path):
    member = tmp_path / "cgroup"
    member.write_text("5:cpu:/elsewhere\n4:memory:/host/container\n0::/\n")
    root = tmp_path / "fs"
    unlimited = 2**63 - 4096
    names = {"memory__limit_in_bytes": unlimited, "memory__usage_in_bytes": GIB}
    cgroup(root / "memory", **names, memory__stat="total_inactive_file 0")
    assert cgroup_memory(member, root) is None
    names["memory__limit_in_bytes"] = 3 * GIB  # in a container only the mount itself is to be seen
    cgroup(root / "memory", **names, memory__stat=f"inactive_file 0\ntotal_inactive_file {GIB // 2}")
    assert cgroup_memory(member, root) == 2.5 * GIB


def test_without_cgroups_nothing_is_limited(tmp_path):
    assert cgroup_memory(tmp_path / "none", tmp_path) is None
    assert free_memory() > 0


def test_free_disk_is_that_of_the_output(tmp_path):
    assert existing_parent(tmp_path / "a/b/c") == tmp_path
    free, files = free_disk(Location(str(tmp_path / "a/b.zarr")))
    assert free > 0
    assert files is None or files > 0
    assert free_disk(Location("s3://bucket/out.zarr")) == (None, None)


def test_checking_a_writable_location_leaves_no_files(tmp_path):
    check_writable(Location(str(tmp_path / "a/b/out.ome.zarr")))
    assert list(tmp_path.iterdir()) == []
    check_writable(Location("s3://bucket/out.zarr"))


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"found a file at .*/file, expected a folder"):
        check_writable(Location(str(tmp_path / "file/out.ome.zarr")))


@pytest.fixture
def sealed(tmp_path):
    """A folder that cannot be written, even by root: a file system mounted read-only."""
    folder = tmp_path / "sealed"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], check=False).returncode:
        pytest.skip("root may write everywhere here, and may not mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_location_that_is_not_writable_is_refused(sealed):
    with pytest.raises(ResourceError, match=r"out.ome.zarr: cannot write into .*/sealed \("):
        check_writable(Location(str(sealed / "deeper/out.ome.zarr")))


@pytest.fixture
def stranger():
    """Run the test as another user, who cannot read the folders of the tests."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


def test_files_that_may_not_be_read_are_refused(tmp_path, stranger, request):
    if os.geteuid() != 65534:
        tmp_path = tmp_path / "closed"
        tmp_path.mkdir()
        tmp_path.chmod(0)
        request.addfinalizer(lambda: tmp_path.chmod(0o700))
    with pytest.raises(ResourceError, match=r"volume.zarr: cannot be read \(Permission denied"):
        check_readable(tmp_path / "volume.zarr")


def test_missing_files_and_urls_are_not_checked(tmp_path):
    (tmp_path / "file").write_text("")
    check_readable(None, tmp_path, tmp_path / "file", tmp_path / "none", Location("s3://bucket/volume.zarr"))


def test_a_denied_permission_is_found_behind_other_errors():
    behind = ValueError("cannot read")
    behind.__cause__ = PermissionError(13, "Permission denied")
    assert permission_denied(behind)
    assert not permission_denied(ValueError())
