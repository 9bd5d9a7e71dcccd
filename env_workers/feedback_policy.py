"""How much of a verdict's feedback reaches the run: `env.feedback` and `env.max_feedback_chars`."""

from dataclasses import replace

from sdpo.config import EnvConfig
from sdpo.cutting import CUT_MARK, cut
from sdpo.types import Verdict


def apply(verdict: Verdict, config: EnvConfig) -> Verdict:
    """Return the verdict with its feedback as the config wants it; reward, kind and details stay.

    `none`: no words. `outcome`: one line that names the kind of a failure, nothing of how it came about; a success
    says nothing. `rich`: the environment's own words, of more than `max_feedback_chars` the head and the tail. Lone
    surrogates, which no tokenizer takes, become question marks.
    """
    if verdict.infrastructure_error is not None:
        return verdict
    if config.feedback == "none":
        feedback = ""
    elif config.feedback == "outcome":
        feedback = "" if verdict.success else outcome_line(verdict.kind)
    else:
        feedback = verdict.feedback.encode("utf-8", "replace").decode("utf-8")
        if len(feedback) > config.max_feedback_chars:
            feedback = cut(feedback, config.max_feedback_chars - len(CUT_MARK))
    return verdict if feedback == verdict.feedback else replace(verdict, feedback=feedback)


def outcome_line(kind: str) -> str:
    """Return the line for a kind: `wrong_answer` becomes "Outcome: wrong answer." """
    return f"Outcome: {kind.replace('_', ' ')}."
