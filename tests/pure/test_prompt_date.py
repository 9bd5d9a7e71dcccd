"""A chat template that shows the date: one date for a run, recorded for resuming; deterministic runs share one."""

import json
import shutil
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.inputs.inputs import Inputs, load_tokenizer
from orchestrator.inputs.prompts import task_prompt
from orchestrator.recorded.fingerprint import fingerprint
from orchestrator.recorded.manifest import Manifest
from orchestrator.run_dir.run_dir import RunDir
from sdpo.config import RunConfig
from sdpo.errors import ConfigError
from sdpo.prompt_date import fix_date, shows_date
from sdpo.run_layout import INPUTS, METRICS

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples/tinycoder/model"
TASKS = ROOT / "examples/tinycoder/tasks/train.jsonl"
TEMPLATE = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y, %H:%M:%S') %}{% endif %}"
    "Today is {{ date_string }}.{% for m in messages %}{{ m.content }}{% endfor %}<assistant>"
)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MODEL, "model")
    Path("model/chat_template.jinja").write_text(TEMPLATE)
    file = Path("model/tokenizer_config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": TEMPLATE}))
    return {
        "name": "r",
        "model": {"path": "model"},
        "tasks": {"train": str(TASKS), "heldout": None},
        "batch": {"tasks": 2},
    }


def first_prompt(config: RunConfig, inputs: Inputs) -> str:
    text: str = inputs.tokenizer.decode(task_prompt(config, inputs.tokenizer, inputs.train[0]).tolist())
    return text


def test_a_new_run_fixes_the_day_of_its_start(settings: dict[str, Any]) -> None:
    config = RunConfig.model_validate(settings)
    before, inputs = datetime.now().date(), Inputs.load(config)
    recorded = date.fromisoformat(inputs.digests["prompt.date"])
    assert before <= recorded <= datetime.now().date()
    assert f"Today is {recorded:%d %b %Y}, 00:00:00." in first_prompt(config, inputs)


def test_a_resumed_run_has_the_date_that_it_began_with(settings: dict[str, Any]) -> None:
    config = RunConfig.model_validate(settings)
    inputs = Inputs.load(config, "2024-02-29")
    assert "Today is 29 Feb 2024, 00:00:00." in first_prompt(config, inputs)
    run_dir = RunDir(config)
    assert run_dir.prompt_date() is None
    run_dir.open(inputs.digests)
    assert run_dir.prompt_date() is None, "nothing was measured yet"
    (run_dir.path / METRICS).write_text('{"step": 1}\n')
    run_dir.close()
    again = RunDir(config)
    assert again.prompt_date() == "2024-02-29"
    again.check_inputs(Inputs.load(config, again.prompt_date()).digests)
    file = again.path / INPUTS
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "prompt.date"}))
    assert again.prompt_date() is None
    again.check_inputs(inputs.digests)


def test_deterministic_runs_show_the_same_date_on_any_day(settings: dict[str, Any]) -> None:
    config = RunConfig.model_validate(settings | {"deterministic": True})
    inputs = Inputs.load(config)
    assert inputs.digests["prompt.date"] == "2025-01-01"
    assert "Today is 01 Jan 2025, 00:00:00." in first_prompt(config, inputs)


def test_a_template_without_a_clock_records_nothing() -> None:
    tokenizer = load_tokenizer(str(MODEL))
    assert not shows_date(tokenizer)
    tokenizer.chat_template = TEMPLATE
    assert shows_date(tokenizer)
    fix_date(tokenizer, date(2020, 5, 1))
    shown = tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    assert shown.startswith("Today is 01 May 2020")


def test_recorded_batches_keep_the_date(settings: dict[str, Any], tmp_path: Path) -> None:
    config = RunConfig.model_validate(settings)
    inputs = Inputs.load(config, "2024-02-29")
    manifest = Manifest.of(config, fingerprint(Path("model"), inputs.tokenizer), inputs.digests, "fixed")
    manifest.write(tmp_path / "batches")
    read = Manifest.read(tmp_path / "batches")
    assert read is not None
    assert read.prompt_date == "2024-02-29"
    with pytest.raises(ConfigError, match="prompt_date"):
        read.check_continues(manifest.model_copy(update={"prompt_date": "2024-03-01"}), tmp_path)
