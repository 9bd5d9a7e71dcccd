"""Values, errors and durations in words."""

import pytest

from sdpo.show import LONGEST_VALUE_CHARS, show, show_duration, show_error, show_names


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3570, "1 h 00 min"), (7500, "2 h 05 min"), (100 * 3600, "4 d 4 h")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert show_duration(seconds) == words


def test_values_are_one_line_and_shortened() -> None:
    assert [show(value) for value in (None, "a b", "", "a\nb", 1.5, {"a": None})] == [
        "none", "a b", '""', '"a\\nb"', "1.5", '{"a": null}',
    ]  # fmt: skip
    assert len(show("x" * 1000)) == LONGEST_VALUE_CHARS
    assert show_error(ValueError("first\n  second"), max_chars=9) == "first sec"


def test_what_json_cannot_hold_is_named_by_its_type() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    for value in (cycle, {(1, 2): 3}, [10**200_000]):
        assert show(value) == f"a value of type {type(value).__name__}"


def test_many_names_are_counted() -> None:
    assert show_names(["a", "b"], 2) == "a, b"
    assert show_names([1, 2, 3, 4], 2) == "1, 2 and 2 more"
