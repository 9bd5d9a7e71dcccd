"""docs/config.md says what the config models say, and the README's examples are ones that work."""

import json
import re
import runpy
from pathlib import Path

from pydantic import BaseModel

from sdpo.config import RunConfig
from sdpo.config.load import load_run_config
from sdpo.taskfile import load_tasks

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCRIPT = runpy.run_path(str(DOCS / "make_config_reference.py"))


def every_field(model: type[BaseModel]):
    for name, field in model.model_fields.items():
        yield model, name, field
        for inner in SCRIPT["models_in"](field.annotation):
            yield from every_field(inner)


def test_reference_is_current():
    assert (DOCS / "config.md").read_text() == SCRIPT["render"](), "run `make docs`"


def test_every_key_is_described():
    assert [f"{m.__name__}.{name}" for m, name, field in every_field(RunConfig) if not field.description] == []


def test_every_key_is_in_the_reference():
    text = SCRIPT["render"]()
    assert [name for _, name, _ in every_field(RunConfig) if f"`{name}`" not in text and f"{name}`" not in text] == []


def example_in_readme(language: str) -> str:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", (DOCS.parent / "README.md").read_text(), re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_run_file_in_the_readme_loads(tmp_path):
    run_file = tmp_path / "run.yaml"
    run_file.write_text(example_in_readme("yaml"))
    assert load_run_config(run_file).placement.learner.ranks == 2


def test_task_in_the_readme_loads(tmp_path):
    task_file = tmp_path / "tasks.jsonl"
    task_file.write_text(json.dumps(json.loads(example_in_readme("json"))) + "\n")
    (task,) = load_tasks(task_file)
    assert task.environment == "code"
