"""`sdpo preview`: what a run would make of a task and an answer that a person wrote, without a model.

The run's own parts, in this process: adapter, environment, sandbox and feedback policy through `EnvWorker`, the
attempt's course through `Attempts`, the chat template, the hindsight prompt. No weights, no engine, no Ray.
"""

import asyncio
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from env_workers.worker import EnvWorker
from orchestrator.batch.attempts import Attempts
from orchestrator.batch.requests import AttemptRequest, evaluation_request
from orchestrator.commands.preview.script import LocalSession, ScriptedSampler, Text
from orchestrator.commands.preview.text import CharacterTokenizer, text_of
from orchestrator.failures import root_cause
from orchestrator.group import AttemptRecord
from orchestrator.inputs.conversations import check_conversations
from orchestrator.inputs.inputs import TaskSets, fixed_date, load_tokenizer
from orchestrator.inputs.limits import CODE_ENVIRONMENTS
from orchestrator.inputs.prompts import hindsight_prompt, task_prompt
from sdpo.chat import ChatTokenizer, opens_thinking
from sdpo.config import BubblewrapSandbox, RunConfig
from sdpo.errors import ConfigError, InfrastructureError, ModelError, PromptTooLong, SandboxUnavailable
from sdpo.reprompt import Attempt, Routing, route_group
from sdpo.show import show
from sdpo.storage_cache import fetched
from sdpo.thinking import CLOSE, OPEN
from sdpo.types import HindsightPrompt, Message, Task

UNBOUNDED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """An answer, and what the model reads of the environment's next words (None: it gave its verdict)."""

    answer: Text
    observation: tuple[Message, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayedAnswers:
    """A person's answers as an attempt, from the first turn to the verdict; `notes` say where a run would differ."""

    record: AttemptRecord
    turns: tuple[Turn, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Everything that is shown. `tokens_left` of the window beside prompt and response; None where it is not known.

    `packages`: what programs may import beyond the standard library; None where no program is judged.
    """

    task: Task
    task_set: str
    unit: str
    prompt: Text
    tokens_left: int | None
    packages: tuple[str, ...] | None
    attempt: PlayedAnswers | None
    demo: PlayedAnswers | None
    hindsight: HindsightPrompt | None
    hindsight_text: str
    notes: tuple[str, ...]


def preview(
    config: RunConfig, task_id: str | None, answers: Sequence[str], demo: Sequence[str], *, plain: bool
) -> Preview:
    """Play `answers` (and `demo`, another attempt of the group), one a turn, at the task. None: the first task.

    `plain`: without a tokenizer; lengths are in characters and nothing is cut. Raises `UserError` for bad input, an
    unknown task included, and `InfrastructureError` where the sandbox broke.
    """
    _check_turns(config, answers, demo)
    sets = TaskSets.load(config)
    task, task_set = find_task(sets, task_id)
    config, tokenizer = with_tokenizer(config, plain=plain)
    check_conversations(config, tokenizer, [task])
    ids = task_prompt(config, tokenizer, task)
    threshold = config.hindsight.success_threshold
    worker = EnvWorker(config.env, "preview", "sdpo-preview", sets.code_bundle, threshold)
    try:
        packages, unknown = _packages(config, task, worker)
        attempt, shown_demo = (
            asyncio.run(
                play(
                    config,
                    tokenizer,
                    worker,
                    evaluation_request(config, task, ids, [index], f"preview-{index}"),
                    script,
                )
            )
            if script
            else None
            for index, script in enumerate((answers, demo))
        )
    finally:
        worker.close()
    hindsight, notes = (None, []) if attempt is None else _hindsight(config, tokenizer, task, attempt, shown_demo)
    notes += unknown
    tokens_left = None if plain else config.max_prompt_tokens - len(ids)
    if tokens_left is not None and tokens_left < 0:
        notes.insert(0, f"a run refuses this task: its prompt has {-tokens_left} tokens more than the window leaves it")
    return Preview(
        task=task,
        task_set=task_set,
        unit="characters" if plain else "tokens",
        prompt=Text(text=text_of(tokenizer, ids), length=len(ids)),
        tokens_left=tokens_left,
        packages=packages,
        attempt=attempt,
        demo=shown_demo,
        hindsight=hindsight,
        hindsight_text="" if hindsight is None else text_of(tokenizer, hindsight.token_ids),
        notes=tuple(notes),
    )


def find_task(sets: TaskSets, task_id: str | None) -> tuple[Task, str]:
    """Return the task and the name of its set ("train", "heldout"). Raises `ConfigError` with the nearest ids."""
    if task_id is None:
        return sets.train[0], "train"
    for name, tasks in (("train", sets.train), ("heldout", sets.heldout)):
        for task in tasks:
            if task.id == task_id:
                return task, name
    raise no_such_task(f"--task={show(task_id)}", sets, task_id)


def no_such_task(where: str, sets: TaskSets, task_id: str) -> ConfigError:
    """Return the error for an id that no task has; it begins with `where` and names the nearest ids."""
    ids = list(dict.fromkeys(task.id for task in [*sets.train, *sets.heldout]))
    near = difflib.get_close_matches(task_id, ids, n=3, cutoff=0.0)
    return ConfigError(
        f"{where}: no such task among {len(sets.train)} training and {len(sets.heldout)} held-out "
        f"tasks; nearest: {', '.join(near)}"
    )


def _packages(config: RunConfig, task: Task, worker: EnvWorker) -> tuple[tuple[str, ...] | None, list[str]]:
    """Return what programs may import, and why that is not known. Raises SandboxUnavailable for folders of the run."""
    sandbox = config.env.sandbox
    if task.environment not in CODE_ENVIRONMENTS:
        return None, []
    if isinstance(sandbox, BubblewrapSandbox) and not sandbox.python_path:
        return (), []
    try:
        return tuple(map(str, worker.packages())), []
    except (SandboxUnavailable, InfrastructureError) as error:
        if sandbox.python_path:
            raise
        return None, [f"what programs may import is not known: {error}"]


def _check_turns(config: RunConfig, answers: Sequence[str], demo: Sequence[str]) -> None:
    limit = config.env.max_turns
    for option, given in (("--answer", answers), ("--demo", demo)):
        if len(given) > limit:
            raise ConfigError(
                f"{option}: given {len(given)} times; allowed: at most env.max_turns={limit}, once a turn"
            )
    if demo and not answers:
        raise ConfigError("--demo: allowed: with --answer, the attempt that the demonstration is shown to")


def with_tokenizer(config: RunConfig, *, plain: bool) -> tuple[RunConfig, Any]:
    """Return the config to play with and the model's tokenizer; `plain`: one of characters, without token limits.

    Raises `ModelError` for a folder without a tokenizer that can be used.
    """
    if plain:
        return _without_token_limits(config), CharacterTokenizer()
    try:
        tokenizer = load_tokenizer(str(fetched(config.model.path)))
    except ModelError as error:
        raise ModelError(f"{error}; --plain previews without a tokenizer") from None
    fixed_date(config, tokenizer)
    return config, tokenizer


def _without_token_limits(config: RunConfig) -> RunConfig:
    """Return the config without limits in tokens, which say nothing where lengths are in characters."""
    sampling = config.rollout.sampling.model_copy(update={"max_response_tokens": UNBOUNDED})
    return config.model_copy(
        update={
            "hindsight": config.hindsight.model_copy(update={"max_prompt_tokens": UNBOUNDED}),
            "rollout": config.rollout.model_copy(update={"sampling": sampling}),
        }
    )


async def play(
    config: RunConfig, tokenizer: ChatTokenizer, worker: EnvWorker, request: AttemptRequest, script: Sequence[str]
) -> PlayedAnswers:
    """Play `script`, at least one answer, as an attempt of `request`; its label names the environment's session."""
    num_stop_tokens = 0 if isinstance(tokenizer, CharacterTokenizer) else 1
    lengths = (len(tokenizer.encode(text, add_special_tokens=False)) + num_stop_tokens for text in script)
    answers = [Text(text=text, length=length) for text, length in zip(script, lengths, strict=True)]
    sampler = ScriptedSampler(answers, getattr(tokenizer, "eos_token_id", None))
    session = LocalSession(worker, request.label, request.task)
    shown: list[Sequence[Message]] = []
    attempts = Attempts(config, tokenizer, sampler, lambda *_: session, shown.append)
    try:
        (record,) = await attempts.play_all(request)
    except BaseExceptionGroup as group:
        raise root_cause(group) from group
    read = [*shown, *(observation.messages for observation in session.observations[len(shown) :])]
    turns = [Turn(answer=answer, observation=None) for answer in answers[: len(sampler.limits)]]
    turns = [replace(turn, observation=tuple(read[i])) if i < len(read) else turn for i, turn in enumerate(turns)]
    notes = list(_notes(config, sampler, session, turns))
    task, thinking = request.task, config.model.enable_thinking
    in_thinking = opens_thinking(tokenizer, task.messages, tools=task.tools, enable_thinking=thinking)
    if CLOSE not in script[0] and in_thinking:
        notes.append(f"the chat template has opened {OPEN}: an answer without {CLOSE} is thinking and earns nothing")
    if len(turns) < len(answers):
        notes.append(f"the attempt was over after turn {len(turns)}: {len(answers) - len(turns)} more given, not used")
    return PlayedAnswers(record=record, turns=tuple(turns), notes=tuple(notes))


def _notes(config: RunConfig, sampler: ScriptedSampler, session: LocalSession, turns: Sequence[Turn]) -> Iterator[str]:
    """Yield what a run would cut, turn by turn, and what ended the attempt."""
    for number, (turn, limit) in enumerate(zip(turns, sampler.limits, strict=True), start=1):
        if turn.answer.length > limit:
            yield f"turn {number}: {turn.answer.length} tokens; a run cuts it at {max(0, limit)}"
        if turn.observation is not None:
            whole = sum(len(message.content) for message in session.observations[number - 1].messages)
            read = sum(len(message.content) for message in turn.observation)
            if read < whole:
                yield f"turn {number}: the model reads {read} of {whole} characters of the observation"
    if session.ending == "turns":
        yield f"env.max_turns={config.env.max_turns} reached: judged as it is"
    elif sampler.is_over:
        yield (
            f"the environment waits for turn {len(turns) + 1} of at most {config.env.max_turns} (another --answer); "
            f"judged as if the tokens had ended here"
        )
    elif session.ending == "tokens":
        yield "the tokens of a response are used up: judged as it is"


def _hindsight(
    config: RunConfig, tokenizer: ChatTokenizer, task: Task, played: PlayedAnswers, demo: PlayedAnswers | None
) -> tuple[HindsightPrompt | None, list[str]]:
    """Return what the teacher would read of `played`, with `demo` as the other attempt of its group; and notes."""
    if played.record.is_lost:
        return None, ["an attempt that infrastructure broke is run again, and dropped in the end"]
    group = [Attempt.of(p.record.header, p.record.verdict) for p in (played, demo) if p is not None]
    notes: list[str] = []
    routing = route_group(group, config.hindsight)[0]
    if demo is not None and routing.demo_from != 1:
        notes.append(f"the demonstration is not shown: {_why_not_shown(config, routing, *group)}")
    if not config.uses_teacher:
        notes.append(f"this run has no teacher (objective.kind={config.objective.kind}): nothing reads this prompt")
    if not routing.mask:
        notes.append("neither demonstration nor feedback: the teacher has nothing to look back on, no signal")
        return None, notes
    try:
        return hindsight_prompt(config, tokenizer, task, group, 0, routing), notes
    except PromptTooLong as error:
        return None, [*notes, f"a run refuses this task: {error}"]


def _why_not_shown(config: RunConfig, routing: Routing, own: Attempt, demo: Attempt) -> str:
    """Return why `route_group` chose `routing` for `own` and not `demo`."""
    if routing.demo_from is not None:
        return "the attempt itself is, with hindsight.exclude_own_success=false"
    if not config.hindsight.include_demo:
        return "hindsight.include_demo=false"
    if not demo.success:
        return f"its verdict says success=false (reward {demo.reward:g})"
    return f"its reward {demo.reward:g} is lower than the attempt's, {own.reward:g}"
