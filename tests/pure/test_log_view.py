"""`sdpo logs`: many files, one story."""

from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.commands.logs.fetch import belongs
from orchestrator.commands.logs.view import Follower, LogFilter, events_of, last_error, merged, shown
from sdpo.log_line import Event


def event(second: int, actor: str, message: str, level: str = "INFO", **about: object) -> Event:
    time = f"2026-11-23T03:20:{second:02d}.000000Z"
    return Event(time=time, level=level, actor=actor, message=message, **about)  # type: ignore[arg-type]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    story = {
        "rollout-0.log.1": [event(1, "rollout-0", "first")],
        "rollout-0.log": [event(4, "rollout-0", "fourth", task="mbpp/11")],
        "rollout-0-r1.log": [event(6, "rollout-0-r1", "sixth", "ERROR")],
        "env-0.log": [event(2, "env-0", "second", step=3, task="mbpp/11"), event(5, "env-0", "fifth", "WARNING")],
        "orchestrator.log": [event(3, "orchestrator", "third", step=3)],
    }
    (tmp_path / "logs").mkdir()
    for name, events in story.items():
        (tmp_path / "logs" / name).write_text("".join(f"{e}\n" for e in events))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "first second third fourth fifth sixth"),
        (["--actor", "rollout-0"], "first fourth sixth"),
        (["--actor", "env"], "second fifth"),
        (["--level", "WARNING"], "fifth sixth"),
        (["--step", "3"], "second third"),
        (["--task", "mbpp/11"], "second fourth"),
        (["--task", "mbpp/11", "--step", "3"], "second"),
    ],
)
def test_lines_of_all_actors_by_time(
    run_dir: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", str(run_dir), *arguments]) == 0
    assert [line.rpartition(" | ")[2] for line in capsys.readouterr().out.splitlines()] == expected.split()


def test_no_logs_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", str(tmp_path)]) == 2
    assert "no logs there" in capsys.readouterr().err


def test_lines_of_another_form_belong_to_the_event_before() -> None:
    lines = ["Ray's own\n", f"{event(1, 'a', 'm')}\n", "Traceback\n", "\n", "  File\n", f"{event(2, 'a', 'n')}\n"]
    assert [e.message for e in events_of(lines)] == ["m\nTraceback\n  File", "n"]


def test_merging_keeps_each_sources_order() -> None:
    sources = [[event(1, "a", "a1"), event(3, "a", "a3")], [event(2, "b", "b2"), event(3, "b", "b3")]]
    assert [e.message for e in merged(sources)] == ["a1", "b2", "a3", "b3"]


def test_a_follower_sees_each_line_once_also_when_a_file_is_rotated(run_dir: Path) -> None:
    follower, folder = Follower(run_dir / "logs"), run_dir / "logs"
    assert len(list(follower.look())) == 6
    assert list(follower.look()) == []
    with (folder / "rollout-0.log").open("a") as file:
        file.write(f"{event(7, 'rollout-0', 'before')}\n")
    (folder / "rollout-0.log").rename(folder / "rollout-0.log.1")
    (folder / "rollout-0.log").write_text(f"{event(8, 'rollout-0', 'after')}\n{event(9, 'rollout-0', 'torn')}")
    assert [e.message for e in follower.look()] == ["before", "after"]
    with (folder / "rollout-0.log").open("a") as file:
        file.write(" and whole\n")
    (folder / "env-9.log").write_text(f"{event(8, 'env-9', 'new')}\n")
    assert [e.message for e in follower.look()] == ["new", "torn and whole"]


def test_the_last_error_is_the_newest_of_all_actors(run_dir: Path) -> None:
    assert last_error(run_dir / "logs") == "2026-11-23T03:20:06Z rollout-0-r1: sixth"
    (run_dir / "logs/rollout-0-r1.log").unlink()
    assert last_error(run_dir / "logs") == "2026-11-23T03:20:05Z env-0: fifth"
    assert last_error(run_dir / "logs", since="2026-11-23T03:20:05.000001Z") is None, "of an earlier start"
    assert last_error(run_dir / "nothing") is None


def test_an_event_in_colours() -> None:
    text = shown(event(6, "env-0", "broke", "ERROR", step=3, task="mbpp/11"))
    assert text.plain == "03:20:06.000 ERROR   env-0          [step 3, mbpp/11] broke"
    assert {str(span.style) for span in text.spans} >= {"bold red", "green"}


def test_an_actor_of_that_name_only() -> None:
    assert LogFilter(actor="env-1").fits(event(1, "env-1-r2", ""))
    assert not LogFilter(actor="env-1").fits(event(1, "env-10", ""))


def test_a_runs_namespaces() -> None:
    assert [n for n in ("demo-1", "demo-12", "demo-x-1", "demo", "other-1") if belongs(n, "demo")] == [
        "demo-1",
        "demo-12",
        "demo",
    ]
    assert belongs("demo-1", "demo-1")
    assert not belongs("demo-11", "demo-1")
