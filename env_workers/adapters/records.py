"""Records as they are found: JSON, JSON lines, Parquet, or a data set of the Hugging Face hub."""

import gzip
import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from sdpo.errors import TaskFileError
from sdpo.show import show

READ_OPTIONS = ("split", "config", "revision", "data_files", "limit")
"""Options of `read_records`, which every adapter takes. All but `limit` are for hub data sets."""

HUB = "hub:"
_TEXT = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
_FORMS = f"a file ending in {', '.join(_TEXT)} or .parquet, or {HUB}NAME:SPLIT of the Hugging Face hub"


def read_records(path: str, options: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, record) of every record, in order; `where` starts error messages: "train.jsonl, line 3".

    Reads JSON (a list of objects, or one object), JSON lines (also in a file called .json), either gzipped, Parquet
    (needs pyarrow), and `hub:NAME[:SPLIT]` through the `datasets` package. Of `options` only READ_OPTIONS are looked
    at: `limit` (the first this many records), and for the hub `split` (default train), `config`, `revision` and
    `data_files`. Raises TaskFileError for what cannot be read.
    """
    limit = options.get("limit")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise TaskFileError(f"tasks.options.limit={show(limit)}: allowed: a positive integer")
    number = -1
    for number, (where, record) in enumerate(_all_records(path, options)):
        if limit is not None and number >= limit:
            return
        if not isinstance(record, dict):
            raise TaskFileError(f"{where}: {show(record)}: allowed: an object")
        yield where, record
    if number < 0:
        raise TaskFileError(f"{path}: holds no records")


def _all_records(path: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if path.startswith(HUB):
        return _from_hub(path, options)
    for key in READ_OPTIONS:
        if key != "limit" and options.get(key) is not None:
            raise TaskFileError(f"tasks.options.{key}={show(options[key])}: for {HUB}NAME only, not for {path}")
    if path.endswith(".parquet"):
        return _from_parquet(path)
    if path.endswith(_TEXT):
        return _from_text(path)
    raise TaskFileError(f"{path}: allowed: {_FORMS}")


def _from_text(path: str) -> Iterator[tuple[str, Any]]:
    text = _read_text(path)
    if path.removesuffix(".gz").endswith(".json"):
        try:
            data = json.loads(text)
        except json.JSONDecodeError:
            return _from_lines(path, text)
        items = data if isinstance(data, list) else [data]
        return ((f"{path}, record {number}", item) for number, item in enumerate(items, start=1))
    return _from_lines(path, text)


def _from_lines(path: str, text: str) -> Iterator[tuple[str, Any]]:
    """Split at line feeds only: JSON strings may hold other line separators."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            yield where, json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "too deep"
            raise TaskFileError(f"{where}: not JSON: {reason}") from None


def _read_text(path: str) -> str:
    try:
        data = Path(path).read_bytes()
        return (gzip.decompress(data) if path.endswith(".gz") else data).decode("utf-8")
    except FileNotFoundError:
        raise TaskFileError(f"{path}: no such file; allowed: {_FORMS}") from None
    except UnicodeDecodeError:
        raise TaskFileError(f"{path}: cannot be read: not UTF-8 text") from None
    except (OSError, EOFError) as error:
        raise TaskFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _from_parquet(path: str) -> Iterator[tuple[str, Any]]:
    parquet = _need("pyarrow.parquet", path, "pyarrow")
    if not Path(path).is_file():
        raise TaskFileError(f"{path}: no such file; allowed: {_FORMS}")
    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield f"{path}, record {number}", record
    except (OSError, ValueError) as error:
        raise TaskFileError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None


def _from_hub(path: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    name, _, split = path.removeprefix(HUB).partition(":")
    datasets = _need("datasets", path, "datasets")
    split = split or str(options.get("split") or "train")
    wanted = {key: options[key] for key in ("revision", "data_files") if options.get(key) is not None}
    try:
        data = datasets.load_dataset(name, options.get("config"), split=split, **wanted)
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise TaskFileError(f"{path}: the hub did not give split {split} of {name}: {told[:200]}") from None
    for number, record in enumerate(data, start=1):
        yield f"{path}, record {number}", dict(record)


def _need(module: str, path: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise TaskFileError(f"{path}: reading it needs the package {package}: pip install {package}") from None
