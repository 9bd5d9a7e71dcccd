"""MLflow, through its client. Characters that it does not allow are replaced: `pass@1` becomes `pass_at_1`."""

import json
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from orchestrator.trackers.protocol import Outcome, TrackedRun
from sdpo.config.keys import flat

STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
MAX_BATCH = 100  # parameters of one request
MAX_VALUE = 500  # characters of a parameter, what every backend takes


def metric_name(name: str) -> str:
    """Return `name` with the characters that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", name.replace("@", "_at_"))


class RunTracker:
    """The `Tracker` of MLflow."""

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder is used only where the run file names one
        self._client: Any = None
        self._id = ""

    def start(self, run: TrackedRun) -> str:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=run.settings["tracking_uri"])
        if run.id is not None:
            self._client.update_run(run.id, status="RUNNING")
            self._id = run.id
            return self._id
        experiment = self._client.get_experiment_by_name(run.settings["experiment"])
        experiment_id = experiment.experiment_id if experiment else self._create(run.settings["experiment"])
        self._id = self._client.create_run(experiment_id, run_name=run.name).info.run_id
        self._log_parameters(run.config)
        return self._id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        rows = [Metric(metric_name(name), value, now_ms, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=rows)

    def finish(self, outcome: Outcome) -> None:
        self._client.set_terminated(self._id, STATUS[outcome])

    def _create(self, experiment: str) -> str:
        return str(self._client.create_experiment(experiment))

    def _log_parameters(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        texts = {metric_name(key): json.dumps(value)[:MAX_VALUE] for key, value in flat(config)}
        params = [Param(key, text) for key, text in texts.items()]
        for start in range(0, len(params), MAX_BATCH):
            self._client.log_batch(self._id, params=params[start : start + MAX_BATCH])
