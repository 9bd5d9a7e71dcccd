"""Task files: what loads, what is refused and with which line."""

import gzip
import json
import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from env_workers.adapters import load_tasks_with
from sdpo.errors import TaskFileError
from sdpo.plain_values import plain_record
from sdpo.records import read_file
from sdpo.taskfile import digest, load_tasks
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
        (record(zzz=1), "zzz: unknown key; allowed: id, messages, environment, payload, tools"),
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
    with pytest.raises(TaskFileError, match=r"latin\.jsonl, line 1: not UTF-8 text: 0xe9 at byte 12 .*allowed: UTF-8$"):
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


def test_values_of_parquet_become_those_of_json(tmp_path: Path) -> None:
    call = pyarrow.struct(
        [("name", pyarrow.string()), ("arguments", pyarrow.struct([("a", pyarrow.int8()), ("b", pyarrow.int8())]))]
    )
    calls = [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {"b": 2}}]
    columns = {
        "calls": pyarrow.array([calls], pyarrow.list_(call)),
        "map": pyarrow.array([[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        "when": pyarrow.array([datetime(2025, 11, 28, 12)]),
        "day": pyarrow.array([date(2025, 11, 28)]),
        "took": pyarrow.array([timedelta(milliseconds=1500)]),
        "whole": pyarrow.array([Decimal("2.00")]),
        "part": pyarrow.array([Decimal("2.50")]),
        "bytes": pyarrow.array(["é".encode()]),
        "none": pyarrow.array([None], pyarrow.string()),
        "items": pyarrow.array([[1, None]]),
    }
    ((where, row),) = read_file(str(as_parquet(tmp_path / "a.parquet", columns)))
    assert where.endswith("a.parquet, record 1")
    assert row == {
        "calls": calls,
        "map": {"k": 1},
        "when": "2025-11-28T12:00:00",
        "day": "2025-11-28",
        "took": 1.5,
        "whole": 2,
        "part": 2.5,
        "bytes": "é",
        "none": None,
        "items": [1, None],
    }
    assert json.loads(json.dumps(row)) == row
    bad = as_parquet(tmp_path / "b.parquet", {"image": pyarrow.array([b"\xff\xd8"])})
    with pytest.raises(TaskFileError, match=r"b\.parquet, record 1: image=.*: allowed: UTF-8 text"):
        list(read_file(str(bad)))


def test_values_of_data_sets_become_those_of_json() -> None:
    record = {"n": np.int64(3), "x": np.float32(0.5), "row": np.array([[1, 2]]), "yes": np.bool_(True), "t": (1, 2)}
    plain = plain_record("here", record | {"inner": {"gone": None, "kept": [None]}})
    assert plain == {"n": 3, "x": 0.5, "row": [[1, 2]], "yes": True, "t": [1, 2], "inner": {"kept": [None]}}
    assert type(plain["n"]) is int
    with pytest.raises(TaskFileError, match=r"here: inner\.image is of type object: allowed: text, numbers"):
        plain_record("here", {"inner": {"image": object()}})


def test_function_calls_of_parquet_expect_no_nulls(tmp_path: Path) -> None:
    arguments = pyarrow.struct([("ticker", pyarrow.string()), ("city", pyarrow.string())])
    calls = pyarrow.list_(pyarrow.struct([("name", pyarrow.string()), ("arguments", arguments)]))
    tools = pyarrow.list_(
        pyarrow.struct(
            [
                ("name", pyarrow.string()),
                (
                    "parameters",
                    pyarrow.struct([("type", pyarrow.string()), ("required", pyarrow.list_(pyarrow.string()))]),
                ),
            ]
        )
    )
    columns = {
        "question": ["Stocks?", "Weather?"],
        "tools": pyarrow.array([[{"name": "stock", "parameters": {"type": "object"}}]] * 2, tools),
        "calls": pyarrow.array(
            [[{"name": "stock", "arguments": {"ticker": "A"}}], [{"name": "stock", "arguments": {"city": "B"}}]], calls
        ),
        "ordered": pyarrow.array([None, True]),
    }
    path = as_parquet(tmp_path / "calls.parquet", columns)
    first, second = load_tasks_with("function_calling", str(path), "train", {})
    assert first.payload["expected"] == [{"name": "stock", "arguments": {"ticker": "A"}}]
    assert second.payload["expected"] == [{"name": "stock", "arguments": {"city": "B"}}]
    assert first.payload["tools"] == [{"name": "stock", "parameters": {"type": "object"}}]
    assert (first.payload["ordered"], second.payload["ordered"]) == (False, True)


def test_integers_of_many_digits_are_read_and_written(tmp_path: Path) -> None:
    (task,) = load_tasks(write(tmp_path, f'{{"id": "a", "messages": {json.dumps([USER])}, "environment": "code", '
                                         f'"payload": {{"n": {"7" * 20_000}}}}}'))  # fmt: skip
    assert task.payload["n"] == int("7" * 20_000)
    assert digest([task])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("1" * 200_000, "line 1: holds an integer of more than 100000 digits"),
        ("[" * 100_000, "line 1: not JSON: too deep"),
        ("NaN", "line 1: task a: cannot be written as JSON: Out of range float values"),
        ("-Infinity", "line 1: task a: cannot be written as JSON: Out of range float values"),
        ("1e999", "line 1: task a: cannot be written as JSON: Out of range float values"),
        ('"\\ud800"', "line 1: task a: cannot be written as JSON: 'utf-8' codec can't encode"),
    ],
)
@pytest.mark.parametrize("name", ["tasks.jsonl", "tasks.json"])
def test_what_json_cannot_hold_is_refused_with_its_line(tmp_path: Path, value: str, reason: str, name: str) -> None:
    path = tmp_path / name
    line = f'{{"id": "a", "messages": {json.dumps([USER])}, "environment": "code", "payload": {{"n": {value}}}}}'
    path.write_text(line)
    with pytest.raises(TaskFileError, match=reason.replace("line 1", "(line|record) 1")) as caught:
        load_tasks(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
