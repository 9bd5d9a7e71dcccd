"""One recorded batch as one file: arrays and text in safetensors, whole or not at all, checked against its digest.

Tensors, all concatenated over the attempts in their order:
  prompt_ids int32 [P], token_ids int32 [T]; log_probs float32 [M]; with a support also support_ids int32 [S, K] and
  support_log_probs float32 [S, K]
  tasks uint8: a JSON list, the batch's tasks without their payloads (answer keys are not recorded)
  attempts uint8: JSON lines, one an attempt: group, header, verdict, prompt_tokens, segments (null for an attempt that
  was lost to infrastructure, of which no tokens are kept); docs/recorded-rollouts.md describes the keys
Metadata: format, step, and sha256 over everything else.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sdpo.errors import RecordingError
from sdpo.files import whole_or_absent
from sdpo.show import show_error
from sdpo.types import FinishReason, Message, Rollout, RolloutHeader, Segment, Task, Verdict, VersionSpan

FORMAT = "1"
TEXTS = ("tasks", "attempts")
ARRAYS = {
    "prompt_ids": np.int32,
    "token_ids": np.int32,
    "log_probs": np.float32,
    "support_ids": np.int32,
    "support_log_probs": np.float32,
}
_BROKEN = (SafetensorError, OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError)
Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedAttempt:
    """One attempt of the batch's group number `group`. `rollout` is None exactly when infrastructure lost it."""

    group: int
    header: RolloutHeader
    verdict: Verdict
    rollout: Rollout | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBatch:
    """`tasks` in the batch's order; `attempts` by group and sample index."""

    step: int
    tasks: tuple[Task, ...]
    attempts: tuple[RecordedAttempt, ...]

    def of(self, task_id: str) -> list[RecordedAttempt]:
        """A group's attempts."""
        group = next(i for i, task in enumerate(self.tasks) if task.id == task_id)
        return [a for a in self.attempts if a.group == group]


def batch_file(folder: Path, step: int) -> Path:
    """Where batch `step` (from 0) lies."""
    return folder / f"batch-{step:06d}.safetensors"


def write_batch(folder: Path, batch: RecordedBatch) -> int:
    """Returns the file's size in bytes. A file of this step that was there is replaced."""
    columns: dict[str, list[Array]] = {name: [] for name in ARRAYS}
    lines = [json.dumps(_described(attempt, columns)) for attempt in batch.attempts]
    tensors = {name: _joined(name, parts) for name, parts in columns.items() if parts}
    tensors["tasks"] = _bytes_of(json.dumps([_question(task) for task in batch.tasks]))
    tensors["attempts"] = _bytes_of("".join(line + "\n" for line in lines))
    file = batch_file(folder, batch.step)
    metadata = {"format": FORMAT, "step": str(batch.step), "sha256": _digest(batch.step, tensors)}
    with whole_or_absent(file) as beside:
        save_file(tensors, beside, metadata=metadata)
        beside.chmod(folder.stat().st_mode & 0o666)  # safetensors writes for the owner alone
    return file.stat().st_size


def read_batch(folder: Path, step: int) -> RecordedBatch:
    """The whole batch, its digest checked. Raises `RecordingError` for a file that is missing or not as written."""
    file = batch_file(folder, step)
    with _opened(file) as opened:
        metadata, tensors = opened.metadata() or {}, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        _check_head(file, step, metadata)
        if metadata["sha256"] != _digest(step, tensors):
            raise RecordingError(f"{file}: damaged: its content is not what was written; allowed: a whole file")
        return _batch(step, tensors)


def read_tasks(folder: Path, step: int) -> list[Task]:
    """The tasks of a batch, without its attempts; the digest is left to `read_batch`. Raises `RecordingError`."""
    file = batch_file(folder, step)
    with _opened(file) as opened:
        _check_head(file, step, opened.metadata() or {})
        return _tasks(opened.get_tensor("tasks"))


def read_digest(folder: Path, step: int) -> str:
    """The SHA-256 that a batch's file claims. Raises `RecordingError`."""
    with _opened(batch_file(folder, step)) as opened:
        return str((opened.metadata() or {})["sha256"])


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The file's reader. What reading a damaged one raises inside, and a missing file, are one `RecordingError`."""
    if not file.is_file():
        raise RecordingError(f"{file}: no such file; allowed: a folder that holds this batch")
    try:
        with safe_open(file, framework="numpy") as opened:
            yield opened
    except _BROKEN as error:
        said = show_error(error, max_chars=200)
        raise RecordingError(f"{file}: damaged: {said}; allowed: a whole file") from None


def _described(attempt: RecordedAttempt, columns: dict[str, list[Array]]) -> dict[str, Any]:
    """The attempt's line; its arrays go to the columns."""
    rollout, segments = attempt.rollout, None
    if rollout is not None:
        columns["prompt_ids"].append(rollout.prompt_ids)
        segments = [_described_segment(segment, columns) for segment in rollout.segments]
    verdict = {field.name: getattr(attempt.verdict, field.name) for field in dataclasses.fields(Verdict)}
    return {
        "group": attempt.group,
        "header": dataclasses.asdict(attempt.header),
        "verdict": verdict | {"details": dict(attempt.verdict.details)},
        "prompt_tokens": None if rollout is None else len(rollout.prompt_ids),
        "segments": segments,
    }


def _described_segment(segment: Segment, columns: dict[str, list[Array]]) -> dict[str, Any]:
    arrays = [name for name in ARRAYS if name != "prompt_ids" and getattr(segment, name) is not None]
    for name in arrays:
        columns[name].append(getattr(segment, name))
    return {
        "author": segment.author,
        "tokens": len(segment.token_ids),
        "arrays": arrays,
        "versions": [[span.version, span.start, span.end] for span in segment.versions],
    }


def _batch(step: int, tensors: Mapping[str, Array]) -> RecordedBatch:
    columns = _Columns(tensors)
    lines = tensors["attempts"].tobytes().decode().splitlines()
    return RecordedBatch(
        step=step,
        tasks=tuple(_tasks(tensors["tasks"])),
        attempts=tuple(_attempt(json.loads(line), columns) for line in lines),
    )


def _attempt(line: dict[str, Any], columns: "_Columns") -> RecordedAttempt:
    written = line["header"]
    restored = {"finish_reason": FinishReason(written["finish_reason"]), "versions": tuple(written["versions"])}
    header, rollout = RolloutHeader(**(written | restored)), None
    if line["segments"] is not None:
        rollout = Rollout(
            task_id=header.task_id,
            sample_index=header.sample_index,
            prompt_ids=columns.take("prompt_ids", line["prompt_tokens"]),
            segments=tuple(_segment(segment, columns) for segment in line["segments"]),
            finish_reason=header.finish_reason,
        )
    return RecordedAttempt(group=line["group"], header=header, verdict=Verdict(**line["verdict"]), rollout=rollout)


def _segment(line: dict[str, Any], columns: "_Columns") -> Segment:
    arrays: dict[str, Any] = {name: columns.take(name, line["tokens"]) for name in line["arrays"]}
    versions = tuple(VersionSpan(version=v, start=start, end=end) for v, start, end in line["versions"])
    return Segment(author=line["author"], versions=versions, **arrays)


class _Columns:
    """Hands out the rows of the arrays in order."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._tensors, self._taken = tensors, dict.fromkeys(ARRAYS, 0)

    def take(self, name: str, count: int) -> Array:
        start = self._taken[name]
        self._taken[name] = start + count
        return self._tensors[name][start : start + count]


def _question(task: Task) -> dict[str, Any]:
    messages = [dataclasses.asdict(message) for message in task.messages]
    return {"id": task.id, "messages": messages, "environment": task.environment}


def _tasks(text: Array) -> list[Task]:
    return [
        Task(
            id=task["id"],
            messages=tuple(Message(**message) for message in task["messages"]),
            environment=task["environment"],
            payload={},
        )
        for task in json.loads(text.tobytes().decode())
    ]


def _joined(name: str, parts: Sequence[Array]) -> Array:
    """Raises `ValueError` for another dtype than the format's: a cast would not give the learner the same bits."""
    for part in parts:
        if part.dtype != ARRAYS[name]:
            raise ValueError(f"{name} is {part.dtype}, not {np.dtype(ARRAYS[name])}")
    return np.ascontiguousarray(np.concatenate(parts))


def _bytes_of(text: str) -> Array:
    return np.frombuffer(text.encode(), np.uint8)


def _digest(step: int, tensors: Mapping[str, Array]) -> str:
    whole = sha256(f"{FORMAT}/{step}".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        whole.update(f"/{name}:{tensor.dtype}:{tensor.shape}/".encode())
        whole.update(np.ascontiguousarray(tensor).data.cast("B") if tensor.size else b"")
    return whole.hexdigest()


def _check_head(file: Path, step: int, metadata: Mapping[str, str]) -> None:
    if metadata["format"] != FORMAT:
        raise RecordingError(f"{file}: format {metadata['format']}; allowed: {FORMAT}, or the sdpo that wrote it")
    if metadata["step"] != str(step):
        raise RecordingError(f"{file}: holds batch {metadata['step']}; allowed: a file under its own name")
