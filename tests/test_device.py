"""How many CPUs a process may use, whoever limits them."""

import builtins
import io
import os
import subprocess
import sys

import pytest

from hrvol.device import cpus

QUOTA = "/sys/fs/cgroup/cpu.max"


@pytest.fixture
def quota(monkeypatch):
    """Pretend that a container has four CPUs and a quota: microseconds of computing in each period."""
    exists, read = os.path.exists, builtins.open

    def limit(text):
        def reading(path, *args, **options):
            return io.StringIO(text) if path == QUOTA else read(path, *args, **options)

        monkeypatch.setattr(os.path, "exists", lambda path: path == QUOTA or exists(path))
        monkeypatch.setattr(builtins, "open", reading)

    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    return limit


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000\n", 4), ("200000 100000\n", 2), ("150000 100000\n", 2), ("50000 100000\n", 1)],
)
def test_the_quota_of_a_container_limits_the_cpus(quota, text, expected):
    quota(text)
    assert cpus() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_the_affinity_of_the_process_limits_the_cpus():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from hrvol.device import cpus; print(cpus())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]
