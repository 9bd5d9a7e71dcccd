"""GPUs: what nvidia-smi reports, compared with what the run asks for."""

from collections.abc import Iterator, Sequence
from functools import partial

from orchestrator.commands.doctor.finding import Check, Finding, Level
from orchestrator.inputs.gpus import QUERY_TIMEOUT_S, Gpu, gather_gpus
from sdpo.config import RunConfig
from sdpo.show import show_bytes

GROUP = "GPUs"
finding = partial(Finding, GROUP)
SPARE_S = 5.0


def gpu_check(config: RunConfig | None) -> Check:
    """Check the GPUs; they are needed if the run asks Ray for some."""
    demand = {} if config is None else config.demand
    wanted = sum(count * request.get("GPU", 0.0) for count, request in demand.values())
    deadline_s = QUERY_TIMEOUT_S + SPARE_S
    return Check(GROUP, "gpus", lambda: judge_gpus(gather_gpus(), wanted), deadline_s, needed=wanted > 0)


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
