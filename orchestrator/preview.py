"""`sdpo preview`: what a run would make of a task and an answer that a person wrote, without a model.

The run's own parts, in this process: adapter, environment, sandbox and feedback policy through `EnvWorker`, the chat
template, the hindsight prompt. No weights, no engine, no Ray.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from env_workers.environment import Ending, Exchange, Observation, Reply
from env_workers.sessions import History
from env_workers.worker import EnvWorker
from orchestrator.attempts import check_conversations
from orchestrator.inputs import TaskSets, load_tokenizer
from orchestrator.preview_text import CharacterTokenizer, length_of, text_of
from sdpo.chat import ChatTokenizer, fit_turn, in_words, render_prompt
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, ModelError, PromptTooLong
from sdpo.reprompt import Attempt, build_hindsight, route_group
from sdpo.show import show
from sdpo.storage_cache import fetched
from sdpo.types import HindsightPrompt, Message, Task, Verdict

UNBOUNDED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Something that a model reads. `length`: tokens, or characters without a tokenizer."""

    text: str
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What was answered, and what the environment showed before the next turn (None: it gave its verdict)."""

    answer: Text
    observation: tuple[Message, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """An attempt from its first turn to its verdict; `notes` say where a run would differ."""

    turns: tuple[Turn, ...]
    transcript: str
    verdict: Verdict
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Everything that is shown. `room`: what the window leaves beside prompt and response, in tokens; None: unknown."""

    task: Task
    task_set: str
    unit: str
    prompt: Text
    room: int | None
    attempt: Played | None
    demo: Played | None
    hindsight: Text | None
    cuts: HindsightPrompt | None
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
    tokenizer: Any = CharacterTokenizer() if plain else _tokenizer(config)
    if plain:
        config = _without_token_limits(config)
    check_conversations(config, tokenizer, [task])
    world = EnvWorker(config.env, "preview", "sdpo-preview", sets.luggage)
    try:
        played = [_Player(config, tokenizer, world, task, plain).play(a) for a in (answers, demo) if a]
    finally:
        world.close()
    attempt = played[0] if answers else None
    shown_demo = played[-1] if demo else None
    hindsight, notes = (None, []) if attempt is None else _hindsight(config, tokenizer, task, attempt, shown_demo)
    ids = render_prompt(tokenizer, task.messages, enable_thinking=config.model.enable_thinking)
    room = None if plain else config.max_prompt_tokens - len(ids)
    if room is not None and room < 0:
        notes.insert(0, f"a run refuses this task: its prompt has {-room} tokens more than the window leaves it")
    return Preview(
        task=task,
        task_set=task_set,
        unit="characters" if plain else "tokens",
        prompt=Text(text=text_of(tokenizer, ids), length=len(ids)),
        room=room,
        attempt=attempt,
        demo=shown_demo,
        hindsight=None
        if hindsight is None
        else Text(text=text_of(tokenizer, hindsight.token_ids), length=len(hindsight.token_ids)),
        cuts=hindsight,
        notes=tuple(notes),
    )


def find_task(sets: TaskSets, task_id: str | None) -> tuple[Task, str]:
    """The task and the set that it is of ("train", "heldout"). Raises `ConfigError` with the nearest ids."""
    if task_id is None:
        return sets.train[0], "train"
    for name, tasks in (("train", sets.train), ("heldout", sets.heldout)):
        for task in tasks:
            if task.id == task_id:
                return task, name
    ids = [task.id for task in [*sets.train, *sets.heldout]]
    near = difflib.get_close_matches(task_id, ids, n=3, cutoff=0.0)
    raise ConfigError(
        f"--task={show(task_id)}: no such task among {len(sets.train)} training and {len(sets.heldout)} held-out "
        f"tasks; nearest: {', '.join(near)}"
    )


def _check_turns(config: RunConfig, answers: Sequence[str], demo: Sequence[str]) -> None:
    limit = config.env.max_turns
    for option, given in (("--answer", answers), ("--demo", demo)):
        if len(given) > limit:
            raise ConfigError(
                f"{option}: given {len(given)} times; allowed: at most env.max_turns={limit}, once a turn"
            )
    if demo and not answers:
        raise ConfigError("--demo: allowed: with --answer, the attempt that the demonstration is shown to")


def _tokenizer(config: RunConfig) -> Any:
    try:
        return load_tokenizer(str(fetched(config.model.path)))
    except ModelError as error:
        raise ModelError(f"{error}; --plain previews without a tokenizer") from None


def _without_token_limits(config: RunConfig) -> RunConfig:
    """Limits are in tokens: where lengths are in characters they say nothing."""
    sampling = config.rollout.sampling.model_copy(update={"max_response_tokens": UNBOUNDED})
    return config.model_copy(
        update={
            "hindsight": config.hindsight.model_copy(update={"max_prompt_tokens": UNBOUNDED}),
            "rollout": config.rollout.model_copy(update={"sampling": sampling}),
        }
    )


class _Player:
    """Plays one attempt, within the bounds of `orchestrator.attempts.Attempts`."""

    def __init__(self, config: RunConfig, tokenizer: ChatTokenizer, world: EnvWorker, task: Task, plain: bool) -> None:
        self._config, self._tokenizer, self._world, self._task, self._plain = config, tokenizer, world, task, plain
        self._notes: list[str] = []
        self._turns: list[Turn] = []
        self._transcript = ""
        self._left = config.rollout.sampling.max_response_tokens

    def play(self, answers: Sequence[str]) -> Played:
        history: History = ()
        verdict: Verdict | None = None
        name = f"preview-{id(self)}"
        for number, text in enumerate(answers, start=1):
            reply = Reply(text=text)
            answer = self._said(text, number)
            said = self._world.step(name, self._task, history, reply)
            if isinstance(said, Verdict):
                self._turns.append(Turn(answer=answer, observation=None))
                verdict = said
                break
            history = (*history, Exchange(reply=reply, observation=said))
            ending = self._read(answer, said, number, len(answers))
            if ending is not None:
                verdict = self._world.finish(name, self._task, history, ending)
                break
        assert verdict is not None, "the last answer ends the attempt"
        unused = len(answers) - len(self._turns)
        if unused:
            self._notes.append(f"the attempt was over after turn {len(self._turns)}: {unused} more given, not used")
        return Played(turns=tuple(self._turns), transcript=self._transcript, verdict=verdict, notes=tuple(self._notes))

    def _said(self, text: str, number: int) -> Text:
        """The model's turn: its words and the token that ends it."""
        self._transcript += text
        length = length_of(self._tokenizer, text) + (0 if self._plain else 1)
        if length > self._left:
            self._notes.append(f"turn {number}: {length} tokens; a run cuts it at {max(0, self._left)}")
        self._left -= length
        return Text(text=text, length=length)

    def _read(self, answer: Text, observation: Observation, number: int, num_answers: int) -> Ending | None:
        """What the model reads before its next turn; or the bound that ends the attempt here."""
        limit = self._config.env.max_turns
        fitted = None
        if self._left >= 0 and number < limit:
            fitted = fit_turn(
                self._tokenizer,
                self._task.messages,
                observation.messages,
                self._left // 2,
                stop_id=self._stop_id,
                enable_thinking=self._config.model.enable_thinking,
            )
        shown = observation.messages if fitted is None else fitted[1]
        self._turns.append(Turn(answer=answer, observation=shown))
        whole, kept = (sum(len(m.content) for m in messages) for messages in (observation.messages, shown))
        if kept < whole:
            self._notes.append(f"turn {number}: the model reads {kept} of {whole} characters of the observation")
        if number >= limit:
            self._notes.append(f"env.max_turns={limit} reached: judged as it is")
            return "turns"
        if fitted is None:
            self._notes.append("the tokens of a response are used up: judged as it is")
            return "tokens"
        if number == num_answers:
            self._notes.append(
                f"the environment waits for turn {number + 1} of at most {limit} (another --answer); judged as if the "
                f"tokens had ended here"
            )
            return "tokens"
        self._left -= len(fitted[0])
        self._transcript = in_words(self._transcript, shown)
        return None

    @property
    def _stop_id(self) -> int:
        stop_id = getattr(self._tokenizer, "eos_token_id", None)
        return -1 if stop_id is None else int(stop_id)


def _hindsight(
    config: RunConfig, tokenizer: ChatTokenizer, task: Task, attempt: Played, demo: Played | None
) -> tuple[HindsightPrompt | None, list[str]]:
    """What the teacher would read of `attempt`, with `demo` as the other attempt of its group; and notes."""
    group = [_attempt_of(i, played) for i, played in enumerate((attempt, demo)) if played is not None]
    notes: list[str] = []
    if attempt.verdict.infrastructure_error is not None:
        return None, ["an attempt that infrastructure broke is run again, and dropped in the end"]
    routing = route_group(group, config.hindsight)[0]
    if demo is not None and routing.demo_from is None:
        notes.append(
            f"the demonstration is not shown: its reward is {demo.verdict.reward}, and "
            f"hindsight.success_threshold={config.hindsight.success_threshold:g}"
            if group[1].reward < config.hindsight.success_threshold
            else "the demonstration is not shown: hindsight.include_demo=false"
        )
    if not config.uses_teacher:
        notes.append(f"this run has no teacher (objective.kind={config.objective.kind}): nothing reads this prompt")
    if not routing.mask:
        notes.append("neither demonstration nor feedback: the teacher has nothing to look back on, no signal")
        return None, notes
    try:
        thinking = config.model.enable_thinking
        return build_hindsight(task, group, 0, routing, tokenizer, config.hindsight, enable_thinking=thinking), notes
    except PromptTooLong as error:
        return None, [*notes, f"a run refuses this task: {error}"]


def _attempt_of(index: int, played: Played) -> Attempt:
    verdict = played.verdict
    return Attempt(sample_index=index, text=played.transcript, reward=verdict.reward or 0.0, feedback=verdict.feedback)
