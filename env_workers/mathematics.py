"""Mathematics: a final answer in \\boxed{}, compared by math-verify in a sealed helper. Payload: `answer`, LaTeX."""

import re
from functools import lru_cache
from typing import Any

from env_workers.environment import Context, Reply, SingleTurnEnvironment
from env_workers.math_marks import Marked, read_marks, ways_to_compare
from env_workers.payloads import only_keys, refuse, text_at
from env_workers.verdicts import failed, no_answer, passed
from env_workers.verifier.host import Overrun, Raised, Verifier, shared_verifier
from env_workers.wording import quote
from sdpo.types import Task, Verdict

MAX_ANSWER_CHARS = 1000
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
_BRACES = re.compile(r"\\(?:boxed|fbox)(?:\s*\{|(?![A-Za-z]))|\\.|[{}]", re.DOTALL)
_UNBRACED = re.compile(r"[ \t]*((?:\\(?![)\]])|[^\s$\\])+)")
_SENTENCE_ENDS = ".,;:!?*"
_PLAIN = re.compile(r"-?(?:\d+(?:\.\d+)?|\\frac\{\d+\}\{\d+\})", re.ASCII)
"""Keys that need no reader to be known as readable."""
_CHECKS, _CANARY = "env_workers.verifier.math_checks", {"given": "1", "key": "1"}
READABLE = "mathematics in LaTeX that the judge can read; it must equal itself"
_HOW = "Put the final answer alone into \\boxed{}, at the end."
_TOO_MUCH = {
    "time": "takes too long to evaluate",
    "memory": "takes too much memory to evaluate",
    "depth": "is nested too deeply",
}


class MathEnvironment(SingleTurnEnvironment):
    """Reward 1 when the last \\boxed{} equals the payload's answer in mathematics.

    Kinds: passed, wrong_answer, wrong_format (no box, or one that cannot be read), truncated. The feedback says of what
    form the right answer is (a number, a set of values), never the answer.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._verifier = Verifier(_CHECKS, _CANARY)

    @classmethod
    def check(cls, task: Task) -> None:
        """The payload must have an answer that the judge can read."""
        check_readable(task)

    def judge(self, task: Task, reply: Reply) -> Verdict:
        """See `SingleTurnEnvironment.judge`."""
        key, given = _key(task), last_box(reply.text)
        if given is None:
            what = "the \\boxed{} at the end is not closed" if _BOX.search(reply.text) else "there is no \\boxed{}"
            return _malformed(what, reply.truncated)
        if given and "".join(given.split()) == "".join(key.split()):
            return passed(answer=given)
        if not given:
            return _malformed("the \\boxed{} is empty", reply.truncated)
        if len(given) > MAX_ANSWER_CHARS:
            return _malformed(f"the answer is longer than {MAX_ANSWER_CHARS} characters", reply.truncated)
        marked, wanted = read_marks(given), read_marks(key)
        ways = ways_to_compare(marked, wanted)
        try:
            result = _compared(self._verifier, ways or ((marked.value, wanted.value),))
        except Raised:
            return _malformed(f"{quote(given)} could not be read", reply.truncated)
        except Overrun as error:
            complaint = _TOO_MUCH.get(error.why, "could not be read")
            return _malformed(f"{quote(given)} {complaint}", reply.truncated)
        if result["same"] and ways:
            return passed(answer=given)
        if not result["parsed"]:
            return _malformed(f"{quote(given)} could not be read as mathematics", reply.truncated)
        if not ways:
            return _wrong(given, [_difference_of_marks(marked, wanted)])
        forms = result["given_form"], result["key_form"]
        differ = all(forms) and forms[0] != forms[1]
        return _wrong(given, [f"It is {forms[0]}; the right answer is {forms[1]}."] if differ else [])


def last_box(text: str) -> str | None:
    """Return what stands in the last closed \\boxed{} or \\fbox{} of `text`, stripped.

    Braces inside are balanced. Without braces the box holds what follows up to a blank: `\\boxed 2`. None without one.
    """
    open_braces: list[int | None] = []  # where a box's content starts; None for a brace that opens no box
    last = (-1, -1)
    for match in _BRACES.finditer(text):
        if match[0] == "}":
            start = open_braces.pop() if open_braces else None
            if start is not None:
                last = max(last, (start, match.start()))
        elif match[0].endswith("{") and match[0] != "\\{":
            open_braces.append(match.end() if len(match[0]) > 1 else None)
        elif _BOX.match(match[0]) and (unbraced := _UNBRACED.match(text, match.end())) is not None:
            start = unbraced.start(1)
            last = max(last, (start, start + len(unbraced[1].rstrip(_SENTENCE_ENDS))))
    start, end = last
    return None if start < 0 else text[start:end].strip().strip("$").strip()


def _key(task: Task) -> str:
    text = text_at(task, only_keys(task, task.payload, ("answer",)), "answer")
    boxed = last_box(text)
    key = (text if boxed is None else boxed).strip().strip("$").strip()
    if not key or len(key) > MAX_ANSWER_CHARS:
        raise refuse(task, "answer", text, f"LaTeX or a number, of at most {MAX_ANSWER_CHARS} characters")
    return key


def check_readable(task: Task) -> None:
    """Raise TaskFileError for an answer key that the judge cannot read: no other way to write it would be right."""
    key = _key(task)
    if not is_readable(key):
        raise refuse(task, "answer", key, READABLE)


@lru_cache(maxsize=100_000)
def is_readable(key: str) -> bool:
    """Whether the judge can read an answer key: it must be equal to itself."""
    if _PLAIN.fullmatch(key):
        return True
    value = read_marks(key).value
    try:
        return bool(shared_verifier(_CHECKS, _CANARY).ask({"given": value, "key": value})["same"])
    except (Raised, Overrun):
        return False


def _compared(verifier: Verifier, ways: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Return the comparison of the first pair (given, key), or of the first one that is equal."""
    results = []
    for given, key in ways:
        results.append(verifier.ask({"given": given, "key": key}))
        if results[-1]["same"]:
            return dict(results[-1])
    return dict(results[0])


def _difference_of_marks(given: Marked, key: Marked) -> str:
    if given.bases != key.bases:
        return "It is written in another base than the right answer, or does not say in which."
    return "It has another unit than the right answer."


def _wrong(given: str, hints: list[str]) -> Verdict:
    lines = ["Wrong Answer", f"{quote(given)} is not the right answer.", *hints]
    return failed("wrong_answer", "\n".join(lines), answer=given)


def _malformed(what: str, truncated: bool) -> Verdict:
    return no_answer(f"No answer was found: {what}. {_HOW}", truncated)
