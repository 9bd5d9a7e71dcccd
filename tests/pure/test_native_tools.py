"""Tools that the chat template shows: student, teacher and every later turn see the same ones."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from env_workers.adapters import load_tasks_with
from env_workers.environment import Reply, check_task
from env_workers.tools.environments import ToolMatchingEnvironment
from env_workers.tools.prompt import tools_prompt
from examples.tinycoder.make_tasks import FOLDER
from orchestrator.commands.preview.text import CharacterTokenizer
from orchestrator.inputs.overlap import find_overlap
from orchestrator.inputs.prompts import hindsight_prompt, task_prompt
from orchestrator.recorded.batch_file import RecordedBatch, read_tasks, write_batch
from sdpo.chat import check_turns, fit_turn, opens_thinking, render_turn
from sdpo.config import RunConfig
from sdpo.errors import ModelError, TaskFileError
from sdpo.reprompt import Attempt, Routing, frame_length
from sdpo.taskfile import load_tasks, to_line
from sdpo.types import Message, Task
from tests.fixtures.tool_templates import WITH_TOOLS, WITHOUT_TOOLS, function

TURN_END = 2
TOOLS = (function("add_up", n={"type": "integer"}), function("undo"))
SHOWN = "# Tools\n<tools>\n" + "\n".join(json.dumps(tool, ensure_ascii=False) for tool in TOOLS) + "\n</tools>"
QUESTION = Message(role="user", content="Reach 42.")
TASK = Task(id="t", messages=(QUESTION,), environment="tool_matching", payload={"expected": []}, tools=TOOLS)
CONFIG = RunConfig.model_validate({})
RESULT = [Message(role="tool", content="42"), Message(role="tool", content="0")]


def tokenizer_with(template: str) -> Any:
    tokenizer = copy.copy(AutoTokenizer.from_pretrained(FOLDER.parent / "model", local_files_only=True))
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_with(WITH_TOOLS)


def with_messages(*contents: tuple[Any, str], **fields: Any) -> Task:
    messages = tuple(Message(role=role, content=content) for role, content in contents)
    return Task(**{"id": "t", "messages": messages, "environment": "x", "payload": {}, "tools": TOOLS, **fields})


def test_the_prompt_holds_the_tools_where_the_template_puts_them(tokenizer: Any) -> None:
    text = tokenizer.decode(task_prompt(CONFIG, tokenizer, TASK))
    assert text.startswith(f"<|im_start|>system\n{SHOWN}\n")
    assert text.endswith("<|im_start|>user\nReach 42.<|im_end|>\n<|im_start|>assistant\n")
    own = with_messages(("system", "Be brief."), ("user", "Reach 42."))
    assert f"<|im_start|>system\nBe brief.\n\n{SHOWN}\n" in tokenizer.decode(task_prompt(CONFIG, tokenizer, own))


def test_the_teacher_sees_the_same_tools_and_its_shortest_prompt_counts_them(tokenizer: Any) -> None:
    attempt = Attempt(sample_index=0, text="x", reward=0.0, success=False, feedback="No call was made.")
    prompt = hindsight_prompt(CONFIG, tokenizer, TASK, [attempt], 0, Routing(demo_from=None, use_feedback=True))
    text = tokenizer.decode(prompt.token_ids)
    assert text.startswith(f"<|im_start|>system\n{SHOWN}\n")
    assert "Feedback from your unsuccessful earlier attempt:\nNo call was made." in text
    without = with_messages(("user", "Reach 42."), tools=())
    more = len(task_prompt(CONFIG, tokenizer, TASK)) - len(task_prompt(CONFIG, tokenizer, without))
    lengths = [frame_length(task, tokenizer, CONFIG.hindsight) for task in (TASK, without)]
    assert lengths[0] - lengths[1] == more > 100


def test_results_of_calls_continue_a_conversation_with_the_tools(tokenizer: Any) -> None:
    """This template refuses results without tools, so a later turn that lost them could not be rendered."""
    turn = render_turn(tokenizer, TASK.messages, RESULT, stop_id=TURN_END, tools=TOOLS)
    fitted = fit_turn(tokenizer, TASK.messages, RESULT, 100, stop_id=TURN_END, tools=TOOLS)
    assert fitted is not None
    assert fitted[0].tolist() == turn.tolist()
    prompt = tokenizer.decode(task_prompt(CONFIG, tokenizer, TASK))
    said = {"role": "assistant", "content": "<tool_call>"}
    conversation = [
        {"role": "user", "content": "Reach 42."},
        said,
        *({"role": "tool", "content": m.content} for m in RESULT),
    ]
    whole = tokenizer.apply_chat_template(conversation, tools=list(TOOLS), tokenize=False, add_generation_prompt=True)
    assert prompt + "<tool_call><|im_end|>" + tokenizer.decode(turn) == whole
    assert not opens_thinking(tokenizer, TASK.messages, RESULT, tools=TOOLS)
    check_turns(tokenizer, "tool", tools=TOOLS)
    with pytest.raises(ModelError, match="a result without tools"):
        check_turns(tokenizer, "tool")


def test_a_template_without_tools_is_refused_unless_the_messages_name_them() -> None:
    deaf = tokenizer_with(WITHOUT_TOOLS)
    with pytest.raises(
        ModelError, match="task t: neither the model's chat template nor a message shows the tools add_up, "
    ):
        task_prompt(CONFIG, deaf, TASK)
    with pytest.raises(
        ModelError, match="shows the tools undo; allowed: a chat template that shows tools, or a system"
    ):
        task_prompt(CONFIG, deaf, with_messages(("user", "Reach 42 with add_up.")))
    prompt = tools_prompt([tool["function"] for tool in TOOLS])
    text = deaf.decode(task_prompt(CONFIG, deaf, with_messages(("system", prompt), ("user", "Reach 42."))))
    assert text.count('"name": "add_up"') == 1


def test_a_preview_without_a_tokenizer_shows_the_tools() -> None:
    text = "".join(map(chr, task_prompt(CONFIG, CharacterTokenizer(), TASK)))
    assert text.startswith('[tools]\n{"type": "function", "function": {"name": "add_up"')


def test_tools_of_a_task_file_are_read_written_and_recorded(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(to_line(TASK))
    assert load_tasks(file) == [TASK]
    assert "tools" not in to_line(with_messages(("user", "?"), tools=()))
    write_batch(tmp_path, RecordedBatch(batch_index=0, tasks=(TASK,), attempts=()))
    (recorded,) = read_tasks(tmp_path, 0)
    assert (recorded.messages, recorded.tools) == (TASK.messages, TOOLS)


@pytest.mark.parametrize(
    ("tools", "line"),
    [
        ({}, "tools={}: allowed: a list of "),
        ([{"name": "add_up"}], r'tools\[0\]={"name": "add_up"}: allowed: {"type": "function", "function": {"name", '),
        ([{"type": "function", "function": {"name": " "}}], r"tools\[0\]="),
        ([TOOLS[0], TOOLS[0]], r"tools\[1\].function.name=add_up: allowed: names of which each is used once"),
    ],
)
def test_tools_that_cannot_be_read_are_refused(tools: Any, line: str, tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(json.dumps({**json.loads(to_line(TASK)), "tools": tools}))
    with pytest.raises(TaskFileError, match=f"line 1: {line}"):
        load_tasks(file)


def test_tasks_with_the_same_words_and_other_tools_are_different_questions() -> None:
    train = [
        with_messages(("user", "Reach 42."), id="a"),
        with_messages(("user", "Reach 42."), id="b", tools=TOOLS[:1]),
    ]
    assert find_overlap(train, [with_messages(("user", "Reach 42."), tools=TOOLS[1:])]).num_overlapping == 0
    assert find_overlap(train, [TASK]).num_overlapping == 1


@pytest.mark.parametrize("adapter", ["function_calling", "bfcl"])
def test_adapters_give_the_tools_to_the_template_on_request(adapter: str, tmp_path: Path) -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Add 3."}]
    add = {"name": "add_up", "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}}
    record: dict[str, Any] = {"messages": asked, "tools": [add], "calls": [{"name": "add_up", "arguments": {"n": 3}}]}
    if adapter == "bfcl":
        record = {"id": "multiple_0", "question": [asked], "function": [add]}
        answer = {"id": "multiple_0", "ground_truth": [{"add_up": {"n": [3]}}]}
        (tmp_path / "answers.jsonl").write_text(json.dumps(answer))
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps(record))
    options = {"answers": str(tmp_path / "answers.jsonl")} if adapter == "bfcl" else {}
    (task,) = load_tasks_with(adapter, str(file), "train", {**options, "tools": "template"})
    check_task(task)
    assert task.tools == ({"type": "function", "function": add},)
    assert [message.content for message in task.messages] == ["Be brief.", "Add 3."]
    judged = ToolMatchingEnvironment(None)  # type: ignore[arg-type]
    text = '<tool_call>{"name": "add_up", "arguments": {"n": %s}}</tool_call>'
    assert judged.judge(task, Reply(text=text % 3)).success
    assert "must be an integer" in judged.judge(task, Reply(text=text % '"3"')).feedback


ADD_UP = {"name": "add_up", "source": "def add_up(n):\n    return n"}
UNDO = {"name": "undo", "source": "def undo():\n    return 0"}
ANSWER = {"kind": "number", "value": 42}


@pytest.mark.parametrize(
    ("environment", "payload", "line"),
    [
        ("tools_native", {"tools": [ADD_UP, UNDO], "answer": ANSWER}, None),
        ("tools", {"tools": [UNDO, ADD_UP], "answer": ANSWER}, None),
        ("tools_native", {"tools": [ADD_UP], "answer": ANSWER}, "payload.tools is .*a source for each of the task's"),
        ("tools", {"tools": [{**ADD_UP, "parameters": {}}, UNDO], "answer": ANSWER}, "unknown key parameters"),
        ("tool_matching", {"expected": [], "tools": [{"name": "undo"}]}, "allowed: nothing, since the task has tools"),
    ],
)
def test_a_payload_says_nothing_of_tools_twice(environment: str, payload: dict[str, Any], line: str | None) -> None:
    task = with_messages(("user", "Reach 42."), environment=environment, payload=payload)
    if line is None:
        check_task(task)
        return
    with pytest.raises(TaskFileError, match=line):
        check_task(task)


def test_parameters_of_a_tool_must_be_a_schema() -> None:
    broken = {"type": "function", "function": {"name": "undo", "parameters": {"type": "dict"}}}
    with pytest.raises(
        TaskFileError, match=r"tools\[0\].function.parameters of undo is .*a JSON schema of type object"
    ):
        check_task(with_messages(("user", "?"), environment="tool_matching", payload={"expected": []}, tools=(broken,)))
