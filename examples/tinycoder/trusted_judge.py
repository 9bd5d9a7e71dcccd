"""Judges programs as the code environment does, but in this process, without any limits; for trusted programs only."""

from collections.abc import Iterator, Mapping
from typing import Any

from env_workers.code.extract import extract_program
from env_workers.code.judge import judge_missing, judge_outcomes
from env_workers.code.open_asserts import open_program, read_open_outcomes
from env_workers.code.outcome import parse_assert_outcomes, parse_outcomes
from env_workers.code.tests import calls_of, parse_tests
from env_workers.runner.answers import plain_answer
from env_workers.runner.asserts import run_asserts
from env_workers.runner.program import run_program, serve_calls
from env_workers.runner.stdio import Stdio
from sdpo.types import Task, Verdict

MAX_OUTPUT_BYTES = 2**16


def judge_trusted(task: Task, response: str, truncated: bool = False) -> Verdict:
    """Return the verdict that an env worker would give on a response; the program runs in this process."""
    tests = parse_tests(task)
    program = extract_program(response)
    if program is None:
        return judge_missing(tests, truncated)
    if tests.asserts is None:
        calls = calls_of(tests)
        max_output_bytes = max(MAX_OUTPUT_BYTES, *(call["max_output_bytes"] for call in calls))
        outcomes = parse_outcomes(list(run_program(program, calls, max_output_bytes)), len(tests.tests))
    elif tests.open:
        source, calls = open_program(program, tests.asserts)
        records = list(run_program(source, calls, shared=True))
        outcomes = read_open_outcomes(parse_outcomes(records, len(calls)), program, tests.asserts)
    else:
        test = tests.asserts
        records = list(run_asserts(test.source, test.groups, test.functions, _LoadedProgram(program).ask))
        records += [{"status": "not_run"}] * (len(test.groups) - len(records))
        outcomes = parse_assert_outcomes(records, len(test.groups))
    return judge_outcomes(outcomes, tests)


class _LoadedProgram:
    """A program in this process, which answers the calls that `run_asserts` asks for."""

    def __init__(self, program: str) -> None:
        self._call: Mapping[str, Any] = {}
        self._outcomes = serve_calls(program, self._calls(), Stdio(MAX_OUTPUT_BYTES), plain_answer)

    def ask(self, message: Mapping[str, Any]) -> Any:
        """Return the outcome record of one call."""
        self._call = {"function": message["function"], "inputs": message["args"], "kwargs": message["kwargs"]}
        return next(self._outcomes)

    def _calls(self) -> Iterator[Mapping[str, Any]]:
        while True:
            yield self._call
