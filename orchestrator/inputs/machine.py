"""Processor and memory of this machine, within the limits of this process."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

from orchestrator.inputs.cgroup import CgroupFacts, gather_cgroup

INTERESTING = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "bf16", "asimd")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorFacts:
    """flags: those of INTERESTING that the processor has. cores: all; usable: those that the affinity allows."""

    machine: str
    model: str
    flags: frozenset[str]
    cores: int
    usable: int
    cgroup: CgroupFacts
    load: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFacts:
    """Sizes in bytes. available: what processes could still get, without swap."""

    total: int
    available: int
    swap_total: int
    cgroup: CgroupFacts

    @property
    def usable(self) -> int:
        """Return what this process and its children could get now, within the machine and the control group."""
        limit = self.cgroup.memory_limit_bytes
        in_cgroup = self.total if limit is None else max(0, limit - (self.cgroup.memory_used_bytes or 0))
        return min(self.available, in_cgroup)


def gather_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> ProcessorFacts:
    """Read /proc/cpuinfo, the affinity, the control groups and the load of the last minute."""
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
    """Read the memory of the machine and of the control group."""
    memory = psutil.virtual_memory()
    return MemoryFacts(
        total=int(memory.total),
        available=int(memory.available),
        swap_total=int(psutil.swap_memory().total),
        cgroup=gather_cgroup(),
    )


def has_bfloat16(facts: ProcessorFacts) -> bool:
    """Return whether the processor has instructions for bfloat16 products."""
    return bool(facts.flags & {"avx512_bf16", "amx_bf16", "bf16"})
