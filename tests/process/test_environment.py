"""The environment protocol: looking one up, one of one's own, and whose fault a broken sandbox is."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from env_workers import environment
from env_workers.environment import Context, Reply, SandboxViolation, SingleTurnEnvironment
from env_workers.sandbox import renewable
from env_workers.sandbox.base import Sandbox
from env_workers.sandbox.pool import execution_deadline_s
from env_workers.sandbox.renewable import RenewableSandbox
from sdpo.config import BubblewrapSandbox, EnvConfig
from sdpo.errors import ConfigError, InfrastructureError
from sdpo.types import Task, Verdict


class Capital(SingleTurnEnvironment):
    """A world of one's own: the reply must be the payload's answer."""

    def judge(self, task: Task, reply: Reply) -> Verdict:
        right = reply.text.strip() == task.payload["answer"]
        return Verdict(reward=float(right), success=right, kind="passed" if right else "wrong_answer")


@pytest.fixture(autouse=True)
def _own_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_worlds", sys.modules[__name__])


def task(name: str) -> Task:
    return Task(id="france", messages=(), environment=name, payload={"answer": "Paris"})


class NoSandbox:
    """An executor for environments that execute nothing."""

    def execute(self, *arguments: Any, **options: Any) -> Any:
        raise AssertionError("nothing to execute")

    judge_asserts = execute


CONTEXT = Context(config=EnvConfig(), sandbox=NoSandbox())


def test_an_environment_of_ones_own() -> None:
    world = environment.load_environment("own_worlds:Capital", CONTEXT)
    for text, reward in (("Paris\n", 1.0), ("Rome", 0.0)):
        verdict = world.open(task("own_worlds:Capital")).step(Reply(text=text))
        assert isinstance(verdict, Verdict)
        assert verdict.reward == reward


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("cod", "environment 'cod' does not exist; nearest: code; allowed: code, .*or module:Class of your own"),
        ("no_such_module:World", "environment 'no_such_module:World' cannot be imported"),
        ("own_worlds:World", "environment 'own_worlds:World' cannot be imported"),
    ],
)
def test_an_unknown_environment_is_one_clear_line(name: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        environment.load_environment(name, CONTEXT)


class ScriptedSandbox(Sandbox):
    """Runs the canary; the program's n-th execution over all sandboxes does `script[n]`."""

    def __init__(self, script: list[str], canary_works: bool = True) -> None:
        self.script, self.canary_works = script, canary_works

    def start(self) -> Mapping[str, Any]:
        return {"kind": "scripted"}

    @property
    def restart_reason(self) -> str | None:
        return None

    def execute(
        self, source: str, calls: Sequence[Mapping[str, Any]], time_limit_s: float, *, shared: bool = False
    ) -> Any:
        if source != "program":
            return renewable._CANARY_OUTCOMES if self.canary_works else []
        step = self.script.pop(0)
        if step == "fault":
            raise InfrastructureError("the sandbox closed its pipe")
        return [{"status": "killed", "code": 9}] if step == "killed" else [{"status": step}]

    def close(self) -> None:
        pass


@pytest.mark.parametrize("fault", ["fault", "killed"])
def test_two_faults_in_fresh_sandboxes_are_the_programs_own(fault: str) -> None:
    script = [fault] * 9
    with pytest.raises(SandboxViolation):
        RenewableSandbox(lambda: ScriptedSandbox(script)).execute("program", [], 1.0)
    assert len(script) == 7


def test_a_fault_in_a_used_sandbox_does_not_count() -> None:
    script = ["returned", "fault", "fault", "returned"]
    held = RenewableSandbox(lambda: ScriptedSandbox(script))
    held.execute("program", [], 1.0)
    assert held.execute("program", [], 1.0) == [{"status": "returned"}]
    assert held.num_started == 3


def test_a_fault_is_the_infrastructures_while_the_canary_fails() -> None:
    sandboxes = iter([ScriptedSandbox(["fault"]), ScriptedSandbox([], canary_works=False)])
    with pytest.raises(InfrastructureError, match="canary"):
        RenewableSandbox(lambda: next(sandboxes)).execute("program", [], 1.0)


def test_the_deadline_of_a_verdict_covers_every_execution() -> None:
    config = EnvConfig(sandbox=BubblewrapSandbox(wall_time_s=7.0))
    assert execution_deadline_s(config) > 3 * 7.0


def test_imports_without_torch_vllm_transformers_and_ray() -> None:
    code = (
        "import sys, env_workers.worker, env_workers.code.environment\n"
        "sys.exit(bool({'torch', 'vllm', 'transformers', 'ray'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(environment.__file__).parents[1])
