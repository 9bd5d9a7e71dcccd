"""One recorded batch as one file: arrays and text in safetensors, complete or absent, checked against its digest.

Tensors, each concatenated over the attempts in their order:
  prompt_ids int32 [P], token_ids int32 [T]; log_probs float32 [M]; with a support also support_ids int32 [S, K] and
  support_log_probs float32 [S, K]
  tasks uint8: a JSON list, the batch's tasks without their payloads (answer keys are not recorded)
  attempts uint8: JSON lines, one for every attempt: group, header, verdict, prompt_tokens, segments (null where
  infrastructure lost the attempt, whose tokens are not recorded); docs/recorded-rollouts.md describes the keys
Metadata: format, step (the index of the batch, from 0), and sha256 over everything else.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
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
from sdpo.types import FinishReason, Message, Rollout, RolloutHeader, Segment, Task, Verdict, Version, VersionSpan

FORMAT = "1"
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
    """One attempt at task number `group` of the batch. `rollout` is None exactly when infrastructure lost it."""

    group: int
    header: RolloutHeader
    verdict: Verdict
    rollout: Rollout | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBatch:
    """Rollout batch `batch_index`, counted from 0: tasks in their order, attempts by group and sample index."""

    batch_index: int
    tasks: tuple[Task, ...]
    attempts: tuple[RecordedAttempt, ...]

    def of(self, task_id: str) -> list[RecordedAttempt]:
        """Return the attempts at a task."""
        group = next(i for i, task in enumerate(self.tasks) if task.id == task_id)
        return [a for a in self.attempts if a.group == group]


def batch_file(folder: Path, batch_index: int) -> Path:
    """Return the file of a batch."""
    return folder / f"batch-{batch_index:06d}.safetensors"


def write_batch(folder: Path, batch: RecordedBatch) -> int:
    """Write a batch, in place of one of this index that was there; return the file's size in bytes.

    Raises `TypeError` for another dtype than the format's: a cast would not give the learner the same bits.
    """
    columns: dict[str, list[Array]] = {name: [] for name in ARRAYS}
    lines = [json.dumps(_described(attempt, columns)) for attempt in batch.attempts]
    tensors: dict[str, Array] = {
        name: np.concatenate(parts, dtype=ARRAYS[name], casting="no") for name, parts in columns.items() if parts
    }
    texts = {"tasks": json.dumps([_question(task) for task in batch.tasks]), "attempts": "\n".join([*lines, ""])}
    tensors |= {name: np.frombuffer(text.encode(), np.uint8) for name, text in texts.items()}
    file = batch_file(folder, batch.batch_index)
    metadata = {"format": FORMAT, "step": str(batch.batch_index), "sha256": _digest(batch.batch_index, tensors)}
    with whole_or_absent(file) as beside:
        save_file(tensors, beside, metadata=metadata)
        beside.chmod(folder.stat().st_mode & 0o666)  # safetensors writes for the owner alone
    return file.stat().st_size


def read_batch(folder: Path, batch_index: int) -> RecordedBatch:
    """Read a batch and check its digest. Raises `RecordingError` for a file that is missing or not as written."""
    with _opened(folder, batch_index) as (file, metadata):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["sha256"] != _digest(batch_index, tensors):
            path = batch_file(folder, batch_index)
            raise RecordingError(f"{path}: damaged: its content is not what was written; allowed: a whole file")
        lines = tensors["attempts"].tobytes().decode().splitlines()
        attempts = tuple(_attempt(json.loads(line), tensors) for line in lines)
        return RecordedBatch(batch_index=batch_index, tasks=tuple(_tasks(tensors["tasks"])), attempts=attempts)


def read_tasks(folder: Path, batch_index: int) -> list[Task]:
    """Read the tasks of a batch, without its attempts and without a look at the digest. Raises `RecordingError`."""
    with _opened(folder, batch_index) as (file, _):
        return _tasks(file.get_tensor("tasks"))


def read_digest(folder: Path, batch_index: int) -> str:
    """Return the SHA-256 that a batch's file claims. Raises `RecordingError`."""
    with _opened(folder, batch_index) as (_, metadata):
        return metadata["sha256"]


@contextmanager
def _opened(folder: Path, batch_index: int) -> Iterator[tuple[Any, Mapping[str, str]]]:
    """Give the reader of a batch's file and its metadata.

    Raises `RecordingError` for a missing file, for another format or batch, and for what damage raises in the block.
    """
    file = batch_file(folder, batch_index)
    if not file.is_file():
        raise RecordingError(f"{file}: no such file; allowed: a folder that holds this batch")
    try:
        with safe_open(file, framework="numpy") as reader:
            metadata = reader.metadata() or {}
            if metadata["format"] != FORMAT:
                raise RecordingError(
                    f"{file}: format {metadata['format']}; allowed: {FORMAT}, or the sdpo that wrote it"
                )
            if metadata["step"] != str(batch_index):
                raise RecordingError(f"{file}: holds batch {metadata['step']}; allowed: a file under its own name")
            yield reader, metadata
    except _BROKEN as error:
        reason = show_error(error, max_chars=200)
        raise RecordingError(f"{file}: damaged: {reason}; allowed: a whole file") from None


def _described(attempt: RecordedAttempt, columns: dict[str, list[Array]]) -> dict[str, Any]:
    """Return the attempt's line; its arrays are appended to the columns."""
    rollout, segments = attempt.rollout, None
    if rollout is not None:
        columns["prompt_ids"].append(rollout.prompt_ids)
        segments = [_described_segment(segment, columns) for segment in rollout.segments]
    verdict = dataclasses.replace(attempt.verdict, details=dict(attempt.verdict.details))
    return {
        "group": attempt.group,
        "header": dataclasses.asdict(attempt.header) | {"versions": [str(v) for v in attempt.header.versions]},
        "verdict": dataclasses.asdict(verdict),
        "prompt_tokens": None if rollout is None else len(rollout.prompt_ids),
        "segments": segments,
    }


def _described_segment(segment: Segment, columns: dict[str, list[Array]]) -> dict[str, Any]:
    arrays = [name for name in ARRAYS if getattr(segment, name, None) is not None]
    for name in arrays:
        columns[name].append(getattr(segment, name))
    return {
        "author": segment.author,
        "tokens": len(segment.token_ids),
        "arrays": arrays,
        "versions": [[str(span.version), span.start, span.end] for span in segment.versions],
    }


def _attempt(line: dict[str, Any], columns: dict[str, Array]) -> RecordedAttempt:
    """Return the attempt of a line; its rows are taken off the columns."""
    written = line["header"]
    restored: dict[str, Any] = {
        "finish_reason": FinishReason(written["finish_reason"]),
        "versions": tuple(map(Version.parse, written["versions"])),
    }
    header, rollout = RolloutHeader(**(written | restored)), None
    if line["segments"] is not None:
        rollout = Rollout(
            task_id=header.task_id,
            sample_index=header.sample_index,
            prompt_ids=_take(columns, "prompt_ids", line["prompt_tokens"]),
            segments=tuple(_segment(segment, columns) for segment in line["segments"]),
            finish_reason=header.finish_reason,
        )
    return RecordedAttempt(group=line["group"], header=header, verdict=Verdict(**line["verdict"]), rollout=rollout)


def _segment(line: dict[str, Any], columns: dict[str, Array]) -> Segment:
    arrays: dict[str, Any] = {name: _take(columns, name, line["tokens"]) for name in line["arrays"]}
    versions = tuple(VersionSpan(version=Version.parse(v), start=start, end=end) for v, start, end in line["versions"])
    return Segment(author=line["author"], versions=versions, **arrays)


def _take(columns: dict[str, Array], name: str, count: int) -> Array:
    """Return the first `count` rows of a column, and leave the others in it."""
    rows, columns[name] = columns[name][:count], columns[name][count:]
    return rows


def _question(task: Task) -> dict[str, Any]:
    messages = [dataclasses.asdict(message) for message in task.messages]
    tools = {"tools": list(task.tools)} if task.tools else {}
    return {"id": task.id, "messages": messages, "environment": task.environment, **tools}


def _tasks(text: Array) -> list[Task]:
    questions = json.loads(text.tobytes().decode())
    messages = [tuple(Message(**message) for message in question.pop("messages")) for question in questions]
    tools = [tuple(question.pop("tools", ())) for question in questions]
    return [Task(**q, messages=m, payload={}, tools=t) for q, m, t in zip(questions, messages, tools, strict=True)]


def _digest(batch_index: int, tensors: Mapping[str, Array]) -> str:
    whole = sha256(f"{FORMAT}/{batch_index}".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        whole.update(f"/{name}:{tensor.dtype}:{tensor.shape}/".encode())
        whole.update(np.ascontiguousarray(tensor).data.cast("B") if tensor.size else b"")
    return whole.hexdigest()
