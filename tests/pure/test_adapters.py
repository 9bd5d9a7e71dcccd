"""Adapters: records of every form, templates, options; each fault is one line that names it."""

import gzip
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from env_workers.adapters import load_tasks_with
from env_workers.adapters.records import read_records
from sdpo.errors import ConfigError, TaskFileError
from sdpo.types import Message, Task

ROWS: list[dict[str, Any]] = [
    {"n": 1, "q": "What is {x} in {'a': 1}?\u2028", "a": "one"},
    {"n": 2, "q": "Two?", "a": "two"},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
OPTIONS: dict[str, Any] = {"environment": "code", "prompt": "{q}"}


def records(path: Path, **options: Any) -> list[Task]:
    return load_tasks_with("records", str(path), "train", OPTIONS | options)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES.encode()),
        ("lines_in_spite_of_the_name.json", LINES.encode()),
        ("a.json", json.dumps(ROWS, indent=1).encode()),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
    ],
)
def test_every_form_gives_the_same_records(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert [record for _, record in read_records(str(tmp_path / name), {})] == ROWS
    assert [record for _, record in read_records(str(tmp_path / name), {"limit": 1})] == ROWS[:1]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.csv", b"", r"a\.csv: allowed: a file ending in \.json, .*hub:NAME"),
        ("a.jsonl", b"{}\n\n[1]\n", r"a\.jsonl, line 3: \[1\]: allowed: an object"),
        ("a.jsonl", b'{}\n{"a": }\n', r"a\.jsonl, line 2: not JSON: Expecting value at column 7"),
        ("a.jsonl", b"", r"a\.jsonl: holds no records"),
        ("a.jsonl", b"\xff\n", r"a\.jsonl, line 1: not UTF-8 text"),
        ("a.jsonl.gz", b"no gzip", r"a\.jsonl\.gz: cannot be read: Not a gzipped file"),
        ("gone.json", None, r"gone\.json: no such file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, line: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskFileError, match=line):
        list(read_records(str(tmp_path / name), {}))


def test_packages_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "a.parquet").touch()
    with pytest.raises(TaskFileError, match=r"a\.parquet: reading it needs the package pyarrow: pip install pyarrow"):
        list(read_records(str(tmp_path / "a.parquet"), {}))
    with pytest.raises(TaskFileError, match=r"hub:me/data:test: .* pip install datasets"):
        list(read_records("hub:me/data:test", {}))


def test_a_hub_data_set_is_asked_for_by_split_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None, **how: Any) -> list[dict[str, Any]]:
        asked.append((name, config, how))
        if name == "me/away":
            raise ConnectionError("the hub\ncannot be reached")
        return ROWS

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert [record for _, record in read_records("hub:me/data:test", {"revision": "v2", "config": "easy"})] == ROWS
    assert asked == [("me/data", "easy", {"split": "test", "revision": "v2"})]
    with pytest.raises(
        TaskFileError, match=r"hub:me/away: the hub did not give split train .*the hub cannot be reached"
    ):
        list(read_records("hub:me/away", {}))


def test_a_template_takes_fields_and_leaves_other_braces(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(LINES)
    prompt = '{n}. {q} Answer as {"answer": {{q}}}.'
    (first, second) = records(file, prompt=prompt, system="Be {a}.", id="n", payload=["a"], constants={"points": 3})
    said = "1. What is {x} in {'a': 1}?\u2028 Answer as {\"answer\": {q}}."
    assert first.messages == (Message(role="system", content="Be one."), Message(role="user", content=said))
    assert (first.id, second.id, first.environment) == ("1", "2", "code")
    assert first.payload == {"a": "one", "points": 3}
    assert [task.id for task in records(file)] == ["train-1", "train-2"]
    assert records(file, payload={"answer": "a"})[1].payload == {"answer": "two"}
    assert records(file)[1].payload == ROWS[1]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"promt": "x"}, r"tasks\.options\.promt: adapter records has no such option; nearest: prompt; allowed: env"),
        ({"prompt": None}, r"tasks\.options\.prompt: missing; allowed: a string"),
        ({"environment": 3}, r"tasks\.options\.environment=3: allowed: a string"),
        ({"prompt": "{qq}"}, r"a\.jsonl, line 1: qq: missing; the record has n, q, a"),
        ({"payload": ["b"]}, r"a\.jsonl, line 1: b: missing"),
        ({"payload": "a"}, r"tasks\.options: payload=a: allowed: a list"),
        ({"limit": 0}, r"tasks\.options\.limit=0: allowed: a positive"),
        ({"split": "test"}, r"tasks\.options\.split=test: for hub:NAME only"),
        ({"id": "same"}, r"a\.jsonl, line 1: same: missing"),
        ({"prompt": " {a} ", "system": " "}, r"tasks\.options\.system= : allowed: a string"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, options: dict[str, Any], line: str) -> None:
    (tmp_path / "a.jsonl").write_text(LINES)
    with pytest.raises(TaskFileError, match=line):
        records(tmp_path / "a.jsonl", **options)


def twice(path: str, purpose: str, options: Any) -> Iterator[Task]:
    for _ in range(2):
        yield Task(id="same", messages=(Message(role="user", content="?"),), environment="code", payload={})


def unheard(path: str, purpose: str, options: Any) -> Iterator[Task]:
    yield Task(id="a", messages=(Message(role="assistant", content="?"),), environment="code", payload={})


def unwritable(path: str, purpose: str, options: Any) -> Iterator[Task]:
    yield Task(id="a", messages=(Message(role="user", content="?"),), environment="code", payload={"a": {1}})


def broken(path: str, purpose: str, options: Any) -> Iterator[Any]:
    yield from options["missing"]


def plain(path: str, purpose: str, options: Any) -> Iterator[Any]:
    yield {"id": "a"}


def nothing(path: str, purpose: str, options: Any) -> Iterator[Any]:
    return iter(())


@pytest.mark.parametrize(
    ("name", "error", "line"),
    [
        ("twice", TaskFileError, r"x: id=same: made for two tasks"),
        ("unheard", TaskFileError, r"x, task a: messages\[0\]\.role=assistant: allowed: user"),
        ("unwritable", TaskFileError, r"task a: cannot be written as JSON"),
        ("broken", TaskFileError, r"x: tasks\.adapter=foreign:broken failed: KeyError: 'missing'"),
        ("plain", TaskFileError, r"tasks\.adapter=foreign:plain: made dict; allowed: sdpo\.types\.Task"),
        ("nothing", TaskFileError, r"x: no tasks were made of it"),
        ("ROWS", ConfigError, r"tasks\.adapter=foreign:ROWS: is no function"),
        ("gone", ConfigError, r"tasks\.adapter=foreign:gone cannot be imported: foreign has no gone"),
    ],
)
def test_an_adapter_of_ones_own_is_checked(
    monkeypatch: pytest.MonkeyPatch, name: str, error: type[Exception], line: str
) -> None:
    monkeypatch.setitem(sys.modules, "foreign", sys.modules[__name__])
    with pytest.raises(error, match=line):
        load_tasks_with(f"foreign:{name}", "x", "train", {})


def test_an_unknown_adapter_names_the_others() -> None:
    with pytest.raises(
        ConfigError, match=r"tasks\.adapter=jsn does not exist; allowed: records, livecodebench, .*module:function"
    ):
        load_tasks_with("jsn", "x", "train", {})
