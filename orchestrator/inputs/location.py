"""Where a task stands in its file, for the error of a task that cannot be used."""

from collections.abc import Iterator
from contextlib import contextmanager

from sdpo.errors import ModelError, PromptTooLong, TaskFileError
from sdpo.records import read_file
from sdpo.storage_cache import fetched


@contextmanager
def at_its_line(path: str | None, task_id: str) -> Iterator[None]:
    """Let an error about a task of the set at `path` begin with file and line; None: the task is of no file."""
    try:
        yield
    except (TaskFileError, ModelError, PromptTooLong) as error:
        if path is None or str(error).startswith(path):
            raise
        raise type(error)(f"{where_of(path, task_id)}: {error}") from None


def where_of(path: str, task_id: str) -> str:
    """Return "train.jsonl, line 3" for the record with this id; `path` where none has it, as with most adapters."""
    try:
        local = str(fetched(path))
        for where, record in read_file(local):
            if isinstance(record, dict) and record.get("id") == task_id:
                return where.replace(local, path, 1)
    except TaskFileError:
        return path
    return path
