"""What of a verdict's words reaches the run: `env.feedback` and `env.max_feedback_chars`."""

from dataclasses import replace

from sdpo.config import EnvConfig
from sdpo.types import Verdict

_SEAM = "\n… ({} characters left out) …\n"


def apply(verdict: Verdict, config: EnvConfig) -> Verdict:
    """The verdict with its feedback as the config wants it; reward, kind and details stay.

    `none`: no words. `outcome`: one line that names the kind of a failure, nothing of how it came about; a success
    says nothing. `rich`: the environment's own words. More than `max_feedback_chars` keeps its head and its tail.
    """
    if verdict.infrastructure_error is not None:
        return verdict
    if config.feedback == "none":
        feedback = ""
    elif config.feedback == "outcome":
        feedback = "" if verdict.success else outcome_line(verdict.kind)
    else:
        feedback = cut(verdict.feedback, config.max_feedback_chars)
    return verdict if feedback == verdict.feedback else replace(verdict, feedback=feedback)


def outcome_line(kind: str) -> str:
    """`wrong_answer` -> "Outcome: wrong answer." """
    return f"Outcome: {kind.replace('_', ' ')}."


def cut(text: str, limit: int) -> str:
    """`text` where it has at most `limit` characters, else its head, how much is missing, and its tail.

    The result has at most `limit` characters. The head gets two thirds: an error's message is often at the start of
    what is said about it, the line that broke at its end.
    """
    if len(text) <= limit:
        return text
    room = limit - len(_SEAM.format(len(text)))
    tail = room // 3
    head = room - tail
    return text[:head] + _SEAM.format(len(text) - head - tail) + text[len(text) - tail :]
