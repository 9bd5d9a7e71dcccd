"""Task files: what loads, what is refused and with which line."""

import json
from pathlib import Path
from typing import Any

import pytest

from sdpo.errors import TaskFileError
from sdpo.taskfile import load_tasks
from sdpo.types import Message, Task

USER = {"role": "user", "content": "Write f(x): double it."}


def record(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "messages": [USER], "environment": "code", "payload": {"tests": []}, **changes}


def write(folder: Path, *lines: str | dict[str, Any]) -> Path:
    path = folder / "tasks.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x, ensure_ascii=False)) + "\n" for x in lines))
    return path


def test_tasks_in_order_and_blank_lines_skipped(tmp_path: Path) -> None:
    system = {"role": "system", "content": "You write Python.\u2028Well."}
    path = write(tmp_path, record(id="b"), "", record(messages=[system, USER], payload={"k": [1, {"x": None}]}))
    assert load_tasks(path) == [
        Task(
            id="b",
            messages=(Message(role="user", content="Write f(x): double it."),),
            environment="code",
            payload={"tests": []},
        ),
        Task(
            id="a",
            messages=(
                Message(role="system", content="You write Python.\u2028Well."),
                Message(role="user", content="Write f(x): double it."),
            ),
            environment="code",
            payload={"k": [1, {"x": None}]},
        ),
    ]


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in record().items() if k != key}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        ("{} {}", "not JSON: Extra data at column 4"),
        ("[" * 100_000, "not JSON: too deep"),
        ("[1]", "task=[1]: allowed: an object with id, messages, environment, payload"),
        (without("id"), "id: missing; allowed: id, messages, environment, payload"),
        (without("payload"), "payload: missing; allowed: id, messages, environment, payload"),
        (record(mesages=[]), "mesages: unknown key; nearest known key: messages"),
        (record(zzz=1), "zzz: unknown key; allowed: id, messages, environment, payload"),
        (record(id=3), "id=3: allowed: a string that is not blank"),
        (record(id=" "), "id= : allowed: a string that is not blank"),
        (record(environment=None), "environment=none: allowed: a string that is not blank"),
        (record(payload=[1]), "payload=[1]: allowed: an object"),
        (record(messages=[]), "messages=[]: allowed: a list of at least one message"),
        (record(messages="hi"), "messages=hi: allowed: a list of at least one message"),
        (record(messages=["hi"]), "messages[0]=hi: allowed: an object with role, content"),
        (record(messages=[{"role": "user"}]), "messages[0].content: missing; allowed: role, content"),
        (
            record(messages=[{**USER, "contents": ""}]),
            "messages[0].contents: unknown key; nearest known key: messages[0].content",
        ),
        (record(messages=[{**USER, "content": 4}]), "messages[0].content=4: allowed: a string that is not blank"),
        (
            record(messages=[{**USER, "role": "human"}]),
            "messages[0].role=human: allowed: system, user, assistant, tool",
        ),
        (
            record(messages=[{**USER, "role": ["user"]}]),
            'messages[0].role=["user"]: allowed: system, user, assistant, tool',
        ),
        (
            record(messages=[USER, {"role": "assistant", "content": "Hi."}]),
            "messages[1].role=assistant: allowed: user, for the last message",
        ),
        (record(id="first"), "id=first: already used on line 1"),
        (record(payload="x" * 500), f"payload={'x' * 77}...: allowed: an object"),
    ],
)
def test_refused_lines(tmp_path: Path, line: str | dict[str, Any], reason: str) -> None:
    path = write(tmp_path, record(id="first"), line)
    with pytest.raises(TaskFileError) as caught:
        load_tasks(path)
    assert str(caught.value) == f"{path}, line 2: {reason}"


@pytest.mark.parametrize("text", ["", "\n\n  \n"])
def test_a_file_without_tasks_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TaskFileError, match=r"tasks\.jsonl: holds no tasks; allowed: one JSON object a line with id,"):
        load_tasks(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TaskFileError, match=r"none\.jsonl: no such task file$"):
        load_tasks(tmp_path / "none.jsonl")
    with pytest.raises(TaskFileError, match=r"cannot be read: Is a directory$"):
        load_tasks(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "caf\xe9"}')
    with pytest.raises(TaskFileError, match=r"cannot be read: not UTF-8 text$"):
        load_tasks(tmp_path / "latin.jsonl")
