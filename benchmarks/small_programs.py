"""Twenty programs of the size of MBPP's, three tests each, for benchmarks of execution; or MBPP's own from a file."""

import ast
import json
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from env_workers.code.compare import same_value

SLOW_S = 0.1


@dataclass(frozen=True, slots=True)
class Program:
    """A right program; `tests` are (arguments, expected) of `function`."""

    source: str
    function: str
    tests: tuple[tuple[tuple[Any, ...], Any], ...]

    @property
    def asserts(self) -> list[str]:
        """The tests as MBPP writes them."""
        calls = [(", ".join(map(repr, arguments)), expected) for arguments, expected in self.tests]
        return [f"assert {self.function}({arguments}) == {expected!r}" for arguments, expected in calls]


_TEXT = """
def shared_elements(a, b):
    return tuple(sorted(set(a) & set(b)))
## ((3, 4, 5, 6), (5, 7, 4, 10)) ((1, 2), (3,)) ((11, 12, 14, 13), (13, 15, 14, 17))
import math
def is_not_prime(n):
    if n < 2:
        return True
    return any(n % i == 0 for i in range(2, math.isqrt(n) + 1))
## (2,) (35,) (7919,)
import heapq
def largest(numbers, n):
    return heapq.nlargest(n, numbers)
## ([25, 35, 22, 85, 14, 65], 3) ([5, 1, 4], 1) ([9, 8, 7, 6], 4)
import re
def find_char_long(text):
    return re.findall(r"\\b\\w{4,}\\b", text)
## ("Please move back to stream",) ("a bb ccc",) ("Jing Eco and Tech",)
def square_numbers(numbers):
    return list(map(lambda x: x * x, numbers))
## ([1, 2, 3, 4, 5],) ([10, 20],) ([],)
def rotate(items, k):
    k %= len(items) or 1
    return items[-k:] + items[:-k]
## ([1, 2, 3, 4], 1) ([1], 5) ([1, 2, 3], 2)
from collections import Counter
def most_common_word(text):
    counts = Counter(text.lower().split())
    return max(sorted(counts), key=counts.get)
## ("a b a c",) ("One two TWO",) ("x",)
def balanced(text):
    stack = []
    pairs = {")": "(", "]": "[", "}": "{"}
    for c in text:
        if c in pairs.values():
            stack.append(c)
        elif c in pairs and (not stack or stack.pop() != pairs[c]):
            return False
    return not stack
## ("([]{})",) ("(]",) ("((",)
def fib(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a
## (10,) (90,) (0,)
def count_ways(n):
    ways = [1, 0, 3]
    for i in range(3, n + 1):
        ways.append(4 * ways[i - 2] - ways[i - 4] if i % 2 == 0 and i > 3 else 0)
    return ways[n]
## (2,) (8,) (3,)
def differ_at_one_bit(a, b):
    x = a ^ b
    return x != 0 and x & (x - 1) == 0
## (13, 9) (15, 8) (2, 4)
def merge(first, second):
    result = dict(first)
    for key, value in second.items():
        result[key] = result.get(key, 0) + value
    return result
## ({"a": 1}, {"a": 2, "b": 3}) ({}, {}) ({"x": 5}, {})
def longest_common_subsequence(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]
## ("AGGTAB", "GXTXAYB") ("ABCDGH", "AEDFHR") ("", "A")
def min_cost(cost, m, n):
    best = {}
    for i in range(m + 1):
        for j in range(n + 1):
            before = [best[p] for p in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if p in best]
            best[i, j] = cost[i][j] + (min(before) if before else 0)
    return best[m, n]
## ([[1, 2, 3], [4, 8, 2], [1, 5, 3]], 2, 2) ([[2, 3, 4], [5, 9, 3], [2, 6, 4]], 2, 2) ([[1]], 0, 0)
def roman(n):
    result = ""
    for value, sign in ((10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")):
        while n >= value:
            result, n = result + sign, n - value
    return result
## (4,) (29,) (38,)
def flatten(items):
    result = []
    for item in items:
        result += flatten(item) if isinstance(item, list) else [item]
    return result
## ([1, [2, [3, 4]], 5],) ([],) ([[[]]],)
def median(numbers):
    numbers = sorted(numbers)
    middle = len(numbers) // 2
    return numbers[middle] if len(numbers) % 2 else (numbers[middle - 1] + numbers[middle]) / 2
## ([3, 1, 2],) ([4, 1, 3, 2],) ([7],)
import itertools
def group_lengths(text):
    return [(c, len(list(g))) for c, g in itertools.groupby(text)]
## ("aaabbc",) ("",) ("xyz",)
def sieve(n):
    flags = [True] * (n + 1)
    for i in range(2, int(n ** 0.5) + 1):
        if flags[i]:
            flags[i * i :: i] = [False] * len(flags[i * i :: i])
    return [i for i in range(2, n + 1) if flags[i]]
## (30,) (2,) (100,)
def caesar(text, shift):
    def move(c, base):
        return chr((ord(c) - base + shift) % 26 + base)
    return "".join(move(c, 97) if c.islower() else move(c, 65) if c.isupper() else c for c in text)
## ("Hello, World", 3) ("abc", 26) ("xyz", 1)
"""


def own_programs() -> list[Program]:
    """The twenty. What they are to return is what they return: they are right by definition."""
    programs, source = [], []
    for line in _TEXT.strip().splitlines():
        if not line.startswith("## "):
            source.append(line.replace("\\\\", "\\"))
            continue
        text, source = "\n".join(source), []
        function = [node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)][-1]
        namespace: dict[str, Any] = {}
        exec(text, namespace)
        # The arguments are tuples side by side: with commas between them one literal.
        arguments = [ast.literal_eval(part) for part in _side_by_side(line[3:])]
        programs.append(Program(text, function, tuple((a, namespace[function](*a)) for a in arguments)))
    return programs


def mbpp_programs(path: Path) -> list[Program]:
    """Those of MBPP's tasks (JSON list or lines) whose tests are `assert f(literals) == literal`; runs them."""
    text = path.read_text()
    records = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    programs = [_from_mbpp(record["code"], record["test_list"]) for record in records]
    return [program for program in programs if program is not None]


def _side_by_side(text: str) -> list[str]:
    parts, depth = [""], 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        if c == " " and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def _from_mbpp(code: str, asserts: list[str]) -> Program | None:
    tests, function = [], ""
    for text in asserts:
        try:
            statement = ast.parse(text).body[0]
            test = statement.test if isinstance(statement, ast.Assert) else None
            if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.Eq):
                return None
            call = test.left
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.keywords:
                return None
            function = call.func.id
            tests.append((tuple(map(ast.literal_eval, call.args)), ast.literal_eval(test.comparators[0])))
        except (SyntaxError, ValueError):
            return None
    program = Program(code.replace("\r\n", "\n"), function, tuple(tests))
    return program if tests and _is_fit(program) else None


def _is_fit(program: Program) -> bool:
    """Runs the reference solution here: some of MBPP's give 6.0 where `==` is content with 6, our judge is not.

    The few that compute for longer than SLOW_S are left out as well: they would measure themselves.
    """
    namespace: dict[str, Any] = {}
    began = time.perf_counter()
    exec(program.source, namespace)
    answers = [(namespace[program.function](*deepcopy(given)), expected) for given, expected in program.tests]
    fast = time.perf_counter() - began < SLOW_S
    return fast and all(same_value(answer, expected) for answer, expected in answers)
