"""Puzzles of a package with the face of reasoning-gym (a small one is written here), made and scored in the helper."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from env_workers.adapters.reasoning_gym import reasoning_gym
from env_workers.environment import Context, Reply
from env_workers.reasoning import ReasoningGymEnvironment
from sdpo.config import EnvConfig
from sdpo.errors import InfrastructureError, TaskFileError
from sdpo.types import Task, Verdict

FACTORY = """
from dataclasses import dataclass
from random import Random


@dataclass
class SumsConfig:
    seed: int = 0
    size: int = 500
    most: int = 9


class Sums:
    def __init__(self, seed, size, most=9):
        assert most > 0, "most must be positive"
        self.seed, self.most = seed, most

    def __getitem__(self, index):
        rng = Random(self.seed + index)
        a, b = eval("rng.randint(1, self.most)"), rng.randint(1, self.most)
        names = list({"Ann", "Bob", "Cleo", "Dan"})
        metadata = {"pair": (a, b), "difficulty": {"max_term": (1, self.most), "key": a + b}}
        return {"question": f"{names}: {a} + {b}?", "answer": str(a + b), "metadata": metadata}

    def score_answer(self, answer, entry):
        a, b = entry["metadata"]["pair"]
        assert type(entry["metadata"]["pair"]) is tuple
        if answer.startswith("eval "):
            return eval(answer[5:])
        return 1.0 if int(answer) == a + b else 0.2


DATASETS = {"sums": (Sums, SumsConfig), "n_queens": (Sums, SumsConfig)}
"""


@pytest.fixture(autouse=True)
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reasoning_gym"
    folder.mkdir()
    (folder / "factory.py").write_text(FACTORY)
    (folder / "__init__.py").write_text(
        "from reasoning_gym.factory import DATASETS\n"
        "def create_dataset(name, **settings):\n    return DATASETS[name][0](**settings)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def environment() -> Iterator[ReasoningGymEnvironment]:
    made = ReasoningGymEnvironment(Context(config=EnvConfig(), sandbox=None))  # type: ignore[arg-type]
    yield made
    made._verifier.close()


def load(purpose: Any = "train", path: str = "sums", **options: Any) -> list[Task]:
    return list(reasoning_gym(path, purpose, options))


def test_a_puzzle_is_made_anew_and_scored_by_its_own_code(environment: ReasoningGymEnvironment) -> None:
    """Its key and its metadata are in no task; the order of a set in its question is the same in every helper."""
    task = load(size=2, config={"most": 99})[1]
    assert set(task.payload) == {"dataset", "seed", "size", "config", "index", "question_sha256"}
    environment.check(task)
    question = task.messages[1].content
    key = sum(int(word.strip("?")) for word in question.split(":")[1].split(" + "))

    def judge(text: str, truncated: bool = False) -> Verdict:
        return environment.judge(task, Reply(text=text, truncated=truncated))

    assert judge(f"Hm.\n<answer>\n{key}\n</answer>").success
    wrong = judge(f"<answer>{key + 1}</answer>")
    assert (wrong.kind, wrong.reward, wrong.success) == ("wrong_answer", 0.2, False)
    assert "It is partly right, worth 0.20 of 1." in wrong.feedback
    assert "How hard the puzzle is: max term 1 to 99." in wrong.feedback
    assert str(key) not in wrong.feedback.replace(str(key + 1), "")
    unread = judge("<answer>many</answer>")
    assert (unread.reward, unread.kind) == (0.0, "wrong_answer")
    assert "could not be read" in unread.feedback
    assert judge("<answer>eval 1.0</answer>").reward == 0.0
    assert judge("42").kind == "wrong_format"
    assert judge("42", truncated=True).kind == "truncated"


def test_another_version_of_the_package_is_found_out(environment: ReasoningGymEnvironment) -> None:
    (task,) = load(size=1)
    other = Task(id="t", messages=(), environment="reasoning_gym", payload={**task.payload, "question_sha256": "0"})
    with pytest.raises(InfrastructureError, match="is it another version"):
        environment.judge(other, Reply(text="<answer>1</answer>"))


def test_held_out_puzzles_are_others() -> None:
    train, heldout = load(size=3), load("heldout", size=3, heldout_size=2)
    assert {task.payload["seed"] + task.payload["index"] for task in train} == {0, 1, 2}
    assert [task.payload["seed"] for task in heldout] == [1_000_000] * 2
    with pytest.raises(TaskFileError, match="heldout_seed=2: held-out puzzles would be training puzzles"):
        load(size=3, heldout_seed=2)


@pytest.mark.parametrize(
    ("path", "options", "line"),
    [
        ("n_queens", {}, "its scorer runs the answer as Python"),
        ("summs", {}, "there is no data set summs; nearest: sums"),
        ("sums", {"config": {"mots": 5}}, r"tasks.options.config.mots: unknown; nearest: most; allowed: most"),
        ("sums", {"config": {"most": 0}}, "AssertionError: most must be positive"),
        ("sums", {"split": "train"}, "tasks.options.split: for records only"),
    ],
)
def test_what_cannot_be_made_is_told(path: str, options: dict[str, Any], line: str) -> None:
    with pytest.raises(TaskFileError, match=line):
        load(path=path, **options)
