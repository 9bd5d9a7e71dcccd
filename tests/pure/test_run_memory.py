"""The memory plan at the start of a run: what is refused, what is warned of, and what neither."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.capacity import Cluster, Node
from orchestrator.inputs.gpus import Gpu
from orchestrator.memory.check import check_machine, gather_machine, largest_nodes
from orchestrator.memory.run_memory import Machine, RunMemory
from sdpo.config import RunConfig
from sdpo.errors import ConfigError
from tests.fixtures.doctor import LENGTHS, SEVEN_B, config_of

GIB = 2**30
MODEL = Path(__file__).resolve().parents[2] / "examples/tinycoder/model"


def memory_of(config: RunConfig) -> RunMemory:
    return RunMemory(config=config, model=SEVEN_B, lengths=LENGTHS)


def gpu(total_gib: int) -> Gpu:
    return Gpu(index=0, name="H100", total=total_gib * GIB, free=total_gib * GIB, driver="1", mig=False)


def test_a_cache_that_no_process_can_allocate_is_refused() -> None:
    memory = RunMemory.of(RunConfig.model_validate({"rollout": {"kv_cache_gib": 100.0}}), 80)
    assert memory is not None
    with pytest.raises(ConfigError) as refused:
        memory.require(Machine(most=24 * GIB, free=20 * GIB))
    line = str(refused.value)
    assert line.startswith("memory: weights, optimizer state and KV caches alone take 100 GiB, most of it in rollout ")
    assert "KV cache 100 GiB" in line
    assert "this machine has 24 GiB; allowed: rollout.kv_cache_gib=0.0" in line
    assert "\n" not in line


def test_an_estimate_is_warned_of_and_never_refused() -> None:
    memory = memory_of(config_of(rollout={"kv_cache_gib": 8.0}))
    host, least = memory.plan.host, memory.plan.least_host
    assert least < host
    machine = Machine(most=least, free=least)
    memory.require(machine)
    (line,) = memory.warnings(machine)
    assert line.startswith("memory does not fit: all roles take about ")
    assert "learner the most" in line
    assert "learner." in line
    (line,) = memory.warnings(Machine(most=host, free=host))
    assert line.startswith("memory tight: ")
    assert list(memory.warnings(Machine(most=2 * host, free=2 * host))) == []
    with pytest.raises(ConfigError):
        memory.require(Machine(most=least - 1, free=least - 1))


def test_what_is_certain_are_weights_optimizer_and_caches() -> None:
    plan = memory_of(config_of(rollout={"kv_cache_gib": 8.0}, model={"dtype": "float32"})).plan
    size = SEVEN_B.num_parameters
    assert plan.role("rollout").least() == 4 * size + 8 * GIB
    assert plan.role("learner").least() >= 16 * size, "masters, two moments and the teacher's average"
    assert plan.role("teacher").least() == 4 * size
    assert plan.role("env").least() == plan.role("ray").least() == 0


def test_each_gpu_is_judged_by_itself() -> None:
    placement: dict[str, Any] = {"learner": {"num_gpus": 1.0, "ranks": 1}}
    memory = memory_of(config_of(placement=placement, learner={"gradient_checkpointing": True}))
    with pytest.raises(ConfigError, match=r"memory of GPU 0: weights, .* alone take 113 GiB; it has 80 GiB; allowed: "):
        memory.require(Machine(most=2000 * GIB, free=2000 * GIB, gpus=(gpu(80),)))
    memory.require(Machine(most=2000 * GIB, free=2000 * GIB, gpus=(gpu(141),)))
    (line,) = memory.warnings(Machine(most=2000 * GIB, free=2000 * GIB, gpus=(gpu(120),)))
    assert line.startswith("memory does not fit: GPU 0: about ")


def test_a_cache_below_a_window_is_warned_of() -> None:
    memory = memory_of(config_of(rollout={"kv_cache_gib": 0.01}))
    lines = list(memory.warnings(Machine(most=2000 * GIB, free=2000 * GIB)))
    assert len(lines) == 1
    assert lines[0].startswith("rollout.kv_cache_gib=0.01 holds 187 tokens, less than one window of 8192")


def test_a_node_is_compared_with_one_actor() -> None:
    sizes = {"memory": 16.0 * GIB, "object_store_memory": 4.0 * GIB}
    nodes = (Node(name="a", total=sizes, free={}), Node(name="b", total={"memory": 300.0 * GIB}, free={}))
    config = config_of(placement={"rollout": {"label_selector": {"x": "y"}}})
    assert largest_nodes(config, Cluster(nodes=nodes)) == dict.fromkeys(("learner", "env", "teacher"), 300 * GIB)
    memory = memory_of(config)
    assert list(memory.cluster_warnings(largest_nodes(config, Cluster(nodes=nodes)))) == []
    lines = list(memory.cluster_warnings({"learner": 20 * GIB, "env": 20 * GIB}))
    assert len(lines) == 1
    assert lines[0].startswith("memory does not fit: learner ")
    assert "the largest node for it has 20 GiB; " in lines[0]


def test_a_model_of_unknown_sizes_is_not_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"num_attention_heads": 1}')
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes((MODEL / name).read_bytes())
    memory = RunMemory.of(RunConfig.model_validate({"model": {"path": str(tmp_path)}}), 3)
    assert memory is None
    assert "warning: model.path=" in (line := capsys.readouterr().err)
    assert "its memory cannot be planned" in line
    check_machine(memory)


def test_the_demo_fits_this_machine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    memory = RunMemory.of(RunConfig(), 90)
    assert memory is not None
    memory.require(gather_machine(memory.config))
    check_machine(memory)
    assert gather_machine(memory.config).gpus == ()
