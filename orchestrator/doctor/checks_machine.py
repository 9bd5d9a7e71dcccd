"""Judging processor, memory, shared memory, disks and limits."""

import os
from collections.abc import Sequence

from orchestrator.doctor.facts_disk import SHM, PlaceFacts, gather_places
from orchestrator.doctor.facts_machine import (
    LimitFacts,
    MemoryFacts,
    ProcessorFacts,
    gather_limits,
    gather_memory,
    gather_processor,
)
from orchestrator.doctor.finding import Check, Finding, Level
from orchestrator.doctor.words import GIB, MIB, size
from sdpo.config import RunConfig

PROCESSOR, MEMORY, DISK = "Processor", "Memory", "Disk and limits"
SMALLEST_MEMORY = 6 * GIB
"""What the embedded demo takes: vLLM, torch twice, Ray."""
SMALLEST_SHM = 512 * MIB
DOCKERS_SHM = 64 * MIB
LITTLE_DISK, NO_DISK = 5 * GIB, GIB // 2
RAYS_FULL_SHARE = 0.95
"""Above this share of a full disk Ray refuses to spill objects (RAY_local_fs_capacity_threshold)."""
FEW_OPEN_FILES, FEW_PROCESSES = 4096, 4096


def machine_checks(config: RunConfig | None) -> list[Check]:
    """Four checks; with a run its dtype, its folder and its need of GPUs count."""
    return [
        Check(group=PROCESSOR, name="processor", gather=gather_processor, judge=lambda f: judge_processor(f, config)),
        Check(group=MEMORY, name="memory", gather=gather_memory, judge=judge_memory),
        Check(
            group=DISK, name="places", gather=lambda: gather_places(config, os.environ), judge=judge_places, needed=True
        ),
        Check(group=DISK, name="limits", gather=gather_limits, judge=judge_limits),
    ]


def judge_processor(facts: ProcessorFacts, config: RunConfig | None = None) -> list[Finding]:
    """Instruction set and what it means for `model.dtype`; cores that may be used; load."""
    return [_instructions(facts), *_dtype(facts, config), *_cores(facts)]


def _instructions(facts: ProcessorFacts) -> Finding:
    said = f"{facts.model}, {facts.machine}: {', '.join(sorted(facts.flags)) or 'no vector instructions known here'}"
    if facts.machine == "x86_64" and "avx2" not in facts.flags:
        mend = "vLLM's CPU build needs AVX2: another machine, or pass the host's processor through to this virtual one"
        return _finding(PROCESSOR, "instructions", Level.BROKEN, f"{said}; no AVX2", mend)
    return _finding(PROCESSOR, "instructions", Level.OK, said)


def has_bfloat16(facts: ProcessorFacts) -> bool:
    """Whether the processor multiplies bfloat16 by itself."""
    return bool(facts.flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _dtype(facts: ProcessorFacts, config: RunConfig | None) -> list[Finding]:
    if has_bfloat16(facts):
        return [_finding(PROCESSOR, "dtype", Level.OK, "bfloat16 runs at full speed")]
    said = "no bfloat16 instructions: bfloat16 is about ten times slower than float32 on this processor"
    if config is None:
        return [_finding(PROCESSOR, "dtype", Level.NOTE, said, "on CPU set model.dtype=float32")]
    gpus = (
        config.placement.rollout.num_gpus,
        config.placement.learner.num_gpus,
        config.placement.teacher.num_gpus if config.has_teachers else 1,
    )
    if config.model.dtype == "bfloat16" and min(gpus) == 0:
        return [_finding(PROCESSOR, "dtype", Level.WARNING, said, "model.dtype=float32")]
    return [_finding(PROCESSOR, "dtype", Level.OK, f"{said}; this run does not use it there")]


def _cores(facts: ProcessorFacts) -> list[Finding]:
    quota = facts.cgroup.cpus
    usable = facts.usable if quota is None else min(float(facts.usable), quota)
    said = f"{usable:g} of {facts.cores} cores may be used; load {facts.load:.1f}"
    found = []
    if quota is not None and quota < facts.usable:
        said += f" (the control group allows {quota:g}, which threads do not see)"
        mend = f"keep rollout.num_threads, teacher.num_threads and learner.num_threads at {max(1, int(quota))} or less"
        found.append(_finding(PROCESSOR, "cores", Level.WARNING, said, mend))
    elif usable < 2:
        found.append(_finding(PROCESSOR, "cores", Level.WARNING, said, "2 cores at least: all roles share them"))
    else:
        found.append(_finding(PROCESSOR, "cores", Level.OK, said))
    if facts.load > 1.5 * usable + 1:
        said = f"other processes keep this machine busy (load {facts.load:.1f} on {usable:g} cores)"
        found.append(_finding(PROCESSOR, "load", Level.WARNING, said, "wait, or expect slow steps"))
    return found


def judge_memory(facts: MemoryFacts) -> list[Finding]:
    """Free memory within the machine and the control group; swap."""
    limit, used = facts.cgroup.memory_limit_bytes, facts.cgroup.memory_used_bytes
    said = f"{size(facts.available)} of {size(facts.total)} are free"
    if limit is not None and limit < facts.total:
        said += f"; the control group (version {facts.cgroup.version}) allows {size(limit)}, {size(used or 0)} used"
    if facts.usable < SMALLEST_MEMORY:
        mend = "end other programs, or allow the container more (docker run --memory, a pod's limits.memory)"
        found = [
            _finding(MEMORY, "memory", Level.WARNING, f"{said}; the embedded demo needs {size(SMALLEST_MEMORY)}", mend)
        ]
    else:
        found = [_finding(MEMORY, "memory", Level.OK, said)]
    swap = f"{size(facts.swap_total)} of swap" if facts.swap_total else "no swap: what does not fit is killed"
    return [*found, _finding(MEMORY, "swap", Level.NOTE, swap)]


def judge_places(places: Sequence[PlaceFacts]) -> list[Finding]:
    """Room, rights, noexec, and the share above which Ray takes a disk for full."""
    return [f for place in places for f in ([_shm(place)] if place.path == SHM else _disk(place))]


def _shm(place: PlaceFacts) -> Finding:
    said = f"{SHM}: {size(place.free)} of {size(place.total)} are free; Ray's object store lies there"
    if place.free >= SMALLEST_SHM:
        return _finding(MEMORY, "shm", Level.OK, said)
    if place.total <= DOCKERS_SHM:
        said += " (64 MiB is what docker gives a container)"
    mend = "docker run --shm-size=4g (in a pod: an emptyDir of medium Memory there); Ray goes to the disk otherwise"
    return _finding(MEMORY, "shm", Level.WARNING, said, mend)


def _disk(place: PlaceFacts) -> list[Finding]:
    said = f"{place.what}, {place.path}: {size(place.free)} of {size(place.total)} are free"
    used = 1 - place.free / max(1, place.total)
    if not place.writable:
        return [
            _finding(
                DISK, place.what, Level.BROKEN, f"{place.what}: {place.path} cannot be written to", _elsewhere(place)
            )
        ]
    if place.free < NO_DISK:
        return [_finding(DISK, place.what, Level.BROKEN, said, _elsewhere(place))]
    found = []
    if place.what.startswith("Ray") and used > RAYS_FULL_SHARE:
        said += f"; it is {used:.1%} full, and above {RAYS_FULL_SHARE:.0%} Ray refuses to spill objects"
        found.append(_finding(DISK, place.what, Level.WARNING, said, _elsewhere(place)))
    else:
        level = Level.WARNING if place.free < LITTLE_DISK else Level.OK
        found.append(_finding(DISK, place.what, level, said, _elsewhere(place) if level is not Level.OK else ""))
    if place.what == "temporary files" and not place.executable:
        said = f"{place.path} is mounted noexec: kernels that are compiled on use cannot be loaded from there"
        found.append(_finding(DISK, "noexec", Level.WARNING, said, "export TMPDIR=/a/folder/that/may/execute"))
    return found


def _elsewhere(place: PlaceFacts) -> str:
    keys = {
        "run directories": "make room, or dir=/another/disk",
        "Ray's sessions": "make room (old /tmp/ray/session_* may go), or export RAY_TMPDIR=/another/disk",
        "temporary files": "make room, or export TMPDIR=/another/disk",
        "Hugging Face's cache": "make room, or export HF_HOME=/another/disk",
    }
    return keys.get(place.what, "make room")


def judge_limits(facts: LimitFacts) -> list[Finding]:
    """Open files (Ray opens many) and processes."""
    soft, hard = facts.open_files
    said = f"open files: {_limit(soft)}, at most {_limit(hard)}"
    found = [_finding(DISK, "open files", Level.OK, said)]
    if 0 <= hard < FEW_OPEN_FILES:
        mend = "raise the hard limit: /etc/security/limits.conf, or docker run --ulimit nofile=65536"
        found = [_finding(DISK, "open files", Level.WARNING, f"{said}; Ray opens thousands", mend)]
    elif 0 <= soft < FEW_OPEN_FILES:
        found = [_finding(DISK, "open files", Level.NOTE, f"{said}; Ray opens thousands", "ulimit -n 65536")]
    soft, hard = facts.processes
    few = 0 <= soft < FEW_PROCESSES
    mend = "ulimit -u 65536, or docker run --pids-limit=-1" if few else ""
    said = f"processes and threads of this user: {_limit(soft)}"
    return [*found, _finding(DISK, "processes", Level.WARNING if few else Level.OK, said, mend)]


def _limit(value: int) -> str:
    return "unlimited" if value < 0 else str(value)


def _finding(group: str, name: str, level: Level, said: str, mend: str = "") -> Finding:
    return Finding(group=group, name=name, level=level, said=said, mend=mend)
