"""LiveCodeBench (code generation): problems with tests of stdin or of one function.

A record: `question_id`, `question_content`, `starter_code` (blank for stdin problems), `contest_date`, `platform`,
`difficulty`, `metadata` (JSON with `func_name`), and `public_test_cases`, `private_test_cases`: JSON, or, as the data
set holds the private ones, base64 of zlib of a pickled JSON string.
"""

import logging
from collections.abc import Iterator, Mapping
from datetime import date
from hashlib import sha256
from random import Random
from typing import Any

from env_workers.adapters import Purpose
from env_workers.adapters.code_prompts import plain_function, question, with_starter
from env_workers.adapters.fields import Options, bad_field, text_field
from env_workers.adapters.lcb_tests import fits, read_tests
from env_workers.adapters.records import read_records
from env_workers.code.compare import COMPARISONS
from sdpo.errors import TaskFileError
from sdpo.show import show_names
from sdpo.types import Task

log = logging.getLogger(__name__)

_OWN = (
    "start_date",
    "end_date",
    "platforms",
    "difficulties",
    "tests",
    "test_fraction",
    "heldout_questions",
    "seed",
    "prompt_time_limit_s",
    "packages",
    "oversized",
    "comparison",
)


def livecodebench(path: str, purpose: Purpose, options: Mapping[str, Any]) -> Iterator[Task]:
    """Yield one task a problem, judged by environment `code`.

    Options. Which problems: `start_date` (first contest day, included) and `end_date` (last day, not included), as
    "2025-02-01"; `platforms` and `difficulties`, lists of names; all by default.
    Which tests: `tests`: private (default, as in the paper; the public ones stand in the problem's text), public, both.
    Training against evaluation, one of two ways: `test_fraction` (default 0.5): for training a random part of each
    problem's tests, rounded down and at least one; evaluation uses all tests of the same problems. Or
    `heldout_questions` (default 0: off): this part of the problems is for evaluation alone; both use all tests.
    `seed` (default 0) draws either. `prompt_time_limit_s` (default 1): the limit that the prompt names. `packages`: a
    list of what the prompt says that programs may import beside the standard library (env.sandbox.python_path).
    `oversized`: what becomes of a test that is larger than a sandbox takes: refuse (default), drop; the count is
    logged, with the problems that have no other test and are left out. `comparison`: how outputs are compared
    (docs/comparison.md): value (default), exact.
    """
    chosen = Options("livecodebench", options, _OWN)
    which = chosen.choice("tests", ("private", "public", "both"), "private")
    comparison = chosen.choice("comparison", COMPARISONS, "value")
    drop = chosen.choice("oversized", ("refuse", "drop"), "refuse") == "drop"
    fraction, held_out = chosen.fraction("test_fraction", 0.5), chosen.fraction("heldout_questions", 0.0)
    if chosen.has("test_fraction") and held_out:
        raise TaskFileError(f"tasks.options.test_fraction={fraction:g}: allowed: not beside heldout_questions")
    packages = chosen.texts("packages")
    seed, shown_limit_s = chosen.integer("seed", 0), chosen.integer("prompt_time_limit_s", 1, at_least=1)
    problems = [(where, record) for where, record in read_records(path, options) if _wanted(where, record, chosen)]
    if not problems:
        raise TaskFileError(f"{path}: no problem is left by tasks.options: {dict(options)!r:.200}")
    evaluated = _held_out([_id(where, record) for where, record in problems], held_out, seed)
    num_dropped, without_tests = 0, list[str]()
    for where, record in problems:
        name = _id(where, record)
        if held_out and (name in evaluated) != (purpose == "heldout"):
            continue
        whole = read_tests(where, record, which)
        tests = [test for test in whole if fits(test)] if drop else whole
        num_dropped += len(whole) - len(tests)
        if whole and not tests:
            without_tests.append(name)
            continue
        if not tests:
            raise bad_field(where, f"{which}_test_cases", None, "at least one test")
        if purpose == "train" and not held_out:
            tests = _part(tests, fraction, f"{seed}:{name}")
        text = text_field(where, record, "question_content")
        starter = (
            text_field(where, record, "starter_code", blank=True) if record.get("starter_code") is not None else ""
        )
        if starter.strip():
            text = with_starter(text, plain_function(starter))
        payload: dict[str, Any] = (
            {"tests": tests} if comparison == "value" else {"tests": tests, "comparison": comparison}
        )
        yield Task(id=name, messages=question(text, shown_limit_s, packages), environment="code", payload=payload)
    if num_dropped:
        problems_left_out = f", and {len(without_tests)} problems with no other: {show_names(without_tests, 5)}"
        log.warning("%s: dropped %d oversized tests%s", path, num_dropped, problems_left_out if without_tests else "")


def _id(where: str, record: Mapping[str, Any]) -> str:
    return text_field(where, record, "question_id")


def _wanted(where: str, record: Mapping[str, Any], chosen: Options) -> bool:
    for option, key in (("platforms", "platform"), ("difficulties", "difficulty")):
        if chosen.has(option) and text_field(where, record, key) not in chosen.texts(option):
            return False
    if not chosen.has("start_date") and not chosen.has("end_date"):
        return True
    day = _date(where, "contest_date", str(record.get("contest_date")))
    first = _date("tasks.options", "start_date", chosen.text("start_date", "0001-01-01"))
    return first <= day < _date("tasks.options", "end_date", chosen.text("end_date", "9999-12-31"))


def _date(where: str, key: str, text: str) -> date:
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        raise bad_field(where, key, text, "a date such as 2025-02-01") from None


def _held_out(ids: list[str], fraction: float, seed: int) -> frozenset[str]:
    """Return the ids of the held-out part, rounded; drawn by hash, so that new problems move few old ones."""
    ranked = sorted(ids, key=lambda name: sha256(f"{seed}:{name}".encode()).digest())
    return frozenset(ranked[: round(fraction * len(ids))])


def _part(tests: list[dict[str, Any]], fraction: float, seed: str) -> list[dict[str, Any]]:
    indices = Random(seed).sample(range(len(tests)), max(1, int(fraction * len(tests))))
    return [tests[index] for index in sorted(indices)]
