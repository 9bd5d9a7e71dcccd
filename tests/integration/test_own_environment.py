"""Environments of one's own in real env workers: their code arrives, their faults stop the run, the page's work."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError

from env_workers import code_bundle
from env_workers.environment import Exchange, Observation, Reply
from env_workers.worker import EnvWorker
from orchestrator.failures import one_line, root_cause
from sdpo.config import EnvConfig
from sdpo.types import Task, Verdict
from tests.fixtures.run import ROOT
from tests.fixtures.walkthrough import files_of

MOODY = """
import os
from env_workers.environment import SingleTurnEnvironment
from sdpo.types import Verdict

class Moody(SingleTurnEnvironment):
    def judge(self, task, reply):
        if reply.text == "raise":
            return task.payload["gone"]
        if reply.text == "GPUs?":
            return Verdict(reward=0.0, success=False, kind="{kind}", feedback=repr(os.environ["CUDA_VISIBLE_DEVICES"]))
        return Verdict(reward=reply.text, success=True, kind="{kind}") if reply.text == "type" else Verdict(
            reward=1.0, success=True, kind="{kind}", feedback="f" * 900)
"""


def task(environment: str, **payload: Any) -> Task:
    return Task(id="t1", messages=(), environment=environment, payload=payload)


def test_code_arrives_in_an_actor_and_its_faults_are_the_users_to_read(ray_cluster: str, tmp_path: Path) -> None:
    file = tmp_path / "moody_world.py"

    def actor(kind: str) -> Any:
        file.write_text(MOODY.format(kind=kind))
        bundle = code_bundle.pack([str(file)])
        file.unlink()
        config = EnvConfig(feedback="outcome" if kind == "old" else "rich", max_feedback_chars=100)
        options: dict[str, Any] = {"num_cpus": 0, "runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": "0,1"}}}
        return ray.remote(EnvWorker).options(**options).remote(config, f"env-{kind}", "test", bundle)

    def judged(worker: Any, said: str) -> Any:
        asked = worker.step.remote("a", task("moody_world:Moody"), (), Reply(text=said))
        return ray.get(asked, timeout=60)

    workers = actor("old"), actor("new")
    old, new = (judged(worker, "well") for worker in workers)
    assert (old.kind, old.feedback) == ("old", "")
    assert (new.kind, len(new.feedback)) == ("new", 100), "a changed file is the new one, within its budget"
    assert judged(workers[1], "GPUs?").feedback == "''", "it asked Ray for none"
    for said, line in [
        (
            "raise",
            "environment moody_world:Moody, task t1: step raised KeyError: 'gone' (moody_world.py, line 9, in judge)",
        ),
        ("type", "environment moody_world:Moody, task t1: step gave reward=type (str): allowed: a finite number"),
    ]:
        with pytest.raises(RayTaskError) as raised:
            judged(workers[0], said)
        error = root_cause(ExceptionGroup("of a run", [ValueError("a consequence"), raised.value]))
        assert one_line(error) == line
        assert getattr(error, "exit_code", None) == 2
    for worker in workers:
        ray.get(worker.close.remote(), timeout=30)
        ray.kill(worker)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[EnvWorker]:
    """An env worker with the files of the page on environments."""
    for name, text in files_of(ROOT / "docs" / "environments.md").items():
        (tmp_path / name).write_text(text)
    bundle = code_bundle.pack([str(tmp_path / name) for name in ("guess.py", "sorting.py")])
    worker = EnvWorker(EnvConfig(), "env-0", "test", bundle)
    yield worker
    worker.close()


def test_the_pages_game_is_played_over_several_turns(worker: EnvWorker) -> None:
    game = task("guess:Guess", number=12)
    history: tuple[Exchange, ...] = ()
    for said, told in [("hm", "Say a number."), ("I say 20", "20 is too high."), ("9", "9 is too low.")]:
        answer = worker.step("a", game, history, Reply(text=said))
        assert isinstance(answer, Observation)
        assert [message.content for message in answer.messages] == [told]
        history = (*history, Exchange(reply=Reply(text=said), observation=answer))
    bound = worker.finish("b", game, history, "turns")
    assert (bound.reward, bound.kind) == (0.0, "out_of_turns")
    assert bound.feedback == "You guessed [20, 9]. Halve what is left with every guess."
    won = worker.step("a", game, history, Reply(text="12"))
    assert isinstance(won, Verdict)
    assert (won.reward, won.kind) == (1.0, "found")


def test_the_pages_sorting_runs_programs_in_the_sandbox(worker: EnvWorker) -> None:
    def judged(program: str) -> tuple[Any, ...]:
        reply = Reply(text=f"```python\n{program}\n```")
        verdict = worker.step("a", task("sorting:Sorting", items=[3, 1, 2]), (), reply)
        assert isinstance(verdict, Verdict)
        return verdict.reward, verdict.kind, verdict.feedback

    assert judged("def order(items):\n    return sorted(items)") == (1.0, "sorted", "")
    wrong = "order([3, 1, 2]) gave [2, 1, 3], which is not in order."
    assert judged("def order(items):\n    return items[::-1]") == (0.0, "unsorted", wrong)
    _, kind, words = judged("def order(items):\n    return items.sort_it()")
    assert kind == "raised"
    assert words.startswith("order([3, 1, 2]) ended with raised AttributeError ")
    assert judged("while True: pass")[1] == "timeout"
