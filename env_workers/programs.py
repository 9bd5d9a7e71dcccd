"""Running a model's program from a user's own environment: calls go in as values, outcomes come out as values."""

from collections.abc import Sequence
from typing import Any

from env_workers.code.extract import extract_program
from env_workers.code.outcome import Call, Outcome, parse_outcomes
from env_workers.environment import Executor
from env_workers.runner.codec import TooLargeError, UnsupportedError

__all__ = ["Call", "Outcome", "extract_program", "run_program"]

MAX_INPUT_BYTES = 2**20


def run_program(
    sandbox: Executor, source: str, calls: Sequence[Call | str], time_limit_s: float = 1.0, *, shared: bool = False
) -> list[Outcome]:
    """Run `source`; return one outcome a call. A text is a run of the whole program with that text as its input.

    Each call gets a fresh module; with `shared` (no texts) all calls get the same one, which keeps its state. Values
    are None, bool, int, float, complex, str, bytes, list, tuple, set, frozenset and dict of these. time_limit_s is the
    wall time of one call. Raises InfrastructureError or SandboxViolation, which an environment lets pass; ValueError
    for arguments of other types.
    """
    records = sandbox.execute(source, [_record(call) for call in calls], time_limit_s, shared=shared)
    return parse_outcomes(records, len(calls))


def _record(call: Call | str) -> dict[str, Any]:
    if isinstance(call, str):
        return {"kind": "stdin", "input": call}
    try:
        return call.record(MAX_INPUT_BYTES)
    except (UnsupportedError, TooLargeError) as error:
        cause = str(error) or "too large"
        raise ValueError(f"{call.function}: its arguments cannot enter a sandbox: {cause}") from None
