"""The parts of the orchestrator that need no actor: gate, task order, failures, metrics."""

import asyncio
import json
from pathlib import Path

import pytest

from orchestrator.failures import one_line, root_cause
from orchestrator.gate import StalenessGate
from orchestrator.metrics_log import MetricsLog, read_metrics
from orchestrator.task_source import TaskSource
from orchestrator.waits import within
from sdpo.errors import ConfigError, InfrastructureError, LearnerDied, StageTimeout
from sdpo.types import Message, Task


def tasks(count: int) -> list[Task]:
    question = (Message(role="user", content="?"),)
    return [Task(id=str(i), messages=question, environment="code", payload={}) for i in range(count)]


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_gate_never_lets_a_batch_run_further_ahead_than_the_bound(staleness: int) -> None:
    async def scenario() -> list[tuple[int, int]]:
        gate, started, published = StalenessGate(staleness, 0), [], 0

        async def producer() -> None:
            for batch in range(10):
                await gate.wait(batch)
                started.append((batch, published))

        running = asyncio.create_task(producer())
        while published < 10:
            for _ in range(5):
                await asyncio.sleep(0)
            published += 1
            gate.publish(published)
        await asyncio.wait_for(running, 5)
        return started

    started = asyncio.run(scenario())
    assert [batch for batch, _ in started] == list(range(10))
    assert max(batch - published for batch, published in started) == staleness


def test_task_source_is_a_function_of_seed_and_index() -> None:
    first, again, other = (TaskSource(tasks(10), 3, seed) for seed in (0, 0, 1))
    order = [[t.id for t in first.batch(i)] for i in range(6)]
    assert order == [[t.id for t in again.batch(i)] for i in (0, 1, 2, 3, 4, 5)]
    assert order != [[t.id for t in other.batch(i)] for i in range(6)]
    assert len({i for batch in order[:3] for i in batch}) == 9, "an epoch repeats nothing"
    assert set(order[0]) != set(order[3]), "the next epoch has another order"


def test_task_source_refuses_a_batch_larger_than_the_task_set() -> None:
    with pytest.raises(ConfigError, match=r"batch\.tasks=4: allowed: at most 3"):
        TaskSource(tasks(3), 4, 0)


def test_root_cause_prefers_bad_input_then_a_dead_learner() -> None:
    inner = BaseExceptionGroup("g", [asyncio.CancelledError(), InfrastructureError("x"), LearnerDied("y")])
    assert isinstance(root_cause(inner), LearnerDied)
    with_input = BaseExceptionGroup("h", [inner, ConfigError("bad")])
    assert one_line(root_cause(with_input)) == "bad"


def test_a_wait_past_its_deadline_names_actor_and_stage() -> None:
    with pytest.raises(StageTimeout, match=r"env-3 did not finish judge within 0\.01 s"):
        asyncio.run(within(asyncio.sleep(5), actor="env-3", stage="judge", timeout_s=0.01))


def test_metrics_newer_than_the_checkpoint_are_discarded_on_resume(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, resumed_steps=0, tensorboard=False)
    for step in range(4):
        log.write(step, {"a": float(step), "b": float("nan")})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "a"')
    MetricsLog(tmp_path, resumed_steps=2, tensorboard=False).write(3, {"a": 30.0})
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [(r["step"], r["a"]) for r in records] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0)]
    assert records[0]["b"] is None
    assert all(json.dumps(r) for r in records)
