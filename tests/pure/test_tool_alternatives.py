"""Expected calls with several accepted values and with arguments that may be left out."""

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
        ({"optional_arguments": ["day"]}, "optional_arguments"),
        ({"optional_arguments": [["unit"]]}, "optional_arguments"),
        ({"optional_arguments": "unit"}, "optional_arguments"),
    ],
)
def test_what_cannot_be_read_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(TaskFileError, match=f"payload.expected.0..{line}"):
        parse_matching(task(json.loads(json.dumps(WEATHER | changes))))
