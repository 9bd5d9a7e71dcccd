"""What the orchestrator and a learner rank tell each other. Imports neither torch nor ray."""

from dataclasses import dataclass

from sdpo.types import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """One optimizer step for one rank.

    The call carries N rollouts, then the teacher scores of those with `scored` True, in the same order.
    `micro_batches` holds this rank's indices into the N rollouts (see `learner.packing`); every rank must be given
    the same number of micro-batches. `step` is the rollout batch, for messages only.
    """

    step: int
    advantages: tuple[float, ...]
    scored: tuple[bool, ...]
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
