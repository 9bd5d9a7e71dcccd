"""What happens in a run, as one stream of typed events.

Every part of a run calls `emit`; progress, Prometheus metrics, trace, metrics log, alarms and trackers are readers that
`listening` binds for the current context and for the tasks that are made in it. Outside a run there are no readers and
`emit` does nothing. The readers that were bound last are called first, so that a step is in the run directory before
anything shows it. A reader must return at once; an error that it raises is raised by `emit`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from sdpo.health import Alarm
from sdpo.types import RolloutHeader, Verdict
from sdpo.weights import Stream

DriverStage = Literal["train", "publish", "evaluate", "save"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncarnationBegan(Event):
    """The actors are about to start. `records` are the rows of metrics.jsonl of the `steps_done` steps."""

    steps_done: int
    records: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEntered(Event):
    """The driver began `stage`; `expected` is the number of samples of an evaluation, 0 where nothing is counted."""

    stage: DriverStage
    expected: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSampled(Event):
    """The first turn of an attempt was sampled. `batch_index` is None in an evaluation."""

    batch_index: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptJudged(Event):
    """An attempt is over, judged or lost to infrastructure. `batch_index` is None in an evaluation."""

    batch_index: int | None
    header: RolloutHeader
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScored(Event):
    """A teacher, or the initial model as reference, scored `num_tokens` tokens of a group, prompts included."""

    batch_index: int
    by: Literal["teacher", "reference"]
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupsQueued(Event):
    """The number of finished groups that wait for the learner changed."""

    num_groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsPublished(Event):
    """`receivers` hold the weights that were made by `batch_index` batches; `num_failed` others do not."""

    stream: Stream
    batch_index: int
    receivers: Sequence[str]
    num_failed: int
    seconds: float
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberCheckedOut(Event):
    """A caller got a member of the fleet `role` after waiting for `wait_s` seconds."""

    role: str
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorReplaced(Event):
    """An actor of `role` is started again because of `error`, or because its node was lost."""

    role: str
    error: BaseException
    node_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryMeasured(Event):
    """An actor and the processes under it hold `num_bytes` of resident memory."""

    actor: str
    role: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWritten(Event):
    """A checkpoint of `step` steps was written in `seconds`."""

    step: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecorded(Event):
    """A step is complete, with all its metrics. Step 0 is the measurement before training, without attempts.

    `headers` belong to the judged attempts of the batch, of which `num_passed` passed.
    """

    step: int
    metrics: Mapping[str, float]
    headers: Sequence[RolloutHeader] = ()
    num_passed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRaised(Event):
    """An alarm began with the step that was recorded last."""

    alarm: Alarm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CallBegan(Event):
    """The driver called an actor. `step` and `task` are None where the call is not for one. Compared by identity."""

    actor: str
    call: str
    stage: str
    step: int | None = None
    task: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded(Event):
    """The call that `began` is over."""

    began: CallBegan
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Event):
    """A line for the user."""

    text: str


Reader = Callable[[Event], None]
_readers: ContextVar[tuple[Reader, ...]] = ContextVar("readers", default=())


def emit(event: Event) -> None:
    """Pass the event to every reader of this context."""
    for reader in _readers.get():
        reader(event)


@contextmanager
def listening(*readers: Reader) -> Iterator[None]:
    """Inside, in this context and in tasks made in it, `readers` get every event before the readers bound outside."""
    token = _readers.set((*readers, *_readers.get()))
    try:
        yield
    finally:
        _readers.reset(token)
