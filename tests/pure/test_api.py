"""Runs from Python: what a config is made of, and where a run may be started and stopped. No run is started here."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import orchestrator.train
from orchestrator.api import compare, configure, judge_many, open_run, train
from orchestrator.control.stop_signals import Stop, StopHandle, signals_to, stoppable
from sdpo.config import GrpoObjective, RunConfig
from sdpo.errors import ConfigError, RunInterrupted
from tests.fixtures.report import heldout, step_record, write_report_run

ROOT = Path(__file__).parents[2]
RUN_FILE = ROOT / "examples/tinycoder.yaml"


def test_a_config_is_a_run_file_with_changes() -> None:
    config = configure(RUN_FILE, {"batch.tasks": 3}, learner__optimizer__learning_rate=1e-3, dir=Path("/tmp/x"))
    assert (config.steps, config.batch.tasks, config.dir) == (48, 3, "/tmp/x")
    assert config.learner.optimizer.learning_rate == 1e-3
    again = configure(config, objective__kind="grpo")
    assert isinstance(again.objective, GrpoObjective)
    assert config.objective.kind == "sdpo", "the first one is as it was"
    assert configure() == RunConfig()
    data = {"batch": {"tasks": 2}}
    assert configure(data, {"batch.tasks": 4}).batch.tasks == 4
    assert data == {"batch": {"tasks": 2}}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"batch.task": 3}, "batch.task"),
        ({"steps": "3"}, 'steps="3": allowed: an integer'),
        ({"env.code": "mine.py"}, r"env.code=mine.py: allowed: a list of strings, for example \[one, two\]"),
        ({"steps": object()}, "steps: allowed: mappings, lists"),
        ({"a..b": 1}, "'a..b': allowed: dotted keys"),
        ({"learner.optimizer.learning_rate": float("nan")}, "learning_rate=NaN: allowed: a number above 0"),
    ],
)
def test_bad_configs_are_config_errors(changes: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        configure(RUN_FILE, changes)


@pytest.mark.parametrize("source", [5, None, ["a"], True])
def test_what_is_no_config_is_named(source: object) -> None:
    with pytest.raises(ConfigError, match=r"^source=.* \((int|NoneType|list|bool)\): allowed: the path of a run file"):
        configure(source)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^config=.*: allowed: a RunConfig, made by configure"):
        train(source)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^config=.*: allowed: a RunConfig, made by configure"):
        judge_many(source, [])  # type: ignore[arg-type]


def test_results_are_shown_and_compared(tmp_path: Path) -> None:
    records = [step_record(0) | heldout(0.25), step_record(1) | heldout(0.5)]
    folders = [
        write_report_run(tmp_path / f"run-{rate}", records, [f"learner.optimizer.learning_rate={rate}", f"seed={seed}"])
        for seed, rate in enumerate((0.001, 0.002))
    ]
    results = [open_run(folder) for folder in folders]
    assert repr(results[0]).startswith(f"<RunResult {folders[0]}: step 1 of ")
    assert "held-out pass@1 0.250 -> 0.500, not complete>" in repr(results[0])
    first, second = compare(results)
    assert (first["pass@1 before"], first["pass@1 after"], first["step"], first["reward after"]) == (0.25, 0.5, 1, None)
    assert [row["learner.optimizer.learning_rate"] for row in (first, second)] == [0.001, 0.002]
    assert [row["seed"] for row in (first, second)] == [0, 1]
    assert "steps" not in first, "only settings that differ"


def test_a_metric_that_was_never_recorded_is_named(tmp_path: Path) -> None:
    result = open_run(write_report_run(tmp_path / "run", [step_record(1) | heldout(0.5)]))
    assert result.series("heldout/pass@1") == [(1, 0.5)]
    with pytest.raises(ConfigError, match=r"^metric heldout/pas@1: no step of .* has it; nearest: heldout/pass@1; "):
        result.series("heldout/pas@1")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="allowed: a run directory"):
        open_run(tmp_path)


class Waiting:
    """In place of a run: waits until it is asked to stop, as one does, or until `end` is set."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.started, self.end = threading.Event(), threading.Event()

    def run(self, config: RunConfig, stop_handle: StopHandle | None = None) -> Path:
        asyncio.run(self._wait(stop_handle))
        return self._folder

    async def _wait(self, stop_handle: StopHandle | None) -> None:
        main = asyncio.current_task()
        assert main is not None
        stop = Stop(asyncio.Event(), main)
        with stoppable(stop, stop_handle):
            self.started.set()
            deadline_s = time.monotonic() + 20
            while not self.end.is_set():
                assert time.monotonic() < deadline_s, "nobody asked it to stop"
                await asyncio.sleep(0.01)
                if stop.event.is_set():
                    raise RunInterrupted("stopped after step 1")

    def interrupt(self) -> None:
        """Ctrl-C as soon as it runs."""

        def send() -> None:
            if self.started.wait(20):
                os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=send, daemon=True).start()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Waiting:
    (tmp_path / "config.yaml").touch()
    instead = Waiting(tmp_path)
    monkeypatch.setattr(orchestrator.train, "run", instead.run)
    return instead


def as_in_a_notebook(call: Callable[[], object]) -> None:
    async def cell() -> None:
        call()

    asyncio.run(cell())


def as_in_a_script(call: Callable[[], object]) -> None:
    call()


@pytest.mark.parametrize("place", [as_in_a_notebook, as_in_a_script])
def test_an_interrupt_stops_the_run_and_signals_are_as_before(
    place: Callable[[Callable[[], object]], None], waiting: Waiting
) -> None:
    former = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    waiting.interrupt()
    with pytest.raises(RunInterrupted, match="after step 1"):
        place(lambda: train(RunConfig()))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == former


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_that_ends_a_process_politely_is_a_request_to_stop(number: signal.Signals) -> None:
    heard, former = StopHandle(), signal.getsignal(number)
    requests = list[int]()
    heard.connect(lambda: requests.append(1))
    with signals_to(heard):
        os.kill(os.getpid(), number)
    assert requests == [1]
    assert signal.getsignal(number) is former


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_to(StopHandle()):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_one_run_at_a_time(waiting: Waiting) -> None:
    """The first one is in a thread of its own, where no signal is heard; the second one is refused."""
    results = list[Path]()
    thread = threading.Thread(target=lambda: results.append(train(RunConfig()).path), daemon=True)
    thread.start()
    assert waiting.started.wait(20)
    with pytest.raises(ConfigError, match="one after another"):
        train(RunConfig())
    waiting.end.set()
    thread.join(20)
    assert len(results) == 1


def test_a_switch_that_was_asked_before_the_run_listens() -> None:
    heard = list[float]()
    stop_handle = StopHandle()
    stop_handle.ask()
    stop_handle.connect(lambda: heard.append(time.monotonic()))
    assert len(heard) == 1
    stop_handle.ask()
    assert len(heard) == 2
