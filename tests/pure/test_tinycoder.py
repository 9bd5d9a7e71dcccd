"""The embedded tasks and model: what the files promise, checked by executing it."""

import json
import random
from pathlib import Path

import pytest

from env_workers.code.feedback import FEEDBACK_VERSION
from env_workers.code.tests import FunctionalTest, parse_tests
from examples.tinycoder.corpus import Mix
from examples.tinycoder.make_tasks import FOLDER, heldout_tasks, split_specs, train_tasks
from examples.tinycoder.specs import Spec, call, fenced, same
from examples.tinycoder.trusted_judge import judge_trusted
from sdpo.chat import render_prompt
from sdpo.config import HindsightConfig, RunConfig
from sdpo.reprompt import TEMPLATE_VERSION
from sdpo.taskfile import load_tasks
from sdpo.types import Message, Task

EXAMPLES = FOLDER.parents[1]
Made = list[tuple[Spec, Task]]


@pytest.fixture(scope="module")
def made() -> tuple[Made, Made]:
    return train_tasks(), heldout_tasks()


def test_the_files_are_what_the_script_makes(made: tuple[Made, Made]) -> None:
    for name, tasks in zip(("train", "heldout"), made, strict=True):
        assert load_tasks(FOLDER / f"{name}.jsonl") == [task for _, task in tasks]


def test_there_are_enough_distinct_tasks(made: tuple[Made, Made]) -> None:
    train, heldout = ([task.messages[0].content for _, task in tasks] for tasks in made)
    assert len(set(train)) == len(train) >= 5000
    assert 128 <= len(set(heldout)) == len(heldout) <= 256
    assert not set(train) & set(heldout)


def test_held_out_compositions_are_unseen_in_either_order(made: tuple[Made, Made]) -> None:
    train, heldout = ({spec.families for spec, _ in tasks} for tasks in made)
    assert all(len(set(pair)) == 2 for pair in heldout)
    assert not train & heldout
    known = {family for families in train for family in families}
    assert {family for pair in heldout for family in pair} <= known


def test_the_pool_that_both_files_are_drawn_from_is_split_too() -> None:
    train, heldout = split_specs()
    assert not {s.families for s in train} & {s.families for s in heldout}


def test_expected_values_are_what_the_right_program_returns(made: tuple[Made, Made]) -> None:
    for spec, task in [*made[0], *made[1]]:
        for test in parse_tests(task).tests:
            assert isinstance(test, FunctionalTest)
            assert same(call(spec.right, test.inputs[0]), test.expected), task.id


def test_every_planted_wrong_program_fails_a_test(made: tuple[Made, Made]) -> None:
    for spec, task in [*made[0][:200], *random.Random(0).sample(made[0], 200), *made[1]]:
        assert judge_trusted(task, fenced(spec.right)).success, task.id
        for habits in spec.wrong_habits():
            verdict = judge_trusted(task, fenced(spec.program(habits)))
            assert not verdict.success, (task.id, spec.program(habits))
            assert verdict.feedback.strip()


def test_the_train_file_is_small() -> None:
    assert (FOLDER / "train.jsonl").stat().st_size <= 2_500_000


def test_the_model_was_made_for_these_wordings(tinycoder_model: Path) -> None:
    record = json.loads((tinycoder_model / "sdpo.json").read_text())
    assert record["template_version"] == TEMPLATE_VERSION == HindsightConfig().template_version
    assert record["feedback_version"] == FEEDBACK_VERSION
    assert (tinycoder_model / "model.safetensors").stat().st_size <= 10_000_000


def test_the_tokenizer_gives_back_what_it_was_given(tinycoder_model: Path, made: tuple[Made, Made]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tinycoder_model)
    assert 512 <= len(tokenizer) <= 1024
    texts = [*Mix(made[0][:300], seed=1).texts(), "naïve — ☃ \t\r\n  x\n", "<think>\n</think>"]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_chat_template_renders_every_role_and_ends_with_the_assistant_header(tinycoder_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tinycoder_model)
    messages = [Message(role=role, content=role.upper()) for role in ("system", "user", "assistant", "user")]
    text = tokenizer.decode(render_prompt(tokenizer, messages))
    turns = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages)
    assert text == turns + "<|im_start|>assistant\n"
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    generation = json.loads((tinycoder_model / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.eos_token_id


def test_prompts_and_answers_fit_the_run_files(tinycoder_model: Path, made: tuple[Made, Made]) -> None:
    import yaml
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tinycoder_model)
    longest = max(len(tokenizer.encode(fenced(spec.right))) + 1 for spec, _ in [*made[0], *made[1]])
    for name in ("tinycoder.yaml", "tinycoder_grpo.yaml"):
        config = RunConfig.model_validate(yaml.safe_load((EXAMPLES / name).read_text()))
        assert longest <= config.rollout.sampling.max_response_tokens
        assert EXAMPLES.parent / config.tasks.train == FOLDER / "train.jsonl"
        assert EXAMPLES.parent / config.model.path == tinycoder_model
