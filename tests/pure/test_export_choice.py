"""`sdpo export`: which checkpoint of a run is chosen, and what is refused before anything is read."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.commands.export.export import ExportRequest, choose, export
from orchestrator.run_dir.checkpoints import Checkpoint
from orchestrator.run_dir.run_view import RunView
from sdpo.config import RunConfig
from sdpo.errors import ConfigError
from tests.fixtures.report import step_record, write_report_run


def view_of(*scores: float | None, model: str | None = None) -> Any:
    """A view of a run with checkpoints after 1, 2, … steps that measured these held-out pass@1."""
    kept: Sequence[Checkpoint] = [
        Checkpoint(steps=i, location=f"at/step-{i}", pass_at_1=score) for i, score in enumerate(scores, 1)
    ]
    return SimpleNamespace(location="RUN", model_location=model, checkpoints=kept, config=RunConfig())


@pytest.mark.parametrize(
    ("options", "steps"), [({}, 4), ({"step": 2}, 2), ({"best": True}, 3)], ids=["newest", "step", "best"]
)
def test_the_newest_that_of_a_step_or_the_best(options: dict[str, Any], steps: int) -> None:
    view = view_of(0.75, 0.5, 0.75, None)
    assert choose(view, ExportRequest(out=Path("out"), **options)).steps == steps


@pytest.mark.parametrize(
    ("view", "options", "message"),
    [
        (view_of(), {}, "RUN: holds no checkpoint$"),
        (view_of(model="RUN/model"), {}, "holds no checkpoint; the policy at its end is in RUN/model"),
        (view_of(0.5, 0.5), {"step": 9}, "--step=9: RUN keeps no such checkpoint; allowed: --step 1, 2"),
        (view_of(None, None), {"best": True}, "--best: .*allowed: --step 1, 2"),
    ],
)
def test_what_cannot_be_chosen_names_what_can(view: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(view, ExportRequest(out=Path("out"), **options))


def test_a_used_folder_and_an_adapter_of_a_run_without_one_are_refused_first(tmp_path: Path) -> None:
    view = RunView(write_report_run(tmp_path / "run", [step_record(1)]))
    (tmp_path / "used").mkdir()
    (tmp_path / "used/file").write_text("")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        export(view, ExportRequest(out=tmp_path / "used"))
    with pytest.raises(ConfigError, match=r"trained all weights; allowed: runs with learner\.lora"):
        export(view, ExportRequest(out=tmp_path / "out", adapter=True))
    assert not (tmp_path / "out").exists()
