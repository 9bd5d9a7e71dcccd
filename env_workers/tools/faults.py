"""How the calls differ from the expected ones, in words that do not give the expected calls away. Pure.

Names of tools and arguments come from the model's own calls or from the tools' documentation, which the prompt holds;
values are never shown, neither the expected ones nor how many calls there should be.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from env_workers.tools.forms import Comparison, Form, ListOf, ObjectOf, accepts, example, kind_of, kinds_of, literal
from env_workers.tools.notations import Call
from env_workers.tools.payload import Expected, Matching
from env_workers.tools.schema import Fault, faults_of, path_name
from env_workers.wording import quote

MAX_LINES = 8


def faults_in(calls: Sequence[Call], matching: Matching) -> list[Fault]:
    """Return what is wrong; empty when the calls are the expected ones. Texts are sentences."""
    wrong, unanswered = leftovers(calls, matching.expected, matching.comparison)
    still_wanted = [matching.expected[i] for i in unanswered]
    faults = [c for i in wrong for c in _about_call(i, calls, wrong, matching, still_wanted)]
    if any(not wanted.optional for wanted in still_wanted):
        made = "No call was made" if not calls else f"{_count(len(calls))} made"
        faults.append(Fault(kind="too_few_calls", text=f"{made}, and something that is needed was not called."))
    if not faults and matching.ordered and not in_order(calls, matching.expected, matching.comparison):
        faults.append(Fault(kind="wrong_order", text="The calls are right, but not their order."))
    return faults


def lines_of(faults: Sequence[Fault]) -> str:
    """Return the faults as text, one a line, at most MAX_LINES."""
    lines = [fault.text for fault in faults[:MAX_LINES]]
    return "\n".join(lines + ([f"... ({len(faults) - MAX_LINES} more)"] if len(faults) > MAX_LINES else []))


def _about_call(
    index: int, calls: Sequence[Call], wrong: Sequence[int], matching: Matching, still_wanted: list[Expected]
) -> Iterator[Fault]:
    """Yield the faults of one call; the expected call that comes closest is removed from `still_wanted`."""
    call = calls[index]
    title = f"Call {index + 1} ({quote(call.name)})"
    candidates = [wanted for wanted in still_wanted if wanted.name == call.name]
    if not candidates:
        yield _not_wanted(title, index, calls, wrong, matching)
        return
    wanted = max(candidates, key=lambda c: _num_same(call.arguments, c.arguments, matching.comparison))
    still_wanted.remove(wanted)
    for fault in _argument_faults(call, wanted, matching):
        yield Fault(kind=fault.kind, text=f"{title}: {fault.text}.")


def _not_wanted(title: str, index: int, calls: Sequence[Call], wrong: Sequence[int], matching: Matching) -> Fault:
    call = calls[index]
    if call.name not in matching.schemas:
        return Fault(kind="unknown_tool", text=f"{title}: there is no tool of this name.")
    same = [i for i, c in enumerate(calls) if c.name == call.name and same_json(c.arguments, call.arguments)]
    if len(same) > 1:
        return Fault(kind="too_many_calls", text=f"{title}: this call was made more often than needed.")
    if any(c.name == call.name for i, c in enumerate(calls) if i != index and i not in wrong):
        return Fault(kind="too_many_calls", text=f"{title}: this tool was called more often than needed.")
    return Fault(kind="wrong_tool", text=f"{title}: this call is not needed here.")


def _argument_faults(call: Call, expected: Expected, matching: Matching) -> Iterator[Fault]:
    documented = matching.schemas.get(call.name, {}).get("properties", {})
    given, wanted, comparison = call.arguments, expected.arguments, matching.comparison
    for name in [name for name in wanted if name not in given and name not in expected.optional_arguments]:
        text = f"{path_name([name])} is missing" if name in documented else "an argument is missing"
        yield Fault(kind="missing_argument", text=text)
    for name in given:
        if name not in wanted:
            text = "should not be given here" if name in documented else "does not exist"
            yield Fault(kind="extra_argument", text=f"{path_name([name])} {text}")
        elif not accepts(wanted[name], given[name], comparison):
            faults = _documented_faults(documented.get(name, {}), name, given[name], example(wanted[name]))
            yield from faults or [_difference([name], given[name], wanted[name], comparison)]


def _documented_faults(schema: Any, name: str, given: Any, wanted: Any) -> list[Fault]:
    """Return the breaches of the documentation; none where it does not allow the expected value either."""
    return [] if faults_of(schema, wanted, name) else faults_of(schema, given, name)


def _difference(path: list[str | int], given: Any, form: Form, comparison: Comparison) -> Fault:
    """Return where a value that is not accepted begins to differ, along keys and items that the model wrote itself.

    Of a value with several accepted forms it is said only that it has none of them.
    """
    if isinstance(form, ObjectOf) and isinstance(given, dict):
        for key, value in given.items():
            if key not in form.forms:
                return Fault(kind="wrong_value", text=f"{path_name([*path, key])} should not be given here")
            if not accepts(form.forms[key], value, comparison):
                return _difference([*path, key], value, form.forms[key], comparison)
        return Fault(kind="wrong_value", text=f"{path_name(path)} lacks a key")
    if isinstance(form, ListOf) and isinstance(given, list):
        for index, (value, inner) in enumerate(zip(given, form.forms, strict=False)):
            if not accepts(inner, value, comparison):
                return _difference([*path, index], value, inner, comparison)
        return Fault(kind="wrong_value", text=f"{path_name(path)} has too {_many(len(given), len(form.forms))} items")
    if kind_of(given, comparison) not in kinds_of(form, comparison):
        return Fault(kind="wrong_type", text=f"{path_name(path)} is of the wrong type")
    return Fault(kind="wrong_value", text=f"{path_name(path)} has a wrong value")


def _many(given: int, wanted: int) -> str:
    return "many" if given > wanted else "few"


def _num_same(given: Mapping[str, Any], wanted: Mapping[str, Form], comparison: Comparison) -> int:
    return sum(accepts(form, given[name], comparison) for name, form in wanted.items() if name in given)


def _count(number: int) -> str:
    return "1 call was" if number == 1 else f"{number} calls were"


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are equal as JSON, by type and value; numbers are one type: 2 equals 2.0."""
    return accepts(literal(one), other, Comparison())


def same_call(call: Call, wanted: Expected, comparison: Comparison) -> bool:
    """Whether the call is of the same tool, with accepted values and without missing or further arguments."""
    form = ObjectOf(wanted.arguments, wanted.optional_arguments)
    return call.name == wanted.name and accepts(form, call.arguments, comparison)


def leftovers(
    calls: Sequence[Call], expected: Sequence[Expected], comparison: Comparison
) -> tuple[list[int], list[int]]:
    """Return the indices of calls that match no expected one and of expected ones without a call, in any order.

    Optional ones are answered last.
    """
    fits = [[i for i, call in enumerate(calls) if same_call(call, wanted, comparison)] for wanted in expected]
    answers: dict[int, int] = {}  # call -> the expected one that it answers: as many as can be, by augmenting paths

    def place(index: int, tried: set[int]) -> bool:
        for call in fits[index]:
            if call not in tried:
                tried.add(call)
                if call not in answers or place(answers[call], tried):
                    answers[call] = index
                    return True
        return False

    order = sorted(range(len(expected)), key=lambda i: expected[i].optional)
    unanswered = [index for index in order if not place(index, set())]
    return [call for call in range(len(calls)) if call not in answers], sorted(unanswered)


def in_order(calls: Sequence[Call], expected: Sequence[Expected], comparison: Comparison) -> bool:
    """Whether the calls are the expected ones in their order, optional ones given or not."""
    reached = {0}  # how many calls can be answered by the expected ones so far
    for wanted in expected:
        on = {n + 1 for n in reached if n < len(calls) and same_call(calls[n], wanted, comparison)}
        reached = on | reached if wanted.optional else on
    return len(calls) in reached
