"""Load and check an evaluation's input before anything starts: model folder, tasks, and the training tasks."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from env_workers.code_bundle import CodeBundle
from orchestrator.commands.eval.config import Request, first_config, fitted_config
from orchestrator.commands.eval.model import is_run_dir
from orchestrator.commands.eval.numbers import default_ks
from orchestrator.inputs.conversations import check_conversations
from orchestrator.inputs.inputs import (
    accepted_tasks,
    check_deadlines,
    check_prompts,
    fixed_date,
    load_code,
    load_tokenizer,
    read_tasks,
)
from orchestrator.inputs.overlap import find_overlap, warn_of_overlap
from orchestrator.inputs.prompts import task_prompt
from rollout_workers.engine import check_model_folder
from sdpo.config import RunConfig
from sdpo.config.load import load_run_config
from sdpo.errors import ConfigError, UserError
from sdpo.prompt_date import PROMPT_DATE
from sdpo.run_layout import INPUTS
from sdpo.taskfile import digest
from sdpo.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalInputs:
    """An evaluation's input, loaded and checked. `overlap` goes into the result; `remarks` are printed."""

    config: RunConfig
    tasks: list[Task]
    tokenizer: Any
    code_bundle: CodeBundle
    ks: list[int]
    overlap: dict[str, Any]
    remarks: list[str]

    @classmethod
    def load(cls, request: Request, folder: Path) -> "EvalInputs":
        """Load the input. Raises `ConfigError`, `ModelError`, `TaskFileError` or `PromptTooLong`."""
        model = check_model_folder(folder)
        first = first_config(request, folder, model)
        ks = list(request.ks) if request.ks is not None else default_ks(first.evaluation.samples_per_task)
        check_sampling(first, ks)
        code_bundle = load_code(first)
        tasks = accepted_tasks(first, "heldout", request.tasks)
        tokenizer = load_tokenizer(str(folder))
        dated = fixed_date(first, tokenizer, _recorded(request, PROMPT_DATE))
        longest = max(len(task_prompt(first, tokenizer, task)) for task in tasks)
        config, remarks = fitted_config(request, folder, model, longest, len(tasks))
        check_deadlines(config)
        check_prompts(config, tokenizer, [], tasks)
        check_conversations(config, tokenizer, tasks)
        return cls(
            config=config,
            tasks=tasks,
            tokenizer=tokenizer,
            code_bundle=code_bundle,
            ks=ks,
            overlap=overlap_with_training(request, config, tasks),
            remarks=[*remarks, *(f"the chat template shows the date {day}" for day in dated.values())],
        )


def check_sampling(config: RunConfig, ks: list[int]) -> None:
    """Raise `ConfigError` where the samples cannot give the numbers that are asked for."""
    num_samples = config.evaluation.samples_per_task
    for k in ks:
        if not 1 <= k <= num_samples:
            raise ConfigError(f"--k {k}: allowed: from 1 to {num_samples}, the samples of a task (--samples)")
    if config.evaluation.temperature == 0 and num_samples > 1:
        raise ConfigError(f"--samples {num_samples}: allowed with --temperature 0: 1 (the samples would be equal)")


def overlap_with_training(request: Request, config: RunConfig, tasks: list[Task]) -> dict[str, Any]:
    """Compare with the training tasks if they are known, and warn on standard error.

    A file that was named with --train-tasks must be readable; a run's own need not be there any more.
    """
    if request.train_tasks is not None:
        train = read_tasks(config, "train", request.train_tasks)
        return _compared(request.train_tasks, train, tasks)
    if request.base is None:
        return {"checked": False, "reason": "no training tasks are known (--train-tasks FILE, or --run RUN.yaml)"}
    of_run = load_run_config(request.base)
    source = of_run.tasks.train
    try:
        train = read_tasks(of_run, "train", source)
    except UserError as error:
        return {"checked": False, "reason": f"the training tasks cannot be read: {error}"}
    overlap = _compared(source, train, tasks)
    if is_run_dir(request.model) and (request.model / INPUTS).is_file():
        overlap["as_trained"] = _recorded(request, "tasks.train") == digest(train)
    return overlap


def _recorded(request: Request, key: str) -> str | None:
    """Return what the run directory that is evaluated recorded of its inputs; None where it recorded nothing."""
    file = request.model / INPUTS
    if not is_run_dir(request.model) or not file.is_file():
        return None
    value: str | None = json.loads(file.read_text()).get(key)
    return value


def _compared(source: str, train: list[Task], tasks: list[Task]) -> dict[str, Any]:
    overlap = find_overlap(train, tasks)
    warn_of_overlap(overlap)
    return {"checked": True, "train": source, "num_train": len(train), **asdict(overlap)}
