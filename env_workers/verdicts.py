"""Verdicts as environments give them: a success, a failure, a reply without a readable answer."""

from typing import Any

from sdpo.types import Verdict


def passed(**details: Any) -> Verdict:
    """Return the verdict on a right answer."""
    return Verdict(reward=1.0, success=True, kind="passed", details=details)


def failed(kind: str, feedback: str, reward: float = 0.0, **details: Any) -> Verdict:
    """Return the verdict on an answer that is not right; `kind` names the outcome for metrics."""
    return Verdict(reward=reward, success=False, kind=kind, feedback=feedback, details=details)


def no_answer(complaint: str, truncated: bool) -> Verdict:
    """Return the verdict on a reply without a readable answer; of one cut at the length limit only that is said."""
    if truncated:
        text = "The response was cut at the length limit before the answer. Write a shorter response."
        return failed("truncated", f"Wrong Format\n{text}")
    return failed("wrong_format", f"Wrong Format\n{complaint}")
