"""Mathematics: a final answer in \\boxed{}, compared by math-verify in a sealed helper. Payload: `answer`, LaTeX."""

import re

from env_workers.environment import Context, Reply, SingleTurnEnvironment
from env_workers.payloads import only_keys, refuse, text_at
from env_workers.verifier.host import Overrun, Raised, Verifier
from env_workers.wording import quote, spoken
from sdpo.types import Task, Verdict

MAX_ANSWER_CHARS = 1000
_BOX = "\\boxed{"
_BRACES = re.compile(r"\\boxed\{|\\.|[{}]", re.DOTALL)
_HOW = "Put the final answer alone into \\boxed{}, at the end."
_TOO_MUCH = {
    "time": "takes too long to evaluate",
    "memory": "takes too much memory to evaluate",
    "depth": "is nested too deeply",
}


class MathEnvironment(SingleTurnEnvironment):
    """Reward 1 when the last \\boxed{} equals the payload's answer in mathematics.

    Kinds: passed, wrong_answer, wrong_format (no box, or one that cannot be read), truncated. The feedback says of what
    form the wanted answer is (a number, a set of values), never the answer.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._verifier = Verifier("env_workers.verifier.math_checks", {"given": "1", "key": "1"})

    @classmethod
    def check(cls, task: Task) -> None:
        """The payload must have an answer."""
        _key(task)

    def judge(self, task: Task, reply: Reply) -> Verdict:
        """See `SingleTurnEnvironment.judge`."""
        key, given = _key(task), last_box(spoken(reply.text))
        if given is None:
            what = "the \\boxed{} at the end is not closed" if _BOX in spoken(reply.text) else "there is no \\boxed{}"
            return _malformed(what, reply.truncated)
        if given == key and given:
            return _right(given)
        if not given:
            return _malformed("the \\boxed{} is empty", reply.truncated)
        if len(given) > MAX_ANSWER_CHARS:
            return _malformed(f"the answer is longer than {MAX_ANSWER_CHARS} characters", reply.truncated)
        try:
            found = self._verifier.ask({"given": given, "key": key})
        except Raised:
            return _malformed(f"{quote(given)} could not be read", reply.truncated)
        except Overrun as error:
            told = _TOO_MUCH.get(error.why, "could not be read")
            return _malformed(f"{quote(given)} {told}", reply.truncated)
        if found["same"]:
            return _right(given)
        if not found["parsed"]:
            return _malformed(f"{quote(given)} could not be read as mathematics", reply.truncated)
        return _wrong(given, found["given_form"], found["key_form"])


def last_box(text: str) -> str | None:
    """What stands in the last closed \\boxed{} of `text`, stripped; braces inside are balanced. None without one."""
    open_braces: list[int | None] = []  # where a box's content starts; None for a brace that opens no box
    last = (-1, -1)
    for match in _BRACES.finditer(text):
        if match[0] == "}":
            start = open_braces.pop() if open_braces else None
            if start is not None:
                last = max(last, (start, match.start()))
        elif match[0] in ("{", _BOX):
            open_braces.append(match.end() if match[0] == _BOX else None)
    start, end = last
    return None if start < 0 else text[start:end].strip().strip("$").strip()


def _key(task: Task) -> str:
    text = text_at(task, only_keys(task, task.payload, ("answer",)), "answer")
    boxed = last_box(text)
    key = (text if boxed is None else boxed).strip().strip("$").strip()
    if not key or len(key) > MAX_ANSWER_CHARS:
        raise refuse(task, "answer", text, f"LaTeX or a number, of at most {MAX_ANSWER_CHARS} characters")
    return key


def _right(given: str) -> Verdict:
    return Verdict(reward=1.0, success=True, kind="passed", details={"answer": given})


def _wrong(given: str, given_form: str | None, key_form: str | None) -> Verdict:
    lines = ["Wrong Answer", f"{quote(given)} is not the right answer."]
    if given_form and key_form and given_form != key_form:
        lines.append(f"It is {given_form}; the right answer is {key_form}.")
    details = {"answer": given}
    return Verdict(reward=0.0, success=False, kind="wrong_answer", feedback="\n".join(lines), details=details)


def _malformed(what: str, truncated: bool) -> Verdict:
    if truncated:
        text = "Wrong Format\nThe response was cut at the length limit before the answer. Write a shorter response."
        return Verdict(reward=0.0, success=False, kind="truncated", feedback=text)
    text = f"Wrong Format\nNo answer was found: {what}. {_HOW}"
    return Verdict(reward=0.0, success=False, kind="wrong_format", feedback=text)
