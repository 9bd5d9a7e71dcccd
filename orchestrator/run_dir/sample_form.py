"""The form of recorded attempts: one JSON object for each attempt, on a line of its own.

    form           FORM; a record of another form is refused by its readers
    step, task, sample   training step (as in the file's name), task id, index in the task's group
    messages       the question: [{role, content}]; tools: where the task has them, as the chat template was given them
    response       text; finish_reason: why sampling ended; versions: of the weights that sampled
    verdict        {reward, success, kind, details}; feedback: text, empty if the environment gave none
    advantage      group-relative
    token_ids, tokens, authors   for each token: id, text (see `token_pieces`), "model" or "environment"
    log_p          for each token: its log-prob in the engine; null where the environment wrote
    hindsight      null for objectives without a teacher, else {prompt, shown, demo, used_feedback, demo_chars_cut,
                   feedback_chars_cut, attempt_chars_cut}. `shown` is False when there was nothing to show; `demo` is
                   null or {sample, text} of the attempt that was the demonstration, uncut
    teacher        null for attempts without scores, else {version, log_p, log_q, entropy, credit}, one value for each
                   token and null where the environment wrote. `log_p` is the student's log-prob that the credit is
                   computed from: the learner's before the first optimizer step of the batch where the objective
                   needs it, else the engine's. credit = log_q - log_p in nats

Numbers are rounded to 5 digits after the point.
"""

import json
from collections.abc import Mapping
from typing import Any

FORM = 1

MOST_CREDIT_NATS = 2.0
"""Credit of a token is clipped to this size when attempts are ranked and tokens are coloured."""

Sample = Mapping[str, Any]


def question_parts(sample: Sample) -> list[tuple[str, str]]:
    """Return (role, text) of what the model was asked: tools, one a line, under the role "tools", then messages."""
    tools = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in sample.get("tools", ()))
    messages = [(message["role"], message["content"]) for message in sample["messages"]]
    return [("tools", tools), *messages] if tools else messages


def why_no_credit(sample: Sample) -> str:
    """Return a sentence that says why an attempt has no credit of a teacher."""
    if sample["hindsight"] is None:
        return (
            "The objective of this run asks no teacher: every token of the attempt has the same weight, its "
            f"group-relative advantage of {sample['advantage']:+.3f}."
        )
    if not sample["hindsight"]["shown"]:
        return (
            "Masked: there was nothing to show to the teacher, because no other attempt at the task succeeded and "
            "there was no feedback to use."
        )
    return "The teacher did not score this attempt."
