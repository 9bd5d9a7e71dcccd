"""What a run refuses before it starts anything, where the model has a say: supports and whole distributions."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.commands.doctor.run import gather_run
from orchestrator.inputs.inputs import Inputs, TaskSets
from sdpo.config import RunConfig
from sdpo.config.load import load_run_config
from sdpo.errors import ConfigError
from sdpo.taskfile import load_tasks

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples/tinycoder/model"
VOCABULARY = json.loads((MODEL / "config.json").read_text())["vocab_size"]


def load(objective: dict[str, Any]) -> Inputs:
    """4 tasks x 3 samples x 64 tokens: 768 positions."""
    tasks = {name: str(ROOT / f"examples/tinycoder/tasks/{name}.jsonl") for name in ("train", "heldout")}
    config = {
        "model": {"path": str(MODEL)},
        "tasks": tasks,
        "batch": {"tasks": 4, "samples_per_task": 3},
        "rollout": {"sampling": {"max_response_tokens": 64}, "max_logprobs": 10**6},
        "objective": {"kind": "sdpo"} | objective,
    }
    return Inputs.load(RunConfig.model_validate(config))


def test_a_support_is_smaller_than_the_vocabulary() -> None:
    assert load({"top_k": VOCABULARY - 1}).probe_ids.size > 0
    allowed = rf"objective\.top_k={VOCABULARY}: allowed: below {VOCABULARY}, .*objective\.support=full"
    with pytest.raises(ConfigError, match=allowed):
        load({"top_k": VOCABULARY})


def test_whole_distributions_have_a_budget() -> None:
    needed_mib = 768 * VOCABULARY * 4 / 2**20
    full = {"support": "full", "top_k": 0}
    assert load(full | {"full_support_mib": needed_mib}).probe_ids.size > 0
    with pytest.raises(ConfigError, match=r"objective\.support=full: .*768 positions.*objective\.full_support_mib="):
        load(full | {"full_support_mib": needed_mib * 0.999})


def test_options_are_for_adapters() -> None:
    config = RunConfig.model_validate({"tasks": {"options": {"limit": 3}}})
    with pytest.raises(ConfigError, match=r"tasks\.options=.*limit.*: allowed: only with tasks\.adapter"):
        TaskSets.load(config)


def test_the_tasks_of_a_run_file_are_written_as_task_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    written = tmp_path / "out"
    assert main(["tasks", "examples/tinycoder.yaml", str(written), "tasks.max_heldout=5"]) == 0
    folder = ROOT / "examples/tinycoder/tasks"
    assert load_tasks(written / "train.jsonl") == load_tasks(folder / "train.jsonl")
    assert load_tasks(written / "heldout.jsonl") == load_tasks(folder / "heldout.jsonl")[:5]
    assert main(["tasks", "examples/tinycoder.yaml", "/proc/nowhere"]) == 2


REFUSING = {
    "system": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}",
        "System role not supported",
    ),
    "order": (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{% endif %}{{ m.content }}{% endfor %}",
        "Roles must alternate",
    ),
    "undefined": ("{{ messages[7].content.strip() }}", "has no"),
    "type": ("{{ messages[0].content + 1 }}", "concatenate"),
    "syntax": ("{% if %}", "Expected an expression"),
    "empty": ("", "no chat template"),
    "nothing": ("{% if false %}{% endif %}", "an empty prompt"),
}


@pytest.mark.parametrize("case", REFUSING)
@pytest.mark.parametrize("command", ["train", "generate", "preview", "doctor", "eval"])
def test_a_chat_template_that_refuses_a_task_is_one_line_before_anything_starts(
    case: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    template, cause = REFUSING[case]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MODEL, "model")
    Path("model/chat_template.jinja").write_text(template)
    settings = json.loads(Path("model/tokenizer_config.json").read_text())
    Path("model/tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
    task = json.loads((ROOT / "examples/tinycoder/tasks/train.jsonl").read_text().splitlines()[0])
    task["messages"].insert(0, {"role": "system", "content": "You are helpful."})
    Path("tasks.jsonl").write_text(json.dumps(task | {"id": "odd"}) + "\n")
    tasks = "tasks: {train: tasks.jsonl, heldout: null}"
    Path("run.yaml").write_text(f"name: r\nmodel: {{path: model, dtype: float32}}\n{tasks}\nbatch: {{tasks: 1}}\n")
    others = {
        "eval": ["eval", "model", "tasks.jsonl"],
        "generate": ["generate", "run.yaml", "batches"],
    }
    if command == "doctor":
        monkeypatch.setattr("orchestrator.commands.doctor.run.gather_gpus", tuple)
        print(gather_run(load_run_config("run.yaml", [])).refused)
    else:
        assert main(others.get(command, [command, "run.yaml"])) == 2
    said = capfd.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if cause in line]
    assert len(lines) == 1
    assert case == "empty" or "task odd: the model's chat template" in lines[0]
    assert "Traceback" not in said.out + said.err
    assert not Path("runs").exists()
