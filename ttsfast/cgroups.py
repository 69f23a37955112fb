"""How much processor time a Linux control group leaves this process.

A container that is given two of 64 cores still sees 64: what limits it is a quota, of the group or of one
above it. Documented in the kernel's ``admin-guide/cgroup-v2.rst`` and ``scheduler/sched-bwc.rst``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def processor_quota(root: Path = Path("/")) -> float:
    """The cores' worth of time that this process may use; infinite where nothing limits it.

    Args:
        root: where ``/proc`` and what it names as mounted are looked for.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text()
        mounts = (root / "proc/self/mountinfo").read_text()
    except FileNotFoundError:
        return math.inf
    own = {
        controller: PurePosixPath(path)
        for line in groups.splitlines()
        for _, controllers, path in [line.split(":", 2)]
        for controller in controllers.split(",")
    }
    return min(
        (quota for line in mounts.splitlines() for quota in _quotas(line, own, root)), default=math.inf
    )


def _quotas(mount: str, own: dict[str, PurePosixPath], root: Path) -> Iterator[float]:
    """Of the group and of all above it, where ``mount`` is a hierarchy that shares out processors."""
    before, _, after = mount.partition(" - ")
    top, point = before.split()[3:5]
    kind, _, options = after.split(maxsplit=2)
    if kind == "cgroup2":
        group, read = own.get(""), _quota
    elif kind == "cgroup" and "cpu" in options.split(","):
        group, read = own.get("cpu"), _quota_v1
    else:
        return
    if group is None:
        return
    # Of a group outside of what is mounted, as a container may see its own, the mount's top is the nearest.
    place = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
    for folder in (place, *place.parents):
        yield read(root / point.lstrip("/") / folder)


def _quota(group: Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except FileNotFoundError:
        return math.inf
    return math.inf if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float:
    try:
        quota, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    except FileNotFoundError:
        return math.inf
    return math.inf if quota < 0 else quota / period
