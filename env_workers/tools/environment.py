"""Tool execution: calls of tools are run, their results are what the model reads next, an answer ends the attempt."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from env_workers.calling.notations import BadCalls, json_calls
from env_workers.environment import Context, Ending, Observation, Reply
from env_workers.tools.execution import Result, Workshop
from env_workers.tools.final import MAX_ANSWER_CHARS, grade
from env_workers.tools.payload import parse_toolbox
from env_workers.wording import last_tagged, quote, shorten, spoken
from sdpo.types import Message, Task, Verdict

MAX_ERROR_CHARS = 300
_ENDINGS: dict[Ending, tuple[str, str]] = {
    "turns": ("turn_limit", "Turn Limit Exceeded"),
    "tokens": ("token_limit", "Token Limit Exceeded"),
    "time": ("time_limit", "Time Limit Exceeded"),
}


class ToolsEnvironment:
    """Payload: see `env_workers.tools.payload`. Results come back as the user's messages, in <tool_response>.

    Calls are read in the notation `json` (see `env_workers.calling.notations`); a reply without a call must hold the
    answer in <answer>. Kinds: passed, wrong_answer, wrong_format, truncated, turn_limit, token_limit, time_limit, and
    check_failed where the payload's check raised on the answer or went over a limit.
    """

    observation_role: ClassVar[Literal["user", "tool"] | None] = "user"

    def __init__(self, context: Context) -> None:
        self.context = context

    @classmethod
    def check(cls, task: Task) -> None:
        """The payload must be one that `parse_toolbox` reads."""
        parse_toolbox(task)

    def open(self, task: Task) -> "ToolsSession":
        """See `Environment.open`."""
        return ToolsSession(self.context, task, self.observation_role or "user")


class NativeToolsEnvironment(ToolsEnvironment):
    """As `ToolsEnvironment`, with results as messages of the role tool, for chat templates that have it."""

    observation_role = "tool"


class ToolsSession:
    """One attempt. Its state is the calls that were made."""

    def __init__(self, context: Context, task: Task, role: Literal["user", "tool"]) -> None:
        self._task, self._role, self._executor = task, role, context.sandbox
        self._toolbox = parse_toolbox(task)
        self._time_limit_s = self._toolbox.time_limit_s or context.config.time_limit_s
        self._workshop = Workshop(self._toolbox, context.sandbox, self._time_limit_s, context.config.max_feedback_chars)
        self._results: list[Result] = []

    def step(self, reply: Reply) -> Observation | Verdict:
        """See `Session.step`."""
        try:
            calls = json_calls(reply.text)
        except BadCalls as error:
            if reply.truncated:
                return self._failure("truncated", "Wrong Format", "The response was cut at the length limit.")
            return self._observation([f"Error: {error}"])
        if not calls:
            return self._final(reply)
        results = self._workshop.run(calls)
        self._results += results
        return self._observation([result.text for result in results])

    def end(self, ending: Ending) -> Verdict:
        """See `Session.end`."""
        kind, title = _ENDINGS[ending]
        return self._failure(kind, title, "The attempt ended before an answer was given.")

    def close(self) -> None:
        """Nothing is held between two turns."""

    def _final(self, reply: Reply) -> Verdict:
        given = last_tagged(spoken(reply.text), "answer")
        if given is None or not given:
            if reply.truncated:
                return self._failure("truncated", "Wrong Format", "The response was cut at the length limit.")
            told = "There is neither a call of a tool nor an answer. Write the answer as <answer>...</answer>."
            return self._failure("wrong_format", "Wrong Format", told)
        if len(given) > MAX_ANSWER_CHARS:
            told = f"The answer is longer than {MAX_ANSWER_CHARS} characters."
            return self._failure("wrong_format", "Wrong Format", told)
        found = grade(self._task, self._toolbox.answer, given, self._results, self._executor, self._time_limit_s)
        if found.score == 1:
            return Verdict(reward=1.0, success=True, kind="passed", details=self._details())
        told = f"{quote(given)} is not the right answer."
        kind = "check_failed" if found.failed else "wrong_answer"
        return self._failure(kind, "Wrong Answer", f"{told} {found.text}".strip(), found.score)

    def _failure(self, kind: str, title: str, told: str, score: float = 0.0) -> Verdict:
        lines = [title, told, *_error_lines(self._results)]
        feedback = "\n".join(lines)
        return Verdict(reward=score, success=False, kind=kind, feedback=feedback, details=self._details())

    def _details(self) -> dict[str, int]:
        failed = sum(result.failed for result in self._results)
        return {"num_calls": len(self._results), "num_failed_calls": failed}

    def _observation(self, texts: Sequence[str]) -> Observation:
        if self._role == "tool":
            return Observation(messages=tuple(Message(role="tool", content=text) for text in texts))
        content = "\n".join(f"<tool_response>\n{text}\n</tool_response>" for text in texts)
        return Observation(messages=(Message(role="user", content=content),))


def _error_lines(results: Sequence[Result]) -> list[str]:
    """What went wrong with calls, the last three."""
    lines = [
        f"Call {number} ({quote(result.call.name)}): {shorten(result.text, MAX_ERROR_CHARS)}"
        for number, result in enumerate(results, start=1)
        if result.failed
    ]
    return ["Calls that failed:", *lines[-3:]] if lines else []
