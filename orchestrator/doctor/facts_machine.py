"""Processor, memory and limits of this machine as this process finds them."""

import os
import platform
import resource
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.doctor.facts_cgroup import CgroupFacts, gather_cgroup

INTERESTING = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16", "asimd")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorFacts:
    """flags: of INTERESTING, what all cores have. cores: of the machine; usable: by this process's affinity."""

    machine: str
    model: str
    flags: frozenset[str]
    cores: int
    usable: int
    cgroup: CgroupFacts
    load: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFacts:
    """Bytes. available: what processes could still get, without swap."""

    total: int
    available: int
    swap_total: int
    cgroup: CgroupFacts

    @property
    def usable(self) -> int:
        """What this process and its children could get now: the machine's and the control group's."""
        limit = self.cgroup.memory_limit_bytes
        room = self.total if limit is None else max(0, limit - (self.cgroup.memory_used_bytes or 0))
        return min(self.available, room)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitFacts:
    """(soft, hard) each; -1 is unlimited."""

    open_files: tuple[int, int]
    processes: tuple[int, int]


def gather_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> ProcessorFacts:
    """From /proc/cpuinfo, affinity, control groups and the load of the last minute."""
    lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    named = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    flags = set(named.get("flags", named.get("Features", "")).split())
    return ProcessorFacts(
        machine=platform.machine(),
        model=named.get("model name", platform.machine()),
        flags=frozenset(flags & set(INTERESTING)),
        cores=os.cpu_count() or 1,
        usable=len(os.sched_getaffinity(0)),
        cgroup=gather_cgroup(),
        load=os.getloadavg()[0],
    )


def gather_memory() -> MemoryFacts:
    """Of the machine and of the control group."""
    memory = psutil.virtual_memory()
    return MemoryFacts(
        total=int(memory.total),
        available=int(memory.available),
        swap_total=int(psutil.swap_memory().total),
        cgroup=gather_cgroup(),
    )


def gather_limits() -> LimitFacts:
    """ulimit -n and -u."""
    return LimitFacts(
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE), processes=resource.getrlimit(resource.RLIMIT_NPROC)
    )
