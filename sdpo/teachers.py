"""The teachers (`teacher.regularisation`, paper A.2 and Table 4): which weights score attempts in hindsight.

A teacher mixes at most two models: the initial one, and a current one that follows a weight stream of the learner.
Learner, teacher actors and doctor ask these declarations. One class and one member of `TeacherKind` each.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from sdpo.bounds import Probability, Rate
from sdpo.section import Section


class Teacher(Section):
    """Base of a teacher's section."""

    stream: ClassVar[Literal["policy", "teacher"] | None] = None
    """The learner's weights that the current model follows: the policy, or a moving average of it; None: it has none,
    the initial model scores."""
    mixes: ClassVar[bool] = False
    """Whether the initial and the current model score together."""

    @property
    def current_share(self) -> float:
        """Return the weight of the current model's logits in the mixture; the initial one has the rest."""
        return 1.0

    @property
    def average_rate(self) -> float | None:
        """Return the rate of the learner's moving average; None without one."""
        return None

    @property
    def average_moves(self) -> Literal["batch", "optimizer_step"]:
        """Return how often the moving average moves."""
        return "batch"

    def describe(self) -> str:
        """Return the teacher in a few words, for the model card."""
        return str(self.model_dump()["kind"])


class EmaTeacher(Teacher):
    """`teacher.regularisation`: the student, slowly followed."""

    stream: ClassVar[Literal["policy", "teacher"] | None] = "teacher"
    kind: Literal["ema"]
    """Exponential moving average of the student, kept in float32 by the learner (paper, A.2)."""
    rate: Rate = 0.05
    """theta' <- (1 - rate) theta' + rate theta."""
    every: Literal["batch", "optimizer_step"] = "batch"
    """When the average moves: once per rollout batch, or after each optimizer step. It is published once per batch."""

    @property
    def average_rate(self) -> float | None:
        return self.rate

    @property
    def average_moves(self) -> Literal["batch", "optimizer_step"]:
        return self.every

    def describe(self) -> str:
        return f"ema, rate {self.rate:g} every {self.every.replace('_', ' ')}"


class TrustRegionTeacher(Teacher):
    """`teacher.regularisation`: between the initial weights and the student."""

    stream: ClassVar[Literal["policy", "teacher"] | None] = "policy"
    mixes: ClassVar[bool] = True
    kind: Literal["trust_region"]
    """q ~ initial^(1 - rate) student^rate, normalised over the whole vocabulary, both reading the hindsight prompt."""
    rate: Probability = 0.01
    """Weight of the student's logits (the paper's alpha)."""

    @property
    def current_share(self) -> float:
        return self.rate

    def describe(self) -> str:
        return f"trust_region, rate {self.rate}"


class FrozenTeacher(Teacher):
    """`teacher.regularisation`: the initial weights."""

    kind: Literal["frozen"]
    """The initial weights, throughout the run."""


class LiveTeacher(Teacher):
    """`teacher.regularisation`: the student itself."""

    stream: ClassVar[Literal["policy", "teacher"] | None] = "policy"
    kind: Literal["live"]
    """The current student (unregularised; diverges eventually, paper Table 4)."""


TeacherKind = Annotated[EmaTeacher | TrustRegionTeacher | FrozenTeacher | LiveTeacher, Field(discriminator="kind")]
