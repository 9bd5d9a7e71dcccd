"""Readers of payloads and of adapters' options: what they take, and the one line for what they refuse."""

from collections.abc import Callable
from typing import Any

import pytest

from env_workers.adapters.fields import Options
from env_workers.payloads import flag_at, list_at, number_at, only_keys, seconds_at, text_at, texts_at
from env_workers.verdicts import failed, no_answer, passed
from sdpo.errors import TaskFileError
from sdpo.types import Task

TASK = Task(id="t", messages=(), environment="code", payload={})


def test_values_of_the_right_kind_are_returned() -> None:
    payload = {"text": "a", "blank": " ", "texts": ["a", "b"], "items": (1, 2), "flag": True, "number": 2}
    assert only_keys(TASK, payload, tuple(payload)) is payload
    assert text_at(TASK, payload, "text") == "a"
    assert text_at(TASK, payload, "blank", blank=True) == " "
    assert texts_at(TASK, payload, "texts", "", 2) == ("a", "b")
    assert list_at(TASK, payload, "items") == [1, 2]
    assert list_at(TASK, {"items": []}, "items", empty=True) == []
    assert (flag_at(TASK, payload, "flag"), flag_at(TASK, payload, "other")) == (True, False)
    assert (number_at(TASK, payload, "number", 1.0), number_at(TASK, payload, "other", 1.0)) == (2.0, 1.0)
    assert (seconds_at(TASK, {}), seconds_at(TASK, {"time_limit_s": 0.5})) == (None, 0.5)


@pytest.mark.parametrize(
    ("read", "line"),
    [
        (lambda: only_keys(TASK, [], ("a",), "tools[0]"), "payload.tools[0] is []; allowed: a mapping"),
        (lambda: only_keys(TASK, {"b": 1}, ("a", "c")), "payload has the unknown key b; allowed: a, c"),
        (lambda: text_at(TASK, {"x": " "}, "x"), "payload.x is  ; allowed: a string that is not blank"),
        (lambda: text_at(TASK, {"x": "abc"}, "x", "tests[1]", max_chars=2), "payload.tests[1].x is longer than 2 char"),
        (lambda: texts_at(TASK, {"x": ["a", 1]}, "x", "", 9), 'payload.x is ["a", 1]; allowed: a list of at least one'),
        (lambda: texts_at(TASK, {"x": ["ab", "cd"]}, "x", "", 3), "payload.x is longer than 3 characters"),
        (lambda: list_at(TASK, {"x": []}, "x", of="test"), "payload.x is []; allowed: a list of at least one test"),
        (lambda: flag_at(TASK, {"x": 1}, "x", "k"), "payload.k.x is 1; allowed: true or false"),
        (lambda: number_at(TASK, {"x": True}, "x", 0.0), "payload.x is true; allowed: a number of at least 0"),
        (lambda: number_at(TASK, {"x": float("inf")}, "x", 0.0), "allowed: a number of at least 0"),
        (
            lambda: seconds_at(TASK, {"time_limit_s": 0}),
            "payload.time_limit_s is 0; allowed: a number of seconds above",
        ),
    ],
)
def test_what_is_refused_names_task_key_value_and_what_is_allowed(read: Callable[[], Any], line: str) -> None:
    with pytest.raises(TaskFileError) as caught:
        read()
    assert str(caught.value).startswith("task t: ")
    assert line in str(caught.value)


def test_options_are_read_with_their_types() -> None:
    given = {"text": "a", "kind": "x", "count": 3, "part": 1, "on": False, "names": ["a"], "more": {"k": 1}}
    chosen = Options("mine", given, (*given, "other"))
    assert (chosen.text("text"), chosen.choice("kind", ("x", "y")), chosen.integer("count")) == ("a", "x", 3)
    assert (chosen.fraction("part"), chosen.flag("on", True), chosen.texts("names")) == (1.0, False, ("a",))
    assert chosen.mapping("more") == {"k": 1}
    assert (chosen.text("other", "default"), chosen.flag("other"), chosen.texts("other")) == ("default", False, ())
    for read, line in (
        (lambda: chosen.text("other"), "tasks.options.other: missing; allowed: a string that is not blank"),
        (lambda: chosen.choice("text", ("x", "y")), "tasks.options.text=a: allowed: x, y"),
        (lambda: chosen.integer("count", at_least=4), "tasks.options.count=3: allowed: an integer of at least 4"),
        (lambda: chosen.fraction("count"), "tasks.options.count=3: allowed: a number from 0 to 1"),
        (lambda: chosen.integer("on"), "tasks.options.on=false: allowed: an integer of at least 0"),
        (lambda: Options("mine", {"seeds": 1}, ("seed",)), "adapter mine has no such option; nearest: seed;"),
    ):
        with pytest.raises(TaskFileError) as caught:
            read()  # type: ignore[no-untyped-call]
        assert line in str(caught.value)


def test_verdicts() -> None:
    assert (passed(a=1).reward, passed(a=1).success, passed(a=1).details) == (1.0, True, {"a": 1})
    half = failed("wrong_answer", "Wrong Answer", 0.5, score=0.5)
    assert (half.reward, half.success, half.kind, half.details) == (0.5, False, "wrong_answer", {"score": 0.5})
    assert no_answer("No answer was found.", truncated=False).feedback == "Wrong Format\nNo answer was found."
    cut = no_answer("No answer was found.", truncated=True)
    assert cut.kind == "truncated"
    assert "length limit" in cut.feedback
