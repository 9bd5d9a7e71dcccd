"""What a person sees of a run while it goes: the estimate, the lines, the display, and a terminal left clean."""

import io
import logging
import os
import pty
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import orchestrator.progress.progress
from orchestrator.events import (
    AlarmRaised,
    AttemptJudged,
    AttemptSampled,
    Event,
    GroupScored,
    IncarnationBegan,
    Message,
    StageEntered,
    StepRecorded,
    emit,
)
from orchestrator.progress.progress import Lines, Screen, open_progress
from orchestrator.progress.safe_output import SafeOutput
from orchestrator.progress.state import RunState
from sdpo.config import RunConfig
from sdpo.health import Alarm
from tests.fixtures.orchestrator import group

CONFIG = RunConfig.model_validate(
    {
        "name": "night",
        "steps": 10,
        "batch": {"tasks": 2, "samples_per_task": 4},
        "evaluation": {"every_steps": 4},
        "tasks": {"heldout": "held.jsonl"},
    }
)
BEFORE = {"heldout/pass@1": 0.125, "heldout/pass@1_low": 0.1, "heldout/pass@1_high": 0.15, "time/evaluate_s": 6.0}
STEP = {
    "rollout/reward": 0.5,
    "train/loss": 0.0123,
    "train/teacher_gap": -0.25,
    "train/grad_norm": 1.5,
    "rollout/response_tokens": 26.4,
    "time/step_s": 9.0,
    "speed/generated_tokens_per_s": 1234.5,
    "health/alarms": 0.0,
}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


BEGIN = IncarnationBegan(steps_done=0, records=[])


def recorded(step: int, metrics: dict[str, Any]) -> Event:
    return StepRecorded(step=step, metrics=metrics)


def judged(batch_index: int | None) -> Event:
    [attempt] = group(0, [True]).attempts
    return AttemptJudged(batch_index=batch_index, header=attempt.header, verdict=attempt.verdict)


def after(state: RunState, clock: Clock, *step_s: float, evaluated: Callable[[int], bool] = lambda step: False) -> None:
    """Steps that took so long each, evaluations of 6 s apart."""
    for seconds in step_s:
        step, took_s = state.steps_done + 1, {"time/evaluate_s": 6.0} if evaluated(state.steps_done + 1) else {}
        state.add("generate", state.steps_done)
        clock.now_s += seconds + took_s.get("time/evaluate_s", 0.0)
        state.step_done(step, took_s)


def test_time_left_is_the_median_step_and_the_evaluations_that_are_due() -> None:
    clock = Clock()
    state = RunState(CONFIG, clock)
    state.begin(0, [])
    state.step_done(0, BEFORE)
    assert state.left_s is None, "nothing is known before the first step"
    after(state, clock, 10, 10, 90, 10, evaluated=lambda step: step == 4)
    assert state.step_s == 10, "one slow step changes nothing, an evaluation is no part of a step"
    assert state.left_s == 6 * 10 + 2 * 6, "evaluations after steps 8 and 10"
    clock.now_s += 7
    assert state.left_s == 6 * 10 + 2 * 6 - 7
    clock.now_s += 500
    assert state.left_s == 5 * 10 + 2 * 6, "a step that hangs does not eat the time of the others"
    state.step_done(5, {})
    after(state, clock, 10, 10, 10, 10, 10)
    assert state.left_s == 0


def test_a_resumed_run_knows_how_long_its_steps_took() -> None:
    records: list[dict[str, Any]] = [
        {"step": 0, **BEFORE},
        *({"step": i, "time/step_s": 12.0 + 6 * (i == 4)} for i in range(1, 6)),
    ]
    records[4]["time/evaluate_s"] = 6.0
    records[5]["rollout/reward"] = None
    state = RunState(CONFIG, Clock())
    state.begin(5, records)
    assert (state.step_s, state.left_s) == (12.0, 5 * 12 + 2 * 6)
    assert state.base["heldout/pass@1"] == 0.125
    assert "rollout/reward" not in state.latest


def test_counts_belong_to_a_batch_and_an_evaluation_starts_at_zero() -> None:
    state = RunState(CONFIG, Clock())
    state.begin(0, [])
    for stage, batch in (("generate", 0), ("generate", 1), ("judge", 0), ("generate", 0), ("evaluate", None)):
        state.add(stage, batch)  # type: ignore[arg-type]
    assert (state.count("generate"), state.count("judge"), state.count("score")) == (2, 1, 0)
    state.enter("evaluate", 8)
    assert state.count("evaluate") == 0
    state.step_done(1, {})
    assert (state.count("generate"), state.count("judge")) == (1, 0), "the next batch began before"


def test_events_are_counted_in_the_stage_that_they_end() -> None:
    state = RunState(CONFIG, Clock())
    events = [BEGIN, AttemptSampled(batch_index=0), AttemptSampled(batch_index=0), judged(0), judged(None)]
    events += [GroupScored(batch_index=0, by=by, num_tokens=9) for by in ("teacher", "reference")]  # type: ignore[arg-type]
    for event in events:
        state.hear(event)
    assert [state.count(stage) for stage in ("generate", "judge", "score", "evaluate")] == [2, 1, 1, 1]  # type: ignore[arg-type]


def test_plain_lines_are_one_a_step() -> None:
    stream, clock = io.StringIO(), Clock()
    lines = Lines(CONFIG, stream, clock)
    lines.hear(BEGIN)
    lines.hear(recorded(0, BEFORE | {"repair/pass@1": 0.9}))
    lines.hear(AttemptSampled(batch_index=0))
    clock.now_s += 9
    lines.hear(recorded(1, STEP))
    lines.hear(AlarmRaised(alarm=Alarm(name="mismatch", step=1, message="[bold]5[/] nats")))
    assert stream.getvalue().splitlines() == [
        "step 0/10  held-out pass@1 0.125  repaired by feedback 0.900",
        "step 1/10  reward 0.500  loss 0.0123  gap -0.250  grad 1.50  tokens 26  s 9.0  tokens/s 1234  left 2 min",
        "ALARM mismatch at step 1: [bold]5[/] nats",
    ]


def shown(screen: Screen) -> str:
    with screen.console.capture() as caught:
        screen.console.print(screen._draw())
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", caught.get())


def test_the_display_shows_where_the_step_is_and_how_the_run_does() -> None:
    clock = Clock()
    screen = Screen(CONFIG, io.StringIO(), clock, width=100, auto_refresh=False)
    screen.hear(BEGIN)
    assert "step 1 of 10" in shown(screen)
    assert "actors are starting" in shown(screen)
    screen.hear(StageEntered(stage="evaluate", expected=16))
    screen.hear(judged(None))
    assert re.search(r"before training.*evaluate +\S+ +1 of 16, 0\.0 s", shown(screen), re.DOTALL)
    screen.hear(recorded(0, BEFORE))
    screen.hear(AttemptSampled(batch_index=0))
    clock.now_s += 10
    screen.hear(recorded(1, STEP))
    for _ in range(5):
        screen.hear(AttemptSampled(batch_index=1))
    screen.hear(judged(1))
    text = shown(screen)
    for part in ("night", "step 2 of 10", "5 of 8", "1 of 8", "0 of 2", "not after this step", "1,234 tokens/s"):
        assert part in text, part
    assert "0.125 (0.100 to 0.150)" in text
    assert "10 s so far, 2 min left" in text
    screen.hear(StageEntered(stage="train"))
    clock.now_s += 2.5
    screen.hear(StageEntered(stage="publish"))
    assert re.search(r"train +━{28} +2\.5 s", shown(screen)), "over, and how long it took"
    screen.hear(recorded(10, STEP))
    assert "all steps done" in shown(screen)
    assert "generate" not in shown(screen)


def test_a_display_that_cannot_be_drawn_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(state: RunState) -> Any:
        raise KeyError("rollout/reward")

    monkeypatch.setattr(orchestrator.progress.progress, "picture", broken)
    stream = io.StringIO()
    screen = Screen(CONFIG, stream, width=100, auto_refresh=False)
    with screen.live:
        screen.live.refresh()
        screen.say("still here")
    assert "no display: KeyError: 'rollout/reward'; the run goes on" in stream.getvalue()
    assert "still here" in stream.getvalue()


def test_a_reader_that_went_away_does_not_end_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        lines = Lines(CONFIG, stream)
        for step in range(3):
            lines.hear(recorded(step, {}))
        print("whoever prints later does not fail either", file=stream, flush=True)
    assert capfd.readouterr().err == "standard output is gone (Broken pipe); the run goes on without it\n"


def test_an_outlet_writes_what_it_is_given(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="utf-8") as stream:
        outlet = SafeOutput(stream)
        assert (outlet.write("één\n"), outlet.isatty(), outlet.encoding) == (4, False, "utf-8")
        outlet.flush()
        assert (tmp_path / "out").read_text(encoding="utf-8") == "één\n"


class Terminal:
    """A pseudo terminal, and what stands on it: enough of one for cursor moves and erased lines."""

    def __init__(self) -> None:
        master, slave = pty.openpty()
        self.stream = open(slave, "w", encoding="utf-8")  # noqa: SIM115
        self._master, self._raw = master, b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                got = os.read(self._master, 65536)
            except OSError:
                return
            if not got:
                return
            self._raw += got

    def close(self) -> str:
        """Everything that was written."""
        self.stream.close()
        self._reader.join(10)
        os.close(self._master)
        return self._raw.decode()


def standing(raw: str) -> list[str]:
    """The lines that stand on the terminal at last."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|[\r\n]|[^\x1b\r\n]+", raw):
        if token == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif token == "\r":
            column = 0
        elif token.startswith("\x1b["):
            if token.endswith("A"):
                row -= int(token[2:-1] or 1)
            elif token.endswith("K"):
                lines[row] = ""
        else:
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + len(token) :]
            column += len(token)
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt])
def test_a_terminal_is_left_clean_and_no_line_is_torn(ending: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    handler = logging.StreamHandler(terminal.stream)
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "90"), ("LINES", "40")):
        monkeypatch.setenv(name, value)
    for name in ("stdout", "stderr", "__stderr__"):
        monkeypatch.setattr(sys, name, terminal.stream)
    monkeypatch.setattr(orchestrator.progress.progress, "REFRESHES_PER_S", 200)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    long_line = "ALARM no_signal at step 3: " + 20 * "many words "
    try:
        with open_progress(CONFIG) as progress:
            assert isinstance(progress, Screen)
            emit(BEGIN)
            emit(recorded(0, BEFORE))
            for step in range(1, 4):
                for _ in range(8):
                    emit(AttemptSampled(batch_index=step - 1))
                    threading.Event().wait(0.01)
                emit(recorded(step, STEP))
            emit(Message(text=long_line))
            print("printed by somebody else")
            logging.getLogger("orchestrator.actors.fleet").warning("env-0 failed and is started again")
            if ending is not None:
                raise ending("over")
    except (RuntimeError, KeyboardInterrupt) as error:
        print(f"ended by {type(error).__name__}")
    finally:
        logging.getLogger().handlers.clear()
        monkeypatch.undo()
    assert handler.stream is terminal.stream, "logging writes where it wrote before"
    raw = terminal.close()
    assert "step 2 of 10" in raw, "there was a display"
    last = [] if ending is None else [f"ended by {ending.__name__}"]
    assert [line for line in standing(raw) if line] == [
        "step 0/10  held-out pass@1 0.125",
        long_line.rstrip(),
        "printed by somebody else",
        "env-0 failed and is started again",
        *last,
    ]
    assert raw.rfind("\x1b[?25h") > raw.rfind("\x1b[?25l") >= 0, "the cursor is back"


@pytest.mark.parametrize(("term", "is_screen"), [("xterm", True), ("dumb", False)])
def test_only_a_terminal_that_can_gets_a_display(term: str, is_screen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    with open_progress(CONFIG) as progress:
        assert isinstance(progress, Screen) is is_screen
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with open_progress(CONFIG) as progress:
        assert type(progress) is Lines
    monkeypatch.undo()
    terminal.close()
