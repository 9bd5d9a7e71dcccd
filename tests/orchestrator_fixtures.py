"""Stand-ins for actors: remote calls that answer at once, references that know their value, and made-up groups."""

import asyncio
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.group import AttemptRecord, Group
from sdpo.config import RunConfig
from sdpo.types import FinishReason, HindsightPrompt, Message, RolloutHeader, Task, Verdict


@dataclass(frozen=True)
class Ref:
    """As Ray's: what it stands for is got by awaiting it, and any number of times."""

    value: Any

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        value = await self.value if asyncio.iscoroutine(self.value) else self.value
        if isinstance(value, BaseException):
            raise value
        return value


@dataclass(frozen=True)
class RemoteMethod:
    """`answer` gets the arguments with references resolved. One return value comes bare, several as a list."""

    answer: Callable[..., Any]
    num_returns: int = 1

    def options(self, *, num_returns: int) -> "RemoteMethod":
        return RemoteMethod(self.answer, num_returns)

    def remote(self, *arguments: Any) -> Any:
        found = self.answer(*(a.value if isinstance(a, Ref) else a for a in arguments))
        if self.num_returns == 1:
            return Ref(found)
        assert len(found) == self.num_returns
        return [Ref(value) for value in found]


def config_of(**sections: Any) -> RunConfig:
    return RunConfig.model_validate(sections)


def attempt(name: str, sample_index: int, num_tokens: int = 10, signal: bool = True) -> AttemptRecord:
    """Its rollout is the reference of the string `name`; `signal` is its hindsight mask."""
    return AttemptRecord(
        header=RolloutHeader(
            task_id=name,
            sample_index=sample_index,
            text="",
            reply="",
            num_prompt_tokens=1,
            num_response_tokens=num_tokens - 1,
            num_environment_tokens=0,
            num_turns=1,
            last_token_id=2,
            finish_reason=FinishReason.STOP,
            versions=("0.0",),
        ),
        rollout=Ref(name),
        verdict=Verdict(reward=0.0, success=False, kind="wrong_answer", feedback="no"),
        hindsight=HindsightPrompt(
            task_id=name,
            sample_index=sample_index,
            token_ids=np.arange(5, dtype=np.int32),
            mask=signal,
            demo_from=None,
            used_feedback=signal,
            num_demo_chars_cut=0,
            num_feedback_chars_cut=0,
            num_attempt_chars_cut=0,
            template_version="1",
        ),
    )


def group(index: int, signals: Sequence[bool]) -> Group:
    """Attempts `{index}.0`, `{index}.1`, ... of different lengths."""
    task = Task(id=str(index), messages=(Message(role="user", content="?"),), environment="code", payload={})
    attempts = [attempt(f"{index}.{i}", i, 10 + 7 * i + index, signal) for i, signal in enumerate(signals)]
    return Group(step=0, index=index, task=task, attempts=attempts)
