"""What is wrong with the calls, in words that do not give the expected calls away.

Names of tools and arguments come from the model's own calls or from the tools' documentation, which the prompt holds;
values are never shown, neither the expected ones nor how many calls there should be.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from env_workers.calling.notations import Call
from env_workers.calling.schema import Fault, faults_of, path_name
from env_workers.tool_matching.match import in_order, leftovers, same_json
from env_workers.tool_matching.payload import Expected, Matching
from env_workers.wording import quote

MAX_LINES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """One line of feedback; `kind` is for `Verdict.details`."""

    kind: str
    text: str


def complaints(calls: Sequence[Call], matching: Matching) -> list[Complaint]:
    """What is wrong; nothing when the calls are the expected ones."""
    wrong, unanswered = leftovers(calls, matching.expected)
    still_wanted = [matching.expected[i] for i in unanswered]
    found = [c for i in wrong for c in _about_call(i, calls, wrong, matching, still_wanted)]
    if any(not wanted.optional for wanted in still_wanted):
        made = "No call was made" if not calls else f"{_count(len(calls))} made"
        found.append(Complaint(kind="too_few_calls", text=f"{made}, and something that is needed was not called."))
    if not found and matching.ordered and not in_order(calls, matching.expected):
        found.append(Complaint(kind="wrong_order", text="The calls are right, but not their order."))
    return found


def lines_of(found: Sequence[Complaint]) -> str:
    """The complaints, one a line, at most MAX_LINES."""
    lines = [complaint.text for complaint in found[:MAX_LINES]]
    return "\n".join(lines + ([f"... ({len(found) - MAX_LINES} more)"] if len(found) > MAX_LINES else []))


def _about_call(
    index: int, calls: Sequence[Call], wrong: Sequence[int], matching: Matching, still_wanted: list[Expected]
) -> Iterator[Complaint]:
    """Takes the expected call that comes closest out of `still_wanted`."""
    call = calls[index]
    title = f"Call {index + 1} ({quote(call.name)})"
    candidates = [wanted for wanted in still_wanted if wanted.name == call.name]
    if not candidates:
        yield _not_wanted(title, index, calls, wrong, matching)
        return
    wanted = max(candidates, key=lambda c: _num_same(call.arguments, c.arguments))
    still_wanted.remove(wanted)
    for fault in _argument_faults(call.arguments, wanted.arguments, matching.schemas.get(call.name, {})):
        yield Complaint(kind=fault.kind, text=f"{title}: {fault.text}.")


def _not_wanted(title: str, index: int, calls: Sequence[Call], wrong: Sequence[int], matching: Matching) -> Complaint:
    call = calls[index]
    if call.name not in matching.schemas:
        return Complaint(kind="unknown_tool", text=f"{title}: there is no tool of this name.")
    same = [i for i, c in enumerate(calls) if c.name == call.name and same_json(c.arguments, call.arguments)]
    if len(same) > 1:
        return Complaint(kind="too_many_calls", text=f"{title}: this call was made more often than needed.")
    if any(c.name == call.name for i, c in enumerate(calls) if i != index and i not in wrong):
        return Complaint(kind="too_many_calls", text=f"{title}: this tool was called more often than needed.")
    return Complaint(kind="wrong_tool", text=f"{title}: this call is not needed here.")


def _argument_faults(given: dict[str, Any], wanted: dict[str, Any], schema: Mapping[str, Any]) -> Iterator[Fault]:
    documented = schema.get("properties", {})
    for name in [name for name in wanted if name not in given]:
        text = f"{path_name([name])} is missing" if name in documented else "an argument is missing"
        yield Fault(kind="missing_argument", text=text)
    for name in given:
        if name not in wanted:
            text = "should not be given here" if name in documented else "does not exist"
            yield Fault(kind="extra_argument", text=f"{path_name([name])} {text}")
        elif not same_json(given[name], wanted[name]):
            faults = _documented_faults(documented.get(name, {}), name, given[name], wanted[name])
            yield from faults or [_difference([name], given[name], wanted[name])]


def _documented_faults(schema: Any, name: str, given: Any, wanted: Any) -> list[Fault]:
    """Nothing where the documentation does not allow the expected value either: then it explains nothing."""
    return [] if faults_of(schema, wanted, name) else faults_of(schema, given, name)


def _difference(path: list[str | int], given: Any, wanted: Any) -> Fault:
    """Where two unequal values begin to differ, along steps that the model wrote itself."""
    if isinstance(given, dict) and isinstance(wanted, dict):
        missing = any(key not in given for key in wanted)
        for key in given:
            if key not in wanted:
                return Fault(kind="wrong_value", text=f"{path_name([*path, key])} should not be given here")
            if not same_json(given[key], wanted[key]):
                return _difference([*path, key], given[key], wanted[key])
        if missing:
            return Fault(kind="wrong_value", text=f"{path_name(path)} lacks a key")
    if isinstance(given, list) and isinstance(wanted, list | tuple):
        for index, (one, other) in enumerate(zip(given, wanted, strict=False)):
            if not same_json(one, other):
                return _difference([*path, index], one, other)
        return Fault(kind="wrong_value", text=f"{path_name(path)} has too {_many(len(given), len(wanted))} items")
    if _kind(given) != _kind(wanted):
        return Fault(kind="wrong_type", text=f"{path_name(path)} is of the wrong type")
    return Fault(kind="wrong_value", text=f"{path_name(path)} has a wrong value")


def _many(given: int, wanted: int) -> str:
    return "many" if given > wanted else "few"


def _kind(value: Any) -> type:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float if number else list if isinstance(value, tuple) else type(value)


def _num_same(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> int:
    return sum(same_json(given[name], value) for name, value in wanted.items() if name in given)


def _count(number: int) -> str:
    return "1 call was" if number == 1 else f"{number} calls were"
