"""Code with several turns: write a program, read what is wrong with it, write a better one."""

from dataclasses import replace
from typing import ClassVar, Literal

from env_workers import feedback_policy
from env_workers.code.environment import CodeEnvironment
from env_workers.environment import Context, Ending, Observation, Reply
from env_workers.payloads import refuse
from sdpo.types import Message, Task, Verdict

_AGAIN = "The program is not right yet. Write the whole program again, corrected."


class CodeRetryEnvironment:
    """Payload: as the code environment's, and `max_tries`, programs in one attempt (default: env.max_turns bounds it).

    After a failed program the model reads the feedback as `env.feedback` wants it; the verdict is that on the last
    program, with `details["num_tries"]`.
    """

    observation_role: ClassVar[Literal["user", "tool"] | None] = "user"

    def __init__(self, context: Context) -> None:
        self.context = context
        self._code = CodeEnvironment(context)

    @classmethod
    def check(cls, task: Task) -> None:
        """As the code environment's; `max_tries` is a positive integer."""
        CodeEnvironment.check(_code_task(task))
        _max_tries(task)

    def open(self, task: Task) -> "CodeRetrySession":
        """See `Environment.open`."""
        return CodeRetrySession(self.context, self._code, task)


class CodeRetrySession:
    """One attempt. Its state is the number of programs and the verdict on the last."""

    def __init__(self, context: Context, code: CodeEnvironment, task: Task) -> None:
        self._config, self._code, self._task = context.config, code, _code_task(task)
        self._max_tries = _max_tries(task)
        self._num_tries = 0
        self._last: Verdict | None = None

    def step(self, reply: Reply) -> Observation | Verdict:
        """See `Session.step`."""
        self._num_tries += 1
        judged = self._code.judge(self._task, reply)
        self._last = replace(judged, details={**judged.details, "num_tries": self._num_tries})
        if judged.success or judged.infrastructure_error or self._num_tries == self._max_tries:
            return self._last
        feedback = feedback_policy.apply(judged, self._config).feedback
        content = f"{feedback}\n\n{_AGAIN}" if feedback.strip() else _AGAIN
        return Observation(messages=(Message(role="user", content=content),))

    def end(self, ending: Ending) -> Verdict:
        """Return the verdict on the last program."""
        assert self._last is not None, "an attempt ends after an Observation"
        return self._last

    def close(self) -> None:
        """Nothing to release."""


def _code_task(task: Task) -> Task:
    return replace(task, payload={key: value for key, value in task.payload.items() if key != "max_tries"})


def _max_tries(task: Task) -> int | None:
    value = task.payload.get("max_tries")
    if value is not None and (type(value) is not int or value < 1):
        raise refuse(task, "max_tries", value, "a positive integer")
    return value
