"""Answers compared in mathematics by the helper process, and what a hostile answer can do to it: nothing."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from env_workers.adapters.math import math
from env_workers.environment import Context, Reply
from env_workers.mathematics import MathEnvironment, last_box
from env_workers.verifier.host import Overrun, Raised, Verifier
from sdpo.config import EnvConfig
from sdpo.errors import InfrastructureError
from sdpo.types import Task, Verdict

PROBE = "tests.verifier_probe"


@pytest.fixture(scope="module")
def environment() -> Iterator[MathEnvironment]:
    made = MathEnvironment(Context(config=EnvConfig(), sandbox=None))  # type: ignore[arg-type]
    made._verifier = Verifier("env_workers.verifier.math_checks", {"given": "1", "key": "1"}, cpu_s=1.0)
    yield made
    made._verifier.close()


@pytest.fixture(scope="module")
def probe() -> Iterator[Verifier]:
    verifier = Verifier(PROBE, {"do": "echo"}, cpu_s=0.3, memory_mib=64)
    yield verifier
    verifier.close()


def judge(environment: MathEnvironment, key: str, text: str, truncated: bool = False) -> Verdict:
    task = Task(id="t", messages=(), environment="math", payload={"answer": key})
    environment.check(task)
    return environment.judge(task, Reply(text=text, truncated=truncated))


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("1/2", r"\frac12"),
        ("0.5", r"50\%"),
        ("3000", "3,000"),
        ("(x-1)(x+1)", "x^2-1"),
        (r"\{1, 2\}", "2, 1"),
        (r"\boxed{\sqrt{8}}", r"2\sqrt{2}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}"),
        (r"\text{east}", r"\text{east}"),
        (r"1.5 \cdot 10^3", "1500"),
    ],
)
def test_equal_in_mathematics(environment: MathEnvironment, key: str, answer: str) -> None:
    assert judge(environment, key, rf"So \boxed{{3}}, no: \boxed{{{answer}}}.").kind == "passed"


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        (r"\boxed{7}", "wrong_answer", "'7' is not the right answer."),
        (r"\boxed{\{7, 8\}}", "wrong_answer", "It is a set of values; the right answer is a number."),
        ("42", "wrong_format", "there is no"),
        (r"\boxed{42", "wrong_format", "is not closed"),
        (r"\boxed{}", "wrong_format", "is empty"),
        (r"\boxed{\frac{}", "wrong_format", "is not closed"),
        (r"\boxed{\frac}", "wrong_format", "could not be read"),
        (r"\boxed{" + "1+" * 600 + "1}", "wrong_format", "longer than 1000"),
        (r"\boxed{__import__('os').system('id')}", "wrong_format", "could not be read"),
        (r"<think>\boxed{42}", "wrong_format", "there is no"),
    ],
)
def test_wrong_in_form_or_in_value(environment: MathEnvironment, text: str, kind: str, told: str) -> None:
    verdict = judge(environment, "42", text)
    assert (verdict.kind, verdict.reward) == (kind, 0.0)
    assert told in verdict.feedback
    assert "42" not in verdict.feedback.replace(text, "")
    if kind == "wrong_format":
        assert judge(environment, "42", text, truncated=True).kind == "truncated"


def test_an_answer_without_end_is_the_models_own_fault(environment: MathEnvironment) -> None:
    verdict = judge(environment, "42", r"\boxed{9^{9^{9^9}}}")
    assert (verdict.kind, verdict.reward, verdict.infrastructure_error) == ("wrong_format", 0.0, None)
    assert "takes too long to evaluate" in verdict.feedback
    assert judge(environment, "42", r"\boxed{6 \cdot 7}").success


def test_boxes() -> None:
    assert last_box(r"\boxed{\frac{1}{2}} and \boxed{ $\{1\}$ }") == r"\{1\}"
    assert last_box(r"\boxed{1} and \boxed{2") == "1"
    assert last_box(r"\boxed{\}}") == r"\}"
    assert last_box(r"{ \boxed{3} \boxed{4") == "3"
    assert last_box(r"\boxed{1 \boxed{2}}") == "2"
    assert last_box("2") is None
    assert last_box(r"\boxed{" * 100_000) is None


def test_records(tmp_path: Path) -> None:
    path = tmp_path / "math.jsonl"
    records = [
        {"problem": "1+1?", "solution": r"It is \boxed{2}."},
        {"question": "2+1?", "answer": "2 + 1 = 3\n#### 3"},
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    tasks = list(math(str(path), "train", {}))
    assert [task.payload["answer"] for task in tasks] == ["2", "3"]
    assert tasks[0].messages[0].content.startswith("1+1?\nPlease reason step by step")


@pytest.mark.parametrize("what", ["socket", "fork", "write", "kill", "peek"])
def test_the_helper_cannot_reach_out(probe: Verifier, what: str, tmp_path: Path) -> None:
    request = {"do": what, "path": str(tmp_path / "file"), "pid": os.getpid()}
    assert probe.ask(request) in ("PermissionError", "OSError")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("what", "why"),
    [("spin", "time"), ("hoard", "memory"), ("recurse", "depth"), ("eval", "evaluation"), ("swallow", "evaluation")],
)
def test_a_request_that_is_too_much(probe: Verifier, what: str, why: str) -> None:
    with pytest.raises(Overrun) as caught:
        probe.ask({"do": what})
    assert caught.value.why == why
    assert probe.ask({"do": "echo"}) == "echo"


def test_a_request_that_kills_the_helper_is_told_from_a_broken_helper(probe: Verifier) -> None:
    with pytest.raises(Overrun, match="crash"):
        probe.ask({"do": "crash"})
    with pytest.raises(Raised, match="ValueError"):
        probe.ask({"do": "raise"})
    with pytest.raises(InfrastructureError, match="at every request"):
        Verifier(PROBE, {"do": "crash"}).ask({"do": "crash"})
    with pytest.raises(InfrastructureError, match="cannot start: ModuleNotFoundError"):
        Verifier("no_such_module", {}).ask({})


def test_the_helper_holds_no_environment_and_ends_with_its_owner(probe: Verifier) -> None:
    pid = probe.ask({"do": "pid"})
    helper = psutil.Process(pid)
    assert "PATH" not in probe.ask({"do": "environment"})
    probe._helper._process.stdin.close()  # type: ignore[union-attr]
    helper.wait(10)
    probe.close()
