"""What the orchestrator and a learner rank tell each other. Imports neither torch nor ray."""

from dataclasses import dataclass
from typing import Literal

from sdpo.types import Version

Attachment = Literal["scores", "policy", "reference"]
"""What may travel with a rollout: `TeacherScores`, `PolicyScores`, `ReferenceScores`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """The optimizer steps of one rollout batch for one rank.

    The call carries, for each of this rank's N attempts, its rollout and then what `attached` names, in that order.
    `mini_batches[m][j]` holds this rank's indices into the N attempts for micro-batch j of optimizer step m (see
    `learner.packing`); every rank must be given the same numbers of both. `batch_index` is that of the rollout
    batch, for messages only.
    """

    batch_index: int
    advantages: tuple[float, ...]
    attached: tuple[tuple[Attachment, ...], ...]
    mini_batches: tuple[tuple[tuple[int, ...], ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OldLogProbsRequest:
    """One forward of the present policy over this rank's N rollouts, which the call carries.

    `micro_batches` as in `TrainRequest`. The answer is a `ScoreReceipt` (its version is that of the policy), then N
    `PolicyScores`, in order.
    """

    version: Version
    micro_batches: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerInfo:
    """What a rank is after `setup`. `optimizer_step` counts optimizer steps, over all incarnations."""

    rank: int
    world_size: int
    optimizer_step: int
    num_parameters: int
    device: str
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreReceipt:
    """The first object of a teacher's answer: small, so that waiting for it fetches no arrays.

    num_tokens counts hindsight prompts and responses, padding excluded.
    """

    version: Version
    num_tokens: int
    seconds: float
