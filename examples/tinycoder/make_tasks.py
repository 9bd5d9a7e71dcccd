"""Write tasks/train.jsonl and tasks/heldout.jsonl, from the root: `python -m examples.tinycoder.make_tasks`."""

import json
import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from examples.tinycoder.operations import Kind
from examples.tinycoder.specs import Spec, all_specs, make_task
from sdpo.types import Task

SEED = 7
FOLDER = Path(__file__).parent / "tasks"
HELDOUT_PAIR_SHARE = 0.1
NUM_TRAIN: dict[Kind, int] = {"int": 2200, "str": 1650, "list": 1650}
NUM_HELDOUT: dict[Kind, int] = {"int": 76, "str": 58, "list": 58}


def split_specs(seed: int = SEED) -> tuple[list[Spec], list[Spec]]:
    """(train, held out), shuffled. No unordered pair of families is in both."""
    rng = random.Random(seed)
    specs = all_specs(rng)
    rng.shuffle(specs)
    pairs = sorted({s.families for s in specs if len(set(s.families)) == 2})
    heldout_pairs = set(rng.sample(pairs, round(HELDOUT_PAIR_SHARE * len(pairs))))
    return [s for s in specs if s.families not in heldout_pairs], [s for s in specs if s.families in heldout_pairs]


def make_tasks(specs: list[Spec], wanted: dict[Kind, int], prefix: str, rng: random.Random) -> list[tuple[Spec, Task]]:
    """The first tasks of each kind that can be tested well: single operations first, then the wanted number."""
    counts: Counter[Kind] = Counter()
    made = []
    for spec in sorted(specs, key=lambda s: len(s.operations)):
        if counts[spec.takes] >= wanted[spec.takes]:
            continue
        task = make_task(spec, f"{prefix}-{sum(counts.values()):04d}", rng)
        if task is not None:
            counts[spec.takes] += 1
            made.append((spec, task))
    return made


def train_tasks(seed: int = SEED) -> list[tuple[Spec, Task]]:
    """The training tasks with their specifications, as the file holds them."""
    return make_tasks(split_specs(seed)[0], NUM_TRAIN, "train", random.Random(seed + 1))


def heldout_tasks(seed: int = SEED) -> list[tuple[Spec, Task]]:
    """The held-out tasks with their specifications, as the file holds them."""
    return make_tasks(split_specs(seed)[1], NUM_HELDOUT, "heldout", random.Random(seed + 2))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, made in (("train", train_tasks()), ("heldout", heldout_tasks())):
        lines = [json.dumps(asdict(task), separators=(",", ":")) + "\n" for _, task in made]
        (FOLDER / f"{name}.jsonl").write_text("".join(lines))
        print(f"{name}: {len(lines)} tasks, {sum(map(len, lines)) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
