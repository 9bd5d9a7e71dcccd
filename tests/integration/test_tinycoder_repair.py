"""The embedded base model is bad at the question and good at hindsight: the rates that the demo stands on."""

from pathlib import Path

from examples.tinycoder.check_model import Sampler, measure
from examples.tinycoder.make_tasks import FOLDER, heldout_tasks
from examples.tinycoder.specs import fenced
from sdpo.taskfile import load_tasks


def test_pass_rate_and_repair_rate(tinycoder_model: Path) -> None:
    right_answers = {task.id: fenced(spec.right) for spec, task in heldout_tasks()}
    tasks = load_tasks(FOLDER / "heldout.jsonl")[::2]
    figures = measure(Sampler(tinycoder_model, seed=1), tasks, right_answers)
    assert 0.02 <= figures.pass_at_1 <= 0.3
    assert figures.repaired_by_feedback >= 0.8
    assert figures.repaired_by_demonstration >= 0.9
    assert figures.stopped >= 0.97
    assert {"runtime_error", "syntax_error", "wrong_answer"} <= figures.kinds.keys()
