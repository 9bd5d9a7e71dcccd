"""Records of a file: JSON, JSON lines (either gzipped) or Parquet. Every failure is a one-line `TaskFileError`."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from importlib import import_module
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from sdpo.errors import TaskFileError

PARQUET = ".parquet"
TEXT = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
FORMS = f"a file ending in {', '.join(TEXT)} or {PARQUET}"


def read_file(path: str) -> Iterator[tuple[str, Any]]:
    """(where, record) of every record, in order, read as they are asked for; `where` starts error messages:
    "train.jsonl, line 3".

    The name's end says the form. A .json file holds a list of records, or one, or JSON lines. Parquet needs pyarrow and
    gives a dict a row; its nested columns are lists and dicts. Raises `TaskFileError` for what cannot be read.
    """
    if not path.endswith((*TEXT, PARQUET)):
        raise TaskFileError(f"{path}: allowed: {FORMS}")
    if not Path(path).exists():
        raise TaskFileError(f"{path}: no such file; allowed: {FORMS}")
    if path.endswith(PARQUET):
        return _from_parquet(path)
    return _from_json(path) if path.removesuffix(".gz").endswith(".json") else _from_lines_file(path)


def need(module: str, path: str, package: str) -> Any:
    """An optional package's module. Raises `TaskFileError` that says how to install it."""
    try:
        return import_module(module)
    except ImportError:
        raise TaskFileError(f"{path}: reading it needs the package {package}: pip install {package}") from None


def parse_json(where: str, text: str | bytes) -> Any:
    """`where` starts the error's text."""
    try:
        return json.loads(text)
    except UnicodeDecodeError:
        raise TaskFileError(f"{where}: not UTF-8 text") from None
    except (json.JSONDecodeError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "too deep"
        raise TaskFileError(f"{where}: not JSON: {reason}") from None


def _from_lines_file(path: str) -> Iterator[tuple[str, Any]]:
    try:
        with _opened(path) as file:
            yield from _from_lines(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None


def _from_json(path: str) -> Iterator[tuple[str, Any]]:
    try:
        with _opened(path) as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):  # it may still be JSON lines, which say what is wrong with which line
        yield from _from_lines(path, content.split(b"\n"))
        return
    items = data if isinstance(data, list) else [data]
    yield from ((f"{path}, record {number}", item) for number, item in enumerate(items, start=1))


def _from_lines(path: str, lines: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    """Split at line feeds only: JSON strings may hold other line separators."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, parse_json(where, line.removesuffix(b"\n"))


def _from_parquet(path: str) -> Iterator[tuple[str, Any]]:
    parquet = need("pyarrow.parquet", path, "pyarrow")
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield f"{path}, record {number}", record
    except (OSError, ValueError) as error:
        raise TaskFileError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None


def _opened(path: str) -> BufferedIOBase:
    return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")


def _unreadable(path: str, error: Exception) -> TaskFileError:
    return TaskFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")
