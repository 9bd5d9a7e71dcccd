"""The names of a run directory's files: in one module, in the docs, and in the order of steps."""

import ast
from collections.abc import Iterator
from pathlib import Path

import sdpo.run_layout as layout
from sdpo.run_layout import step_file, step_files, step_of

ROOT = Path(__file__).parents[2]
PACKAGES = ("sdpo", "orchestrator", "learner", "rollout_workers", "env_workers")
OF_A_MODEL = {layout.MODEL_MARK}
"""Any model's folder has it, too."""
NAMES = {value for key, value in vars(layout).items() if key.isupper()}


def composed_by_hand(file: Path) -> Iterator[str]:
    """Names of a run directory in `folder / "name"` or, with their suffix, anywhere else in code."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            text = str(node.right.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            text = node.value
        else:
            continue
        if text in NAMES - OF_A_MODEL:
            yield f"{file.relative_to(ROOT)}:{node.lineno}: {text}"


def test_no_other_module_composes_a_name_of_a_run_directory() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py") if file.name != "run_layout.py"]
    assert len(files) > 200
    assert [found for file in files for found in composed_by_hand(file)] == []


def test_every_name_is_documented() -> None:
    text = (ROOT / "docs/restart.md").read_text() + (ROOT / "docs/recorded-rollouts.md").read_text()
    made_by_commands = {layout.REPORT, layout.TIMELINE, layout.STOP, layout.MODEL_MARK}
    assert [name for name in sorted(NAMES - made_by_commands) if f"`{name}" not in text] == []


def test_files_of_steps_are_in_order_past_a_million(tmp_path: Path) -> None:
    for step in (1_000_000, 2, 999_999, 0):
        step_file(tmp_path, step).touch()
    (tmp_path / "step-000001.txt").touch()
    assert [step_of(file) for file in step_files(tmp_path)] == [0, 2, 999_999, 1_000_000]
    assert step_file(tmp_path, 7).name == "step-000007.jsonl"
    assert step_files(tmp_path / "none") == []
