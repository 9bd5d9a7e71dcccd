"""Records as adapters find them: a file, or a data set of the Hugging Face hub."""

from collections.abc import Iterator, Mapping
from typing import Any

from sdpo.errors import TaskFileError
from sdpo.plain_values import plain_record
from sdpo.records import FORMS, PARQUET, TEXT, need, read_file
from sdpo.show import show

READ_OPTIONS = ("split", "config", "revision", "data_files", "limit")
"""Options of `read_records`, which every adapter takes. All but `limit` are for hub data sets."""

HUB = "hub:"


def read_records(path: str, options: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, record) of every record, in order; `where` starts error messages: "train.jsonl, line 3".

    Reads what `sdpo.records.read_file` reads, and `hub:NAME[:SPLIT]` through the `datasets` package. Of `options` only
    READ_OPTIONS are looked at: `limit` (the first this many records), and for the hub `split` (default train),
    `config`, `revision` and `data_files`. Raises TaskFileError for what cannot be read.
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
    if not path.endswith((*TEXT, PARQUET)):
        raise TaskFileError(f"{path}: allowed: {FORMS}, or {HUB}NAME:SPLIT of the Hugging Face hub")
    return read_file(path)


def _from_hub(path: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    name, _, split = path.removeprefix(HUB).partition(":")
    datasets = need("datasets", path, "datasets")
    split = split or str(options.get("split") or "train")
    wanted = {key: options[key] for key in ("revision", "data_files") if options.get(key) is not None}
    try:
        data = datasets.load_dataset(name, options.get("config"), split=split, **wanted)
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise TaskFileError(f"{path}: the hub did not give split {split} of {name}: {cause[:200]}") from None
    for number, record in enumerate(data, start=1):
        where = f"{path}, record {number}"
        yield where, plain_record(where, record)
