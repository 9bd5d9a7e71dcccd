"""Whether a model is evaluated on what it was trained on: by id, and by the words of the question."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from sdpo.types import Task

MAX_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """How many of the evaluation's tasks are among the training tasks. `examples`: (evaluation id, training id)."""

    num_tasks: int
    num_same_id: int = 0
    num_same_question: int = 0
    num_overlapping: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)

    @property
    def warning(self) -> str | None:
        """One line; None where nothing overlaps."""
        if not self.num_overlapping:
            return None
        first = ", ".join(a if a == b else f"{a} (in training {b})" for a, b in self.examples)
        return (
            f"{self.num_overlapping} of {self.num_tasks} evaluation tasks are training tasks, too: "
            f"{self.num_same_question} with the same question, {self.num_same_id} with the same id; first {first}"
        )


def question(task: Task) -> str:
    """The user's words, without regard to case and white space."""
    return " ".join(" ".join(m.content for m in task.messages if m.role == "user").casefold().split())


def find_overlap(train: Sequence[Task], evaluated: Sequence[Task]) -> Overlap:
    """A task that was reworded under another id is not found."""
    ids = {task.id for task in train}
    by_question = {question(task): task.id for task in reversed(train)}
    same_id = [task for task in evaluated if task.id in ids]
    same_question = [task for task in evaluated if question(task) in by_question]
    either = [task for task in evaluated if task.id in ids or question(task) in by_question]
    examples = [(task.id, by_question.get(question(task), task.id)) for task in either[:MAX_EXAMPLES]]
    return Overlap(
        num_tasks=len(evaluated),
        num_same_id=len(same_id),
        num_same_question=len(same_question),
        num_overlapping=len(either),
        examples=examples,
    )


def warn_of_overlap(overlap: Overlap) -> None:
    """On standard error, if there is any. No error: some protocols train and evaluate on the same questions."""
    if overlap.warning is not None:
        print(f"warning: {overlap.warning}", file=sys.stderr, flush=True)
