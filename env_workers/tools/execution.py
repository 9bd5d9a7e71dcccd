"""Runs tools in the sandbox. A session's earlier calls run again before each new one, so tools may keep state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from env_workers.code import outcome as code_outcome
from env_workers.code.outcome import LIMIT_TITLES, Outcome, parse_outcomes
from env_workers.code.show import scrub
from env_workers.environment import Executor
from env_workers.tools.notations import Call
from env_workers.tools.refusals import not_loaded
from env_workers.tools.schema import faults_of
from env_workers.tools.toolbox import Toolbox, joined
from env_workers.wording import printable, quote, words
from sdpo.cutting import CUT_MARK, cut
from sdpo.errors import InfrastructureError

MAX_ARGUMENT_BYTES = 2**20
_DISPATCH = """

import json as _sdpo_json
import random as _sdpo_random

_sdpo_random.seed(0)


def _sdpo_call(name, arguments):
    result = globals()[name](**arguments)
    return result if isinstance(result, str) else _sdpo_json.dumps(result, ensure_ascii=False, default=_sdpo_plain)


def _sdpo_plain(value):
    return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else str(value)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a call: the text for the model, within the budget. `failed`: the text is an error."""

    call: Call
    text: str
    failed: bool = False


class ToolRunner:
    """Runs the tools of one session and remembers its calls."""

    def __init__(self, toolbox: Toolbox, executor: Executor, time_limit_s: float, max_chars: int) -> None:
        self._toolbox, self._executor = toolbox, executor
        self._time_limit_s, self._max_chars = toolbox.time_limit_s or time_limit_s, max_chars
        self._source = toolbox.source + _DISPATCH
        self._done: list[Mapping[str, Any]] = []

    def run(self, calls: Sequence[Call]) -> list[Result]:
        """Return the results of one turn's calls, in order. Raises InfrastructureError, SandboxViolation,
        or TaskFileError where the tools do not load."""
        refused = {index: text for index, call in enumerate(calls) if (text := self._refusal(call)) is not None}
        outcomes = iter(self._execute([_encoded(call) for i, call in enumerate(calls) if i not in refused]))
        return [
            self._error(call, refused[index]) if index in refused else self._result(call, next(outcomes))
            for index, call in enumerate(calls)
        ]

    def checked(self, call: code_outcome.Call) -> Outcome:
        """Run the payload's check after the calls, in one process with them. Raises as `run`."""
        calls = [*self._done, call.record(8 * MAX_ARGUMENT_BYTES)]
        source = joined(self._toolbox.check_parts) + _DISPATCH
        *before, outcome = parse_outcomes(
            self._executor.execute(source, calls, self._time_limit_s, shared=True), len(calls)
        )
        if any(map(_ended, before)):
            raise InfrastructureError("tools that had answered did not do so again")
        return outcome

    def alone(self, source: str, call: code_outcome.Call) -> Outcome:
        """Run a call of `source` in an execution of its own. Raises InfrastructureError and SandboxViolation."""
        records = self._executor.execute(source, [call.record(8 * MAX_ARGUMENT_BYTES)], self._time_limit_s)
        (outcome,) = parse_outcomes(records, 1)
        return outcome

    def _refusal(self, call: Call) -> str | None:
        schema = self._toolbox.schemas.get(call.name)
        if schema is None:
            return f"there is no tool {quote(call.name)}; the tools are {words(sorted(self._toolbox.schemas))}"
        faults = faults_of(schema, call.arguments)
        return "; ".join(fault.text for fault in faults) if faults else None

    def _execute(self, pending: list[Mapping[str, Any]]) -> list[Outcome]:
        """Run calls; one that ends its process keeps no state, and those after it run in the next process."""
        outcomes: list[Outcome] = []
        while pending:
            calls = [*self._done, *pending]
            records = self._executor.execute(self._source, calls, self._time_limit_s, shared=True)
            every_outcome = parse_outcomes(records, len(calls))
            if any(_ended(outcome) for outcome in every_outcome[: len(self._done)]):
                raise InfrastructureError("tools that had answered did not do so again")
            for call, outcome in zip(list(pending), every_outcome[len(self._done) :], strict=True):
                if outcome.status == "raised" and outcome.frames and outcome.frames[0][1] == "<module>":
                    raise not_loaded(self._toolbox, outcome)  # no call of the model's ran
                outcomes.append(outcome)
                pending.pop(0)
                if _ended(outcome):
                    break
                self._done.append(call)
        return outcomes

    def _result(self, call: Call, outcome: Outcome) -> Result:
        if outcome.status == "returned" and isinstance(outcome.value, str):
            return Result(call=call, text=self._within(outcome.value))
        return self._error(call, _complaint(outcome))

    def _error(self, call: Call, text: str) -> Result:
        return Result(call=call, text=self._within(f"Error: {text}"), failed=True)

    def _within(self, text: str) -> str:
        text = printable(text)
        return text if len(text) <= self._max_chars else cut(text, self._max_chars - len(CUT_MARK))


def _encoded(call: Call) -> Mapping[str, Any]:
    return code_outcome.Call(function="_sdpo_call", args=(call.name, call.arguments)).record(MAX_ARGUMENT_BYTES)


def _ended(outcome: Outcome) -> bool:
    """Whether the call ended the process that ran it."""
    return outcome.status not in ("returned", "returned_other", "raised")


def _complaint(outcome: Outcome) -> str:
    """Return why a call failed, an exception as its traceback's last line, without what differs from run to run."""
    if outcome.status == "raised":
        message = scrub(outcome.message).strip()
        return f"{outcome.type_name}: {message}" if message else outcome.type_name
    if outcome.status in LIMIT_TITLES:
        return LIMIT_TITLES[outcome.status].lower()
    if outcome.status in ("exited", "killed"):
        return "the tool ended its process"
    return "the tool gave no result that can be read"
