"""Tasks with several turns need a chat template with a place for them, and a run that is not in lockstep."""

import copy
from dataclasses import replace
from typing import Any

import pytest
from transformers import AutoTokenizer

from examples.tinycoder.make_tasks import FOLDER
from orchestrator.inputs.conversations import check_conversations
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, ModelError
from sdpo.types import Task
from tests.fixtures.orchestrator import task_of
from tests.fixtures.tool_templates import WITH_TOOLS, function

TASK = task_of("t")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER.parent / "model", local_files_only=True)


class Talkative:
    """An environment with several turns, as far as a run's input is checked."""

    observation_role = "user"

    @classmethod
    def check(cls, task: Task) -> None: ...

    def open(self, task: Task) -> Any: ...


def test_results_are_tried_with_the_tools_of_the_tasks_and_without(tokenizer: Any) -> None:
    """The template refuses results where no tools are given."""
    picky = copy.copy(tokenizer)
    picky.chat_template = WITH_TOOLS
    plain = replace(TASK, environment="tools_native")
    shown = replace(plain, tools=(function("add_up"),))
    check_conversations(RunConfig(), picky, [shown, shown])
    for tasks in ([plain, shown], [shown, plain]):
        with pytest.raises(ModelError, match="a result without tools"):
            check_conversations(RunConfig(), picky, tasks)


def test_several_turns_in_lockstep_are_refused_by_both_keys(tokenizer: Any) -> None:
    tasks = [replace(TASK, environment=f"{__name__}:Talkative"), TASK]
    check_conversations(RunConfig(), tokenizer, tasks)
    lockstep = {"deterministic": True, "env": {"max_turns": 3}}
    check_conversations(RunConfig.model_validate(lockstep), tokenizer, [TASK])
    check_conversations(RunConfig.model_validate(lockstep | {"env": {"max_turns": 1}}), tokenizer, tasks)
    with pytest.raises(ConfigError, match=r"^deterministic=true, env\.max_turns=3: environment .*:Talkative"):
        check_conversations(RunConfig.model_validate(lockstep), tokenizer, tasks)
