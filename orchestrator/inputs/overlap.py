"""Find evaluation tasks that are training tasks as well, by the words of the question."""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sdpo.types import Task

MAX_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """How many evaluation tasks ask what a training task asks. `examples`: (evaluation id, training id)."""

    num_tasks: int
    num_overlapping: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    @property
    def warning(self) -> str | None:
        """The overlap in one line; None where nothing overlaps."""
        if not self.num_overlapping:
            return None
        first = ", ".join(a if a == b else f"{a} (in training {b})" for a, b in self.examples)
        return (
            f"{self.num_overlapping} of {self.num_tasks} evaluation tasks ask the same question as a training task; "
            f"first {first}"
        )


def question(task: Task) -> str:
    """Return the user's words without regard to case and white space."""
    return _words(task, ("user",))


def find_overlap(train: Sequence[Task], evaluated: Sequence[Task]) -> Overlap:
    """Compare the users' words, or all messages where several tasks have the same words of the user.

    Ids do not count: two files may number their tasks alike. A task that was reworded is not found.
    """
    shared = _shared_words(train) | _shared_words(evaluated)

    def content(task: Task) -> str:
        words = question(task)
        return _words(task) if words in shared else words

    by_content = {content(task): task.id for task in reversed(train)}
    same = [task for task in evaluated if content(task) in by_content]
    examples = [(task.id, by_content[content(task)]) for task in same[:MAX_EXAMPLES]]
    return Overlap(num_tasks=len(evaluated), num_overlapping=len(same), examples=examples)


def warn_of_overlap(overlap: Overlap) -> None:
    """Print the overlap to standard error, if there is any.

    It is no error, because some protocols train and evaluate on the same questions.
    """
    if overlap.warning is not None:
        print(f"warning: {overlap.warning}", file=sys.stderr, flush=True)


def _shared_words(tasks: Sequence[Task]) -> set[str]:
    """Return what the user says in several tasks that differ in other messages, such as `Solve it.`"""
    whole = defaultdict(set)
    for task in tasks:
        whole[question(task)].add(_words(task))
    return {words for words, contents in whole.items() if len(contents) > 1}


def _words(task: Task, roles: Sequence[str] = ("system", "user", "assistant", "tool")) -> str:
    said = [m.content for m in task.messages if m.role in roles]
    shown = [json.dumps(tool) for tool in task.tools] if "system" in roles else []
    return " ".join(" ".join([*said, *shown]).casefold().split())
