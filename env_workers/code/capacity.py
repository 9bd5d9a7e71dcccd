"""What a right answer to a test needs of a sandbox, and whether a run's limits give it."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from env_workers.runner.codec import size_of
from sdpo.config import EnvConfig

MAX_VALUE_BYTES = 2 * 2**20
"""Size of an expected value, as `size_of` counts it. Its JSON is at most three times as much."""
MAX_TEXT_BYTES = 6 * 2**20
"""JSON of an expected text."""
MAX_BATCH_BYTES = 8 * 2**20
"""Inputs of one execution; a program with more of them is executed several times."""
MAX_BATCH_ANSWER_BYTES = 7 * 2**20
"""JSON of all right answers of one execution."""
_SPARE_TEXT_BYTES = 2**14
_MIB = 2**20


def too_large(expected: Any, *, printed: bool) -> str | None:
    """Return why no answer can be `expected`, a text that is `printed` or a value that is returned; None if one can."""
    if printed:
        num_bytes, most = len(json.dumps(expected)), MAX_TEXT_BYTES
    else:
        num_bytes, most = size_of(expected), MAX_VALUE_BYTES
    if num_bytes <= most:
        return None
    return f"takes {num_bytes} bytes; no answer can pass, for a sandbox answers with at most {most}"


def output_bytes(expected: Any, *, printed: bool) -> int:
    """Return the bytes that an answer may take so that every form of the right one fits.

    It is rounded up to a power of two: a program learns the limit, and must not learn the expected output's length.
    """
    size = len(expected.encode("utf-8", "surrogatepass")) + _SPARE_TEXT_BYTES if printed else size_of(expected)
    return int(1 << (2 * size - 1).bit_length())


def answer_bytes(expected: Any, *, printed: bool) -> int:
    """Return the bytes of JSON with which a sandbox may give the right answer: an estimate from above."""
    return len(json.dumps(expected)) if printed else 3 * size_of(expected)


def batches(calls: Sequence[dict[str, Any]], answers: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
    """Yield the calls in their order, cut so that inputs and right answers of each part fit into one execution.

    `answers` are the `answer_bytes` of the calls.
    """
    part: list[dict[str, Any]] = []
    left_bytes, left_answer_bytes = MAX_BATCH_BYTES, MAX_BATCH_ANSWER_BYTES
    for call, num_answer_bytes in zip(calls, answers, strict=True):
        num_bytes = len(json.dumps(call)) + 2
        if part and (num_bytes > left_bytes or num_answer_bytes > left_answer_bytes):
            yield part
            part, left_bytes, left_answer_bytes = [], MAX_BATCH_BYTES, MAX_BATCH_ANSWER_BYTES
        part.append(call)
        left_bytes -= num_bytes
        left_answer_bytes -= num_answer_bytes
    yield part


def what_cannot_fit(config: EnvConfig, time_limit_s: float, input_bytes: int, output_bytes: int) -> str | None:
    """Return which limit of the run no program can keep on such a test; None when it can. Sizes are of one test."""
    limits, total_bytes = config.sandbox, input_bytes + output_bytes
    for key, seconds in (("wall_time_s", limits.wall_time_s), ("cpu_time_s", limits.processor_time_s)):
        if time_limit_s > seconds:
            return (
                f"one test may take time_limit_s={time_limit_s:g}, all tests of a program "
                f"env.sandbox.{key}={seconds:g}; allowed: at least as much as one test"
            )
    for key, size, num_bytes in (
        ("max_file_mib", limits.max_file_mib, max(input_bytes, output_bytes)),
        ("disk_mib", limits.disk_mib, total_bytes),
    ):
        if num_bytes > size * _MIB:
            return f"a test has {num_bytes} bytes of input and output; no answer can pass with env.sandbox.{key}={size}"
    return None


def tests_that_fit(config: EnvConfig, time_limit_s: float) -> int:
    """Return how many tests of one program can each take their whole time."""
    return int(min(config.sandbox.wall_time_s, config.sandbox.processor_time_s) / time_limit_s + 1e-9)
