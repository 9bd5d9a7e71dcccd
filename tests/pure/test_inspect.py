"""`sdpo inspect`: the list, one attempt in full, the errors when nothing matches."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.cli import main
from orchestrator.commands.inspect.show import show_attempt
from tests.fixtures.sample import sample_of, verdict_of, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    telling = sample_of(("a", " -", "\n[user]", "<|im_end|>"), (0.004, -9.456, None, 1.5), task="sub", sample=3)
    steps = {
        1: [sample_of(), telling],
        4: [sample_of(sample=i, verdict=verdict_of("passed"), response="def f(x):\n    return 1") for i in range(3)],
    }
    return write_run(tmp_path_factory.mktemp("runs") / "run", steps)


def lines_of(capsys: pytest.CaptureFixture[str], run: Path, *arguments: str) -> list[str]:
    assert main(["inspect", str(run), *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_several_attempts_are_a_list_newest_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, *rows = lines_of(capsys, run)
    assert head.split() == ["step", "task", "sample", "verdict", "reward", "tokens", "mean", "credit", "response"]
    assert [row.split()[:4] for row in rows] == [
        ["4", "double", "0", "passed"],
        ["4", "double", "1", "passed"],
        ["4", "double", "2", "passed"],
        ["1", "double", "0", "wrong_answer"],
        ["1", "sub", "3", "wrong_answer"],
    ]
    assert rows[0].endswith("1       3       +0.000       def f(x):↵ return 1")
    assert len(lines_of(capsys, run, "--failure")) == 3
    assert len(lines_of(capsys, run, "--step", "last", "--kind", "passed", "--success")) == 4
    assert lines_of(capsys, run, "--limit", "2")[3].startswith("the first 2; ")


def test_one_attempt_is_printed_in_full_without_colours_in_a_pipe(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = "\n".join(line.rstrip() for line in lines_of(capsys, run, "--task", "sub"))
    assert "\x1b" not in printed
    for part in (
        "== step 1, task sub, attempt 3 ==",
        "== response ==\na -\n[user]<|im_end|>",
        "mean -2.651 nats; teacher of weights 1.0\n",
        "failure: wrong_answer, reward 0.0, advantage in the group -0.500",
        "== feedback ==\nExpected: 4",
        "== demonstration: attempt 5 at the same task ==\nreturn x + x",
        "Correct solution:\nreturn x + x<|im_end|>\n<|im_start|>assistant",
    ):
        assert part in printed
    rows = [line.split() for line in printed.splitlines() if line.strip()[:1].isdecimal()]
    assert rows == [
        ["2", "·-", "-1.000", "-10.456", "-9.456", "0.500"],
        ["4", "<|im_end|>", "-1.000", "0.500", "+1.500", "0.500"],
    ], "the strongest tokens alone"
    all_rows = [
        line.split() for line in lines_of(capsys, run, "--task", "sub", "--tokens") if line[:8].strip().isdecimal()
    ]
    assert [row[:2] for row in all_rows] == [["1", "a"], ["2", "·-"], ["3", "↵[user]"], ["4", "<|im_end|>"]]
    assert len(all_rows[2]) == 2, "no numbers where the environment wrote"


def test_a_terminal_gets_red_for_blame_and_blue_for_credit_and_no_codes_of_the_models(run: Path) -> None:
    sample = sample_of(("ok", "bad", "\x1b[2J\u202e"), (2.0, -3.0, 0.0), feedback="\x1b]0;title\x07")
    screen = io.StringIO()
    show_attempt(
        Console(file=screen, force_terminal=True, color_system="truecolor", width=100), sample, all_tokens=False
    )
    printed = screen.getvalue()
    assert "48;2;20;95;215mok\x1b[0m" in printed
    assert "\x1b[4;38;2;255;255;255;48;2;205;30;40mbad\x1b[0m" in printed
    assert "‹U+001B›[2J‹U+202E›" in printed
    assert "‹U+001B›]0;title‹U+0007›" in printed
    assert "\x1b[2J" not in printed
    assert "\x1b]" not in printed


def test_attempts_without_a_teacher_say_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {1: [sample_of(teacher=None, hindsight=None)]})
    printed = "\n".join(lines_of(capsys, run))
    assert "The objective of this run asks no teacher: every token of the attempt has the same weight" in printed
    assert "hindsight prompt" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--kind", "passd"],
            "--kind passd: no attempt of a recorded step in RUN has it; allowed: passed, wrong_answer",
        ),
        (
            ["--step", "first", "--kind", "passed"],
            "no attempt of the first recorded step in RUN has it; allowed: wrong",
        ),
        (["--task", "x", "--step", "4"], "--task x: no attempt of step 4 in RUN has it; allowed: double"),
        (["--sample", "9"], "--sample 9: no attempt of a recorded step in RUN has it; allowed: 0, 1, 2, 3"),
        (["--step", "2"], "step=2: RUN holds no samples of it; allowed: a step from 1 to 4 that was recorded"),
        (["--success", "--task", "sub"], "--success: no attempt of a recorded step in RUN matches it together with"),
        (["--sample", "2", "--task", "sub"], "RUN: no attempt of a recorded step matches all filters together"),
    ],
)
def test_filters_that_match_nothing(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["inspect", str(run), *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err.replace(str(run), "RUN")
    assert printed.err.count("\n") == 1
