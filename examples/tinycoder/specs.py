"""Specifications: one or two operations, as an English sentence, as right and wrong programs, and as a `Task`."""

import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

from examples.tinycoder.operations import OPERATIONS, VARIABLE, Kind, Operation
from sdpo.types import Message, Task

NUM_TESTS = 3
NUM_CANDIDATES = 24
MAX_INT = 1_000_000
MAX_ITEMS = 40
WORDS = (
    "banana",
    "Orange",
    "summer",
    "Window",
    "coffee",
    "rIVER",
    "mountain",
    "Paper",
    "iron",
    "Sesame",
    "animal",
    "saddle",
    "Error",
    "museum",
    "NOISE",
    "radio",
    "season",
    "Mirror",
    "onion",
    "tomato",
    "Carousel",
    "sunrise",
    "Eraser",
    "minor",
    "salmon",
    "Aurora",
    "violin",
    "opera",
    "sister",
    "Emerald",
    "raisin",
    "lemon",
)


@dataclass(frozen=True, slots=True)
class Spec:
    """One or two operations and which phrase names each. `Spec(operations=(double, subtract3), phrases=(0, 0))`"""

    operations: tuple[Operation, ...]
    phrases: tuple[int, ...]

    @property
    def takes(self) -> Kind:
        return self.operations[0].takes

    @property
    def families(self) -> tuple[str, ...]:
        """The unordered composition: sorted family names."""
        return tuple(sorted(o.family for o in self.operations))

    @property
    def question(self) -> str:
        """`Write f(x): double it, then subtract 3.`"""
        steps = ", then ".join(o.phrases[i] for o, i in zip(self.operations, self.phrases, strict=True))
        return f"Write f({VARIABLE[self.takes]}): {steps}."

    @property
    def right(self) -> str:
        """The right program, without a fence."""
        return self.program((None,) * len(self.operations))

    def program(self, habits: tuple[int | None, ...]) -> str:
        """The program with habit number `habits[i]` in place of operation i, None for the right line."""
        name = VARIABLE[self.takes]
        lines = [f"def f({name}):"]
        for operation, habit in zip(self.operations, habits, strict=True):
            expression = operation.right if habit is None else operation.wrong[habit]
            target = VARIABLE[operation.gives]
            lines.append(f"    {target} = {expression.format(v=name)}")
            name = target
        return "\n".join([*lines, f"    return {name}"])

    def wrong_habits(self) -> Iterator[tuple[int | None, ...]]:
        """Every choice of habits with at least one bad one."""
        choices = product(*((None, *range(len(o.wrong))) for o in self.operations))
        return (c for c in choices if any(h is not None for h in c))


def fenced(program: str) -> str:
    """The answer that holds a program: one fenced block and nothing else."""
    return f"```python\n{program}\n```"


def all_specs(rng: random.Random) -> list[Spec]:
    """Every single operation with each of its phrases, and every composition that types, with phrases drawn."""
    singles = [Spec((o,), (i,)) for o in OPERATIONS for i in range(len(o.phrases))]
    pairs = [
        Spec((a, b), (rng.randrange(len(a.phrases)), rng.randrange(len(b.phrases))))
        for a in OPERATIONS
        for b in OPERATIONS
        if a.gives == b.takes and a != b
    ]
    return singles + pairs


def make_task(spec: Spec, task_id: str, rng: random.Random) -> Task | None:
    """The task with tests that every planted wrong program fails, or None where no such tests were found."""
    tests = _discriminating_tests(spec, rng)
    if tests is None:
        return None
    return Task(
        id=task_id,
        messages=(Message(role="user", content=spec.question),),
        environment="code",
        payload={"tests": tests, "comparison": "exact"},
    )


def _discriminating_tests(spec: Spec, rng: random.Random) -> list[dict[str, Any]] | None:
    """Greedy cover: each next input is one that rejects the most wrong programs which are still alive."""
    inputs = [value for value in _candidates(spec.takes, rng) if _small(call(spec.right, value))]
    expected = [call(spec.right, value) for value in inputs]
    alive = [spec.program(habits) for habits in spec.wrong_habits()]
    rejects = [{p for p in alive if not same(call(p, v), e)} for v, e in zip(inputs, expected, strict=True)]
    chosen: list[int] = []
    while len(chosen) < NUM_TESTS:
        left = [i for i in range(len(inputs)) if i not in chosen and expected[i] not in [expected[c] for c in chosen]]
        if not left:
            return None
        best = max(left, key=lambda i: (len(rejects[i].intersection(alive)), -i))
        alive = [p for p in alive if p not in rejects[best]]
        chosen.append(best)
    if alive:
        return None
    return [{"kind": "functional", "function": "f", "inputs": [inputs[i]], "expected": expected[i]} for i in chosen]


def same(got: object, expected: object) -> bool:
    """Equality that tells True, 1 and 1.0 apart."""
    return repr(got) == repr(expected)


def call(program: str, value: Any) -> Any:
    """f(value), or the exception that it raised. In this process: for generated programs only."""
    function = _compiled(program)
    if isinstance(function, Exception):
        return function
    try:
        return function(value[:] if isinstance(value, list) else value)
    except Exception as error:  # the outcome of a planted wrong program is data here
        return error


@cache
def _compiled(program: str) -> Callable[[Any], Any] | SyntaxError:
    scope: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exec(program, scope)
        except SyntaxError as error:
            return error
    function: Callable[[Any], Any] = scope["f"]
    return function


def _small(value: Any) -> bool:
    """True for a value worth expecting: no exception, nothing huge, nothing empty."""
    if isinstance(value, list):
        return 0 < len(value) <= MAX_ITEMS and all(_small(v) for v in value)
    if isinstance(value, str):
        return 0 < len(value) <= MAX_ITEMS
    return type(value) is int and abs(value) <= MAX_INT


def _candidates(kind: Kind, rng: random.Random) -> list[Any]:
    if kind == "int":
        return rng.sample(range(-20, 41), NUM_CANDIDATES)
    if kind == "str":
        return rng.sample(WORDS, NUM_CANDIDATES)
    return [[rng.randrange(-9, 13) for _ in range(rng.randrange(4, 7))] for _ in range(NUM_CANDIDATES)]
