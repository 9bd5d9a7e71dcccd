"""Weights & Biases. Offline, every start of a run is a folder of its own below RUN_DIR/wandb, all with one run id."""

import uuid
from collections.abc import Mapping
from typing import Any

import wandb

from orchestrator.trackers.protocol import Outcome, TrackedRun


class RunTracker:
    """The `Tracker` of Weights & Biases."""

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, run: TrackedRun) -> str:
        run_id = run.id or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            **run.settings,
            id=run_id,
            resume="allow",
            name=run.name,
            dir=run.folder,
            config=run.config,
            settings=wandb.Settings(console="off", x_disable_stats=True, disable_git=True, save_code=False),
        )
        return run_id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step, commit=True)

    def finish(self, outcome: Outcome) -> None:
        self._run.finish(exit_code=0 if outcome == "finished" else 1)
