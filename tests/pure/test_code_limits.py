"""Tasks that no program can pass under a run's limits: what is refused, counted and warned of when tasks are read."""

import json
from pathlib import Path
from typing import Any

import pytest

from env_workers.code import capacity
from env_workers.code.tests import answers_of, calls_of, parse_tests
from env_workers.runner.codec import TooLargeError, encode, size_of
from examples.tinycoder.trusted_judge import judge_trusted
from orchestrator.inputs.inputs import accepted_tasks
from orchestrator.inputs.limits import time_warning
from sdpo.config import BubblewrapSandbox, EnvConfig, RunConfig
from sdpo.config.load import load_run_config
from sdpo.errors import TaskFileError
from sdpo.types import Task

EXAMPLES = Path(__file__).parents[2] / "examples"


def functional(argument: Any, expected: Any) -> dict[str, Any]:
    return {"kind": "functional", "function": "f", "inputs": [argument], "expected": expected}


def stdin(given: str, expected: str) -> dict[str, Any]:
    return {"kind": "stdin", "input": given, "expected": expected}


def task(*tests: dict[str, Any], name: str = "t", **payload: Any) -> Task:
    return Task(id=name, messages=(), environment="code", payload={"tests": list(tests), **payload})


def accepted(folder: Path, tasks: list[Task], **env: Any) -> list[Task]:
    path = folder / "tasks.jsonl"
    user = [{"role": "user", "content": "Write f."}]
    lines = [{"id": t.id, "messages": user, "environment": t.environment, "payload": t.payload} for t in tasks]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = load_run_config(EXAMPLES / "tinycoder.yaml")
    changed: RunConfig = config.model_copy(update={"env": EnvConfig(**env)})
    return accepted_tasks(changed, "train", str(path))


@pytest.mark.parametrize("value", [None, 1, 2**99, 1.5, "é\n", b"ab", [1, (2,), {3}], {"a": [1], 2: {"b": "c"}}])
def test_the_size_is_the_budget_that_encoding_needs(value: Any) -> None:
    encode(value, size_of(value))
    with pytest.raises(TooLargeError):
        encode(value, size_of(value) - 1)


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("def f(n):\n    return list(range(n))", functional(5000, list(range(5000)))),
        ("def f(n):\n    return tuple(map(float, range(n)))", functional(20000, list(range(20000)))),
        ("def f(n):\n    return 'x' * n", functional(100_000, "x" * 100_000)),
        ("print('12345 ' * 40_000)", stdin("", "12345 " * 40_000)),
        ("for i in range(40_000): print(f' {i}.0 ')", stdin("", "\n".join(map(str, range(40_000))))),
    ],
)
def test_the_limit_of_output_follows_from_what_is_expected(program: str, test: dict[str, Any]) -> None:
    assert judge_trusted(task(test), f"```python\n{program}\n```").success


def test_the_limit_does_not_tell_the_length() -> None:
    limits = {capacity.output_bytes("x" * n, printed=True) for n in range(0, 10_000, 7)}
    assert limits == {2**15, 2**16}


@pytest.mark.parametrize("test", [functional(0, [0] * 100_000), stdin("", "é" * (2**20 + 1))])
def test_an_answer_that_no_sandbox_can_give_is_refused(test: dict[str, Any]) -> None:
    with pytest.raises(TaskFileError, match=r"task t: payload.tests\[0\].expected takes \d+ bytes; no answer can pass"):
        parse_tests(task(test))


def test_executions_are_cut_by_inputs_and_by_answers() -> None:
    tests = parse_tests(task(*[stdin("", "x" * 2**20)] * 10, *[functional(0, 0)] * 10))
    assert [len(part) for part in capacity.batches(calls_of(tests), answers_of(tests))] == [6, 14]
    many = parse_tests(task(*[stdin("1", "1")] * 300))
    assert [len(part) for part in capacity.batches(calls_of(many), answers_of(many))] == [300]


@pytest.mark.parametrize(
    ("test", "payload", "env", "reason"),
    [
        (functional(1, 2), {"time_limit_s": 9}, {}, "time_limit_s=9, all tests of a program env.sandbox.wall_time_s=5"),
        (
            functional(1, 2),
            {},
            {"time_limit_s": 6.0},
            "time_limit_s=6, all tests of a program env.sandbox.wall",
        ),
        (
            functional(1, 2),
            {},
            {"time_limit_s": 4.0, "sandbox": BubblewrapSandbox(cpu_time_s=3.0)},
            "time_limit_s=4, all tests of a program env.sandbox.cpu_time_s=3; allowed: at least as much as one test",
        ),
        (
            stdin("", "x" * (2**20 + 1)),
            {},
            {"sandbox": BubblewrapSandbox(max_file_mib=1)},
            "a test has 1048577 bytes of input and output; no answer can pass with env.sandbox.max_file_mib=1",
        ),
        (
            stdin("y" * 2**20, "x" * 2**20),
            {},
            {"sandbox": BubblewrapSandbox(disk_mib=1)},
            "no answer can pass with env.sandbox.disk_mib=1",
        ),
    ],
)
def test_limits_that_no_program_can_keep_are_refused(
    tmp_path: Path, test: dict[str, Any], payload: dict[str, Any], env: dict[str, Any], reason: str
) -> None:
    with pytest.raises(TaskFileError, match=rf"tasks\.jsonl, line 1: task t: .*{reason}"):
        accepted(tmp_path, [task(test, **payload)], **env)


def test_refused_tasks_are_counted_and_named(tmp_path: Path) -> None:
    bad = [task(functional(1, 2), name=f"bad-{i}", time_limit_s=9) for i in range(7)]
    good = task(functional(1, 2), name="good")
    assert [t.id for t in accepted(tmp_path, [good])] == ["good"]
    with pytest.raises(
        TaskFileError,
        match=r"jsonl, line 2: task bad-0: one .* \(and 6 more of 8: bad-1, bad-2, bad-3, bad-4, bad-5 and 1 more\)$",
    ):
        accepted(tmp_path, [good, *bad])


def test_tests_that_need_more_time_than_all_have_are_warned_of() -> None:
    fits, many = task(*[functional(1, 2)] * 5), task(*[functional(1, 2)] * 20, name="many")
    assert time_warning([fits], EnvConfig()) is None
    assert time_warning([fits, many], EnvConfig()) == (
        "1 of 2 coding tasks have more tests than env.sandbox.wall_time_s=5 holds when each takes its limit, most "
        "of them task many: 20 tests of 1 s are 20 s. A right but slow program fails there"
    )
    assert time_warning([many], EnvConfig(sandbox=BubblewrapSandbox(wall_time_s=20.0))) is None
    by_processor = EnvConfig(sandbox=BubblewrapSandbox(wall_time_s=20.0, cpu_time_s=7.0))
    assert "env.sandbox.cpu_time_s=7 holds" in (time_warning([many], by_processor) or "")
    asserts = {"kind": "asserts", "functions": ["f"], "asserts": ["assert f(1)"] * 6}
    assert "6 tests of 1 s are 6 s" in (time_warning([task(asserts)], EnvConfig()) or "")


def test_processor_time_follows_from_the_time_of_all_tests() -> None:
    assert BubblewrapSandbox().processor_time_s == 7.0
    assert BubblewrapSandbox(wall_time_s=600.0).processor_time_s == 602.0
    assert BubblewrapSandbox(wall_time_s=600.0, cpu_time_s=10.0).processor_time_s == 10.0


@pytest.mark.parametrize("preset", sorted((EXAMPLES / "lcb_rich_feedback").glob("*.yaml")), ids=lambda p: str(p.stem))
def test_presets_of_livecodebench_hold_forty_tests(preset: Path) -> None:
    env = load_run_config(preset).env
    assert capacity.tests_that_fit(env, env.time_limit_s) == 40
