"""Read the memory and processor time that the control groups (version 1 or 2) leave this process.

`root` stands for / in tests.
"""

from dataclasses import dataclass
from pathlib import Path

UNLIMITED_BYTES = 2**60
"""Version 1 writes "no limit" as a number near 2^63."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupFacts:
    """Limits of this process. `version` is 0 without control groups; a limit that is None does not exist."""

    version: int
    memory_limit_bytes: int | None
    memory_used_bytes: int | None
    """Used memory without cached files, which the kernel gives up when memory is asked for."""
    cpus: float | None


def gather_cgroup(root: Path = Path("/")) -> CgroupFacts:
    """Return the tightest limits between this process's group and the root of the visible hierarchy."""
    mount = root / "sys/fs/cgroup"
    if (mount / "cgroup.controllers").is_file():
        folders = _upwards(mount, _own_path(root, ""))
        memory = [(_number(f / "memory.max"), _used(f, "memory.current", "inactive_file")) for f in folders]
        quotas = [_quota_v2(f / "cpu.max") for f in folders]
        return _tightest(2, memory, quotas)
    if not (mount / "memory").is_dir():
        return CgroupFacts(version=0, memory_limit_bytes=None, memory_used_bytes=None, cpus=None)
    of_memory = _upwards(mount / "memory", _own_path(root, "memory"))
    memory = [
        (_number(f / "memory.limit_in_bytes"), _used(f, "memory.usage_in_bytes", "total_inactive_file"))
        for f in of_memory
    ]
    quotas = [_quota_v1(f) for f in _upwards(mount / "cpu", _own_path(root, "cpu"))]
    return _tightest(1, memory, quotas)


def _own_path(root: Path, controller: str) -> str:
    """Read the group's path from /proc/self/cgroup, lines of "id:controllers:path"; version 2 has no controllers."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.strip("/")
    return ""


def _upwards(mount: Path, path: str) -> list[Path]:
    """Return the group's folder and those above it; in a container, where the path is the host's, the mount alone."""
    folder = mount / path
    if not folder.is_dir() or ".." in path:
        return [mount]
    return [folder, *(p for p in folder.parents if p.is_relative_to(mount))]


def _tightest(version: int, memory: list[tuple[int | None, int | None]], quotas: list[float | None]) -> CgroupFacts:
    limits = [(limit, used) for limit, used in memory if limit is not None and limit < UNLIMITED_BYTES]
    limit, used = min(limits, key=lambda pair: pair[0] - (pair[1] or 0), default=(None, None))
    cpus = min((q for q in quotas if q is not None), default=None)
    return CgroupFacts(version=version, memory_limit_bytes=limit, memory_used_bytes=used, cpus=cpus)


def _used(folder: Path, file: str, cached: str) -> int | None:
    used = _number(folder / file)
    lines = (line.split() for line in _text(folder / "memory.stat").splitlines())
    inactive = next((int(words[1]) for words in lines if words[0] == cached), 0)
    return None if used is None else max(0, used - inactive)


def _quota_v2(file: Path) -> float | None:
    """Parse "MAX PERIOD", both in microseconds; MAX may be "max"."""
    words = _text(file).split()
    return float(words[0]) / float(words[1]) if len(words) == 2 and words[0] != "max" else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return quota / period if quota is not None and quota > 0 and period else None


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
