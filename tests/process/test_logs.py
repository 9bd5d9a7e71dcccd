"""Lines of a run's logs: the same from every process, bounded, about the step and task that they name."""

import logging
import logging.config
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdpo import logs
from sdpo.activity import Activity
from sdpo.log_line import Event, LineFormatter, log_context, parse

ACTOR = """
import logging, sys
from sdpo.log_line import log_context
from sdpo.logs import set_up_logging
set_up_logging("env-1")
log = logging.getLogger("env_workers.worker")
with log_context(step=2, task="mbpp/11"):
    log.info("judged")
    log.warning("lost\\ntwo lines")
logging.getLogger("vllm").warning("Triton is installed, but doesn't include CPU backend. Disabling Triton.")
logging.getLogger("some.library").info("chatter")
logging.getLogger("some.library").warning("a real warning")
"""


def as_actor() -> str:
    """What a process that logs as the actor env-1 writes to stderr."""
    return subprocess.run([sys.executable, "-c", ACTOR], capture_output=True, text=True, check=True, timeout=60).stderr


def messages(file: Path) -> list[str]:
    events = [parse(line) for line in file.read_text().splitlines()]
    assert None not in events
    return [event.message for event in events if event is not None]


@pytest.mark.parametrize("task", [None, "mbpp/11", 'two words | a "quote"', "\\n"])
@pytest.mark.parametrize("message", ["plain", "", "a | b", "two\nlines\\n and \\ a backslash\r", 'task="x" | y'])
def test_an_event_survives_its_line(message: str, task: str | None) -> None:
    event = Event(
        time="2026-11-23T03:20:26.123456Z", level="INFO", actor="env-3-r1", message=message, step=7, task=task
    )
    assert "\n" not in str(event)
    assert parse(str(event) + "\n") == event


@pytest.mark.parametrize("line", ["", "Traceback (most recent call last):", "2026-11-23 INFO a | b"])
def test_another_line_is_no_event(line: str) -> None:
    assert parse(line) is None


def test_no_line_holds_a_secret() -> None:
    text, values = "%s cannot be reached with %s", ("https://me:hunter2@host/x", "HF_TOKEN=hf_4711")
    record = logging.LogRecord("sdpo.x", logging.INFO, __file__, 1, text, values, None)
    event = parse(LineFormatter("env-1").format(record))
    assert event is not None
    assert event.message == "https://<hidden>@host/x cannot be reached with HF_TOKEN=<hidden>"


def test_an_actor_logs_where_it_sees_the_drivers_folder(tmp_path: Path) -> None:
    with logs.driver_logging(tmp_path / "logs"):
        assert [event.message for event in map(parse, as_actor().splitlines()) if event] == [
            "lost\ntwo lines",
            "some.library: a real warning",
        ]
        lines = (tmp_path / "logs/env-1.log").read_text().splitlines()
        begun, judged, lost, foreign = [event for event in map(parse, lines) if event]
        assert begun.message.startswith("process ")
        assert (judged.message, judged.step, judged.task, judged.actor) == ("judged", 2, "mbpp/11", "env-1")
        assert (lost.message, lost.level) == ("lost\ntwo lines", "WARNING")
        assert (foreign.message, foreign.step) == ("some.library: a real warning", None)
        (tmp_path / "logs" / logs.MARK).write_text("another machine's folder with the same name")
        assert "judged" in as_actor(), "where the folder is not seen, stderr has it all"
    assert len((tmp_path / "logs/env-1.log").read_text().splitlines()) == 4
    assert logs.VARIABLE not in os.environ


def test_a_drivers_root_logger_is_as_before(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = [(handler, handler.level) for handler in root.handlers], logging.getLogger("orchestrator").level
    with logs.driver_logging(tmp_path):
        logging.getLogger("orchestrator.actors.fleet").info("rollout-0 serves")
    assert messages(tmp_path / "orchestrator.log") == ["rollout-0 serves"]
    assert ([(handler, handler.level) for handler in root.handlers], logging.getLogger("orchestrator").level) == before


def test_a_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_FILE_BYTES", 2000)
    with logs.driver_logging(tmp_path):
        for number in range(200):
            logging.getLogger("orchestrator").info("line %d", number)
    sizes = {file.name: file.stat().st_size for file in tmp_path.glob("*.log*")}
    assert sizes.keys() == {"orchestrator.log", "orchestrator.log.1"}
    assert max(sizes.values()) <= 2000
    assert messages(tmp_path / "orchestrator.log")[-1] == "line 199"


def test_a_disk_that_takes_nothing_costs_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with logs.driver_logging(tmp_path):
        (tmp_path / "orchestrator.log").mkdir()
        for number in range(3):
            logging.getLogger("orchestrator").info("line %d", number)
    assert capsys.readouterr().err.count("no more lines here") == 1


def test_a_librarys_warnings_are_lines_in_any_process(tmp_path: Path) -> None:
    """vLLM takes such a configuration; its engine processes set up no logging of ours."""
    code = (
        "import logging.config, pathlib, sys; from sdpo.logs import library_config, set_up_logging\n"
        "{}logging.config.dictConfig(library_config('vllm', 'rollout-0', pathlib.Path(sys.argv[1])))\n"
        "try: raise ValueError('two\\nlines')\n"
        "except ValueError: logging.getLogger('vllm.engine').exception('failed to start')\n"
        "logging.getLogger('vllm.engine').info('chatter'); logging.getLogger('vllm.engine').error('no memory')"
    )
    for set_up in ("", "set_up_logging('rollout-0')\n"):
        causes = tmp_path / f"causes-{len(set_up)}"
        run = [sys.executable, "-c", code.format(set_up), str(causes)]
        said = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60).stderr.splitlines()
        event = parse(said[-1])
        assert sum(parse(line) is not None for line in said) == (3 if set_up else 2)
        assert causes.read_text() == "ValueError: two lines\n"
        assert event is not None
        assert (event.actor, event.message, event.level) == ("rollout-0", "vllm.engine: no memory", "ERROR")


def test_doing_says_what_is_done_now_and_how_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    activity = Activity(logging.getLogger("learner.test"))
    with caplog.at_level(logging.INFO, "learner.test"):
        caplog.handler.setFormatter(LineFormatter("teacher-0"))
        with activity("scoring", 3, task="a"), activity("scoring"), activity("saving", step=4) as results:
            assert str(activity) == "scoring 4, saving"
            results.append("well")
        assert str(activity) == "idle"
        with pytest.raises(ValueError, match="no such"), activity("training", step=5):
            raise ValueError("no such\nthing")
    saved, *_, failed = [parse(line) for line in caplog.text.splitlines()]
    assert saved is not None
    assert failed is not None
    assert (saved.step, saved.task) == (4, "a")
    assert saved.message.startswith("saving took 0.")
    assert saved.message.endswith("s well")
    assert (failed.level, failed.step, failed.task) == ("WARNING", 5, None)
    assert failed.message.endswith("s: no such thing")


def test_step_and_task_of_nested_contexts_are_joined() -> None:
    with log_context(step=1), log_context(task="x"):
        record = logging.LogRecord("sdpo", logging.INFO, "", 0, "m", None, None)
        assert " step=1 task=x | m" in LineFormatter("a").format(record)
