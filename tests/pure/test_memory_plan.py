"""The memory plan: sums, what each key does to it, and advice that helps."""

import json
from typing import Any

from orchestrator.commands.doctor.disk_plan import plan_disk
from orchestrator.inputs.model_config import kv_bytes_per_token, kv_cache_gib, round_up_gib
from orchestrator.memory.advice import advise
from orchestrator.memory.plan import (
    activation_bytes,
    gpu_loads,
    packed_tokens,
    plan_memory,
)
from sdpo.config import RunConfig
from sdpo.config.load import make_run_config
from tests.fixtures.doctor import LENGTHS, SEVEN_B, config_of

GIB = 2**30


def learner_of(ranks: int = 1, **settings: Any) -> int:
    config = config_of(learner=settings, placement={"learner": {"ranks": ranks}})
    return plan_memory(config, SEVEN_B, LENGTHS).role("learner").each()


def part(config: RunConfig, role: str, what: str) -> int:
    parts = plan_memory(config, SEVEN_B, LENGTHS).role(role).parts
    return sum(p.num_bytes for p in parts if p.what == what)


def test_states_are_sixteen_bytes_a_parameter_and_the_gradients() -> None:
    config = config_of()
    size = SEVEN_B.num_parameters
    assert part(config, "learner", "float32 masters") == 4 * size
    assert part(config, "learner", "AdamW") == 8 * size
    assert part(config, "learner", "teacher's average") == 4 * size
    assert part(config, "learner", "gradients") == 4 * size
    frozen = config_of(teacher={"regularisation": {"kind": "frozen"}})
    assert part(frozen, "learner", "teacher's average") == 0


def test_sums_are_sums() -> None:
    plan = plan_memory(config_of(placement={"rollout": {"workers": 3}, "env": {"max_workers": 4}}), SEVEN_B, LENGTHS)
    assert plan.host == sum(role.count * sum(p.num_bytes for p in role.parts) for role in plan.roles)
    assert {r.role: r.count for r in plan.roles} == {
        "rollout": 3,
        "learner": 1,
        "teacher": 1,
        "env": 4,
        "orchestrator": 1,
        "ray": 1,
    }
    assert "teacher" not in {r.role for r in plan_memory(config_of(objective={"kind": "grpo"}), SEVEN_B, LENGTHS).roles}


def test_more_ranks_each_hold_less() -> None:
    assert learner_of(ranks=8) < learner_of(ranks=2) < learner_of(ranks=1)
    assert learner_of(ranks=4, backend="zero3") < learner_of(ranks=4, backend="zero2")
    assert learner_of(ranks=4, backend="zero2") < learner_of(ranks=4, backend="zero1")


def test_what_saves_memory_saves_memory() -> None:
    plain = learner_of()
    assert learner_of(gradient_checkpointing=True) < plain
    assert learner_of(tokens_per_micro_batch=4096) < plain
    assert learner_of(logits_chunk_tokens=32) < plain
    assert learner_of(lora={"rank": 16}) < plain / 2
    full = config_of(objective={"kind": "sdpo", "support": "full", "top_k": 0, "full_support_mib": 1e9})
    assert part(full, "learner", "logits") > part(config_of(), "learner", "logits")
    assert part(full, "ray", "batch in the object store") > 100 * part(config_of(), "ray", "batch in the object store")
    mixed = config_of(teacher={"regularisation": {"kind": "trust_region"}})
    assert part(mixed, "teacher", "weights") == 2 * part(config_of(), "teacher", "weights")


def test_a_micro_batch_holds_at_least_one_attempt_and_at_most_the_batch() -> None:
    config = config_of(learner={"tokens_per_micro_batch": 8192})
    assert packed_tokens(config, LENGTHS) == 8192
    assert packed_tokens(config_of(learner={"tokens_per_micro_batch": 1}), LENGTHS) == 3072
    small = config_of(batch={"tasks": 1, "samples_per_task": 2})
    assert packed_tokens(small, LENGTHS) == 2 * 3072
    assert activation_bytes(config, SEVEN_B, 8192) == 2 * activation_bytes(config, SEVEN_B, 4096)


def test_gpus_are_shared_as_ray_shares_them() -> None:
    halves = {"num_gpus": 0.5}
    config = config_of(placement={"rollout": halves, "learner": halves, "teacher": {"num_gpus": 1.0}})
    plan = plan_memory(config, SEVEN_B, LENGTHS)
    on_gpu = {role.role: role.each("gpu") for role in plan.roles}
    assert gpu_loads(plan) == [on_gpu["rollout"] + on_gpu["learner"], on_gpu["teacher"]]
    assert plan.role("learner").each() >= 4 * SEVEN_B.num_parameters, "every rank loads the whole model on its host"
    split = config_of(placement={"rollout": {"num_gpus": 2.0, "tensor_parallel": 2}})
    loads = gpu_loads(plan_memory(split, SEVEN_B, LENGTHS))
    assert len(loads) == 2
    assert loads[0] == -(-plan_memory(split, SEVEN_B, LENGTHS).role("rollout").each("gpu") // 2)
    buckets = config_of(learner={"backend": "zero2"}, placement={"learner": {"num_gpus": 1.0}})
    assert part(buckets, "learner", "reduce bucket") == 2 * 500_000_000


def test_advice_makes_it_fit_or_says_that_it_does_not() -> None:
    config = config_of(learner={"tokens_per_micro_batch": 65536})
    host = plan_memory(config, SEVEN_B, LENGTHS).host
    changes, enough = advise(config, SEVEN_B, LENGTHS, lambda plan: plan.host - (host - 20 * GIB))
    assert enough
    assert changes[0].startswith("learner.tokens_per_micro_batch=")
    changes, enough = advise(config, SEVEN_B, LENGTHS, lambda plan: plan.host - GIB)
    assert not enough
    assert "learner.gradient_checkpointing=true" in changes or "learner.lora.rank=16" in changes


def test_a_cache_is_named_in_which_a_window_fits() -> None:
    config = config_of()
    gib = round_up_gib(kv_cache_gib(config, SEVEN_B, num_sequences=1))
    per_token = kv_bytes_per_token(config, SEVEN_B)
    assert per_token == 28 * 2 * 512 * 2
    assert 0 <= gib * GIB - 8192 * per_token < 0.011 * GIB


def test_disk_is_checkpoints_model_and_samples() -> None:
    config = config_of(checkpoint={"keep_last": 2, "keep_best": 1}, steps=10)
    plan = plan_disk(config, SEVEN_B, LENGTHS)
    assert plan.checkpoint == 16 * SEVEN_B.num_parameters
    assert plan.num_checkpoints == 4
    assert plan.total == 4 * plan.checkpoint + plan.model + plan.samples
    more = plan_disk(config.model_copy(update={"steps": 20}), SEVEN_B, LENGTHS)
    assert more.samples == 2 * plan.samples


def test_advice_keeps_what_costs_only_speed_apart_from_what_changes_the_run() -> None:
    """Every hint helps, each is a valid override, and the cheap ones come first."""
    config = config_of(
        placement={"rollout": {"workers": 2}, "env": {"max_workers": 4}}, env={"sandboxes_per_worker": 8}
    )
    changes, enough = advise(config, SEVEN_B, LENGTHS, lambda plan: plan.host - 60 * GIB)
    assert not enough
    keys = [change.split("=")[0] for change in changes]
    assert keys[-1] == "learner.lora.rank"
    assert "placement.rollout.workers" in keys
    assert "model.dtype" not in keys, "bfloat16 on a processor would be slow"
    values = {key: json.loads(value) for key, _, value in (change.partition("=") for change in changes)}
    changed = make_run_config(config.model_dump(mode="json"), values)
    assert plan_memory(changed, SEVEN_B, LENGTHS).host < plan_memory(config, SEVEN_B, LENGTHS).host / 2


def test_a_run_on_recorded_rollouts_has_no_engines() -> None:
    config = config_of(rollout={"recorded": "/recorded"}, tasks={"heldout": None})
    roles = {role.role for role in plan_memory(config, SEVEN_B, LENGTHS).roles}
    assert roles == {"learner", "teacher", "orchestrator", "ray"}
