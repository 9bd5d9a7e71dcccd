"""Code of the user's own: it travels as it lay on the disk, and what is wrong with it is one line."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from env_workers import code_bundle
from env_workers.answers import checked, of_environment, with_success
from env_workers.environment import Observation, check_task
from env_workers.feedback_policy import apply
from sdpo.config import EnvConfig
from sdpo.errors import ConfigError, EnvironmentFault, InfrastructureError, TaskFileError
from sdpo.types import Message, Task, Verdict

RIDDLES = """
from env_workers.environment import SingleTurnEnvironment
from sdpo.errors import TaskFileError
from sdpo.types import Verdict

ANSWER = {answer!r}

class Riddle(SingleTurnEnvironment):
    @classmethod
    def check(cls, task):
        if task.payload.get("bad"):
            raise TaskFileError("a riddle needs an answer")
        task.payload["answer"]

    def judge(self, task, reply):
        right = reply.text == ANSWER
        return Verdict(reward=float(right), success=right, kind="right" if right else "wrong")

class Half(SingleTurnEnvironment):
    pass

class Baseless:
    def judge(self, task, reply): ...

not_a_class = 3
"""


def task(environment: str = "riddles_of_mine:Riddle", **payload: Any) -> Task:
    return Task(id="t1", messages=(Message(role="user", content="?"),), environment=environment, payload=payload)


@pytest.fixture
def unpacked() -> Iterator[Any]:
    """Unpacks code bundles; everything is removed and forgotten in the end."""
    folders, before = [], set(sys.modules)

    def unpack(bundle: code_bundle.CodeBundle) -> Path:
        folder = code_bundle.unpack(bundle)
        assert folder is not None
        folders.append(folder)
        return folder

    yield unpack
    for folder in folders:
        code_bundle.discard(folder)
        assert not folder.exists()
    for name in set(sys.modules) - before:
        if name.startswith(("riddles_of_mine", "worlds_of_mine")):
            del sys.modules[name]


@pytest.fixture
def riddles(tmp_path: Path) -> Path:
    file = tmp_path / "riddles_of_mine.py"
    file.write_text(RIDDLES.format(answer="an echo"))
    return file


def test_files_and_packages_travel_and_a_changed_file_is_the_new_one(
    tmp_path: Path, riddles: Path, unpacked: Any
) -> None:
    package = tmp_path / "worlds_of_mine"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__pycache__" / "old.cpython-311.pyc").write_bytes(b"stale")
    (package / ".git").write_text("hidden")
    (package / "__init__.py").write_text("")
    (package / "words.txt").write_text("an echo")
    (package / "capital.py").write_text(
        "from pathlib import Path\nfrom .other import X\nWORDS = (Path(__file__).parent / 'words.txt').read_text()\n"
    )
    (package / "other.py").write_text("X = 1\n")
    paths = [str(riddles), str(package)]
    first = code_bundle.pack(paths)
    assert [name for name, _ in first.files] == [
        "riddles_of_mine.py",
        *(f"worlds_of_mine/{name}" for name in ("__init__.py", "capital.py", "other.py", "words.txt")),
    ]
    folder = unpacked(first)
    import riddles_of_mine  # type: ignore[import-not-found]
    import worlds_of_mine.capital  # type: ignore[import-not-found]

    assert Path(riddles_of_mine.__file__).parent == folder
    assert worlds_of_mine.capital.WORDS == riddles_of_mine.ANSWER == "an echo"
    riddles.write_text(RIDDLES.format(answer="the wind"))
    second = code_bundle.pack(paths)
    assert len({first.digest, second.digest, code_bundle.NO_CODE.digest}) == 3
    unpacked(second)
    import riddles_of_mine

    assert riddles_of_mine.ANSWER == "the wind"


def test_the_folder_of_a_killed_process_is_swept(riddles: Path, unpacked: Any) -> None:
    code = (
        "import os, sys\nfrom env_workers import code_bundle\n"
        f"print(code_bundle.unpack(code_bundle.pack([{str(riddles)!r}])), flush=True)\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    left = Path(done.stdout.strip())
    held = unpacked(code_bundle.pack([str(riddles)]))
    code_bundle.sweep()
    assert not left.exists()
    assert not list(left.parent.glob(f"*{left.name}*"))
    assert (held / "riddles_of_mine.py").is_file()


def test_what_cannot_travel_is_one_line(tmp_path: Path, riddles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("notes.txt", "json.py", "numpy.py", "my-world.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "typo_of_mine.py").write_text("x = 1\ndef f(:\n")
    other = tmp_path / "other" / riddles.name
    other.parent.mkdir()
    other.write_text("")
    for paths, line in [
        (["gone.py"], r"env\.code=.*gone\.py: no such file or folder"),
        (["notes.txt"], r"env\.code=.*notes\.txt: allowed: Python files"),
        (["json.py"], r"env\.code=.*json\.py: would hide the installed module json; rename it"),
        (["numpy.py"], r"would hide the installed module numpy"),
        (["my-world.py"], r"'my-world' is no name that Python can import"),
        (["empty"], r"env\.code=.*empty: holds no Python file"),
        (["typo_of_mine.py"], r"env\.code=.*typo_of_mine\.py: line 2: "),
        ([riddles.name, f"other/{riddles.name}"], r"two entries would be imported as riddles_of_mine"),
    ]:
        with pytest.raises(ConfigError, match=line):
            code_bundle.pack([str(tmp_path / path) for path in paths])
    monkeypatch.setattr(code_bundle, "MAX_MIB", 0)
    with pytest.raises(ConfigError, match="at most 0 MiB"):
        code_bundle.pack([str(riddles)])


def test_what_is_no_environment_is_one_line(riddles: Path, unpacked: Any) -> None:
    unpacked(code_bundle.pack([str(riddles)]))
    check_task(task(answer="an echo"))
    for name, line in [
        ("Ridle", r"riddles_of_mine has no Ridle; nearest: Riddle"),
        ("Half", r"is no environment: it has no method judge"),
        ("Baseless", r"is no environment: it does not subclass SingleTurnEnvironment"),
        ("not_a_class", r"is no environment: it is int, not a class"),
    ]:
        with pytest.raises(TaskFileError, match=f"task t1: .*{line}"):
            check_task(task(f"riddles_of_mine:{name}"))
    with pytest.raises(TaskFileError, match=r"cannot be imported: ModuleNotFoundError: .*; is its file in env\.code\?"):
        check_task(task("ridles_of_mine:Riddle"))
    with pytest.raises(TaskFileError, match=r"environment 'code_rety' does not exist; nearest: code_retry; allowed: "):
        check_task(task("code_rety"))
    with pytest.raises(TaskFileError, match="a riddle needs an answer"):
        check_task(task(bad=True))
    with pytest.raises(
        TaskFileError,
        match=r"task t1: check raised KeyError: 'answer' \(riddles_of_mine\.py, line \d+, in check\)",
    ):
        check_task(task())


def good(**changes: Any) -> Verdict:
    values: dict[str, Any] = {"reward": 1.0, "success": True, "kind": "right"}
    return Verdict(**(values | changes))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "judge gave NoneType: allowed: a Verdict"),
        (0.5, "judge gave float: allowed: a Verdict"),
        (good(reward="1"), r"judge gave reward=1 \(str\): allowed: a finite number"),
        (good(reward=float("nan")), r"reward=NaN \(float\): allowed: a finite"),
        (good(reward=None), r"reward=none \(NoneType\)"),
        (good(success=1), r"success=1 \(int\): allowed: true, false"),
        (good(kind=""), "kind="),
        (good(feedback=None), r"feedback=none \(NoneType\): allowed: a string"),
        (good(details=[1]), "details="),
        (good(details={"a": {1}}), r"details=.*: allowed: a mapping that JSON can hold"),
        (good(infrastructure_error="away"), "reward=1.0: allowed: none, with an infrastructure_error"),
        (Observation(messages=()), "judge gave Observation: allowed: a Verdict; set observation_role"),
    ],
)
def test_what_is_no_verdict_is_never_a_reward(answer: Any, told: str) -> None:
    with pytest.raises(EnvironmentFault, match=f"environment riddles_of_mine:Riddle, task t1: .*{told}"):
        checked(task(), answer, None, "judge")


def test_whole_answers_pass() -> None:
    verdict = checked(task(), good(reward=np.float32(0.5), success=np.bool_(True)), None, "judge")
    assert verdict == good(reward=0.5)
    assert type(verdict.reward) is float
    unset = Verdict(reward=0.5, kind="scored")
    assert checked(task(), unset, None, "judge") == unset
    assert [with_success(unset, threshold).success for threshold in (0.4, 0.5, 0.6)] == [True, True, False]
    assert with_success(good(reward=0.1), 0.5).success
    assert not with_success(good(reward=0.9, success=False), 0.5).success
    assert with_success(Verdict(reward=None, kind="x", infrastructure_error="away"), 0.5).success is False
    broken = good(reward=None, success=False, infrastructure_error="the judge service is away")
    assert checked(task(), broken, None, "judge") is broken
    said = Observation(messages=(Message(role="tool", content="3"),))
    assert checked(task(), said, "tool", "step") is said
    with pytest.raises(EnvironmentFault, match="Messages of role user"):
        checked(task(), said, "user", "step")


def test_a_judge_that_raises_is_a_fault_of_its_author() -> None:
    for raised in (ValueError("no\nsuch riddle"), SystemExit(0)):
        told = rf"task t1: step raised {type(raised).__name__}: .*test_own_environments.py, line \d+, in "
        with pytest.raises(EnvironmentFault, match=told), of_environment(task(), "step"):
            raise raised
    with pytest.raises(InfrastructureError), of_environment(task(), "step"):
        raise InfrastructureError("the judge service is away")
    with pytest.raises(KeyError), of_environment(task("code"), "step"):
        raise KeyError("a bug of this project's own")


def test_the_feedback_switch() -> None:
    failed = good(reward=0.0, success=False, kind="wrong_answer", feedback="h" * 900 + "\ud800" + "t" * 99)
    config = EnvConfig(max_feedback_chars=100)
    assert apply(failed, config.model_copy(update={"feedback": "none"})).feedback == ""
    outcome = config.model_copy(update={"feedback": "outcome"})
    assert apply(failed, outcome).feedback == "Outcome: wrong answer."
    assert apply(good(feedback="well done"), outcome).feedback == ""
    cut = apply(failed, config)
    assert len(cut.feedback) == 100
    assert cut.feedback.startswith("hhhhh")
    assert cut.feedback.endswith("ttttt")
    assert (cut.reward, cut.kind, cut.details) == (failed.reward, failed.kind, failed.details)
    whole = apply(failed, EnvConfig(max_feedback_chars=1000)).feedback
    assert whole == failed.feedback.replace("\ud800", "?")
