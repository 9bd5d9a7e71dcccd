"""A run file: what the run would refuse, and whether its memory and its disk fit this machine."""

import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import get_args

from orchestrator.commands.doctor.cluster_probe import file_system
from orchestrator.commands.doctor.disk_plan import plan_disk
from orchestrator.commands.doctor.finding import Check, Finding, Level
from orchestrator.inputs.gpus import Gpu, gather_gpus
from orchestrator.inputs.inputs import Inputs
from orchestrator.inputs.machine import gather_memory
from orchestrator.inputs.model_config import kv_cache_gib, round_up_gib
from orchestrator.memory.model_shape import ModelShape, read_model_shape
from orchestrator.memory.plan import (
    ENGINE_SHARE_OF_GPU,
    Device,
    Lengths,
    MemoryPlan,
    RolePlan,
    gpu_loads,
)
from orchestrator.memory.run_memory import TIGHT_SHARE, RunMemory, cache_tokens, how_it_fits, least_cache_gib
from orchestrator.recorded.fingerprint import model_digests
from orchestrator.run_dir.run_dir import RunDir
from sdpo.config import RunConfig
from sdpo.errors import UserError
from sdpo.show import GIB, show_bytes
from sdpo.storage_cache import fetched, local_disk

GROUP = "The run"
finding, memory_plan, disk_plan = (partial(Finding, group) for group in (GROUP, "Memory plan", "Disk plan"))
DEADLINE_S = 180.0
WORTH_NAMING = 0.02
"""Parts of a role below this share are left out of its line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """A run and the machine that it would start on.

    refused: the line with which the run would refuse to start, "" if it would start. model None: no such model, which
    `refused` then says. lengths: measured on the tasks if they can be read, else what the config allows. free_*: bytes.
    on_cluster: the actors would run on other machines (RAY_ADDRESS is set).
    """

    config: RunConfig
    refused: str
    num_tasks: int
    num_heldout: int
    model: ModelShape | None
    lengths: Lengths
    measured: bool
    free_memory: int
    free_disk: int
    free_shm: int
    gpus: tuple[Gpu, ...]
    on_cluster: bool


def run_check(config: RunConfig) -> Check:
    """Check the run file. Reads what the run reads before it starts, and no weights."""
    return Check(GROUP, "run", lambda: judge_run(gather_run(config)), deadline_s=DEADLINE_S, needed=True)


def gather_run(config: RunConfig) -> RunFacts:
    """Read tasks, tokenizer and the headers of the weights, as the run does before it starts."""
    refused, inputs, lengths = "", None, Lengths.allowed(config)
    try:
        inputs = _accepted(config)
        lengths = Lengths.measured(config, inputs.longest_prompt)
    except UserError as error:
        refused = str(error)
    try:
        model = read_model_shape(str(fetched(config.model.path)))
    except UserError as error:
        model, refused = None, refused or str(error)
    return RunFacts(
        config=config,
        refused=refused,
        num_tasks=0 if inputs is None else len(inputs.train),
        num_heldout=0 if inputs is None else len(inputs.heldout),
        model=model,
        lengths=lengths,
        measured=inputs is not None and bool(inputs.train),
        free_memory=gather_memory().usable,
        free_disk=file_system(str(local_disk(config.dir)))["free"],
        free_shm=file_system("/dev/shm")["free"],
        gpus=gather_gpus(),
        on_cluster=bool(os.environ.get("RAY_ADDRESS")),
    )


def _accepted(config: RunConfig) -> Inputs:
    """Return the inputs that the run would start with. Raises `UserError` where it would refuse to start."""
    run_dir = RunDir(config)
    with redirect_stdout(sys.stderr):  # remarks of the run are not findings
        run_dir.check()
        inputs = Inputs.load(config, run_dir.prompt_date())
        run_dir.check_inputs(inputs.digests | model_digests(fetched(config.model.path)))
    return inputs


def judge_run(facts: RunFacts) -> Iterator[Finding]:
    """Repeat the run's own refusal, then judge the plans if the model is known."""
    if facts.refused:
        yield finding("run", Level.BROKEN, facts.refused, "change the run file; `sdpo train` refuses it")
    else:
        message = f"{facts.num_tasks} training and {facts.num_heldout} held-out tasks; the longest prompt has "
        yield finding("run", Level.OK, f"{message}{facts.lengths.prompt} tokens")
    if facts.model is None:
        return
    memory = RunMemory(config=facts.config, model=facts.model, lengths=facts.lengths)
    yield _basis(facts, facts.model)
    yield from map(_role, memory.plan.roles)
    yield from _host(facts, memory)
    yield from _gpus(facts, memory)
    yield from _cache(facts, facts.model)
    yield from _object_store(facts, memory.plan)
    yield _disk(facts, facts.model)


def _basis(facts: RunFacts, model: ModelShape) -> Finding:
    lengths, source = facts.lengths, "of the tasks" if facts.measured else "allowed"
    message = (
        f"{model.num_parameters / 1e6:.2f} M parameters in {facts.config.model.dtype}; prompts of {lengths.prompt} "
        f"tokens ({source}), responses of {lengths.response} and hindsight prompts of {lengths.hindsight} (allowed)"
    )
    return memory_plan("basis", Level.OK, message)


def _role(role: RolePlan) -> Finding:
    words = []
    for device in get_args(Device):
        if total := role.each(device):
            parts = [p for p in role.parts if p.device == device and p.num_bytes >= WORTH_NAMING * total]
            listed = ", ".join(f"{part.what} {show_bytes(part.num_bytes)}" for part in parts)
            words.append(f"{show_bytes(total)}{' of its GPU' if device == 'gpu' else ''} ({listed})")
    times = f"{role.count} x " if role.count > 1 else ""
    return memory_plan(role.role, Level.OK, f"{role.role}: {times}{'; '.join(words)}")


def _fit(needed: int, free: int) -> tuple[Level, str]:
    word = how_it_fits(needed, free)
    return {"fits": Level.OK, "tight": Level.WARNING, "does not fit": Level.BROKEN}[word], word


def _host(facts: RunFacts, memory: RunMemory) -> Iterator[Finding]:
    plan, free = memory.plan, facts.free_memory
    message = f"all roles on one machine take {show_bytes(plan.host)}; {show_bytes(free)} are free here"
    if facts.on_cluster:
        yield memory_plan("sum", Level.NOTE, f"{message}; RAY_ADDRESS is set: the cluster places the actors")
        return
    level, word = _fit(plan.host, free)
    if level is Level.BROKEN:
        message += f"; {plan.largest.role} takes the most"
    if level is not Level.OK:
        yield memory_plan("sum", level, f"{word}: {message}", memory.host_changes(free))
        return
    yield memory_plan("sum", level, f"{word}: {message}")
    at_limit = plan.host + plan.worst_sandboxes
    if at_limit > free:
        message = f"if all sandboxes reach their limits at the same time it is {show_bytes(at_limit)}"
        fix = "lower env.sandbox.memory_mib, env.sandboxes_per_worker or placement.env.max_workers"
        yield memory_plan("sandboxes", Level.WARNING, message, fix)


def _gpus(facts: RunFacts, memory: RunMemory) -> Iterator[Finding]:
    """Judge every GPU by itself; actors that share one are put together as Ray does."""
    if not facts.gpus or facts.on_cluster:
        return
    num_gpus, free = facts.config.placement.rollout.num_gpus, min(gpu.free for gpu in facts.gpus)
    if 0 < num_gpus < 1 and facts.config.rollout.kv_cache_gib is None:
        message = f"rollout.kv_cache_gib=none on a shared GPU: vLLM takes {ENGINE_SHARE_OF_GPU:.0%} of it"
        fix = f"rollout.kv_cache_gib={round_up_gib(kv_cache_gib(facts.config, memory.model, num_sequences=16))}"
        yield memory_plan("greedy", Level.BROKEN, message, fix)
    for index, load in enumerate(gpu_loads(memory.plan)):
        level, word = _fit(load, free)
        fix = "" if level is Level.OK else memory.gpu_changes(free)
        yield memory_plan(f"gpu {index}", level, f"{word}: GPU {index}: {show_bytes(load)} of {show_bytes(free)}", fix)


def _cache(facts: RunFacts, model: ModelShape) -> Iterator[Finding]:
    """Judge the KV cache: vLLM refuses one that is smaller than a full window; a small one makes requests wait."""
    config, gib = facts.config, facts.config.rollout.kv_cache_gib
    if gib is None:
        return
    window, tokens = config.model.max_model_len_tokens, cache_tokens(config, model, gib)
    usual = facts.lengths.prompt + facts.lengths.response
    message = f"rollout.kv_cache_gib={gib:g} holds {tokens} tokens"
    if tokens < window:
        fix = f"rollout.kv_cache_gib={least_cache_gib(config, model)} or more, or a smaller window"
        message += f", less than one window of {window}: vLLM refuses to start"
        yield memory_plan("cache", Level.BROKEN, message, fix)
    else:
        message += f": {tokens // usual} attempts of {usual} tokens at the same time"
        yield memory_plan("cache", Level.OK, message)


def _object_store(facts: RunFacts, plan: MemoryPlan) -> Iterator[Finding]:
    store = sum(part.num_bytes for part in plan.role("ray").parts[1:])
    if not facts.on_cluster and store > TIGHT_SHARE * facts.free_shm:
        message = f"Ray's object store needs {show_bytes(store)} for a batch; /dev/shm has {show_bytes(facts.free_shm)}"
        fix = f"docker run --shm-size={-(-2 * store // GIB)}g, or smaller batches; else Ray uses the disk"
        yield memory_plan("object store", Level.WARNING, message, fix)


def _disk(facts: RunFacts, model: ModelShape) -> Finding:
    plan = plan_disk(facts.config, model, facts.lengths)
    level, word = _fit(plan.total, facts.free_disk)
    message = (
        f"{word}: {plan.num_checkpoints} checkpoints of {show_bytes(plan.checkpoint)} (one of them unfinished), the "
        f"model {show_bytes(plan.model)}, samples of {facts.config.steps} steps at most {show_bytes(plan.samples)}: "
        f"{show_bytes(plan.total)}; {show_bytes(facts.free_disk)} are free"
    )
    if level is Level.OK:
        return disk_plan("disk", level, message)
    fewer = "checkpoint.keep_last=1 checkpoint.keep_best=0" if plan.num_checkpoints > 2 else "free space"
    return disk_plan("disk", level, message, f"dir=/another/disk, or {fewer}, or record.samples_per_step=4")
