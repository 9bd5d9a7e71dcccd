"""The memory plan: exact sizes of models, sums, what each key does to it, and advice that helps."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.doctor.checks_gpu import Gpu
from orchestrator.doctor.checks_run import judge_run
from orchestrator.doctor.disk_plan import plan_disk
from orchestrator.doctor.facts_run import RunFacts
from orchestrator.doctor.finding import Level
from orchestrator.doctor.memory_advice import advise, needed_cache_gib
from orchestrator.doctor.memory_plan import (
    DEEPSPEED_BUCKET,
    Lengths,
    activation_bytes,
    gpu_loads,
    kv_bytes_per_token,
    packed_tokens,
    plan_memory,
)
from orchestrator.doctor.model_shape import ModelShape, read_model_shape
from sdpo.config import RunConfig
from sdpo.errors import ModelError

GIB = 2**30
SEVEN_B = ModelShape(
    num_parameters=7_615_616_512,
    num_layers=28,
    hidden_size=3584,
    intermediate_size=18944,
    query_size=3584,
    key_size=512,
    vocab_size=152064,
    tied=False,
    has_qk_norm=False,
    largest_layer=233_057_792,
    matrices={"q_proj": (28, 28 * 7168), "up_proj": (28, 28 * (3584 + 18944))},
)
"""Qwen2.5-7B."""
LENGTHS = Lengths(prompt=1024, response=2048, hindsight=4096)


def config_of(**sections: Any) -> RunConfig:
    base: dict[str, Any] = {
        "model": {"max_model_len_tokens": 8192},
        "rollout": {"sampling": {"max_response_tokens": 2048}},
        "hindsight": {"max_prompt_tokens": 4096},
    }
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section} if isinstance(section, dict) else section
    return RunConfig.model_validate(base)


def learner_of(ranks: int = 1, **settings: Any) -> int:
    config = config_of(learner=settings, placement={"learner": {"ranks": ranks}})
    return plan_memory(config, SEVEN_B, LENGTHS).role("learner").each()


def part(config: RunConfig, role: str, what: str) -> int:
    parts = plan_memory(config, SEVEN_B, LENGTHS).role(role).parts
    return sum(p.num_bytes for p in parts if p.what == what)


def test_the_embedded_model_is_counted_exactly(tinycoder_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    shape = read_model_shape(str(tinycoder_model))
    model = AutoModelForCausalLM.from_pretrained(tinycoder_model)
    assert shape.num_parameters == sum(p.numel() for p in model.parameters())
    assert shape.largest_tensor == max(p.numel() for p in model.parameters())
    assert shape.largest_layer == sum(p.numel() for p in model.model.layers[0].parameters())
    assert (shape.tied, shape.has_qk_norm, shape.num_layers) == (True, True, 4)
    q = model.model.layers[0].self_attn.q_proj.weight
    assert shape.lora_parameters(8, ("q_proj", "nowhere")) == 8 * 4 * sum(q.shape)


def test_a_stored_copy_of_a_tied_head_is_not_counted(tmp_path: Path) -> None:
    shapes = {"model.embed_tokens.weight": [10, 4], "lm_head.weight": [10, 4], "model.norm.weight": [4]}
    header = json.dumps({name: {"shape": s, "dtype": "F32"} for name, s in shapes.items()}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (tmp_path / "tokenizer.json").write_text("{}")
    config = {"vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 0, "num_attention_heads": 2}
    config |= {"intermediate_size": 8, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_model_shape(str(tmp_path)).num_parameters == 44
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert read_model_shape(str(tmp_path)).num_parameters == 84
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match="not a safetensors file"):
        read_model_shape(str(tmp_path))


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
    assert part(buckets, "learner", "reduce bucket") == 2 * DEEPSPEED_BUCKET


def test_advice_makes_it_fit_or_says_that_it_does_not() -> None:
    config = config_of(learner={"tokens_per_micro_batch": 65536})
    host = plan_memory(config, SEVEN_B, LENGTHS).host
    changes, enough = advise(config, SEVEN_B, LENGTHS, lambda plan: plan.host - (host - 20 * GIB))
    assert enough
    assert changes[0].startswith("learner.tokens_per_micro_batch=")
    changes, enough = advise(config, SEVEN_B, LENGTHS, lambda plan: plan.host - GIB)
    assert not enough
    assert "learner.gradient_checkpointing=true" in changes or "learner.lora.rank=16" in changes


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
    found = levels(small)
    assert (found["sum"], found["disk"], found["object store"]) == (Level.BROKEN, Level.BROKEN, Level.WARNING)
    sentence = next(f for f in judge_run(small) if f.name == "sum")
    assert "most of it is learner's" in sentence.said
    assert "learner." in sentence.mend
    assert levels(replace(small, on_cluster=True))["sum"] is Level.NOTE
    tiny_cache = config_of(rollout={"kv_cache_gib": 0.01})
    assert levels(facts_of(tiny_cache))["cache"] is Level.BROKEN


def test_a_refused_run_says_why_in_its_own_words() -> None:
    found = judge_run(facts_of(config_of(), refused="model.path=/x: no such folder", model=None))
    assert [(f.level, f.said) for f in found] == [(Level.BROKEN, "model.path=/x: no such folder")]


def test_gpus_that_are_too_small() -> None:
    gpu = Gpu(index=0, name="H100", total=80 * GIB, free=79 * GIB, driver="1", mig=False)
    checkpointing = {"gradient_checkpointing": True}
    one, eight = ({"learner": {"num_gpus": 1.0, "ranks": ranks}} for ranks in (1, 8))
    assert levels(facts_of(config_of(learner=checkpointing, placement=one), gpus=(gpu,)))["gpu 0"] is Level.BROKEN
    assert levels(facts_of(config_of(learner=checkpointing, placement=eight), gpus=(gpu,) * 8))["gpu 7"] is Level.OK
    greedy = config_of(rollout={"kv_cache_gib": None}, placement={"rollout": {"num_gpus": 0.5}})
    assert levels(facts_of(greedy, gpus=(gpu,)))["greedy"] is Level.BROKEN


def test_a_cache_is_named_in_which_a_window_fits() -> None:
    config = config_of()
    gib = needed_cache_gib(config, SEVEN_B, sequences=1)
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
