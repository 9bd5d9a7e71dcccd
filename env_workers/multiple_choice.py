"""Multiple choice: one letter in <answer>. Payload: `answer`, a letter; `choices`, the letters that exist (A to D)."""

from env_workers.environment import Reply, SingleTurnEnvironment
from env_workers.payloads import only_keys, refuse, text_at
from env_workers.verdicts import failed, no_answer, passed
from env_workers.wording import last_tagged, quote, words
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
        chosen = last_tagged(reply.text, "answer")
        if chosen == answer:
            return passed(answer=chosen)
        if chosen in choices:
            return failed("wrong_answer", f"Wrong Answer\n{chosen} is not the right option.", answer=chosen)
        return no_answer(_complaint(chosen, choices), reply.truncated)


def _complaint(chosen: str | None, choices: tuple[str, ...]) -> str:
    if chosen is None:
        complaint = "No answer was found."
    elif not chosen:
        complaint = "The answer is empty."
    else:
        complaint = f"The answer {quote(chosen)} is not one of the letters."
    return f"{complaint} End with <answer>, one letter alone ({words(list(choices), 'or')}), </answer>."


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
