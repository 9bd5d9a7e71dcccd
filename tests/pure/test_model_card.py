"""The model card: its facts, its front matter, and that it can be made after the package's files are gone."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.run_dir.model_card import Exported, hub_id, model_card
from orchestrator.run_dir.run_view import RunView
from tests.fixtures.report import heldout, step_record, write_report_run


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "models--Qwen--Qwen3-8B/snapshots/abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"]}')
    return folder


def card_of(folder: Path, base: Path, overrides: tuple[str, ...] = (), **exported: Any) -> tuple[Any, str]:
    """The front matter and the body of the card of a run of two steps."""
    measured = heldout(0.5) | {"heldout/samples": 6.0}
    records = [{"step": 0, **measured}, step_record(1), step_record(2, **measured)]
    view = RunView(write_report_run(folder, records, overrides))
    _, front, body = model_card(view, Exported(steps=2, base=base, dtype="bfloat16", **exported)).split("---\n", 2)
    return yaml.safe_load(front), body


def test_a_card_names_results_settings_and_base_model(tmp_path: Path, base: Path) -> None:
    front, body = card_of(tmp_path / "run", base)
    assert front == {
        "base_model": "Qwen/Qwen3-8B",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sdpo", "reinforcement-learning"],
    }
    for line in (
        "# run",
        "| held-out pass@1 | 95 % interval in brackets |",
        "| before training | 0.500 [0.400 to 0.600], 6 samples |",
        "| after step 2 (these weights) | 0.500 [0.400 to 0.600], 6 samples |",
        "| teacher | ema, rate 0.05 every batch; hindsight template 1 |",
        "## Data and environments",
        "## Limits",
    ):
        assert line in body.splitlines()
    assert "started from `Qwen/Qwen3-8B` (Qwen3ForCausalLM)" in body
    assert str(tmp_path) not in body
    assert "\n\n\n" not in body


def test_cards_of_a_teacher_of_grpo_and_of_an_adapter_say_so(tmp_path: Path, base: Path) -> None:
    _, body = card_of(tmp_path / "teacher", base, is_teacher=True)
    assert "not measured (held-out results are the policy's)" in body
    assert "These are the teacher's weights" in body
    front, body = card_of(tmp_path / "grpo", base, ("objective.kind=grpo", "learner.lora={rank: 4}"), is_adapter=True)
    assert (front["library_name"], front["tags"]) == ("peft", ["grpo", "reinforcement-learning", "lora"])
    assert "| teacher |" not in body
    assert "The policy of GRPO run `grpo` after 2 of" in body
    _, body = card_of(tmp_path / "unmeasured", base, ("tasks.heldout=none",))
    assert "The run had no held-out tasks: nothing was measured." in body


def test_a_card_reads_no_file_of_the_package(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def vanished(path: Path, *arguments: Any, **keywords: Any) -> str:
        if path.suffix == ".jinja":
            raise FileNotFoundError(path)
        return read(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "read_text", vanished)
    monkeypatch.chdir(tmp_path)
    assert card_of(tmp_path / "run", base)[1].startswith("\n# run\n")


def test_the_hub_name_is_read_from_the_path_of_a_snapshot_only(tmp_path: Path, base: Path) -> None:
    assert hub_id(base) == "Qwen/Qwen3-8B"
    assert hub_id(tmp_path) is None
