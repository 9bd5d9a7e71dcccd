"""GPUs: what nvidia-smi reports, compared with what the run asks for."""

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from orchestrator.commands.doctor.finding import Check, Finding, Level
from sdpo.config import RunConfig
from sdpo.show import MIB, show_bytes

GROUP = "GPUs"
finding = partial(Finding, GROUP)
QUERY_TIMEOUT_S, SPARE_S = 15.0, 5.0
_FIELDS = "index,name,memory.total,memory.free,driver_version,mig.mode.current"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU. total, free: memory in bytes. mig: whether it is split into slices."""

    index: int
    name: str
    total: int
    free: int
    driver: str
    mig: bool


def gpu_check(config: RunConfig | None) -> Check:
    """Check the GPUs; they are needed if the run asks Ray for some."""
    demand = {} if config is None else config.demand
    wanted = sum(count * request.get("GPU", 0.0) for count, request in demand.values())
    deadline_s = QUERY_TIMEOUT_S + SPARE_S
    return Check(GROUP, "gpus", lambda: judge_gpus(gather_gpus(), wanted), deadline_s, needed=wanted > 0)


def gather_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs; () without nvidia-smi. Raises `OSError` or `subprocess.SubprocessError` if it fails."""
    command = ["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=True)
    except FileNotFoundError:
        return ()
    return parse_gpus(answer.stdout)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Parse one line for each GPU: the fields of _FIELDS, memory in MiB."""
    gpus = []
    for line in filter(None, map(str.strip, text.splitlines())):
        index, name, total, free, driver, mig = (field.strip() for field in line.split(","))
        memory = {"total": int(total) * MIB, "free": int(free) * MIB}
        gpus.append(Gpu(index=int(index), name=name, driver=driver, mig=mig == "Enabled", **memory))
    return tuple(gpus)


def judge_gpus(gpus: Sequence[Gpu], wanted: float) -> Iterator[Finding]:
    """Compare the GPUs with the number that the run asks for."""
    if not gpus and wanted == 0:
        yield finding("gpus", Level.OK, "no NVIDIA GPU (no nvidia-smi); everything runs on the processor")
    elif not gpus:
        fix = "set num_gpus of placement.rollout, .learner and .teacher to 0, or run on a machine with GPUs"
        yield finding("gpus", Level.BROKEN, f"no NVIDIA GPU (no nvidia-smi); the run asks for {wanted:g}", fix)
    for gpu in gpus:
        memory = f"{show_bytes(gpu.free)} of {show_bytes(gpu.total)} are free"
        message = f"GPU {gpu.index}, {gpu.name}: {memory}, driver {gpu.driver}{', MIG on' if gpu.mig else ''}"
        yield finding(f"gpu {gpu.index}", Level.OK, message)
        if gpu.mig:
            fix = "one process sees one slice: count slices, or switch MIG off (as root: nvidia-smi -mig 0)"
            yield finding(f"mig {gpu.index}", Level.NOTE, f"GPU {gpu.index} is split into slices (MIG)", fix)
    if gpus and wanted > len(gpus):
        message = f"the run asks for {wanted:g} GPUs, this machine has {len(gpus)}"
        fix = "ask for fractions (placement.rollout.num_gpus=0.5 …) or for fewer actors, or submit it to a cluster"
        yield finding("too few", Level.BROKEN, message, fix)
