"""Expected calls with accepted forms: several values, optional arguments and keys, loose texts, typed numbers."""

import json
from typing import Any

import pytest

from env_workers.tools.faults import faults_in, lines_of
from env_workers.tools.notations import Call
from env_workers.tools.payload import parse_matching
from sdpo.errors import TaskFileError
from sdpo.types import Task

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string"}}}
WEATHER = {
    "name": "w",
    "arguments": {"city": {"any_of": ["NYC", "New York"]}, "unit": {"any_of": ["F", "fahrenheit"]}},
    "optional_arguments": ["unit"],
}


def task(*expected: dict[str, Any]) -> Task:
    payload = {"tools": [{"name": "w", "parameters": SCHEMA}], "expected": list(expected)}
    return Task(id="t", messages=(), environment="tool_matching", payload=payload)


def kinds(given: list[dict[str, Any]], *expected: dict[str, Any]) -> list[str]:
    faults = faults_in([Call(name="w", arguments=arguments) for arguments in given], parse_matching(task(*expected)))
    assert not any(secret in lines_of(faults) for secret in ("NYC", "New York", "fahrenheit"))
    return [fault.kind for fault in faults]


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({"city": "NYC"}, []),
        ({"city": "New York", "unit": "F"}, []),
        ({"city": "Oslo"}, ["wrong_value"]),
        ({"city": "NYC", "unit": "C"}, ["wrong_value"]),
        ({"city": 3}, ["wrong_type"]),
        ({"unit": "F"}, ["missing_argument"]),
        ({"city": "NYC", "day": 1}, ["extra_argument"]),
        ({"city": {"any_of": ["NYC"]}}, ["wrong_type"]),
    ],
)
def test_each_accepted_value_passes_and_nothing_else(given: dict[str, Any], want: list[str]) -> None:
    assert kinds([given], WEATHER) == want


def test_calls_that_answer_several_expected_ones_are_matched_as_a_whole() -> None:
    first = {"name": "w", "arguments": {"city": {"any_of": ["a", "b"]}}}
    second = {"name": "w", "arguments": {"city": "a"}}
    assert kinds([{"city": "a"}, {"city": "b"}], first, second) == []
    assert kinds([{"city": "b"}, {"city": "a"}], first, second) == []
    assert kinds([{"city": "b"}, {"city": "b"}], first, second) != []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"arguments": {"city": {"any_of": []}}, "optional_arguments": []}, "arguments.city.any_of"),
        ({"arguments": {"unit": {"any_of": [1, {"list_of": 2}]}}}, r"arguments.unit.any_of\[1\].list_of"),
        ({"arguments": {"unit": {"object_of": []}}}, "arguments.unit.object_of"),
        ({"arguments": {"unit": {"object_of": {"a": 1}, "optional": ["b"]}}}, "arguments.unit.optional"),
        ({"arguments": {"unit": {"object_of": {"a": {"any_of": []}}}}}, "arguments.unit.object_of.a.any_of"),
        ({"arguments": {"unit": {"any_of": [1], "or": [2]}}}, "arguments.unit is .*any_of alone, or .exactly"),
        ({"arguments": {"unit": [{"b": {"any_of": [1]}}]}}, "arguments.unit is .*list_of around a form, or exactly"),
        ({"optional_arguments": ["day"]}, "optional_arguments"),
        ({"optional_arguments": [["unit"]]}, "optional_arguments"),
        ({"optional_arguments": "unit"}, "optional_arguments"),
    ],
)
def test_what_cannot_be_read_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(TaskFileError, match=f"payload.expected.0..{line}"):
        parse_matching(task(json.loads(json.dumps(WEATHER | changes))))


NESTED = {
    "object_of": {
        "when": {"any_of": ["now", {"object_of": {"day": 1, "hour": {"any_of": [8, 9]}}, "optional": ["hour"]}]},
        "tags": {"list_of": [{"any_of": ["a", "b"]}, {"exactly": {"any_of": [1]}}, [1, {"k": None}]]},
    },
    "optional": ["when"],
}
TAGS = ["b", {"any_of": [1]}, [1, {"k": None}]]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tags": TAGS}, ""),
        ({"tags": TAGS, "when": "now"}, ""),
        ({"tags": TAGS, "when": {"day": 1}}, ""),
        ({"tags": TAGS, "when": {"day": 1, "hour": 9}}, ""),
        ({"when": "now"}, "the argument 'city' lacks a key"),
        ({"tags": TAGS, "when": {"hour": 9}}, "the argument 'city.when' has a wrong value"),
        ({"tags": TAGS, "when": 7}, "the argument 'city.when' is of the wrong type"),
        ({"tags": ["c", *TAGS[1:]]}, "the argument 'city.tags[0]' has a wrong value"),
        ({"tags": ["a", 1, TAGS[2]]}, "the argument 'city.tags[1]' is of the wrong type"),
        ({"tags": [*TAGS[:2], [1, {"k": 0}]]}, "the argument 'city.tags[2][1].k' is of the wrong type"),
        ({"tags": TAGS * 2}, "the argument 'city.tags' has too many items"),
        ({"tags": TAGS, "who": 1}, "the argument 'city.who' should not be given here"),
        ("now", "the argument 'city' is of the wrong type"),
    ],
)
def test_forms_are_read_at_every_depth(given: Any, told: str) -> None:
    of = task({"name": "w", "arguments": {"city": NESTED}})
    of.payload["tools"][0] = {"name": "w"}
    lines = lines_of(faults_in([Call(name="w", arguments={"city": given})], parse_matching(of)))
    assert lines.partition("\n")[0] == (f"Call 1 ('w'): {told}." if told else "")


@pytest.mark.parametrize(
    ("given", "wanted", "strings", "numbers"),
    [
        ("San Francisco, CA", "san francisco ca", True, False),
        ("it's", 'IT"S', True, False),
        ("a+b", "ab", False, False),
        (2, 2.0, True, True),
        (2.0, 2, True, False),
        ([2], [2.0], True, True),
        ({"a": [2.0]}, {"a": [2]}, True, False),
        (True, 1, False, False),
        (1, True, False, False),
        ("2", 2, False, False),
        (None, 0, False, False),
        (2.5, 2.5, True, True),
    ],
)
def test_loose_texts_and_typed_numbers(given: Any, wanted: Any, strings: bool, numbers: bool) -> None:
    """`strings`: whether loose texts and equal numbers pass; `numbers`: whether exact texts and typed numbers do."""
    for settings, passes in (({"strings": "loose"}, strings), ({"numbers": "typed"}, numbers)):
        payload = {**task({"name": "w", "arguments": {"day": wanted}}).payload, **settings}
        of = Task(id="t", messages=(), environment="tool_matching", payload=payload)
        assert (faults_in([Call(name="w", arguments={"day": given})], parse_matching(of)) == []) is passes
