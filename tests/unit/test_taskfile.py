"""Task files: what loads, what is refused and with which line."""

import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

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
    with pytest.raises(TaskFileError, match=r"tasks\.jsonl: holds no tasks; allowed: objects with id,"):
        load_tasks(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(
        TaskFileError, match=r"none\.jsonl: no such file; allowed: a file ending in \.json, .*\.parquet$"
    ):
        load_tasks(tmp_path / "none.jsonl")
    with pytest.raises(TaskFileError, match=r"tasks\.csv: allowed: a file ending in \.json, "):
        load_tasks(tmp_path / "tasks.csv")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(TaskFileError, match=r"cannot be read: Is a directory$"):
        load_tasks(tmp_path / "folder.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "caf\xe9"}')
    with pytest.raises(TaskFileError, match=r"latin\.jsonl, line 1: not UTF-8 text$"):
        load_tasks(tmp_path / "latin.jsonl")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"\n" * 9999)[:-9])
    with pytest.raises(TaskFileError, match=r"cut\.jsonl\.gz: cannot be read: Compressed file ended"):
        load_tasks(tmp_path / "cut.jsonl.gz")
    (tmp_path / "no.parquet").write_bytes(b"PAR1")
    with pytest.raises(TaskFileError, match=r"no\.parquet: cannot be read: "):
        load_tasks(tmp_path / "no.parquet")


def as_parquet(path: Path, columns: Mapping[str, Any]) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


PAYLOADS: list[dict[str, Any]] = [
    {"tests": [{"kind": "stdio", "stdin": "1", "stdout": "2"}], "limit_s": 3},
    {"tests": [{"kind": "function", "args": [1, 2]}]},
]


def test_every_form_gives_the_same_tasks(tmp_path: Path) -> None:
    records = [record(id=f"task-{i}", payload=payload) for i, payload in enumerate(PAYLOADS)]
    wanted = load_tasks(write(tmp_path, *records))
    assert [dict(task.payload) for task in wanted] == PAYLOADS
    lines = "".join(json.dumps(r) + "\n" for r in records).encode()
    (tmp_path / "list.json").write_text(json.dumps(records, indent=1))
    (tmp_path / "list.json.gz").write_bytes(gzip.compress(json.dumps(records).encode()))
    (tmp_path / "lines.jsonl.gz").write_bytes(gzip.compress(lines))
    columns = {key: [r[key] for r in records] for key in ("id", "environment")}
    nested = {key: [r[key] for r in records] for key in ("messages", "payload")}
    as_parquet(tmp_path / "nested.parquet", columns | nested)
    as_text = {key: [json.dumps(value) for value in values] for key, values in nested.items()}
    as_parquet(tmp_path / "text.parquet", columns | as_text)
    for name in ("list.json", "list.json.gz", "lines.jsonl.gz", "nested.parquet", "text.parquet"):
        assert load_tasks(tmp_path / name) == wanted, name


def test_nulls_of_parquet(tmp_path: Path) -> None:
    """A nested column fills up what a row lacks; JSON as text keeps a null that is meant."""
    columns = {"id": ["a"], "environment": ["code"], "messages": [[USER]]}
    nested = as_parquet(tmp_path / "nested.parquet", columns | {"payload": [{"expected": None, "args": [None, 1]}]})
    assert load_tasks(nested)[0].payload == {"args": [None, 1]}
    text = as_parquet(tmp_path / "text.parquet", columns | {"payload": ['{"expected": null}']})
    assert load_tasks(text)[0].payload == {"expected": None}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"payload": ["{", "{}"]}, "record 1: payload={: not JSON: Expecting property name enclosed"),
        ({"payload": ["{}", "[1]"]}, "record 2: payload=[1]: allowed: an object"),
        ({"messages": [[USER], None]}, "record 2: messages=none: allowed: a list of at least one message"),
        ({"id": ["a", "a"]}, "record 2: id=a: already used on record 1"),
        ({"extra": [1, 2]}, "record 1: extra: unknown key"),
        ({"id": [1, 2]}, "record 1: id=1: allowed: a string"),
    ],
)
def test_refused_rows(tmp_path: Path, changes: dict[str, list[Any]], reason: str) -> None:
    columns = {"id": ["a", "b"], "messages": [[USER]] * 2, "environment": ["code"] * 2, "payload": ["{}"] * 2}
    path = as_parquet(tmp_path / "rows.parquet", columns | changes)
    with pytest.raises(TaskFileError, match=re.escape(f"{path}, {reason}")):
        load_tasks(path)
