"""GPUs: what nvidia-smi says, and whether torch and the run agree with it."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.doctor.finding import Check, Finding, Level
from orchestrator.doctor.words import MIB, size
from sdpo.config import RunConfig

GROUP = "GPUs"
QUESTION_TIMEOUT_S = 15.0
_FIELDS = "index,name,memory.total,memory.free,driver_version,mig.mode.current"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """Memory in bytes. mig: whether it is cut into slices."""

    index: int
    name: str
    total: int
    free: int
    driver: str
    mig: bool


def gpu_check(config: RunConfig | None) -> Check:
    """Needed where the run asks Ray for GPUs."""
    wanted = 0.0 if config is None else num_gpus(config)
    return Check(
        group=GROUP,
        name="gpus",
        gather=gather_gpus,
        judge=lambda gpus: judge_gpus(gpus, wanted),
        deadline_s=QUESTION_TIMEOUT_S + 5,
        needed=wanted > 0,
    )


def num_gpus(config: RunConfig) -> float:
    """GPUs that all actors of a run ask for together."""
    teachers = config.placement.teacher.workers * config.placement.teacher.num_gpus if config.has_teachers else 0.0
    rollouts = config.placement.rollout.workers * config.placement.rollout.num_gpus
    return teachers + rollouts + config.placement.learner.ranks * config.placement.learner.num_gpus


def gather_gpus() -> tuple[Gpu, ...]:
    """() where there is no nvidia-smi. Raises `OSError` or `subprocess.SubprocessError` where it fails."""
    command = ["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=QUESTION_TIMEOUT_S, check=True)
    except FileNotFoundError:
        return ()
    return parse_gpus(answer.stdout)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """One line a GPU, fields as _FIELDS, memory in MiB."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        index, name, total, free, driver, mig = (field.strip() for field in line.split(","))
        memory = {"total": int(total) * MIB, "free": int(free) * MIB}
        found.append(Gpu(index=int(index), name=name, driver=driver, mig=mig == "Enabled", **memory))
    return tuple(found)


def judge_gpus(gpus: Sequence[Gpu], wanted: float) -> list[Finding]:
    """wanted: GPUs that the run asks for."""
    if not gpus:
        said = "no NVIDIA GPU (no nvidia-smi)"
        if wanted == 0:
            return [_finding("gpus", Level.OK, f"{said}; everything runs on the processor")]
        mend = "set num_gpus of placement.rollout, .learner and .teacher to 0, or run on a machine with GPUs"
        return [_finding("gpus", Level.BROKEN, f"{said}; the run asks for {wanted:g}", mend)]
    found = []
    for gpu in gpus:
        said = f"GPU {gpu.index}, {gpu.name}: {size(gpu.free)} of {size(gpu.total)} are free, driver {gpu.driver}"
        found.append(_finding(f"gpu {gpu.index}", Level.OK, said + (", MIG on" if gpu.mig else "")))
        if gpu.mig:
            mend = "one process sees one slice: count slices, or switch MIG off (as root: nvidia-smi -mig 0)"
            found.append(_finding(f"mig {gpu.index}", Level.NOTE, f"GPU {gpu.index} is cut into slices (MIG)", mend))
    if wanted > len(gpus):
        said = f"the run asks for {wanted:g} GPUs, this machine has {len(gpus)}"
        mend = "ask for fractions (placement.rollout.num_gpus=0.5 …) or for fewer actors, or submit it to a cluster"
        found.append(_finding("too few", Level.BROKEN, said, mend))
    return found


def _finding(name: str, level: Level, said: str, mend: str = "") -> Finding:
    return Finding(group=GROUP, name=name, level=level, said=said, mend=mend)
