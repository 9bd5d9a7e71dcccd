"""The environments with tools: calls that are compared with the expected ones, and calls that run until an answer."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from env_workers.environment import Context, Ending, Observation, Reply, SingleTurnEnvironment
from env_workers.payloads import refuse
from env_workers.tools.execution import Result, ToolRunner
from env_workers.tools.faults import faults_in, lines_of
from env_workers.tools.grading import MAX_ANSWER_CHARS, grade
from env_workers.tools.notations import MAX_CALLS, BadCalls, read_calls
from env_workers.tools.payload import parse_matching
from env_workers.tools.toolbox import parse_toolbox
from env_workers.verdicts import failed, passed
from env_workers.wording import last_tagged, quote, shorten, words
from sdpo.errors import TaskFileError
from sdpo.types import Message, Task, Verdict

MAX_ERROR_CHARS = 300
_CUT = "The response was cut at the length limit."
_HOW = {
    "json": 'Write each call as <tool_call>{"name": ..., "arguments": {...}}</tool_call>.',
    "react": "Write each call as a line Action: and a line Action Input: with a JSON object.",
}
_ENDINGS: dict[Ending, tuple[str, str]] = {
    "turns": ("turn_limit", "Turn Limit Exceeded"),
    "tokens": ("token_limit", "Token Limit Exceeded"),
    "time": ("time_limit", "Time Limit Exceeded"),
}


class ToolMatchingEnvironment(SingleTurnEnvironment):
    """Payload: see `env_workers.tools.payload`. Reward 1 when the calls are the expected ones, as a multiset.

    Kinds: passed, wrong_answer, wrong_format, truncated. `details["faults"]` lists what was wrong: unknown_tool,
    wrong_tool, missing_argument, extra_argument, wrong_type, wrong_value, too_many_calls, too_few_calls, wrong_order.
    """

    @classmethod
    def check(cls, task: Task) -> None:
        """The payload must be one that `parse_matching` reads, with no more calls than a reply may make."""
        matching = parse_matching(task)
        needed = sum(not call.optional for call in matching.expected)
        if needed > MAX_CALLS:
            raise refuse(task, "expected", f"{needed} calls", f"at most {MAX_CALLS}, which a reply may make")

    def judge(self, task: Task, reply: Reply) -> Verdict:
        """See `SingleTurnEnvironment.judge`."""
        matching = parse_matching(task)
        try:
            calls = read_calls(reply.text, matching.notation)
        except BadCalls as error:
            return _malformed(matching.notation, str(error), reply.truncated)
        faults = faults_in(calls, matching)
        if not faults and (calls or not reply.truncated):
            return passed(num_calls=len(calls))
        if reply.truncated or not calls:
            return _malformed(matching.notation, "No call was found.", reply.truncated)
        kinds = [fault.kind for fault in faults]
        return failed("wrong_answer", f"Wrong Answer\n{lines_of(faults)}", num_calls=len(calls), faults=kinds)


def _malformed(notation: str, complaint: str, truncated: bool) -> Verdict:
    if truncated:
        return failed("truncated", f"Wrong Format\n{_CUT} Write a shorter response.")
    return failed("wrong_format", f"Wrong Format\n{complaint}\n{_HOW[notation]}")


class ToolsEnvironment:
    """Payload: see `env_workers.tools.toolbox`. Results come back as the user's messages, in <tool_response>.

    Calls are read in the notation `json` (see `env_workers.tools.notations`). A reply without a call ends the model's
    turn: the next of the payload's `user_turns` follows, and after the last one the reply must hold the answer in
    <answer>, unless a check sees the state. Kinds: passed, wrong_answer, wrong_format, truncated, turn_limit,
    token_limit, time_limit, and check_failed where the payload's check raised on the answer or went over a limit.
    """

    observation_role: ClassVar[Literal["user", "tool"] | None] = "user"

    def __init__(self, context: Context) -> None:
        self.context = context

    @classmethod
    def check(cls, task: Task) -> None:
        """The payload must be one that `parse_toolbox` reads, and the model must see tools.

        They are the task's `tools`, which the chat template shows, or the messages name one of them at least.
        """
        names = parse_toolbox(task).schemas
        shown = [message.content for message in task.messages]
        if shown and not task.tools and not any(name in content for name in names for content in shown):
            raise TaskFileError(
                f"task {task.id}: no message names a tool ({words(sorted(names))}), so the model would see none; "
                f"allowed: the task's `tools`, or a system message as env_workers.tools.prompt.tools_prompt makes it"
            )

    def open(self, task: Task) -> "ToolsSession":
        """See `Environment.open`."""
        return ToolsSession(self.context, task, self.observation_role or "user")


class NativeToolsEnvironment(ToolsEnvironment):
    """As `ToolsEnvironment`, with results as messages of the role tool, for chat templates that have it."""

    observation_role = "tool"


class ToolsSession:
    """One attempt. Its state is the calls that were made, and the user's turns that are left."""

    def __init__(self, context: Context, task: Task, role: Literal["user", "tool"]) -> None:
        self._task, self._role = task, role
        self._toolbox = parse_toolbox(task)
        time_limit_s = self._toolbox.time_limit_s or context.config.time_limit_s
        self._runner = ToolRunner(self._toolbox, context.sandbox, time_limit_s, context.config.max_feedback_chars)
        self._results: list[Result] = []
        self._user_turns = list(self._toolbox.user_turns)

    def step(self, reply: Reply) -> Observation | Verdict:
        """See `Session.step`."""
        try:
            calls = read_calls(reply.text)
        except BadCalls as error:
            if reply.truncated:
                return self._failure("truncated", "Wrong Format", _CUT)
            return self._observation([f"Error: {error}"])
        if not calls:
            return self._user_turn() if self._user_turns and not reply.truncated else self._final(reply)
        results = self._runner.run(calls)
        self._results += results
        return self._observation([result.text for result in results])

    def end(self, ending: Ending) -> Verdict:
        """See `Session.end`."""
        kind, title = _ENDINGS[ending]
        return self._failure(kind, title, "The attempt ended before an answer was given.")

    def close(self) -> None:
        """Nothing to release."""

    def _user_turn(self) -> Observation:
        return Observation(messages=(Message(role="user", content=self._user_turns.pop(0)),))

    def _final(self, reply: Reply) -> Verdict:
        given = last_tagged(reply.text, "answer")
        if not given and self._toolbox.answer.sees_state and not reply.truncated:
            return self._graded(reply.text.strip()[:MAX_ANSWER_CHARS], "The task is not done.")
        if not given:
            if reply.truncated:
                return self._failure("truncated", "Wrong Format", _CUT)
            complaint = "There is neither a call of a tool nor an answer. Write the answer as <answer>...</answer>."
            return self._failure("wrong_format", "Wrong Format", complaint)
        if len(given) > MAX_ANSWER_CHARS:
            complaint = f"The answer is longer than {MAX_ANSWER_CHARS} characters."
            return self._failure("wrong_format", "Wrong Format", complaint)
        return self._graded(given, f"{quote(given)} is not the right answer.")

    def _graded(self, given: str, complaint: str) -> Verdict:
        result = grade(self._task, self._toolbox, given, self._results, self._runner)
        if result.score == 1:
            return passed(**self._details())
        more = {"check_error": result.error} if result.error else {}
        complaint = f"{complaint} {result.text}".strip()
        kind = "check_failed" if result.error else "wrong_answer"
        return self._failure(kind, "Wrong Answer", complaint, result.score, **more)

    def _failure(self, kind: str, title: str, complaint: str, score: float = 0.0, **more: str) -> Verdict:
        feedback = "\n".join([title, complaint, *_error_lines(self._results)])
        return failed(kind, feedback, score, **self._details(), **more)

    def _details(self) -> dict[str, int]:
        failed = sum(result.failed for result in self._results)
        return {"num_calls": len(self._results), "num_failed_calls": failed}

    def _observation(self, texts: Sequence[str]) -> Observation:
        if self._role == "tool":
            return Observation(messages=tuple(Message(role="tool", content=text) for text in texts))
        content = "\n".join(f"<tool_response>\n{text}\n</tool_response>" for text in texts)
        return Observation(messages=(Message(role="user", content=content),))


def _error_lines(results: Sequence[Result]) -> list[str]:
    """Return the last three errors of calls, under a title; nothing where no call failed."""
    lines = [
        f"Call {number} ({quote(result.call.name)}): {shorten(result.text, MAX_ERROR_CHARS)}"
        for number, result in enumerate(results, start=1)
        if result.failed
    ]
    return ["Calls that failed:", *lines[-3:]] if lines else []
