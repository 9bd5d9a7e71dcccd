"""`tools_native` with a chat template that shows tools, played in a preview with a real sandbox."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from examples.tinycoder.make_tasks import FOLDER
from orchestrator.cli import main
from tests.fixtures.tool_templates import WITH_TOOLS, WITHOUT_TOOLS, function

MODEL = FOLDER.parent / "model"
TASK = {
    "id": "t",
    "messages": [{"role": "user", "content": "Reach 42. Write the answer as <answer>...</answer>."}],
    "environment": "tools_native",
    "payload": {
        "tools": [{"name": "add_up", "source": "def add_up(n):\n    total.append(n)\n    return sum(total)"}],
        "setup": "total = []",
        "answer": {"kind": "number", "value": 42},
    },
    "tools": [function("add_up", n={"type": "integer"})],
}


def prepared(folder: Path, template: str) -> list[str]:
    shutil.copytree(MODEL, folder / "model")
    (folder / "model/chat_template.jinja").write_text(template)
    (folder / "tasks.jsonl").write_text(json.dumps(TASK))
    call = '<tool_call>{"name": "add_up", "arguments": {"n": %d}}</tool_call>'
    answers = [call % 40, call % 2, "<answer>41</answer>"]
    for number, answer in enumerate(answers):
        (folder / f"{number}.txt").write_text(answer)
    given = [word for number in range(len(answers)) for word in ("--answer", str(folder / f"{number}.txt"))]
    settings = ["rollout.sampling.max_response_tokens=600", "env.max_turns=4", "model.max_model_len_tokens=4096"]
    settings += ["hindsight.max_prompt_tokens=3000", f"model.path={folder / 'model'}", "tasks.heldout=none"]
    return ["preview", "examples/tinycoder.yaml", "--json", *given, f"tasks.train={folder / 'tasks.jsonl'}", *settings]


def test_every_turn_and_the_teacher_see_the_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rendered: list[tuple[list[str], Any]] = []
    render = PreTrainedTokenizerBase.apply_chat_template

    def watched(self: Any, conversation: Any, **options: Any) -> Any:
        rendered.append(([message["role"] for message in conversation], options["tools"]))
        return render(self, conversation, **options)

    monkeypatch.setattr(PreTrainedTokenizerBase, "apply_chat_template", watched)
    assert main(prepared(tmp_path, WITH_TOOLS)) == 0
    found = json.loads(capfd.readouterr().out)
    assert '<tools>\n{"type": "function", "function": {"name": "add_up"' in found["prompt"]["text"]
    assert '<tools>\n{"type": "function", "function": {"name": "add_up"' in found["hindsight"]["text"]
    seen = [turn["observation"] for turn in found["attempt"]["turns"]]
    assert [[(m["role"], m["content"]) for m in turn] for turn in seen[:2]] == [[("tool", "40")], [("tool", "42")]]
    assert found["attempt"]["verdict"]["kind"] == "wrong_answer"
    without = [roles for roles, tools in rendered if not tools]
    assert without == [["user"]], "only the look at what the template shows without tools"
    assert any("tool" in roles for roles, _ in rendered)


def test_a_template_that_shows_no_tools_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(prepared(tmp_path, WITHOUT_TOOLS)) == 2
    error = capfd.readouterr().err
    assert "task t: neither the model's chat template nor a message shows the tools add_up; allowed:" in error
