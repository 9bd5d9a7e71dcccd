"""Puzzles of reasoning-gym, scored by their own code in a sealed helper. Needs the extra `reasoning`.

Payload: `dataset`, `seed`, `size`, `config`, `index`: which puzzle; `question_sha256`: what it said when the task was
made, so that another version of the package is noticed.
"""

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from env_workers.environment import Context, Reply, SingleTurnEnvironment
from env_workers.payloads import only_keys, refuse, text_at
from env_workers.verdicts import failed, no_answer, passed
from env_workers.verifier.host import Overrun, Raised, Verifier
from env_workers.wording import last_tagged, quote
from sdpo.errors import InfrastructureError, TaskFileError
from sdpo.types import Task, Verdict

REFUSED = frozenset(
    {
        "binary_matrix",
        "bitwise_arithmetic",
        "composite",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "number_sorting",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    }
)
"""Data sets whose scorer compiles text as Python (composite: whatever its parts do)."""

MISSING = "needs the package reasoning-gym: pip install 'sdpo[reasoning]'"
MAX_ANSWER_CHARS = 10_000
_PUZZLE = ("dataset", "seed", "size", "config", "index")
_CANARY = {"dataset": "leg_counting", "seed": 0, "size": 1, "config": {}, "index": 0, "given": "1"}


class ReasoningGymEnvironment(SingleTurnEnvironment):
    """Reward: the data set's own score of the text in the last <answer>, 0 to 1; success at 1.

    Kinds: passed, wrong_answer (details["score"] says how wrong), wrong_format, truncated.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._verifier = puzzle_verifier()

    @classmethod
    def check(cls, task: Task) -> None:
        """The payload must name a puzzle of a data set that is not refused, and the package must be there."""
        if find_spec("reasoning_gym") is None:
            raise TaskFileError(f"task {task.id}: environment reasoning_gym {MISSING}")
        _parse(task)

    def judge(self, task: Task, reply: Reply) -> Verdict:
        """See `SingleTurnEnvironment.judge`."""
        puzzle, digest = _parse(task)
        given = last_tagged(reply.text, "answer")
        if not given or len(given) > MAX_ANSWER_CHARS:
            return _malformed(given, reply.truncated)
        try:
            result = self._verifier.ask({**puzzle, "given": given})
        except (Raised, Overrun):
            return _wrong(given, 0.0, ["It could not be read."])
        if "error" in result or sha256(result["question"]) != digest:
            cause = result.get("error", "another question than when the task was made")
            raise InfrastructureError(f"task {task.id}: reasoning-gym here gives {cause}; is it another version?")
        if result["score"] == 1:
            return passed(score=1.0)
        return _wrong(given, result["score"], _hints(result))


def puzzle_verifier() -> Verifier:
    """Return the helper that makes and scores puzzles; it starts at its first request."""
    return Verifier("env_workers.verifier.reasoning_checks", _CANARY, cpu_s=20.0, memory_mib=2048)


def sha256(text: str) -> str:
    """Return the SHA-256 of the text in UTF-8, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _parse(task: Task) -> tuple[dict[str, Any], str]:
    payload = only_keys(task, task.payload, (*_PUZZLE, "question_sha256"))
    name, digest = text_at(task, payload, "dataset"), text_at(task, payload, "question_sha256")
    if name in REFUSED:
        raise refuse(task, "dataset", name, "a data set whose scorer does not run the answer as Python")
    for key in ("seed", "size", "index"):
        if type(payload.get(key)) is not int or payload[key] < 0:
            raise refuse(task, key, payload.get(key), "an integer of at least 0")
    if not isinstance(payload.get("config"), Mapping):
        raise refuse(task, "config", payload.get("config"), "a mapping")
    return {key: payload[key] for key in _PUZZLE}, digest


def _hints(result: Mapping[str, Any]) -> list[str]:
    lines = []
    if result["form"]:
        lines.append(f"The right answer is {result['form']}; this is not.")
    elif result["score"] >= 0.1:
        lines.append(f"It is partly right, worth {result['score']:.2f} of 1.")
    if result["facts"]:
        lines.append(f"How hard the puzzle is: {', '.join(result['facts'])}.")
    return lines


def _wrong(given: str, score: float, hints: list[str]) -> Verdict:
    feedback = "\n".join(["Wrong Answer", f"{quote(given)} is not the right answer.", *hints])
    return failed("wrong_answer", feedback, score, score=score)


def _malformed(given: str | None, truncated: bool) -> Verdict:
    what = "was found" if given is None else "is empty" if not given else "is too long"
    complaint = f"{'No' if given is None else 'The'} answer {what}."
    return no_answer(f"{complaint} End with <answer>, the answer alone, </answer>.", truncated)
