"""Multiple choice: one letter in <answer>. Payload: `answer`, a letter; `choices`, the letters that exist (A to D)."""

from env_workers.environment import Reply, SingleTurnEnvironment
from env_workers.payloads import only_keys, refuse, text_at
from env_workers.wording import last_tagged, quote, spoken, words
from sdpo.types import Task, Verdict

_DEFAULT_CHOICES = ("A", "B", "C", "D")


class MultipleChoiceEnvironment(SingleTurnEnvironment):
    """Reward 1 for the right letter alone after the last <answer>.

    Kinds: passed, wrong_answer, wrong_format, truncated. The feedback names the letters that exist and the one that
    was chosen, never the right one.
    """

    @classmethod
    def check(cls, task: Task) -> None:
        """The answer must be one of the choices."""
        _parse(task)

    def judge(self, task: Task, reply: Reply) -> Verdict:
        """See `SingleTurnEnvironment.judge`."""
        answer, choices = _parse(task)
        chosen = last_tagged(spoken(reply.text), "answer")
        if chosen == answer:
            return Verdict(reward=1.0, success=True, kind="passed", details={"answer": chosen})
        if chosen in choices:
            feedback = f"Wrong Answer\n{chosen} is not the right option."
            return Verdict(
                reward=0.0, success=False, kind="wrong_answer", feedback=feedback, details={"answer": chosen}
            )
        kind = "truncated" if reply.truncated else "wrong_format"
        return Verdict(
            reward=0.0, success=False, kind=kind, feedback=_format_feedback(chosen, choices, reply.truncated)
        )


def _format_feedback(chosen: str | None, choices: tuple[str, ...], truncated: bool) -> str:
    letters = words(list(choices), "or")
    if truncated:
        return "Wrong Format\nThe response was cut at the length limit before the answer. Write a shorter response."
    if chosen is None:
        found = "No answer was found."
    elif not chosen:
        found = "The answer is empty."
    else:
        found = f"The answer {quote(chosen)} is not one of the letters."
    return f"Wrong Format\n{found} End with <answer>, one letter alone ({letters}), </answer>."


def _parse(task: Task) -> tuple[str, tuple[str, ...]]:
    payload = only_keys(task, task.payload, ("answer", "choices"))
    choices = payload.get("choices", _DEFAULT_CHOICES)
    good = isinstance(choices, list | tuple) and len(choices) > 1 and len(set(map(str, choices))) == len(choices)
    if not good or not all(isinstance(c, str) and len(c) == 1 and c.isalnum() for c in choices):
        raise refuse(task, "choices", choices, "a list of at least two different letters")
    answer = text_at(task, payload, "answer")
    if answer not in choices:
        raise refuse(task, "answer", answer, words(list(choices), "or"))
    return answer, tuple(choices)
