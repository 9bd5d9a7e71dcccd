"""Prompts and hindsight prompts of a task, rendered with the settings of a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sdpo.chat import ChatTokenizer, check_tools_shown, render_prompt
from sdpo.config import RunConfig
from sdpo.errors import ModelError
from sdpo.reprompt import Attempt, Routing, build_hindsight
from sdpo.types import HindsightPrompt, Int32, Task


def task_prompt(config: RunConfig, tokenizer: ChatTokenizer, task: Task) -> Int32:
    """Return the task's prompt, int32 [P].

    Raises `ModelError` if the chat template refuses the task's messages, or if the model would not see its tools.
    """
    thinking = config.model.enable_thinking
    with of_task(task):
        if task.tools:
            check_tools_shown(tokenizer, task.messages, task.tools, enable_thinking=thinking)
        return render_prompt(tokenizer, task.messages, tools=task.tools, enable_thinking=thinking)


@contextmanager
def of_task(task: Task) -> Iterator[None]:
    """Let a `ModelError` name the task whose messages the chat template refuses."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"task {task.id}: {error}") from None


def hindsight_prompt(
    config: RunConfig,
    tokenizer: ChatTokenizer,
    task: Task,
    attempts: Sequence[Attempt],
    position: int,
    routing: Routing,
) -> HindsightPrompt:
    """Return the teacher's prompt for `attempts[position]`; raises as `sdpo.reprompt.build_hindsight`."""
    thinking = config.model.enable_thinking
    with of_task(task):
        return build_hindsight(task, attempts, position, routing, tokenizer, config.hindsight, enable_thinking=thinking)
