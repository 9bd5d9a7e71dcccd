"""What the actors of a run ask of a Ray cluster: how many of each role, and what one of them needs."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sdpo.bounds import Actors, Amount, AmountOrZero, Gib
from sdpo.section import Section


class ActorPlacement(Section):
    """What one actor asks for; the fields that all roles share."""

    role: ClassVar[str]
    num_cpus: AmountOrZero = 0.25
    """Ray CPUs of one actor; fractions, so that all actors fit on a laptop."""
    memory_gib: Gib | None = None
    """Memory of one actor in GiB that Ray sets aside on its node; none: Ray does not count it."""
    resources: dict[str, Amount] = Field(default_factory=dict)
    """Amounts of custom resources of one actor, as node types offer them, for example {fast_disk: 1}."""
    label_selector: dict[str, str] = Field(default_factory=dict)
    """Labels that the node must have, for example {sdpo-role: rollout}; a value may be !value or in(a,b)."""

    @model_validator(mode="after")
    def _resources_are_custom(self) -> Self:
        for name, amount in self.resources.items():
            if name in ("CPU", "GPU", "memory", "env_slot"):
                raise ValueError(
                    f"placement.{self.role}.resources.{name}={amount:g}: allowed: custom resources; {name} has "
                    "a key of its own"
                )
        return self

    @property
    def request(self) -> dict[str, float]:
        """Return what Ray has to find on one node for one actor, by Ray's names; memory in bytes."""
        memory = {} if self.memory_gib is None else {"memory": self.memory_gib * 2**30}
        wanted = {"CPU": self.num_cpus, **memory, **self.resources}
        return {name: amount for name, amount in wanted.items() if amount > 0}


class GpuActorPlacement(ActorPlacement):
    """As above, of a role that may live on GPUs."""

    num_gpus: AmountOrZero = 0.0
    """Ray GPUs of one actor; a fraction is a share of one GPU."""

    @property
    def gpus_used(self) -> int:
        """Return the most GPUs that one actor can make use of."""
        return 1

    @model_validator(mode="after")
    def _gpus_are_used(self) -> Self:
        if self.num_gpus > self.gpus_used:
            raise ValueError(
                f"placement.{self.role}.num_gpus={self.num_gpus:g}: allowed: at most {self.gpus_used}, which is what "
                f"one {self.role} actor uses"
            )
        return self

    @property
    def request(self) -> dict[str, float]:
        return super().request | ({"GPU": self.num_gpus} if self.num_gpus else {})


class RolloutPlacement(GpuActorPlacement):
    """`placement.rollout`: the rollout workers."""

    role = "rollout"
    workers: Actors = 1
    """Rollout actors, one vLLM engine each."""
    tensor_parallel: Actors = 1
    """GPUs that one engine is spread over; with more than 1, num_gpus is the same number."""

    @property
    def gpus_used(self) -> int:
        return self.tensor_parallel

    @model_validator(mode="after")
    def _engine_has_its_gpus(self) -> Self:
        if self.tensor_parallel > 1 and self.num_gpus != self.tensor_parallel:
            raise ValueError(
                f"placement.rollout.num_gpus={self.num_gpus:g}: allowed with "
                f"placement.rollout.tensor_parallel={self.tensor_parallel}: {self.tensor_parallel}"
            )
        return self


class TeacherPlacement(GpuActorPlacement):
    """`placement.teacher`: the teachers."""

    role = "teacher"
    workers: Actors = 1
    """Teacher actors."""


class LearnerPlacement(GpuActorPlacement):
    """`placement.learner`: the learner's ranks, a gang."""

    role = "learner"
    ranks: Actors = 1
    """Ranks, one actor each."""


class EnvPlacement(ActorPlacement):
    """`placement.env`: the env workers. They never get a GPU."""

    role = "env"
    min_workers: Actors = 1
    """Env workers at the start, and the fewest there are."""
    max_workers: Actors = 1
    """The most env workers there are."""
    env_slots: AmountOrZero = 0.0
    """Amount of the custom resource `env_slot` one env actor asks for; on a cluster only env nodes offer it."""

    @property
    def request(self) -> dict[str, float]:
        return super().request | ({"env_slot": self.env_slots} if self.env_slots else {})

    @model_validator(mode="after")
    def _pool_has_room(self) -> Self:
        if self.max_workers < self.min_workers:
            lowest = f"placement.env.min_workers={self.min_workers}"
            raise ValueError(f"placement.env.max_workers={self.max_workers}: allowed: at least {lowest}")
        return self


class PlacementConfig(Section):
    """`placement`: which actors there are and what each asks of the cluster."""

    mode: Literal["separate", "colocated"] = "separate"
    """separate: every actor has devices of its own; colocated: engines and teachers live on the learner's devices, by
    fractions of its GPUs (placement.rollout.num_gpus + teacher.num_gpus + learner.num_gpus at most 1 a rank)."""
    rollout: RolloutPlacement = RolloutPlacement()
    """Rollout workers."""
    env: EnvPlacement = EnvPlacement()
    """Env workers."""
    teacher: TeacherPlacement = TeacherPlacement()
    """Teachers."""
    learner: LearnerPlacement = LearnerPlacement()
    """The learner's ranks."""

    @model_validator(mode="after")
    def _colocated_live_with_the_learner(self) -> Self:
        if self.mode == "separate":
            return self
        where = "with placement.mode=colocated"
        if self.rollout.tensor_parallel > 1:
            raise ValueError(f"placement.rollout.tensor_parallel={self.rollout.tensor_parallel}: allowed {where}: 1")
        for role in ("rollout", "teacher"):
            if self.of(role).label_selector:
                raise ValueError(
                    f"placement.{role}.label_selector={self.of(role).label_selector}: allowed {where}: none; it lives "
                    "where placement.learner does"
                )
        return self

    def of(self, role: str) -> Any:
        """Return the section of `rollout`, `env`, `teacher` or `learner`."""
        return getattr(self, role)
