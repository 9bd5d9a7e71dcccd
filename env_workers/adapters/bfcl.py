"""The Berkeley Function Calling Leaderboard (BFCL): questions of one turn with the calls that answer them.

A record of a question file: `id`, `question` (a list of turns, each a list of {role, content}) and `function` (tools,
with the leaderboard's own names of types). Its answer, `ground_truth`, is a record of the same id in the answer file:
the file of the same name in the folder `possible_answer` beside it, or the one of the option `answers`.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from env_workers.adapters import Purpose
from env_workers.adapters.bfcl_answers import Unsupported, expected_calls
from env_workers.adapters.bfcl_schemas import tool_of
from env_workers.adapters.fields import Options, list_field, text_field
from env_workers.adapters.function_calling import matching_task, tools_option
from env_workers.adapters.records import HUB, read_records
from sdpo.errors import TaskFileError
from sdpo.paths import expanded
from sdpo.records import read_file
from sdpo.show import show_names
from sdpo.types import Task

NO_CALL = "irrelevance"
ANY_CALL = "relevance"
"""Ends of the categories of records without an answer: no call is right, any call is right."""
MAX_NAMES = 5
log = logging.getLogger(__name__)


def bfcl(path: str, purpose: Purpose, options: Mapping[str, Any]) -> Iterator[Task]:
    """Yield one task a record for `tool_matching`. `tools`: as of `function_calling`.

    `unsupported`: what becomes of a record whose answer cannot be expressed or that no answer satisfies: refuse
    (default), skip (they are counted, named and logged).
    """
    chosen = Options("bfcl", options, ("answers", "unsupported", "tools"))
    place = tools_option(chosen)
    skip = chosen.choice("unsupported", ("refuse", "skip"), "refuse") == "skip"
    answers, source = _answers(path, chosen)
    skipped = []
    for where, record in read_records(path, options):
        name = text_field(where, record, "id")
        try:
            yield _task(where, name, record, place, answers, source)
        except Unsupported as error:
            if not skip:
                raise TaskFileError(f"{where}: {name}: {error}; allowed: tasks.options.unsupported=skip") from None
            skipped.append(name)
    if skipped:
        log.warning("%s: skipped %d records: %s", path, len(skipped), show_names(skipped, MAX_NAMES))


def _answers(path: str, chosen: Options) -> tuple[Mapping[str, Any], str]:
    """Return id -> ground truth, and the file's name. Without `answers` the file may be missing."""
    beside = "" if path.startswith(HUB) else str(Path(path).parent / "possible_answer" / Path(path).name)
    file = expanded(chosen.text("answers")) if chosen.has("answers") else beside
    if not file or (file == beside and not Path(file).exists()):
        return {}, file or "the option answers"
    found = {}
    for where, record in read_file(file):
        if not isinstance(record, dict):
            raise TaskFileError(f"{where}: allowed: an object with id and ground_truth")
        found[text_field(where, record, "id")] = list_field(where, record, "ground_truth")
    return found, file


def _task(
    where: str, name: str, record: Mapping[str, Any], place: str, answers: Mapping[str, Any], source: str
) -> Task:
    turns, functions = list_field(where, record, "question"), record.get("function")
    if len(turns) != 1:
        raise Unsupported(f"its question has {len(turns)} turns, not one")
    if not isinstance(functions, list) or not functions:
        raise Unsupported("it has no tools under function")
    tools = [tool_of(where, function) for function in functions]
    expected = _expected(where, name, tools, answers, source)
    payload = {"expected": expected, "strings": "loose", "numbers": "typed"}
    return matching_task(name, where, {"messages": turns[0]}, tools, payload, place)


def _expected(
    where: str, name: str, tools: list[dict[str, Any]], answers: Mapping[str, Any], source: str
) -> list[dict[str, Any]]:
    if name in answers:
        return expected_calls(where, answers[name], {tool["name"]: tool["parameters"] for tool in tools})
    category = name.rpartition("_")[0].rpartition("_")[2]
    if category == NO_CALL:
        return []
    if category == ANY_CALL:
        raise Unsupported("any call is right, and none is given")
    raise TaskFileError(f"{where}: {name}: no ground_truth for this id; allowed: one in {source}")
