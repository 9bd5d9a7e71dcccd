"""Read the records of a file: JSON or JSON lines, also gzipped, or Parquet. Failures are one-line `TaskFileError`s."""

import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from sdpo.encoding import decode, other_form
from sdpo.errors import TaskFileError
from sdpo.plain_values import plain_record

PARQUET = ".parquet"
TEXT = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
FORMS = f"a file ending in {', '.join(TEXT)} or {PARQUET}"


def read_file(path: str) -> Iterator[tuple[str, Any]]:
    """Return an iterator over (where, record) of every record in order, read as they are requested.

    `where` starts error messages: "train.jsonl, line 3". The suffix of the name decides the format. A .json file holds
    a list of records, or one, or JSON lines. Parquet needs pyarrow and gives a dict for every row; its nested columns
    are lists and dicts. Raises `TaskFileError` for what cannot be read.
    """
    if not path.endswith((*TEXT, PARQUET)):
        raise TaskFileError(f"{path}: allowed: {FORMS}")
    if not Path(path).exists():
        raise TaskFileError(f"{path}: no such file; allowed: {FORMS}")
    if path.endswith(PARQUET):
        return _from_parquet(path)
    return _from_json(path) if path.removesuffix(".gz").endswith(".json") else _from_lines_file(path)


def need(module: str, path: str, package: str) -> Any:
    """Import a module of an optional package. Raises `TaskFileError` that says how to install it."""
    try:
        return import_module(module)
    except ImportError:
        raise TaskFileError(f"{path}: reading it needs the package {package}: pip install {package}") from None


class NotJsonError(ValueError):
    """A text that is not JSON, or JSON that cannot be read. The message says why: "not JSON: too deep"."""


def read_json(text: str | bytes) -> Any:
    """Parse JSON that others wrote: the one reader of foreign text. Raises only `NotJsonError`."""
    try:
        text = decode(text) if isinstance(text, bytes) else text
    except ValueError as error:
        raise NotJsonError(str(error)) from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise NotJsonError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise NotJsonError("not JSON: too deep") from None
    except ValueError:
        raise NotJsonError(f"holds an integer of more than {sys.get_int_max_str_digits()} digits") from None


def parse_json(where: str, text: str | bytes) -> Any:
    """Parse JSON. Raises `TaskFileError` that starts with `where`."""
    try:
        return read_json(text)
    except NotJsonError as error:
        raise TaskFileError(f"{where}: {error}") from None


def _from_lines_file(path: str) -> Iterator[tuple[str, Any]]:
    with _opened(path) as file:
        yield from _from_lines(path, file)


def _from_json(path: str) -> Iterator[tuple[str, Any]]:
    with _opened(path) as file:
        content = file.read()
    try:
        data = read_json(content)
    except NotJsonError:  # it may still be JSON lines, which say what is wrong with which line
        yield from _from_lines(path, content.split(b"\n"))
        return
    items = data if isinstance(data, list) else [data]
    yield from ((f"{path}, record {number}", item) for number, item in enumerate(items, start=1))


def _from_lines(path: str, lines: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    """Parse JSON lines, which end in line feeds only: JSON strings may hold other line separators."""
    for number, line in enumerate(lines, start=1):
        if number == 1 and (form := other_form(line)):
            raise TaskFileError(f"{path}: {form} text; allowed: UTF-8")
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
                where = f"{path}, record {number}"
                yield where, plain_record(where, record)
    except (OSError, ValueError) as error:
        raise TaskFileError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None


@contextmanager
def _opened(path: str) -> Iterator[BufferedIOBase]:
    """Open a file, gzipped or not. Raises `TaskFileError` for what cannot be read, also inside the block."""
    try:
        with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise TaskFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
