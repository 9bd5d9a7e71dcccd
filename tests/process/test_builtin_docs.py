"""The examples of docs/environments-builtin.md, judged as they stand there."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from env_workers.environment import Context, Observation, Reply, check_task, load_environment
from env_workers.reasoning import REFUSED
from env_workers.sandbox.pool import SandboxPool
from sdpo.config import EnvConfig
from sdpo.types import Task

PAGE = (Path(__file__).parents[2] / "docs/environments-builtin.md").read_text()
EXAMPLES = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)]


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    config = EnvConfig()
    pool = SandboxPool(config, "test-docs", "env-0")
    yield Context(config=config, sandbox=pool)
    pool.close()


def test_the_page_has_an_example_for_each() -> None:
    assert [example["environment"] for example in EXAMPLES] == [
        *["code"] * 4,
        "multiple_choice",
        *["tool_matching"] * 3,
        *["tools"] * 2,
        "code_retry",
        "math",
    ]
    assert all(name in PAGE for name in REFUSED)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["environment"])
def test_example(example: dict[str, Any], context: Context) -> None:
    task = Task(id="example", messages=(), environment=example["environment"], payload=example["payload"])
    check_task(task)
    environment = load_environment(task.environment, context)
    session = environment.open(task)
    for reply in example["replies"]:
        answer = session.step(Reply(text=reply["text"]))
        if isinstance(answer, Observation):
            assert [message.content for message in answer.messages] == [reply["observation"]]
        else:
            assert (answer.kind, answer.feedback) == (reply["kind"], reply.get("feedback", ""))
            assert answer.reward == float(reply["kind"] == "passed")
