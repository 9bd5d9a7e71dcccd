"""This machine: processor, memory, shared memory, disks and limits."""

import os
import resource
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.cluster.temp_folders import ray_folder, unusable_folders
from orchestrator.commands.doctor.cluster_probe import file_system
from orchestrator.commands.doctor.finding import Check, Finding, Level
from orchestrator.inputs.machine import MemoryFacts, ProcessorFacts, gather_memory, gather_processor, has_bfloat16
from sdpo.config import RunConfig
from sdpo.show import GIB, MIB, show_bytes
from sdpo.storage_cache import local_disk

PROCESSOR, MEMORY, DISK = "Processor", "Memory", "Disk and limits"
processor, memory, disk = (partial(Finding, group) for group in (PROCESSOR, MEMORY, DISK))
DEMO_MEMORY = 6 * GIB
"""What the embedded demo takes: vLLM, torch twice, Ray."""
SHM = "/dev/shm"
LITTLE_SHM = GIB
"""Below this much free shared memory Ray's object store writes to the disk: it holds a batch's arrays and three weight
buckets in flight, 64 MiB each by default and up to a few hundred MiB with large embeddings."""
DOCKER_SHM = 64 * MIB
LITTLE_DISK, NO_DISK = 5 * GIB, GIB // 2
RAY_FULL_SHARE = 0.95
"""If more of a disk is used, Ray refuses to spill objects to it (RAY_local_fs_capacity_threshold)."""
FEW_OPEN_FILES, FEW_PROCESSES = 4096, 4096
ELSEWHERE = {
    "run directories": "free space, or dir=/another/disk",
    "Ray's sessions": "free space (old /tmp/ray/session_* may be deleted), or export RAY_TMPDIR=/another/disk",
    "temporary files": "free space, or export TMPDIR=/another/disk",
    "Hugging Face's cache": "free space, or export HF_HOME=/another/disk",
}
"""By what a run writes there, how to get more space for it."""


def machine_checks(config: RunConfig | None) -> list[Check]:
    """Check the machine; with a run its dtype, its folder and its need of GPUs count."""
    return [
        Check(PROCESSOR, "processor", lambda: judge_processor(gather_processor(), config)),
        Check(MEMORY, "memory", lambda: judge_memory(gather_memory())),
        Check(DISK, "disks", lambda: examine_disks(config, os.environ), needed=True),
        Check(DISK, "limits", examine_limits),
    ]


def judge_processor(facts: ProcessorFacts, config: RunConfig | None = None) -> Iterator[Finding]:
    """Judge the instruction set and what it means for `model.dtype`, the usable cores, and the load."""
    known = ", ".join(sorted(facts.flags)) or "no vector instructions known here"
    message = f"{facts.model}, {facts.machine}: {known}"
    level, fix = Level.OK, ""
    if facts.machine == "x86_64" and "avx2" not in facts.flags:
        level, message = Level.BROKEN, f"{message}; no AVX2"
        fix = "vLLM's CPU build needs AVX2: another machine, or pass the host's processor through to this virtual one"
    yield processor("instructions", level, message, fix)
    yield _dtype(facts, config)
    quota = facts.cgroup.cpus
    usable = facts.usable if quota is None else min(float(facts.usable), quota)
    message, fix = f"{usable:g} of {facts.cores} cores may be used; load {facts.load:.1f}", ""
    if quota is not None and quota < facts.usable:
        message += f" (the control group allows {quota:g}, which threads do not see)"
        fix = f"keep rollout.num_threads, teacher.num_threads and learner.num_threads at {max(1, int(quota))} or less"
    elif usable < 2:
        fix = "2 cores at least: all roles share them"
    yield processor("cores", Level.WARNING if fix else Level.OK, message, fix)
    if facts.load > 1.5 * usable + 1:
        message = f"other processes keep this machine busy (load {facts.load:.1f} on {usable:g} cores)"
        yield processor("load", Level.WARNING, message, "wait, or expect slow steps")


def _dtype(facts: ProcessorFacts, config: RunConfig | None) -> Finding:
    if has_bfloat16(facts):
        return processor("dtype", Level.OK, "bfloat16 runs at full speed")
    message = "no bfloat16 instructions: bfloat16 is about ten times slower than float32 on this processor"
    if config is None:
        return processor("dtype", Level.NOTE, message, "on CPU set model.dtype=float32")
    roles = [config.placement.rollout, config.placement.learner]
    roles += [config.placement.teacher] if config.has_teachers else []
    if config.model.dtype == "bfloat16" and not all(role.num_gpus for role in roles):
        return processor("dtype", Level.WARNING, message, "model.dtype=float32")
    return processor("dtype", Level.OK, f"{message}; this run does not use it there")


def judge_memory(facts: MemoryFacts) -> Iterator[Finding]:
    """Judge the free memory of the machine and of the control group, and the swap."""
    limit, used = facts.cgroup.memory_limit_bytes, facts.cgroup.memory_used_bytes
    message = f"{show_bytes(facts.available)} of {show_bytes(facts.total)} are free"
    if limit is not None and limit < facts.total:
        allowed = f"allows {show_bytes(limit)}, {show_bytes(used or 0)} used"
        message += f"; the control group (version {facts.cgroup.version}) {allowed}"
    fix = ""
    if facts.usable < DEMO_MEMORY:
        message += f"; the embedded demo needs {show_bytes(DEMO_MEMORY)}"
        fix = "end other programs, or allow the container more (docker run --memory, a pod's limits.memory)"
    yield memory("memory", Level.WARNING if fix else Level.OK, message, fix)
    swap = f"{show_bytes(facts.swap_total)} of swap" if facts.swap_total else "no swap: what does not fit is killed"
    yield memory("swap", Level.NOTE, swap)


def examine_disks(config: RunConfig | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Judge the file systems that a run writes to."""
    for line in unusable_folders(environ):
        message, _, fix = line.partition("; allowed: ")
        yield disk("temporary folders", Level.BROKEN, message, f"set it to {fix}")
    folders = {
        "run directories": str(local_disk((config or RunConfig()).dir)),
        "Ray's sessions": str(Path(ray_folder(environ), "ray").absolute()),
        "temporary files": str(Path(environ.get("TMPDIR") or tempfile.gettempdir()).absolute()),
        "Hugging Face's cache": environ.get("HF_HOME") or str(Path(environ.get("HOME", "/"), ".cache/huggingface")),
    }
    for what, folder in folders.items():
        yield from judge_disk(what, file_system(folder))
    yield judge_shm(file_system(SHM))


def judge_shm(facts: Mapping[str, Any]) -> Finding:
    """Judge /dev/shm. facts: as `file_system` returns them."""
    message = (
        f"{SHM}: {show_bytes(facts['free'])} of {show_bytes(facts['total'])} are free; it holds Ray's object store"
    )
    if facts["free"] >= LITTLE_SHM:
        return memory("shm", Level.OK, message)
    if facts["total"] <= DOCKER_SHM:
        message += " (64 MiB is Docker's default for a container)"
    fix = "docker run --shm-size=4g (in a pod: an emptyDir of medium Memory there); else Ray uses the disk"
    return memory("shm", Level.WARNING, message, fix)


def judge_disk(what: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge free space and rights of one folder. what: a key of ELSEWHERE; facts: as `file_system` returns them."""
    free, total, path = facts["free"], facts["total"], facts["path"]
    used, level = 1 - free / max(1, total), Level.OK
    message = f"{what}, {path}: {show_bytes(free)} of {show_bytes(total)} are free"
    if not facts["writable"]:
        level, message = Level.BROKEN, f"{what}: {path} cannot be written to"
    elif free < NO_DISK:
        level = Level.BROKEN
    elif what == "Ray's sessions" and used > RAY_FULL_SHARE:
        level = Level.WARNING
        message += f"; it is {used:.1%} full, and above {RAY_FULL_SHARE:.0%} Ray refuses to spill objects"
    elif free < LITTLE_DISK:
        level = Level.WARNING
    yield disk(what, level, message, "" if level is Level.OK else ELSEWHERE[what])
    if what == "temporary files" and level is not Level.BROKEN and not facts["executable"]:
        message = f"{path} is mounted noexec: kernels that are compiled on use cannot be loaded from there"
        yield disk("noexec", Level.WARNING, message, "export TMPDIR=/a/folder/that/may/execute")


def examine_limits() -> Iterator[Finding]:
    """Judge `ulimit -n` and `ulimit -u`."""
    open_files, (processes, _) = resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_NPROC)
    yield from judge_limits(*open_files, processes)


def judge_limits(open_files: int, most_open_files: int, processes: int) -> Iterator[Finding]:
    """Judge the soft and the hard limit of open files, and the limit of processes; -1 is unlimited."""
    level, fix = Level.OK, ""
    if 0 <= most_open_files < FEW_OPEN_FILES:
        level, fix = (
            Level.WARNING,
            "raise the hard limit: /etc/security/limits.conf, or docker run --ulimit nofile=65536",
        )
    elif 0 <= open_files < FEW_OPEN_FILES:
        level, fix = Level.NOTE, "ulimit -n 65536"
    message = f"open files: {_limit(open_files)}, at most {_limit(most_open_files)}{fix and '; Ray opens thousands'}"
    yield disk("open files", level, message, fix)
    fix = "ulimit -u 65536, or docker run --pids-limit=-1" if 0 <= processes < FEW_PROCESSES else ""
    message = f"processes and threads of this user: {_limit(processes)}"
    yield disk("processes", Level.WARNING if fix else Level.OK, message, fix)


def _limit(value: int) -> str:
    return "unlimited" if value < 0 else str(value)
