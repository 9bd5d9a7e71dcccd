"""`sdpo preview --answers FILE`: the verdicts on a file of answers as JSON lines, and their summary."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from env_workers.adapters.records import read_records
from env_workers.environment import check_task
from orchestrator.commands.preview.judge import Answer, judge_answers
from orchestrator.commands.preview.play import PlayedAnswers, no_such_task
from orchestrator.inputs.inputs import TaskSets, load_code
from sdpo.config import RunConfig
from sdpo.errors import TaskFileError
from sdpo.show import show
from sdpo.types import Task, Verdict


def judge_file(config: RunConfig, path: str, *, plain: bool, as_json: bool) -> int:
    """Print a line of JSON for each record of `path`, in order, and a summary on stderr; return the number not judged.

    `as_json`: print one object with `verdicts` and `summary` instead. A record is {id, answer}: the id of a training
    or held-out task, and a text or a list of texts, one a turn; other keys are not looked at. Raises `UserError`.
    """
    sets = TaskSets.load(config)
    answers = list(_answers(sets, path))
    verdicts: list[dict[str, Any]] = []

    def on_judged(index: int, played: PlayedAnswers) -> None:
        verdicts.append(verdict_record(answers[index].task.id, played))
        if not as_json:
            print(json.dumps(verdicts[-1], ensure_ascii=False), flush=True)

    judge_answers(config, sets, answers, on_judged, plain=plain)
    summary = summarize(verdicts)
    if as_json:
        print(json.dumps({"verdicts": verdicts, "summary": summary}, indent=1, ensure_ascii=False))
    else:
        print(_line(summary), file=sys.stderr)
    return int(summary["lost"])


def judge_pairs(config: RunConfig, pairs: Iterable[tuple[str | Task, str | Sequence[str]]]) -> list[Verdict]:
    """Return the verdicts on pairs of a task (or its id) and an answer (or its turns), in order. Raises `UserError`."""
    pairs = list(pairs)
    ids = any(isinstance(task, str) for task, _ in pairs)
    sets = TaskSets.load(config) if ids else TaskSets([], [], load_code(config))
    tasks = _by_id(sets)
    answers: list[Answer] = []
    verdicts: list[Verdict] = []
    for number, (task, answer) in enumerate(pairs, start=1):
        if isinstance(task, Task):
            check_task(task)
        answers.append(_answer(sets, tasks, f"answer {number}", task, answer))
    judge_answers(config, sets, answers, lambda _, played: verdicts.append(played.record.verdict))
    return verdicts


def verdict_record(task_id: str, played: PlayedAnswers) -> dict[str, Any]:
    """Return what is said about one answer. `infrastructure_error` is there, and reward null, where none was judged."""
    verdict = played.record.verdict
    record = {
        "id": task_id,
        "reward": verdict.reward,
        "success": verdict.success,
        "kind": verdict.kind,
        "feedback": verdict.feedback,
        "details": dict(verdict.details),
        "turns": len(played.turns),
        "notes": played.notes,
    }
    lost = {"infrastructure_error": verdict.infrastructure_error}
    return record if verdict.infrastructure_error is None else record | lost


def summarize(verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return answers, lost (not judged), successes, mean reward of the judged (null without any), and kinds."""
    judged = [verdict for verdict in verdicts if "infrastructure_error" not in verdict]
    mean = sum(verdict["reward"] for verdict in judged) / len(judged) if judged else None
    return {
        "answers": len(verdicts),
        "lost": len(verdicts) - len(judged),
        "successes": sum(verdict["success"] for verdict in judged),
        "mean_reward": mean,
        "kinds": dict(Counter(verdict["kind"] for verdict in judged).most_common()),
    }


def _line(summary: Mapping[str, Any]) -> str:
    kinds = ", ".join(f"{kind} {number}" for kind, number in summary["kinds"].items())
    mean = "" if summary["mean_reward"] is None else f", mean reward {summary['mean_reward']:.3f} ({kinds})"
    lost = f"; {summary['lost']} not judged, because infrastructure broke" if summary["lost"] else ""
    return f"{summary['successes']} of {summary['answers']} answers succeeded{mean}{lost}"


def _answers(sets: TaskSets, path: str) -> Iterator[Answer]:
    tasks = _by_id(sets)
    for where, record in read_records(path, {}):
        yield _answer(sets, tasks, where, record.get("id"), record.get("answer"))


def _answer(sets: TaskSets, tasks: Mapping[str, Task], where: str, task: Any, answer: Any) -> Answer:
    """Return the answer to a task or to the task of an id. Raises `UserError` that begins with `where`."""
    if not isinstance(task, str | Task):
        raise TaskFileError(f"{where}: id={show(task)}; allowed: the id of a task, a string")
    if isinstance(task, str):
        if task not in tasks:
            raise no_such_task(f"{where}: id={show(task)}", sets, task)
        task = tasks[task]
    turns = [answer] if isinstance(answer, str) else answer
    if not isinstance(turns, list | tuple) or not turns or not all(isinstance(turn, str) for turn in turns):
        allowed = "a text, or a list of at least one text, one a turn"
        raise TaskFileError(f"{where}: answer={show(answer)}; allowed: {allowed}")
    return Answer(where=where, task=task, turns=tuple(turns))


def _by_id(sets: TaskSets) -> dict[str, Task]:
    """Return the tasks by id; where a held-out task has the id of a training task, the training task."""
    return {task.id: task for task in [*sets.heldout, *sets.train]}
