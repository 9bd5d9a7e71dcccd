"""The messages between the packages: frozen, slotted, keyword-only types. Imports numpy and nothing heavier.

Dimension letters: P prompt tokens, T response tokens, K support size, H hindsight prompt tokens.
Token in, token out: token ids are produced once, by the engine, and never decoded and tokenised again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message. `Message(role="user", content="Write f(x): double it.")`"""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One question and what its environment needs to judge an answer.

    `payload` is hidden from the model, and answer keys inside it never enter a sandbox. `tools` are given to the chat
    template, each {"type": "function", "function": {"name", "description", "parameters"}}, parameters a JSON schema.

    Example: `Task(id="double-it", messages=(Message(role="user", content="Write f(x): double it."),),
    environment="code", payload={"tests": [{"kind": "functional", "function": "f", "inputs": [2], "expected": 4}]})`
    """

    id: str
    messages: tuple[Message, ...]
    environment: str
    payload: Mapping[str, Any]
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Version:
    """The weights that the run's incarnation `incarnation` held after `batch` rollout batches (0: as loaded).

    `str(Version(incarnation=1, batch=7)) == "1.7"`, the form in which vLLM and files keep it.
    """

    incarnation: int
    batch: int

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.batch}"

    @classmethod
    def parse(cls, text: str) -> "Version":
        """Return the version of a text that `str` made. Raises `ValueError` for any other text."""
        incarnation, batch = text.split(".")
        return cls(incarnation=int(incarnation), batch=int(batch))


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSpan:
    """Tokens [start, end) of a segment were sampled under `version`."""

    version: Version
    start: int
    end: int


class FinishReason(StrEnum):
    STOP = "stop"
    """The model ended its turn; the stop token is part of the segment."""
    LENGTH = "length"
    """The response was cut at the token limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of tokens by one author. Arrays other than `token_ids` are set for the model's segments only.

    token_ids int32 [T]; log_probs float32 [T] of the sampled tokens under the sampling distribution;
    support_ids int32 [T, K], the K most likely tokens at each position, most likely first;
    support_log_probs float32 [T, K], normalised over the whole vocabulary.
    """

    author: Literal["model", "environment"]
    token_ids: Int32
    log_probs: Float32 | None = None
    support_ids: Int32 | None = None
    support_log_probs: Float32 | None = None
    versions: tuple[VersionSpan, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How one completion is sampled. Training rollouts use top_p 1, top_k -1, min_p 0 (the config refuses others)."""

    temperature: float
    max_tokens: int
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """Sample completions `sample_indices` of one prompt. One seed for each, see `sdpo.seeds`.

    `support_size` is K (0 records no support, as evaluation does).
    """

    task_id: str
    prompt_ids: Int32
    sample_indices: tuple[int, ...]
    seeds: tuple[int, ...]
    sampling: SamplingParams
    support_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """Sample the model's next turn of one attempt, after what its environment answered.

    observation_ids int32 [E]: the environment's tokens, up to and with the assistant header; they follow the attempt's
    tokens as they are. `transcript` is the conversation in words up to here (see `sdpo.chat.in_words`).
    `sampling.max_tokens` bounds this turn.
    """

    task_id: str
    sample_index: int
    observation_ids: Int32
    transcript: str
    seed: int
    sampling: SamplingParams
    support_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One attempt as the engine made it. `segments` of a single-turn attempt is one model segment.

    prompt_ids int32 [P].
    """

    task_id: str
    sample_index: int
    prompt_ids: Int32
    segments: tuple[Segment, ...]
    finish_reason: FinishReason

    @property
    def response_ids(self) -> Int32:
        """Return int32 [T]: every segment's tokens, in order, the environment's included."""
        return np.concatenate([s.token_ids for s in self.segments]).astype(np.int32, copy=False)

    @property
    def model_mask(self) -> NDArray[np.bool_]:
        """Return bool [T]: True where the model wrote the token."""
        return np.concatenate([np.full(len(s.token_ids), s.author == "model") for s in self.segments])


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutHeader:
    """The small part of a rollout that the orchestrator reads; the arrays stay in the object store.

    `reply` is the model's last turn decoded without special tokens, for the environment. `text` is the response in
    words, for demonstrations: the same as `reply` after one turn, after several the conversation in the form of
    `sdpo.chat.in_words`. `last_token_id` is the response's last token: after `stop` the one that ended the turn.
    `num_response_tokens` counts the environment's tokens, too. `versions` are those of all turns, each once.
    """

    task_id: str
    sample_index: int
    text: str
    reply: str
    num_prompt_tokens: int
    num_response_tokens: int
    num_environment_tokens: int
    num_turns: int
    last_token_id: int
    finish_reason: FinishReason
    versions: tuple[Version, ...]

    @property
    def num_model_tokens(self) -> int:
        """Return the number of tokens of the response that the model wrote."""
        return self.num_response_tokens - self.num_environment_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the environment answered. `reward` is None exactly when `infrastructure_error` is set.

    `success`: whether the attempt may be shown to others as a solution, and counts as passed. An environment may leave
    it out: the env worker then sets it, to whether the reward is at least `hindsight.success_threshold`.
    `feedback` is budgeted and deterministic; blank when there is nothing to say.
    `kind` names the outcome for metrics, for example "passed", "wrong_answer", "runtime_error", "no_program".
    """

    reward: float | None
    success: bool = None  # type: ignore[assignment]  # left out by an environment; never seen behind the env worker
    kind: str
    feedback: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    infrastructure_error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HindsightPrompt:
    """The teacher's prompt for one attempt: token_ids int32 [H], ends with the assistant header.

    `mask` is False when neither a demonstration nor feedback was to be had: the attempt carries no signal.
    """

    task_id: str
    sample_index: int
    token_ids: Int32
    mask: bool
    demo_from: int | None
    used_feedback: bool
    num_demo_chars_cut: int
    num_feedback_chars_cut: int
    num_attempt_chars_cut: int
    template_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyScores:
    """The learner's own log-probs of one attempt before the first step of its batch (pi_old). temperature as sampled.

    sampled_log_probs float32 [T]. support_ids int32 [T, K] is set with `support: student` only: the K most likely
    tokens. support_log_probs float32 [T, K] and tail_log_probs float32 [T] are set for objectives that compare bins
    with the old policy (estimator clipped_surrogate), at the ids above or else at the rollout's.
    """

    task_id: str
    sample_index: int
    sampled_log_probs: Float32
    support_ids: Int32 | None
    support_log_probs: Float32 | None
    tail_log_probs: Float32 | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherScores:
    """The teacher's log-probs of one attempt under its hindsight prompt. temperature as the student's.

    sampled_log_probs float32 [T], of the tokens that were sampled; entropy float32 [T] in nats.
    support_log_probs float32 [T, K], normalised over the vocabulary, at the support; [T, V] with `support: full`; None
    where the estimator needs no support. tail_log_probs float32 [T], log of the mass outside the support, computed over
    the complement; None without support and with `support: full`.
    support_ids int32 [T, K] is set with `support: teacher` only: the ids that the teacher chose.
    """

    task_id: str
    sample_index: int
    sampled_log_probs: Float32
    entropy: Float32
    support_ids: Int32 | None
    support_log_probs: Float32 | None
    tail_log_probs: Float32 | None
    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceScores:
    """The initial model's log-probs of one attempt under the attempt's own prompt: sampled_log_probs float32 [T]."""

    task_id: str
    sample_index: int
    sampled_log_probs: Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """One attempt with all that the learner needs, joined by id. `advantage` is the group-relative one (GRPO).

    `scores` is None for objectives without a teacher and for attempts whose hindsight mask is False; `policy` and
    `reference` are None where the objective does not ask for them.
    """

    rollout: Rollout
    advantage: float
    scores: TeacherScores | None = None
    policy: PolicyScores | None = None
    reference: ReferenceScores | None = None

    @property
    def num_tokens(self) -> int:
        return len(self.rollout.prompt_ids) + len(self.rollout.response_ids)
