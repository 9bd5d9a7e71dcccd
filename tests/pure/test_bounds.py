"""Every number of a run file and of the command line has a lowest and a highest value."""

import argparse
import math
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest

from orchestrator.cli import COMMANDS, main
from orchestrator.commands import number
from sdpo.bounds import LARGEST_FREE_NUMBER, Count, Share, Temperature, bare, limits
from sdpo.config import RunConfig
from sdpo.config.keys import sections_of, walk_keys
from sdpo.config.load import load_run_config, make_run_config
from sdpo.errors import ConfigError
from sdpo.section import FreeNumbers, Section

NO_NUMBERS = (10**20, 1e30, -(10**20), math.inf, -math.inf, math.nan, "1e400", 10**400)
AS_TEXT = ("100000000000000000000", "1e30", "-100000000000000000000", "1e400", "inf", "nan", ".nan", "9" * 5000)


def numeric_parts(annotation: Any, metadata: list[Any]) -> Iterator[tuple[type, list[Any]]]:
    """Yield every type of number inside an annotation with what annotates it."""
    kind, rules = bare(annotation, metadata)
    if kind in (int, float):
        yield kind, rules
    for part in get_args(kind):
        yield from numeric_parts(part, rules if get_origin(kind) not in (dict, list, tuple) else [])


def is_numeric(annotation: Any, metadata: list[Any]) -> bool:
    return not sections_of(annotation) and any(numeric_parts(annotation, metadata))


def numbers_of_run_files(section: type[Section] = RunConfig, prefix: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the dotted key of every number, and the kinds of the unions that lead to it."""
    for name, field in section.model_fields.items():
        key, members = f"{prefix}{name}", sections_of(field.annotation)
        if is_numeric(field.annotation, field.metadata):
            yield (f"{key}.a_name" if get_origin(bare(field.annotation)[0]) is dict else key), {}
        for member in members:
            kinds = {f"{key}.kind": get_args(member.model_fields["kind"].annotation)[0]} if len(members) > 1 else {}
            for below, others in numbers_of_run_files(member, f"{key}."):
                yield below, kinds | others


NUMBERS = list(numbers_of_run_files())


def all_sections(base: type[Section] = Section) -> Iterator[type[Section]]:
    for section in base.__subclasses__():
        yield section
        yield from all_sections(section)


def test_every_number_of_every_section_has_both_bounds() -> None:
    """Also of sections that no run file can hold yet. Literals are no numbers: they are bounded by what they list."""
    open_numbers = []
    for section in set(all_sections()):
        for name, field in section.model_fields.items():
            for _, rules in numeric_parts(field.annotation, field.metadata):
                if {limit[0] for limit in limits(rules)} not in ({a, b} for a in ("gt", "ge") for b in ("lt", "le")):
                    open_numbers.append(f"{section.__name__}.{name}")
    assert open_numbers == []


def test_a_mapping_of_anything_is_one_of_free_numbers() -> None:
    open_mappings = [
        key.name
        for key in walk_keys(RunConfig)
        if Any in get_args(key.field.annotation) and not any(isinstance(r, FreeNumbers) for r in key.field.metadata)
    ]
    assert open_mappings == []


@pytest.mark.parametrize(("key", "kinds"), NUMBERS, ids=[f"{key}-{'-'.join(kinds.values())}" for key, kinds in NUMBERS])
def test_no_number_is_too_large(key: str, kinds: dict[str, str]) -> None:
    for value in NO_NUMBERS:
        with pytest.raises(ConfigError) as refused:
            make_run_config({}, kinds | {key: value})
        line = str(refused.value)
        assert line.startswith(f"{key}="), line
        assert "allowed: a" in line or "allowed: an" in line, line
        assert "\n" not in line


@pytest.mark.parametrize("text", AS_TEXT)
@pytest.mark.parametrize("key", ["batch.samples_per_task", "learner.optimizer.learning_rate", "rollout.kv_cache_gib"])
def test_no_override_is_too_large(key: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_run_config("/dev/null", [f"{key}={text}"])
    assert key in str(refused.value)
    assert "allowed: " in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [v for v in NO_NUMBERS if not isinstance(v, str)])
def test_numbers_of_an_adapter(value: float) -> None:
    for options, key in (({"limit": value}, "limit"), ({"a": {"b": [1, value]}}, "a.b.1")):
        with pytest.raises(ConfigError) as refused:
            make_run_config({"tasks": {"options": options}}, {})
        assert str(refused.value).startswith(f"tasks.options.{key}=")
        assert f"allowed: numbers from {-LARGEST_FREE_NUMBER} to {LARGEST_FREE_NUMBER}" in str(refused.value)
    assert make_run_config({"tasks": {"options": {"limit": 3, "fair": True}}}, {}).tasks.options["limit"] == 3


@pytest.mark.parametrize(
    ("kind", "text", "line"),
    [
        (Count, "0", "0; allowed: a whole number above 0 and at most 1000000"),
        (Count, "1.5", "1.5; allowed: a whole number above 0 and at most 1000000"),
        (Count, "9" * 5000, "allowed: a whole number above 0 and at most 1000000"),
        (Share, "1", "1; allowed: a number above 0 and below 1"),
        (Temperature, "nan", "nan; allowed: a number at least 0 and at most 100"),
    ],
)
def test_an_argument_is_bounded(kind: Any, text: str, line: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=line):
        number(kind)(text)


def options_with_numbers() -> Iterator[tuple[str, str]]:
    """Yield command and option of every option that takes a number, by trying one."""
    for module in COMMANDS:
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        for action in parser._actions:
            if action.option_strings and callable(action.type) and _reads_numbers(action.type):
                yield module.NAME, action.option_strings[0]


def _reads_numbers(kind: Any) -> bool:
    for text in ("1", "0.5", "1:1"):
        try:
            value = kind(text)
        except (argparse.ArgumentTypeError, ValueError):
            continue
        return isinstance(value, int | float | tuple)
    return False


OPTIONS = list(options_with_numbers())


def test_options_with_numbers_are_known() -> None:
    assert len(OPTIONS) >= 15


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_no_argument_is_too_large(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    for text in AS_TEXT:
        value = f"{text}:" if (command, option) == ("timeline", "--steps") else text
        assert main([command, "a", "b", f"{option}={value}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"argument {option}: " in line
        assert "allowed: a" in line


def test_a_number_that_no_reader_takes_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"a number cannot be read: .*allowed: numbers within the bounds"):
        make_run_config({}, {"batch.tasks": 10**5000})
