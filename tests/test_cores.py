"""Cores are those that affinity and control groups leave a process, on a made-up tree of files."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from ttsfast import devices
from ttsfast.cgroups import processor_quota

V2 = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 31 0:30 {top} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
OTHERS = (
    "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)


def make_tree(root: Path, group: str, mounts: str, files: dict[str, str]) -> Path:
    """``files`` by path below ``/sys/fs/cgroup``."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group + "\n")
    (root / "proc/self/mountinfo").write_text(OTHERS + mounts)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def v1(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    """A group's two files."""
    place = f"cpu,cpuacct/{folder}"
    return {f"{place}/cpu.cfs_quota_us": str(quota), f"{place}/cpu.cfs_period_us": str(period)}


@pytest.mark.parametrize(
    ("group", "mounts", "files", "cores"),
    [
        ("0::/", V2.format(top="/"), {}, math.inf),
        ("0::/", V2.format(top="/"), {"cpu.max": "max 100000"}, math.inf),
        ("0::/", V2.format(top="/"), {"cpu.max": "150000 100000"}, 1.5),
        # A group above gives less than its own; one beside it does not matter.
        (
            "0::/a/b/c",
            V2.format(top="/"),
            {"a/cpu.max": "300000 100000", "a/b/c/cpu.max": "80000 20000", "a/x/cpu.max": "1 100000"},
            3.0,
        ),
        ("0::/a/b", V2.format(top="/"), {"a/cpu.max": "max 100000", "a/b/cpu.max": "50000 100000"}, 0.5),
        # A container that sees its own group as the mount's top, under the name that the host has for it.
        ("0::/host/box/in", V2.format(top="/host/box"), {"in/cpu.max": "200000 100000"}, 2.0),
        ("0::/host/box", V2.format(top="/elsewhere"), {"cpu.max": "200000 100000"}, 2.0),
        ("0::/../other", V2.format(top="/"), {"cpu.max": "200000 100000"}, 2.0),
        ("4:cpu,cpuacct:/", V1.format(top="/"), v1("", -1), math.inf),
        ("4:cpu,cpuacct:/a/b", V1.format(top="/"), {**v1("a", 250_000), **v1("a/b", -1)}, 2.5),
        ("4:cpu,cpuacct:/docker/f00", V1.format(top="/docker/f00"), v1("", 40_000, 10_000), 4.0),
        # Both at once: the new hierarchy shares out no processors.
        ("4:cpu,cpuacct:/a\n0::/a", V1.format(top="/") + V2.format(top="/"), v1("a", 100_000), 1.0),
    ],
)
def test_the_least_quota_from_its_own_group_up_holds(
    tmp_path: Path, group: str, mounts: str, files: dict[str, str], cores: float
) -> None:
    assert processor_quota(make_tree(tmp_path, group, mounts, files)) == cores


def test_without_control_groups_nothing_limits(tmp_path: Path) -> None:
    assert processor_quota(tmp_path) == math.inf


@pytest.mark.parametrize(("affinity", "quota", "cores"), [(8, 2, 2), (8, 1.2, 2), (2, 6, 2), (8, 0.3, 1)])
def test_cores_are_the_fewer_of_affinity_and_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, affinity: int, quota: float, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    tree = make_tree(tmp_path, "0::/", V2.format(top="/"), {"cpu.max": f"{int(quota * 1e5)} 100000"})
    assert devices.available_cores(tree) == cores


def test_libraries_are_told_of_a_quota_unless_somebody_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(devices, "processor_quota", lambda root: 3.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    devices.heed_quota()
    assert os.environ["OMP_NUM_THREADS"] == "5"
    monkeypatch.delenv("OMP_NUM_THREADS")
    devices.heed_quota()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(devices, "processor_quota", lambda root: math.inf)
    devices.heed_quota()
    assert "OMP_NUM_THREADS" not in os.environ
