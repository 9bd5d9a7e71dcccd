"""A model's thinking is never its answer: not in any environment, nor where the chat template opened the block."""

import asyncio
import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from env_workers.code.extract import extract_program
from env_workers.environment import Observation, Reply
from examples.tinycoder.make_tasks import FOLDER
from orchestrator.batch.attempts import Attempts
from orchestrator.batch.requests import evaluation_request
from orchestrator.commands.preview.script import LocalSession, ScriptedSampler, Text
from sdpo.chat import opens_thinking
from sdpo.thinking import split_thinking
from sdpo.types import Message, Verdict
from tests.fixtures.orchestrator import PASSED, Words, config_of, task_of

DRAFT = "```python\n# a draft that is longer than the answer\ndef f(x):\n    return x\n```"
RIGHT = "```python\ndef f(x): return 2 * x\n```"
QUOTING = '```python\ndef f(text): return text.split("</think>")[-1].replace("<think>", "")\n```'
CALL = '<tool_call>{"name": "strip", "arguments": {"text": "<think>a</think>b"}}</tool_call>'
OPENS = "{{ messages[-1].content }}<|im_end|>{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
ALWAYS_OPENS = "{{ messages[-1].content }}<assistant><think>\n"
PRIMES = "{{ messages[-1].content }}{% if add_generation_prompt %}<assistant><think>\nWell,{% endif %}"
CLOSES = "{{ messages[-1].content }}{% if add_generation_prompt %}<assistant><think>\n\n</think>\n\n{% endif %}"
PLAIN = "{{ messages[-1].content }}{% if add_generation_prompt %}<assistant>{% endif %}"
AFTER_TURNS = (
    "{% for m in messages %}{{ m.content }}|{% endfor %}"
    "{% if add_generation_prompt and messages | length > 1 %}<think>{% endif %}"
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("plain", "plain"),
        ("<think>a</think>b", "b"),
        ("\n <think>a", ""),
        (f"{DRAFT}\n</think>\n{RIGHT}", f"\n{RIGHT}"),
        (f"{DRAFT}\nso:</think>{RIGHT}", RIGHT),
        (f"<think>{DRAFT}</think>\n{RIGHT}", f"\n{RIGHT}"),
        (f"<think>a\n```python\nx = 1</think>{RIGHT}", RIGHT),
        (f"a\n```python\nx = 1\n</think>\n{RIGHT}", f"\n{RIGHT}"),
        (f"Sure.\n<think>\n{DRAFT}", "Sure.\n"),
        (f"Sure.\n<think>\n{DRAFT}</think>{RIGHT}", f"Sure.\n{RIGHT}"),
        ("one <think>two</think> three", "one  three"),
        (f"one <think>{DRAFT}</think> three", "one  three"),
        (f"I close it with <think> and so on.\n{RIGHT}", f"I close it with <think> and so on.\n{RIGHT}"),
        (f"<think>a</think>{DRAFT}</think>{RIGHT}", RIGHT),
        (QUOTING, QUOTING),
        (f"<think>a</think>{QUOTING}", QUOTING),
        (CALL, CALL),
        (f"<think>{CALL}</think>{CALL}", CALL),
        ("It removes `</think>` from a text.", "It removes `</think>` from a text."),
        ("", ""),
    ],
)
def test_what_is_thinking_is_no_answer_and_what_quotes_a_tag_is(text: str, answer: str) -> None:
    parts = split_thinking(text)
    assert parts.answer == answer
    assert len(parts.thinking) + len(parts.answer) == len(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (DRAFT, ""),
        ("\\boxed{2}", ""),
        (f"{DRAFT}</think>{RIGHT}", RIGHT),
        (f"a\n```python\nx = 1</think>{RIGHT}", RIGHT),
        (f"a</think>{QUOTING}", QUOTING),
    ],
)
def test_a_reply_to_a_prompt_that_opened_the_block_begins_inside(text: str, answer: str) -> None:
    reply = Reply(text=text, truncated=True, in_thinking=True)
    assert (reply.text, reply.thinking) == (answer, text.removesuffix(answer))
    assert replace(reply, truncated=False) == Reply(text=text, in_thinking=True)


def test_a_program_that_stands_only_in_the_thinking_is_none() -> None:
    assert extract_program(Reply(text=f"<think>{DRAFT}</think>done").text) is None


@pytest.mark.parametrize(
    ("template", "content", "is_open"),
    [
        (OPENS, "q", True),
        (OPENS, "say </think>", True),
        (ALWAYS_OPENS, "q", True),
        (PRIMES, "q", True),
        (CLOSES, "q", False),
        (PLAIN, "Write what you think between <think> and the end.", False),
        (PLAIN, "Begin with <think>", False),
        (AFTER_TURNS, "q", False),
    ],
)
def test_the_template_says_whether_the_prompt_ends_inside_a_block(template: str, content: str, is_open: bool) -> None:
    tokenizer: Any = copy.copy(AutoTokenizer.from_pretrained(FOLDER.parent / "model", local_files_only=True))
    tokenizer.chat_template = template
    messages = [Message(role="user", content=content)]
    assert opens_thinking(tokenizer, messages) is is_open
    if template == AFTER_TURNS:
        assert opens_thinking(tokenizer, messages, [Message(role="user", content="Go on.")])


class ThinkingWords(Words):
    """A chat template that opens a thinking block."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> str:
        return super().apply_chat_template(conversation) + ("<think>" if options["add_generation_prompt"] else "")


def test_the_environment_gets_replies_without_thinking_in_every_turn() -> None:
    heard: list[Reply] = []

    class Worker:
        def step(self, attempt: str, task: Any, history: tuple[Any, ...], reply: Reply) -> Observation | Verdict:
            heard.append(reply)
            return PASSED if history else Observation(messages=(Message(role="user", content="Go on."),))

    config, task, worker = config_of(env={"max_turns": 2}), task_of("t"), Worker()
    sampler = ScriptedSampler([Text(text=text, length=9) for text in ("a</think>b", "cut inside")], stop_id=3)
    session = LocalSession(worker, "preview", task)  # type: ignore[arg-type]
    attempts = Attempts(config, ThinkingWords(), sampler, lambda *_: session)
    asyncio.run(attempts.play_all(evaluation_request(config, task, np.arange(3, dtype=np.int32), [1], "x")))
    assert [(reply.text, reply.thinking) for reply in heard] == [("b", "a</think>"), ("", "cut inside")]
