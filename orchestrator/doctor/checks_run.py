"""Judging a run file: what the run would refuse, and whether its memory and its disk fit this machine."""

from orchestrator.doctor.disk_plan import plan_disk
from orchestrator.doctor.facts_run import RunFacts, gather_run
from orchestrator.doctor.finding import Check, Finding, Level
from orchestrator.doctor.memory_advice import Excess, advise, needed_cache_gib
from orchestrator.doctor.memory_plan import (
    ENGINE_SHARE_OF_GPU,
    Lengths,
    MemoryPlan,
    Place,
    RolePlan,
    gpu_loads,
    kv_bytes_per_token,
    plan_memory,
)
from orchestrator.doctor.model_shape import ModelShape
from orchestrator.doctor.words import GIB, size
from sdpo.config import RunConfig

RUN, MEMORY_PLAN, DISK_PLAN = "The run", "Memory plan", "Disk plan"
DEADLINE_S = 180.0
TIGHT_SHARE = 0.9
"""A plan is an estimate: above this share of what is free it is called tight."""
WORTH_NAMING = 0.02


def run_check(config: RunConfig) -> Check:
    """Reads what the run reads before it starts; no weights."""
    return Check(
        group=RUN, name="run", gather=lambda: gather_run(config), judge=judge_run, deadline_s=DEADLINE_S, needed=True
    )


def judge_run(facts: RunFacts) -> list[Finding]:
    """The refusal in the run's own words, then the plans as far as the model is known."""
    if facts.refused:
        found = [_finding(RUN, "run", Level.BROKEN, facts.refused, "change the run file; `sdpo train` refuses it")]
    else:
        said = f"{facts.num_tasks} training and {facts.num_heldout} held-out tasks; the longest prompt has "
        found = [_finding(RUN, "run", Level.OK, f"{said}{facts.lengths.prompt} tokens")]
    if facts.model is None:
        return found
    plan = plan_memory(facts.config, facts.model, facts.lengths)
    return [
        *found,
        _basis(facts, facts.model),
        *(_role(role) for role in plan.roles),
        *_host(facts, facts.model, plan),
        *_gpus(facts, facts.model, plan),
        *_cache(facts, facts.model),
        *_object_store(facts, plan),
        *_disk(facts, facts.model),
    ]


def _basis(facts: RunFacts, model: ModelShape) -> Finding:
    lengths = facts.lengths
    whose = "the tasks'" if facts.measured else "allowed"
    said = (
        f"{model.num_parameters / 1e6:.2f} M parameters in {facts.config.model.dtype}; prompts of {lengths.prompt} "
        f"tokens ({whose}), responses of {lengths.response} and hindsight prompts of {lengths.hindsight} (allowed)"
    )
    return _finding(MEMORY_PLAN, "basis", Level.OK, said)


def _role(role: RolePlan) -> Finding:
    places: list[Place] = ["host", "gpu"]
    words = []
    for place in places:
        each = role.each(place)
        if each:
            parts = [p for p in role.parts if p.place == place and p.num_bytes >= WORTH_NAMING * each]
            listed = ", ".join(f"{part.what} {size(part.num_bytes)}" for part in parts)
            words.append(f"{size(each)}{' of its GPU' if place == 'gpu' else ''} ({listed})")
    many = f"{role.count} x " if role.count > 1 else ""
    return _finding(MEMORY_PLAN, role.role, Level.OK, f"{role.role}: {many}{'; '.join(words)}")


def _host(facts: RunFacts, model: ModelShape, plan: MemoryPlan) -> list[Finding]:
    said = f"all roles on one machine take {size(plan.host)}; {size(facts.free_memory)} are free here"
    if facts.on_cluster:
        said += "; RAY_ADDRESS is set: where the actors go, the cluster decides"
        return [_finding(MEMORY_PLAN, "sum", Level.NOTE, said)]
    fits = plan.host <= TIGHT_SHARE * facts.free_memory
    found = [_finding(MEMORY_PLAN, "sum", Level.OK, f"fits: {said}")] if fits else [_too_much(facts, model, plan, said)]
    worst = plan.host + plan.worst_sandboxes
    if fits and worst > facts.free_memory:
        said = f"if every sandbox goes to its limit at one time it is {size(worst)}"
        mend = "lower env.sandbox.memory_mib, env.sandboxes_per_worker or placement.env.max_workers"
        found.append(_finding(MEMORY_PLAN, "sandboxes", Level.WARNING, said, mend))
    return found


def _too_much(facts: RunFacts, model: ModelShape, plan: MemoryPlan, said: str) -> Finding:
    def excess(other: MemoryPlan) -> int:
        return other.host - int(TIGHT_SHARE * facts.free_memory)

    mend = _changes(facts.config, model, facts.lengths, excess)
    if plan.host <= facts.free_memory:
        return _finding(MEMORY_PLAN, "sum", Level.WARNING, f"tight: {said}", mend)
    largest = max(plan.roles, key=lambda role: role.all())
    return _finding(MEMORY_PLAN, "sum", Level.BROKEN, f"does not fit: {said}; most of it is {largest.role}'s", mend)


def _changes(config: RunConfig, model: ModelShape, lengths: Lengths, excess: Excess) -> str:
    changes, enough = advise(config, model, lengths, excess)
    if enough:
        return " ".join(changes)
    more = "free memory, take a smaller model, or add machines (placement.learner.ranks over several nodes)"
    return f"{' '.join(changes)} help, and are not enough; {more}" if changes else more


def _gpus(facts: RunFacts, model: ModelShape, plan: MemoryPlan) -> list[Finding]:
    """Each GPU by itself; actors that share one are put together as Ray would."""
    if not facts.gpus or facts.on_cluster:
        return []
    loads, room = gpu_loads(plan), min(gpu.free for gpu in facts.gpus)
    found = []
    greedy = facts.config.placement.rollout.num_gpus > 0 and facts.config.rollout.kv_cache_gib is None
    if greedy and facts.config.placement.rollout.num_gpus < 1:
        said = f"rollout.kv_cache_gib=none on a shared GPU: vLLM takes {ENGINE_SHARE_OF_GPU:.0%} of it"
        mend = f"rollout.kv_cache_gib={needed_cache_gib(facts.config, model, sequences=16)}"
        found.append(_finding(MEMORY_PLAN, "greedy", Level.BROKEN, said, mend))
    for index, load in enumerate(loads):
        said = f"GPU {index}: {size(load)} of {size(room)}"
        if load <= TIGHT_SHARE * room:
            found.append(_finding(MEMORY_PLAN, f"gpu {index}", Level.OK, f"fits: {said}"))
            continue
        mend = _changes(
            facts.config, model, facts.lengths, lambda p: max(gpu_loads(p), default=0) - int(TIGHT_SHARE * room)
        )
        level, word = (Level.WARNING, "tight") if load <= room else (Level.BROKEN, "does not fit")
        found.append(_finding(MEMORY_PLAN, f"gpu {index}", level, f"{word}: {said}", mend))
    return found


def _cache(facts: RunFacts, model: ModelShape) -> list[Finding]:
    """vLLM refuses a cache in which one full window has no room; one that holds few windows makes requests wait."""
    config = facts.config
    if config.rollout.kv_cache_gib is None:
        return []
    window, per_token = config.model.max_model_len_tokens, kv_bytes_per_token(config, model)
    tokens = int(config.rollout.kv_cache_gib * GIB) // per_token
    usual = facts.lengths.prompt + facts.lengths.response
    said = f"rollout.kv_cache_gib={config.rollout.kv_cache_gib:g} holds {tokens} tokens"
    if tokens < window:
        mend = f"rollout.kv_cache_gib={needed_cache_gib(config, model, 1)} or more, or a smaller window"
        said += f", less than one window of {window}: vLLM refuses to start"
        return [_finding(MEMORY_PLAN, "cache", Level.BROKEN, said, mend)]
    return [
        _finding(MEMORY_PLAN, "cache", Level.OK, f"{said}: {tokens // usual} attempts of {usual} tokens at one time")
    ]


def _object_store(facts: RunFacts, plan: MemoryPlan) -> list[Finding]:
    store = sum(part.num_bytes for part in plan.role("ray").parts[1:])
    if facts.on_cluster or store <= TIGHT_SHARE * facts.free_shm:
        return []
    said = f"Ray's object store is to hold {size(store)} of a batch; /dev/shm has {size(facts.free_shm)}"
    mend = f"docker run --shm-size={-(-2 * store // GIB)}g, or smaller batches; else Ray goes to the disk"
    return [_finding(MEMORY_PLAN, "object store", Level.WARNING, said, mend)]


def _disk(facts: RunFacts, model: ModelShape) -> list[Finding]:
    plan = plan_disk(facts.config, model, facts.lengths)
    said = (
        f"{plan.num_checkpoints} checkpoints of {size(plan.checkpoint)} (one of them unfinished), the model "
        f"{size(plan.model)}, samples of {facts.config.steps} steps at most {size(plan.samples)}: {size(plan.total)}; "
        f"{size(facts.free_disk)} are free"
    )
    if plan.total <= TIGHT_SHARE * facts.free_disk:
        return [_finding(DISK_PLAN, "disk", Level.OK, f"fits: {said}")]
    level, word = (Level.WARNING, "tight") if plan.total <= facts.free_disk else (Level.BROKEN, "does not fit")
    fewer = "checkpoint.keep_last=1 checkpoint.keep_best=0" if plan.num_checkpoints > 2 else "make room"
    mend = f"dir=/another/disk, or {fewer}, or record.samples_per_step=4"
    return [_finding(DISK_PLAN, "disk", level, f"{word}: {said}", mend)]


def _finding(group: str, name: str, level: Level, said: str, mend: str = "") -> Finding:
    return Finding(group=group, name=name, level=level, said=said, mend=mend)
