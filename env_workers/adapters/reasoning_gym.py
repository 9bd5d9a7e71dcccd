"""Puzzles of reasoning-gym. The path is a data set's name, or several with commas between them.

Options: `size`, puzzles of each data set (default 500); `seed`; `config`, the data set's own settings; `heldout_size`
(default 100) and `heldout_seed` (default: 1,000,000 above the seed) for the held-out puzzles, which must be others.
"""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from env_workers.adapters import Purpose
from env_workers.adapters.fields import Options
from env_workers.adapters.records import READ_OPTIONS
from env_workers.reasoning import MISSING, REFUSED, puzzle_verifier, sha256
from env_workers.verifier.host import Overrun, Raised, Verifier
from sdpo.errors import TaskFileError
from sdpo.types import Message, Task

INSTRUCTION = (
    "Solve the puzzle. Think first; then write your final answer, and nothing else, between <answer> and </answer>."
)
_SEED_DISTANCE = 1_000_000


def reasoning_gym(path: str, purpose: Purpose, options: Mapping[str, Any]) -> Iterator[Task]:
    """Yield one task a puzzle: a system message that asks for <answer>, and the puzzle as the user's message."""
    chosen = Options("reasoning_gym", options, ("size", "seed", "config", "heldout_size", "heldout_seed"))
    for key in READ_OPTIONS:
        if key != "config" and chosen.has(key):
            raise TaskFileError(f"tasks.options.{key}: for records only; puzzles are made, see size and seed")
    seed, size = _which(chosen, purpose)
    if find_spec("reasoning_gym") is None:
        raise TaskFileError(f"{path}: tasks.adapter=reasoning_gym {MISSING}")
    verifier = puzzle_verifier()
    try:
        for name in path.split(","):
            yield from _tasks(
                path, name.strip(), {"seed": seed, "size": size, "config": chosen.mapping("config")}, verifier
            )
    finally:
        verifier.close()


def _which(chosen: Options, purpose: Purpose) -> tuple[int, int]:
    """Return seed and size. Puzzle i is made of seed + i: the ranges of training and held-out puzzles must not meet."""
    seed, size = chosen.integer("seed", 0), chosen.integer("size", 500, at_least=1)
    other_seed = chosen.integer("heldout_seed", seed + _SEED_DISTANCE)
    other_size = chosen.integer("heldout_size", 100, at_least=1)
    if seed < other_seed + other_size and other_seed < seed + size:
        raise TaskFileError(
            f"tasks.options.heldout_seed={other_seed}: held-out puzzles would be training puzzles; allowed: at least "
            f"{seed + size}"
        )
    return (seed, size) if purpose == "train" else (other_seed, other_size)


def _tasks(path: str, name: str, settings: Mapping[str, Any], verifier: Verifier) -> Iterator[Task]:
    if name in REFUSED:
        raise TaskFileError(f"{path}: data set {name}: its scorer runs the answer as Python; allowed: any but such")
    for index in range(settings["size"]):
        puzzle = {"dataset": name, **settings, "index": index}
        try:
            result = verifier.ask(puzzle)
        except (Overrun, Raised) as error:
            raise TaskFileError(f"{path}: data set {name}: puzzle {index} cannot be made: {error}") from None
        if "error" in result:
            raise TaskFileError(f"{path}: data set {name}: {result['error']:.300}")
        question = result["question"]
        yield Task(
            id=f"{name}-{settings['seed']}-{index}",
            messages=(Message(role="system", content=INSTRUCTION), Message(role="user", content=question)),
            environment="reasoning_gym",
            payload={**puzzle, "question_sha256": sha256(question)},
        )
