"""In the helper: puzzles of reasoning-gym, made and scored by their own code.

A puzzle is named by data set, seed, size, config and index, and made anew where it is scored: what scorers look at is
often no JSON. Scorers that evaluate the answer as Python are not asked (see `env_workers.reasoning.REFUSED`).
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import reasoning_gym
from reasoning_gym.factory import DATASETS

from env_workers.verifier.seal import GUARD
from sdpo.own_code import nearest

_WHOLE, _NUMBER = re.compile(r"[+-]?\d+", re.ASCII), re.compile(r"[+-]?\d*\.?\d+", re.ASCII)


def warm_up() -> None:
    """Nothing to do: importing the package is all."""


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return, of a puzzle, `question` and, where `given` is an answer to it, `score` (0 to 1), `form` and `facts`.

    form: what the right answer is where `given` is not (a whole number, a number), else None. facts: what the puzzle's
    metadata says about its difficulty, in words. {"error": ...} where there is no such puzzle.
    """
    name = request["dataset"]
    if name not in DATASETS:
        return {"error": f"there is no data set {name}{nearest(name, DATASETS)}"}
    with GUARD.opened():
        try:
            dataset = _dataset(name, request["seed"], request["size"], json.dumps(request["config"]))
            entry = dataset[request["index"]]
        except TypeError as error:  # a setting that the data set does not have, named by the constructor
            return {"error": _unknown_setting(name, request["config"]) or f"{type(error).__name__}: {error}"}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
    result = {"question": str(entry["question"])}
    given, key = request.get("given"), entry["answer"]
    if given is None:
        return result
    score = float(dataset.score_answer(given, entry))
    facts = [fact for fact in _facts(entry["metadata"].get("difficulty")) if not _reveals(fact, key)]
    return {**result, "score": min(max(score, 0.0), 1.0), "form": _form(given, key), "facts": facts}


def _unknown_setting(name: str, config: Mapping[str, Any]) -> str:
    """Return a line about the first key of `config` that the data set's own config lacks; "" if it has all."""
    known = [field.name for field in dataclasses.fields(DATASETS[name][1]) if field.name not in ("seed", "size")]
    for key in config:
        if key not in known:
            return f"tasks.options.config.{key}: unknown{nearest(key, known)}; allowed: {', '.join(known)}"
    return ""


@lru_cache(maxsize=16)
def _dataset(name: str, seed: int, size: int, config: str) -> Any:
    return reasoning_gym.create_dataset(name, seed=seed, size=size, **json.loads(config))


def _facts(difficulty: Any) -> list[str]:
    if not isinstance(difficulty, Mapping):
        return []
    return [f"{str(name).replace('_', ' ')} {text}" for name, value in difficulty.items() if (text := _range(value))]


def _range(value: Any) -> str | None:
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int | float) for v in value):
        return f"{value[0]}" if value[0] == value[1] else f"{value[0]} to {value[1]}"
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _reveals(fact: str, key: Any) -> bool:
    return isinstance(key, str) and re.search(rf"(?<!\w){re.escape(key.strip())}(?!\w)", fact) is not None


def _form(given: str, key: Any) -> str | None:
    for pattern, name in ((_WHOLE, "a whole number"), (_NUMBER, "a number")):
        if isinstance(key, str) and pattern.fullmatch(key.strip()):
            return None if pattern.fullmatch(given) else name
    return None
