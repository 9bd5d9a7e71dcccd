"""What the doctor says of a run on machines that are not this one: its refusal, memory and disk."""

from dataclasses import replace
from typing import Any

from orchestrator.commands.doctor.finding import Level
from orchestrator.commands.doctor.run import RunFacts, judge_run
from orchestrator.inputs.gpus import Gpu
from orchestrator.memory.plan import plan_memory
from sdpo.config import RunConfig
from tests.fixtures.doctor import LENGTHS, SEVEN_B, config_of

GIB = 2**30


def facts_of(config: RunConfig, **changes: Any) -> RunFacts:
    facts = RunFacts(
        config=config,
        refused="",
        num_tasks=100,
        num_heldout=10,
        model=SEVEN_B,
        lengths=LENGTHS,
        measured=True,
        free_memory=2000 * GIB,
        free_disk=2000 * GIB,
        free_shm=100 * GIB,
        gpus=(),
        on_cluster=False,
    )
    return replace(facts, **changes)


def levels(facts: RunFacts) -> dict[str, Level]:
    return {f.name: f.level for f in judge_run(facts)}


def test_a_run_that_fits_and_one_that_does_not() -> None:
    config = config_of(rollout={"kv_cache_gib": 8.0})
    assert set(levels(facts_of(config)).values()) == {Level.OK}
    small = facts_of(config, free_memory=64 * GIB, free_disk=100 * GIB, free_shm=GIB)
    findings = levels(small)
    assert (findings["sum"], findings["disk"], findings["object store"]) == (Level.BROKEN, Level.BROKEN, Level.WARNING)
    sentence = next(f for f in judge_run(small) if f.name == "sum")
    assert "learner takes the most" in sentence.message
    assert "learner." in sentence.fix
    assert levels(replace(small, on_cluster=True))["sum"] is Level.NOTE
    tiny_cache = config_of(rollout={"kv_cache_gib": 0.01})
    assert levels(facts_of(tiny_cache))["cache"] is Level.BROKEN


def test_a_refused_run_says_why_in_its_own_words() -> None:
    findings = judge_run(facts_of(config_of(), refused="model.path=/x: no such folder", model=None))
    assert [(f.level, f.message) for f in findings] == [(Level.BROKEN, "model.path=/x: no such folder")]


def test_gpus_that_are_too_small() -> None:
    gpu = Gpu(index=0, name="H100", total=80 * GIB, free=79 * GIB, driver="1", mig=False)
    checkpointing = {"gradient_checkpointing": True}
    one, eight = ({"learner": {"num_gpus": 1.0, "ranks": ranks}} for ranks in (1, 8))
    assert levels(facts_of(config_of(learner=checkpointing, placement=one), gpus=(gpu,)))["gpu 0"] is Level.BROKEN
    assert levels(facts_of(config_of(learner=checkpointing, placement=eight), gpus=(gpu,) * 8))["gpu 7"] is Level.OK
    greedy = config_of(rollout={"kv_cache_gib": None}, placement={"rollout": {"num_gpus": 0.5}})
    assert levels(facts_of(greedy, gpus=(gpu,)))["greedy"] is Level.BROKEN


def test_a_plan_that_is_nearly_too_large_is_tight() -> None:
    config = config_of(rollout={"kv_cache_gib": 8.0})
    host = plan_memory(config, SEVEN_B, LENGTHS).host
    assert levels(facts_of(config, free_memory=host - 1))["sum"] is Level.BROKEN
    assert levels(facts_of(config, free_memory=host + GIB))["sum"] is Level.WARNING
    assert levels(facts_of(config, free_memory=2 * host))["sum"] is Level.OK


def test_sandboxes_at_their_limits_are_a_warning() -> None:
    config = config_of(env={"sandboxes_per_worker": 512}, rollout={"kv_cache_gib": 8.0})
    plan = plan_memory(config, SEVEN_B, LENGTHS)
    enough, little = plan.host + plan.worst_sandboxes, plan.host + plan.worst_sandboxes - 1
    assert "sandboxes" not in levels(facts_of(config, free_memory=enough))
    findings = levels(facts_of(config, free_memory=little))
    assert (findings["sum"], findings["sandboxes"]) == (Level.OK, Level.WARNING)
