"""What an evaluation reads before it starts anything: the model folder, its tasks, and the tasks it was trained on."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from env_workers.code.tests import check_open
from env_workers.environment import check_task
from env_workers.travel import Luggage, pack, unpack
from orchestrator.attempts import check_conversations
from orchestrator.eval_config import Request, first_config, fitted_config
from orchestrator.eval_model import is_run_dir
from orchestrator.eval_numbers import check_ks, default_ks
from orchestrator.eval_overlap import find_overlap, warn_of_overlap
from orchestrator.inputs import check_deadlines, check_prompts, load_tokenizer, read_tasks
from rollout_workers.engine import check_model_folder
from sdpo.chat import render_prompt
from sdpo.config import RunConfig
from sdpo.config.load import load_run_config
from sdpo.errors import ConfigError, UserError
from sdpo.taskfile import digest
from sdpo.types import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalInputs:
    """Loaded and checked. `overlap`: as the result records it. `remarks`: what a person should know."""

    config: RunConfig
    tasks: list[Task]
    tokenizer: Any
    luggage: Luggage
    ks: list[int]
    overlap: dict[str, Any]
    remarks: list[str]

    @classmethod
    def load(cls, request: Request, folder: Path) -> "EvalInputs":
        """Raises `ConfigError`, `ModelError`, `TaskFileError` or `PromptTooLong`, each naming what is wrong."""
        model = check_model_folder(folder)
        first = first_config(request, folder, model)
        ks = list(request.ks) if request.ks is not None else default_ks(first.evaluation.samples_per_task)
        check_sampling(first, ks)
        luggage = pack(first.env.code)
        unpack(luggage)
        tasks = _accepted_tasks(first, request)
        tokenizer = load_tokenizer(str(folder))
        thinking = first.model.enable_thinking
        longest = max(len(render_prompt(tokenizer, t.messages, enable_thinking=thinking)) for t in tasks)
        config, remarks = fitted_config(request, folder, model, longest, len(tasks))
        check_deadlines(config)
        check_prompts(config, tokenizer, [], tasks)
        check_conversations(config, tokenizer, tasks)
        return cls(
            config=config,
            tasks=tasks,
            tokenizer=tokenizer,
            luggage=luggage,
            ks=ks,
            overlap=overlap_with_training(request, config, tasks),
            remarks=remarks,
        )


def check_sampling(config: RunConfig, ks: list[int]) -> None:
    """Raises `ConfigError` where the samples could not say what is asked of them."""
    evaluation = config.evaluation
    check_ks(ks, evaluation.samples_per_task)
    if evaluation.temperature == 0 and evaluation.samples_per_task > 1:
        raise ConfigError(
            f"--samples {evaluation.samples_per_task}: allowed with --temperature 0: 1 (the samples would be equal)"
        )


def overlap_with_training(request: Request, config: RunConfig, tasks: list[Task]) -> dict[str, Any]:
    """Compare with the training tasks if they are known; warns on standard error.

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
    found = _compared(source, train, tasks)
    inputs = request.model / "inputs.json"
    if is_run_dir(request.model) and inputs.is_file():
        found["as_trained"] = json.loads(inputs.read_text()).get("tasks.train") == digest(train)
    return found


def _compared(source: str, train: list[Task], tasks: list[Task]) -> dict[str, Any]:
    overlap = find_overlap(train, tasks)
    warn_of_overlap(overlap)
    return {"checked": True, "train": source, "num_train": len(train), **asdict(overlap)}


def _accepted_tasks(config: RunConfig, request: Request) -> list[Task]:
    """The first `tasks.max_heldout` tasks, as their environments accept them."""
    tasks = read_tasks(config, "heldout", request.tasks)[: config.tasks.max_heldout]
    for task in tasks:
        check_task(task)
        check_open(task, config.env)
    return tasks
