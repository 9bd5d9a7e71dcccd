"""What a run reads before it starts anything: tasks, tokenizer, and whether every prompt fits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from env_workers.adapters import Purpose, load_tasks_with
from env_workers.code.tests import check_open
from env_workers.environment import check_task
from env_workers.travel import NO_LUGGAGE, Luggage, pack, unpack
from orchestrator.attempts import check_conversations
from orchestrator.eval_overlap import find_overlap, warn_of_overlap
from orchestrator.facts import task_facts
from orchestrator.fingerprint import fingerprint
from orchestrator.model_config import text_part
from orchestrator.recording import Recording
from orchestrator.task_source import TaskOrder, TaskSource
from rollout_workers.engine import check_limits, check_model_folder
from sdpo.chat import render_prompt
from sdpo.config import RunConfig, SdpoObjective
from sdpo.errors import ConfigError, ModelError, PromptTooLong
from sdpo.reprompt import frame_length
from sdpo.show import show
from sdpo.storage import is_uri
from sdpo.storage_cache import fetched, with_local_model
from sdpo.taskfile import digest, load_tasks
from sdpo.types import Int32, Task

BYTES_PER_LOG_PROB = 4


@dataclass(frozen=True, slots=True)
class TaskSets:
    """The tasks of a run as its environments accept them, and the user's own code, which travels to the env workers."""

    train: list[Task]
    heldout: list[Task]
    luggage: Luggage

    @classmethod
    def load(cls, config: RunConfig) -> "TaskSets":
        """Makes `env.code` importable here. Raises `ConfigError` or `TaskFileError`."""
        luggage = pack(config.env.code)
        unpack(luggage)
        train = read_tasks(config, "train", config.tasks.train)
        heldout = read_tasks(config, "heldout", config.tasks.heldout) if config.tasks.heldout else []
        heldout = heldout[: config.tasks.max_heldout]
        for task in [*train, *heldout]:
            check_task(task)
            check_open(task, config.env)
        return cls(train, heldout, luggage)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of both task sets and of `env.code`: what a resumed run is compared with."""
        return {
            "env.code": self.luggage.digest,
            "tasks.train": digest(self.train),
            "tasks.heldout": digest(self.heldout),
        }


@dataclass(frozen=True, slots=True)
class Inputs:
    """Loaded and checked. probe_ids int32 [P]: the prompt that audits weight updates, at most 64 tokens.

    `train`: each task once, with a recording those of its batches. `recording`: where attempts come from that are not
    sampled, and then the `source` of tasks, too; else None.
    """

    source: TaskOrder
    train: list[Task]
    heldout: list[Task]
    tokenizer: Any
    probe_ids: Int32
    luggage: Luggage
    digests: dict[str, str]
    facts: dict[str, Any]
    recording: Recording | None = None

    @classmethod
    def load(cls, config: RunConfig) -> "Inputs":
        """Raises `ConfigError`, `ModelError`, `TaskFileError`, `RecordingError` or `PromptTooLong`, each naming what
        is wrong."""
        config = with_local_model(config)
        if config.rollout.recorded is not None:
            return cls._recorded(config, Recording(fetched(config.rollout.recorded)))
        sets = TaskSets.load(config)
        train, heldout = sets.train, sets.heldout
        warn_of_overlap(find_overlap(train, heldout))
        source = TaskSource(train, config.batch.tasks, config.tasks.seed)
        check_deadlines(config)
        tokenizer = _check_model(config)
        check_prompts(config, tokenizer, train, heldout)
        check_conversations(config, tokenizer, [*train, *heldout])
        probe = _probe(config, tokenizer, train[0])
        return cls(source, train, heldout, tokenizer, probe, sets.luggage, sets.digests, task_facts(train, heldout))

    @classmethod
    def _recorded(cls, config: RunConfig, recording: Recording) -> "Inputs":
        """Task files, environments and their code are not needed: the recording has the questions and the verdicts."""
        tokenizer = _check_model(config)
        model = fingerprint(Path(config.model.path), tokenizer)
        tasks = recording.check(config, model)
        check_prompts(config, tokenizer, tasks, [])
        print(f"rollouts of {recording.folder}, {recording.off_policy(model)}", flush=True)
        probe = _probe(config, tokenizer, tasks[0]) if tasks else np.zeros(1, np.int32)
        digests = {"rollout.recorded": recording.digest}
        return cls(recording, tasks, [], tokenizer, probe, NO_LUGGAGE, digests, task_facts(tasks, []), recording)


def _check_model(config: RunConfig) -> Any:
    """The tokenizer of the run's model, after all that can be said against the folder."""
    model = check_model_folder(Path(config.model.path))
    check_limits(config, model)
    _check_support(config, model)
    return load_tokenizer(config.model.path)


def _probe(config: RunConfig, tokenizer: Any, task: Task) -> Int32:
    return render_prompt(tokenizer, task.messages, enable_thinking=config.model.enable_thinking)[:64]


def read_tasks(config: RunConfig, purpose: Purpose, path: str) -> list[Task]:
    """The tasks at `path`, which may be a URI, by the run's adapter if it has one.

    Raises `ConfigError`, `TaskFileError`, `StorageError` or `TransferError`.
    """
    tasks, path = config.tasks, str(fetched(path)) if is_uri(path) else path
    if tasks.adapter is not None:
        return load_tasks_with(tasks.adapter, path, purpose, tasks.options)
    if tasks.options:
        raise ConfigError(f"tasks.options={show(tasks.options)}: allowed: only with tasks.adapter")
    return load_tasks(path)


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a model folder. Raises `ModelError` if there is no usable one with a chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"model.path={path}: its tokenizer cannot be loaded: {str(error).splitlines()[0]}") from None
    if not tokenizer.chat_template:
        raise ModelError(f"model.path={path}: its tokenizer has no chat template; prompts cannot be made without one")
    return tokenizer


def check_prompts(config: RunConfig, tokenizer: Any, train: list[Task], heldout: list[Task]) -> None:
    """Refuse tasks whose prompt, or whose hindsight prompt at its shortest, would not fit, before anything starts."""
    thinking = config.model.enable_thinking
    room, limit = config.max_prompt_tokens, config.tasks.max_prompt_tokens
    allowed, where = room, f"{room}, model.max_model_len_tokens - rollout.sampling.max_response_tokens"
    if limit is not None and limit < room:
        allowed, where = limit, f"tasks.max_prompt_tokens={limit}"
    for task in [*train, *heldout]:
        length = len(render_prompt(tokenizer, task.messages, enable_thinking=thinking))
        if length > allowed:
            raise PromptTooLong(f"task {task.id}: its prompt has {length} tokens; allowed: at most {where}")
    allowed = config.hindsight.max_prompt_tokens
    in_hindsight = train if config.uses_teacher else []
    for task in [*in_hindsight, *(heldout if config.evaluation.measure_repair else [])]:
        length = frame_length(task, tokenizer, config.hindsight, enable_thinking=thinking)
        if length > allowed:
            raise PromptTooLong(
                f"task {task.id}: the question and the hindsight template take {length} tokens; "
                f"allowed: at most hindsight.max_prompt_tokens={allowed}"
            )


def _check_support(config: RunConfig, model: dict[str, Any]) -> None:
    """A support has no more ids than there are; whole distributions have a budget for a batch."""
    objective = config.objective
    if not isinstance(objective, SdpoObjective) or not objective.needs_support:
        return
    vocabulary = model.get("vocab_size", text_part(model).get("vocab_size"))
    if not isinstance(vocabulary, int):
        raise ModelError(f"model.path={config.model.path}: config.json names no vocab_size")
    if objective.top_k >= vocabulary:
        raise ConfigError(
            f"objective.top_k={objective.top_k}: allowed: below {vocabulary}, the model's vocabulary; "
            f"or objective.support=full"
        )
    positions = config.batch.tasks * config.batch.samples_per_task * config.rollout.sampling.max_response_tokens
    mib = positions * vocabulary * BYTES_PER_LOG_PROB / 2**20
    if objective.support == "full" and mib > objective.full_support_mib:
        raise ConfigError(
            f"objective.support=full: a batch's distributions can take {mib:.4g} MiB ({positions} positions x "
            f"{vocabulary} tokens); allowed: at most objective.full_support_mib={objective.full_support_mib:g}"
        )


def check_deadlines(config: RunConfig) -> None:
    """A verdict must be given the time that its limits allow it."""
    from env_workers.worker import judge_deadline_s  # brings the sandboxes: not where nothing is judged

    needed_s, allowed_s = judge_deadline_s(config.env), config.deadlines.environment_s
    if allowed_s < needed_s:
        raise ConfigError(
            f"deadlines.environment_s={allowed_s:g}: allowed: at least {needed_s:g} with these env limits"
        )
