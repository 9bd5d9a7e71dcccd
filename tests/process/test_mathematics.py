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
from env_workers.verifier.host import Overrun, Raised, Verifier, close_shared_verifiers
from sdpo.config import EnvConfig
from sdpo.errors import InfrastructureError, TaskFileError
from sdpo.types import Task, Verdict

PROBE = "tests.fixtures.verifier_probe"


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


EQUAL = [
    ("5\\text{ cm}", "0.05 m"),
    ("5", r"5\text{ cm}"),
    (r"9\text{ cm}^2", r"9\text{ square centimeters}"),
    (r"60\text{ miles per hour}", "60 mph"),
    (r"60\text{ m}/\text{s}", "60 m/s"),
    (r"12\text{ inches}", r"1\text{ foot}"),
    (r"\$0.50", r"50\text{ cents}"),
    ("5", "€5"),
    (r"50\%", "50"),
    (r"50\%", r"\frac{1}{2}"),
    (r"10\%, 20\%", "10,20"),
    ("1,000", "1000"),
    (r"1,000\%", "10"),
    (r"5\,000", "5000"),
    (r"\frac{\pi}{4}", r"45^\circ"),
    (r"45^\circ", "45"),
    (r"\frac{\pi}{4}\text{ radians}", r"45^\circ"),
    (r"5^{\text{th}}", "5"),
    ("72.", "72"),
    ("72", "72."),
    ("5°", "5"),
    (r"\text{5 cm}", "5"),
    ("5m", "5 m"),
    ("3ab", "3ba"),
    (r"0.\overline{3}", "1/3"),
    (r"1.2\overline{34}", r"\frac{611}{495}"),
    ("-3./2", "-1.5"),
    (r"1011_{\text{two}}", "1011_2"),
    ("11_{10}", "11"),
    ("1/3", "0.333333"),
    ("2/3", "0.6666666"),
    (r"\sqrt{2}", "1.41421356"),
    ("1/128", "0.0078125"),
    ("0.1x+0.2x", "0.3x"),
    ("5!", "120"),
    (r"6.02 \times 10^{23}", r"6.02\cdot 10^{23}"),
    (r"(-\infty, 3)", r"(-\infty, 3)"),
]
DIFFERENT = [
    (r"\frac{1}{52!}", r"\frac{1}{51!}"),
    ("10^{-20}", "10^{-21}"),
    ("10^{-20}", "0"),
    (r"\{10^{-20}\}", r"\{10^{-21}\}"),
    ("(10^{-20}, 1)", "(10^{-21}, 1)"),
    ("[0,10^{-20}]", "[0,10^{-21}]"),
    ("x=10^{-20}", "x=10^{-21}"),
    ("10^{-20}x", "10^{-21}x"),
    (r"\begin{pmatrix}10^{-20}\end{pmatrix}", r"\begin{pmatrix}10^{-21}\end{pmatrix}"),
    ("e^{-50}", "e^{-51}"),
    (r"\pi+10^{-20}", r"\pi"),
    ("0.0000001", "0.0000002"),
    ("0.12345678", "0.12345679"),
    ("0.1", "0.1000001"),
    ("1/3", "0.333"),
    (r"\infty", r"-\infty"),
    ("1011_2", "1011"),
    ("1011", "1011_2"),
    ("1011_2", "1011_3"),
    ("1011_2", "11"),
    ("FF_{16}", "FF"),
    ("5 cm", "5 m"),
    (r"5\text{ cm}", r"5\text{ m}"),
    (r"9\text{ cm}^2", r"9\text{ cm}^3"),
    (r"3\text{ apples}", r"3\text{ pears}"),
    ("2 hours", "2 minutes"),
    (r"7\text{ am}", r"7\text{ pm}"),
    (r"\$5", "€5"),
    (r"\$0.50", r"50\text{ dollars}"),
    (r"20^\circ\text{C}", r"20^\circ\text{F}"),
    (r"45\text{ radians}", r"45^\circ"),
    ("50", "0.5"),
    (r"50\%", r"50^\circ"),
    ("3m", "3"),
    ("3ab", "3"),
    ("3t", "3"),
]


@pytest.mark.parametrize(("key", "answer"), EQUAL)
def test_marks_and_forms_do_not_make_a_right_answer_wrong(environment: MathEnvironment, key: str, answer: str) -> None:
    assert judge(environment, key, rf"\boxed{{{answer}}}").kind == "passed"
    assert judge(environment, key, rf"\boxed{{{key}}}").kind == "passed"


@pytest.mark.parametrize(("key", "answer"), DIFFERENT)
def test_a_wrong_answer_is_wrong_however_small_the_difference(
    environment: MathEnvironment, key: str, answer: str
) -> None:
    assert judge(environment, key, rf"\boxed{{{answer}}}").kind == "wrong_answer"
    assert judge(environment, key, rf"\boxed{{{key}}}").kind == "passed"


@pytest.mark.parametrize("key", ["x^2 +", r"\frac{1}{", r"\text{a} = \{"])
def test_keys_that_do_not_equal_themselves_are_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(TaskFileError, match=r"task t: payload\.answer is .*; allowed: mathematics in LaTeX"):
        MathEnvironment.check(Task(id="t", messages=(), environment="math", payload={"answer": key}))
    path = tmp_path / "math.jsonl"
    path.write_text("\n".join(json.dumps({"problem": "?", "answer": answer}) for answer in ("2", key)))
    with pytest.raises(TaskFileError, match=r"math\.jsonl, line 2: answer=.*or tasks\.options\.unreadable=drop"):
        list(math(str(path), "train", {}))
    assert [task.payload["answer"] for task in math(str(path), "train", {"unreadable": "drop"})] == ["2"]
    close_shared_verifiers()


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
    assert last_box(r"\fbox{2}") == last_box(r"\boxed 2") == last_box(r"so $\boxed2$.") == "2"
    assert last_box(r"\boxed {3}, \boxed 2 is it, \boxedx") == "2"
    assert last_box(r"$\boxed \frac{1}{2}$") == r"\frac{1}{2}"
    assert last_box(r"\(\boxed 4\)") == "4"
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
    probe._helper._link.close()  # type: ignore[union-attr]
    helper.wait(10)
    probe.close()
