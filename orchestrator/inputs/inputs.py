"""Load and check a run's input before anything starts: tasks, tokenizer, and whether every prompt fits."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from env_workers.adapters import Purpose, load_tasks_with
from env_workers.code.open_asserts import check_allowed
from env_workers.code_bundle import NO_CODE, CodeBundle, pack, unpack
from env_workers.environment import check_task
from env_workers.verifier.host import close_shared_verifiers
from orchestrator.inputs.conversations import check_conversations
from orchestrator.inputs.limits import check_limits_of_task, warn_of_time
from orchestrator.inputs.location import at_its_line
from orchestrator.inputs.overlap import find_overlap, warn_of_overlap
from orchestrator.inputs.prompts import of_task, task_prompt
from orchestrator.inputs.task_source import TaskOrder, TaskSource
from orchestrator.inputs.tool_loads import check_tools_load
from orchestrator.recorded.fingerprint import fingerprint
from orchestrator.recorded.recording import Recording
from orchestrator.run_dir.facts import task_facts
from rollout_workers.engine import check_limits, check_model_folder, text_part
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, ModelError, PromptTooLong, TaskFileError
from sdpo.prompt_date import DETERMINISTIC, PROMPT_DATE, fix_date, shows_date
from sdpo.reprompt import frame_length
from sdpo.show import show, show_names
from sdpo.storage_cache import fetched, with_local_model
from sdpo.taskfile import digest, load_tasks
from sdpo.types import Int32, Task

BYTES_PER_LOG_PROB = 4
MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class TaskSets:
    """The tasks of a run, which its environments accept, and the user's own code, which env workers get."""

    train: list[Task]
    heldout: list[Task]
    code_bundle: CodeBundle

    @classmethod
    def load(cls, config: RunConfig) -> "TaskSets":
        """Load both sets. Raises `ConfigError` or `TaskFileError`."""
        code_bundle = load_code(config)
        train = accepted_tasks(config, "train", config.tasks.train)
        heldout = accepted_tasks(config, "heldout", config.tasks.heldout) if config.tasks.heldout else []
        return cls(train, heldout, code_bundle)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of both task sets and of `env.code`, with which a resumed run is compared."""
        return {
            "env.code": self.code_bundle.digest,
            "tasks.train": digest(self.train),
            "tasks.heldout": digest(self.heldout),
        }


@dataclass(frozen=True, slots=True)
class Inputs:
    """A run's input, loaded and checked.

    longest_prompt: in tokens. probe_ids int32 [P]: the prompt that audits weight updates, P at most 64.

    `train` has each task once. With `recording`, attempts are read and not sampled: it is then the `source` of tasks,
    and `train` has the tasks of its batches.
    """

    source: TaskOrder
    train: list[Task]
    heldout: list[Task]
    tokenizer: Any
    longest_prompt: int
    probe_ids: Int32
    code_bundle: CodeBundle
    digests: dict[str, str]
    facts: dict[str, Any]
    recording: Recording | None = None

    @classmethod
    def load(cls, config: RunConfig, prompt_date: str | None = None) -> "Inputs":
        """Load the input of a run. `prompt_date`: the date of its prompts, as it was recorded; None: a new run's.

        Raises `ConfigError`, `ModelError`, `TaskFileError`, `RecordingError` or `PromptTooLong`.
        """
        config = with_local_model(config)
        if config.rollout.recorded is not None:
            return cls._recorded(config, Recording(fetched(config.rollout.recorded)), prompt_date)
        sets = TaskSets.load(config)
        train, heldout = sets.train, sets.heldout
        warn_of_overlap(find_overlap(train, heldout))
        source = TaskSource(train, config.batch.tasks, config.tasks.seed)
        check_deadlines(config)
        warn_of_time([*train, *heldout], config.env)
        tokenizer = _check_model(config)
        dated = fixed_date(config, tokenizer, prompt_date)
        longest = check_prompts(config, tokenizer, train, heldout)
        check_conversations(config, tokenizer, [*train, *heldout])
        probe = task_prompt(config, tokenizer, train[0])[:64]
        digests = sets.digests | dated
        facts = task_facts(train, heldout)
        return cls(source, train, heldout, tokenizer, longest, probe, sets.code_bundle, digests, facts)

    @classmethod
    def _recorded(cls, config: RunConfig, recording: Recording, prompt_date: str | None) -> "Inputs":
        """Load a run that learns from `recording`, which has questions and verdicts: no task file is read."""
        tokenizer = _check_model(config)
        dated = fixed_date(config, tokenizer, recording.manifest.prompt_date or prompt_date)
        model = fingerprint(Path(config.model.path), tokenizer)
        tasks = recording.check(config, model)
        longest = check_prompts(config, tokenizer, tasks, [])
        print(f"rollouts of {recording.folder}, {recording.off_policy(model)}", flush=True)
        probe = task_prompt(config, tokenizer, tasks[0])[:64] if tasks else np.zeros(1, np.int32)
        digests = {"rollout.recorded": recording.digest} | dated
        facts = task_facts(tasks, [])
        return cls(recording, tasks, [], tokenizer, longest, probe, NO_CODE, digests, facts, recording)


def _check_model(config: RunConfig) -> Any:
    """Check the model folder against the config, and return its tokenizer."""
    model = check_model_folder(Path(config.model.path))
    check_limits(config, model)
    _check_support(config, model)
    return load_tokenizer(config.model.path)


def fixed_date(config: RunConfig, tokenizer: Any, recorded: str | None = None) -> dict[str, str]:
    """Fix the date that the chat template writes: the recorded one, today, or in deterministic runs always the same.

    Return it under the key `PROMPT_DATE`; nothing for a template that shows no date.
    """
    if not shows_date(tokenizer):
        return {}
    first = DETERMINISTIC if config.deterministic else datetime.now().date()
    day = first if recorded is None else date.fromisoformat(recorded)
    fix_date(tokenizer, day)
    return {PROMPT_DATE: day.isoformat()}


def load_code(config: RunConfig) -> CodeBundle:
    """Make the modules of `env.code` importable in this process, and return them for the env workers."""
    code_bundle = pack(config.env.code)
    unpack(code_bundle)
    return code_bundle


def accepted_tasks(config: RunConfig, purpose: Purpose, path: str) -> list[Task]:
    """Read the tasks at `path` and have their environments check them; of "heldout", the first `tasks.max_heldout`.

    Raises as `read_tasks`, and `TaskFileError` for a task that its environment does not accept.
    """
    tasks = read_tasks(config, purpose, path)
    if purpose == "heldout":
        tasks = tasks[: config.tasks.max_heldout]
    try:
        refused = [error for task in tasks if (error := _refusal(task, config)) is not None]
    finally:
        close_shared_verifiers()
    if refused:
        with at_its_line(path, refused[0][0]):
            raise _summary([name for name, _ in refused], len(tasks), refused[0][1])
    check_tools_load(config.env, path, tasks)
    return tasks


def _summary(refused: list[str], num_tasks: int, first: TaskFileError) -> TaskFileError:
    if len(refused) == 1:
        return first
    return TaskFileError(f"{first} (and {len(refused) - 1} more of {num_tasks}: {show_names(refused[1:], MAX_NAMED)})")


def _refusal(task: Task, config: RunConfig) -> tuple[str, TaskFileError] | None:
    """Return the task's id and why its environment or the run's limits do not accept it; None where they do."""
    try:
        check_task(task)
        check_allowed(task, config.env)
        check_limits_of_task(task, config.env)
    except TaskFileError as error:
        return task.id, error
    return None


def read_tasks(config: RunConfig, purpose: Purpose, path: str) -> list[Task]:
    """Read the tasks at `path`, which may be a URI, with the run's adapter if it has one.

    Raises `ConfigError`, `TaskFileError`, `StorageError` or `TransferError`.
    """
    tasks, path = config.tasks, str(fetched(path))
    if tasks.adapter is not None:
        return load_tasks_with(tasks.adapter, path, purpose, tasks.options)
    if tasks.options:
        raise ConfigError(f"tasks.options={show(tasks.options)}: allowed: only with tasks.adapter")
    return load_tasks(path)


def load_tokenizer(path: str) -> Any:
    """Return the tokenizer of a model folder. Raises `ModelError` if it cannot be loaded or has no chat template."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"model.path={path}: its tokenizer cannot be loaded: {str(error).splitlines()[0]}") from None
    # prompts are measured against the run's window, which is often below the tokenizer's own limit and never above it
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    if not tokenizer.chat_template:
        raise ModelError(f"model.path={path}: its tokenizer has no chat template; prompts cannot be made without one")
    return tokenizer


def check_prompts(config: RunConfig, tokenizer: Any, train: list[Task], heldout: list[Task]) -> int:
    """Return the tokens of the longest prompt, 0 without tasks. Raises `PromptTooLong` for a task whose prompt, or
    whose shortest hindsight prompt, would not fit.
    """
    longest = 0
    window, limit = config.max_prompt_tokens, config.tasks.max_prompt_tokens
    allowed, where = window, f"{window}, model.max_model_len_tokens - rollout.sampling.max_response_tokens"
    if limit is not None and limit < window:
        allowed, where = limit, f"tasks.max_prompt_tokens={limit}"
    for path, task in _with_paths(config, train, heldout):
        with at_its_line(path, task.id):
            length = len(task_prompt(config, tokenizer, task))
            longest = max(longest, length)
            if length > allowed:
                raise PromptTooLong(f"task {task.id}: its prompt has {length} tokens; allowed: at most {where}")
    allowed = config.hindsight.max_prompt_tokens
    in_hindsight = train if config.uses_teacher else []
    for path, task in _with_paths(config, in_hindsight, heldout if config.evaluation.measure_repair else []):
        with at_its_line(path, task.id), of_task(task):
            length = frame_length(task, tokenizer, config.hindsight, enable_thinking=config.model.enable_thinking)
            if length > allowed:
                raise PromptTooLong(
                    f"task {task.id}: the question and the hindsight template take {length} tokens; "
                    f"allowed: at most hindsight.max_prompt_tokens={allowed}"
                )
    return longest


def _with_paths(config: RunConfig, train: list[Task], heldout: list[Task]) -> Iterator[tuple[str | None, Task]]:
    """Yield every task with the path of its set, None for recorded tasks."""
    recorded = config.rollout.recorded is not None
    for path, tasks in ((config.tasks.train, train), (config.tasks.heldout, heldout)):
        yield from ((None if recorded else path, task) for task in tasks)


def _check_support(config: RunConfig, model: dict[str, Any]) -> None:
    """Check that a support is smaller than the vocabulary, and that a batch's whole distributions fit their budget.

    Raises `ConfigError`, or `ModelError` where config.json names no vocabulary size.
    """
    needs = config.objective.needs
    if needs.support is None:
        return
    vocabulary = model.get("vocab_size", text_part(model).get("vocab_size"))
    if not isinstance(vocabulary, int):
        raise ModelError(f"model.path={config.model.path}: config.json names no vocab_size")
    if needs.support_size >= vocabulary:
        raise ConfigError(
            f"objective.top_k={needs.support_size}: allowed: below {vocabulary}, the model's vocabulary; "
            f"or objective.support=full"
        )
    positions = config.batch.tasks * config.batch.samples_per_task * config.rollout.sampling.max_response_tokens
    mib = positions * vocabulary * BYTES_PER_LOG_PROB / 2**20
    if needs.support == "full" and mib > needs.full_support_mib:
        raise ConfigError(
            f"objective.support=full: a batch's distributions can take {mib:.4g} MiB ({positions} positions x "
            f"{vocabulary} tokens); allowed: at most objective.full_support_mib={needs.full_support_mib:g}"
        )


def check_deadlines(config: RunConfig) -> None:
    """Raise `ConfigError` if a call of an environment may take longer than its deadline."""
    from env_workers.sandbox.pool import (
        execution_deadline_s,  # imports the sandboxes, which a run of recorded rollouts lacks
    )

    needed_s, allowed_s = execution_deadline_s(config.env), config.deadlines.environment_s
    if allowed_s < needed_s:
        raise ConfigError(
            f"deadlines.environment_s={allowed_s:g}: allowed: at least {needed_s:g} with these env limits"
        )
