"""Names of the files and folders of a run directory, each in one place. docs/restart.md shows them to users."""

from pathlib import Path

CONFIG = "config.yaml"
"""The resolved config of the last start."""
INPUTS = "inputs.json"
"""Digests of the tasks and of `env.code`, and the date of the prompts where the chat template shows one."""
FACTS = "facts.json"
"""Time of the last start, versions of packages, numbers of tasks (see `orchestrator.run_dir.facts`)."""
INCARNATION = "incarnation"
"""The number of starts so far."""
METRICS = "metrics.jsonl"
"""One JSON object for every step."""
TENSORBOARD = "tensorboard"
"""The same values as events of TensorBoard."""
ALARMS = "alarms.jsonl"
"""One JSON object for every alarm that began; missing if there was none."""
SAMPLES = "samples"
"""step-N.jsonl: single attempts with their verdicts and log-probs."""
TRACE = "trace"
"""step-N.jsonl: every call of an actor, for `sdpo timeline`."""
ROLLOUTS = "rollouts"
"""With record.rollouts: every batch, for training on it again (see `orchestrator.recorded`)."""
MANIFEST = "manifest.json"
"""In a folder of recorded batches: what they were recorded with (see `orchestrator.recorded.manifest`)."""
CHECKPOINTS = "checkpoints"
"""step-N.H: the learner's state after N steps (see `orchestrator.run_dir.checkpoints`)."""
STATE = "state.json"
"""In the folder of a checkpoint: written last, so that it says that the checkpoint is complete."""
LOGS = "logs"
"""One log file for every actor."""
STACKS = "stacks"
"""What every thread was doing when a deadline passed."""
LOCK = "lease"
"""The run lock (see `orchestrator.run_dir.run_lock`)."""
RAY_ADDRESS = "ray.json"
"""While the run is alive: where its Ray answers."""
STOP = "stop"
"""A file that asks the run to stop."""
MODEL = "model"
"""The policy at the end, in Hugging Face format."""
MODEL_MARK = "config.json"
"""In a model's folder: removed first and written last, so that it says that the model is complete."""
REPORT = "report.html"
TIMELINE = "timeline.json"


def step_file(folder: Path, step: int) -> Path:
    """Return the file of a step in `SAMPLES` or `TRACE`."""
    return folder / f"step-{step:06d}.jsonl"


def step_of(file: Path) -> int:
    """Return the step that a file's name holds."""
    return int(file.stem.removeprefix("step-"))


def step_files(folder: Path) -> list[Path]:
    """Return the files of all steps, in their order."""
    return sorted(folder.glob("step-*.jsonl"), key=step_of)
