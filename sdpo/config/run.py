"""A whole run: the sections together, and the combinations that cannot work."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from sdpo.config.algorithm import HindsightConfig, ObjectiveConfig, SdpoObjective
from sdpo.config.base import Section
from sdpo.config.data import BatchConfig, EvaluationConfig, ModelConfig, TasksConfig
from sdpo.config.env import EnvConfig
from sdpo.config.health import HealthConfig
from sdpo.config.placement import PlacementConfig
from sdpo.config.roles import LearnerConfig, RolloutConfig, TeacherConfig, WeightsConfig
from sdpo.config.trackers import TrackersConfig


class CheckpointConfig(Section):
    """`checkpoint`: when, how many, and whether to go on from one."""

    every_steps: int = Field(default=20, ge=0)
    """Checkpoint every this many steps; 0: only at the end and on interruption."""
    keep_last: int = Field(default=2, gt=0)
    """Newest checkpoints that are kept."""
    keep_best: int = Field(default=0, ge=0)
    """Checkpoints with the highest held-out pass@1 that are kept as well; if any, every evaluated step is saved."""
    resume: Literal["auto", "never"] = "auto"
    """auto: go on from the newest complete checkpoint, or start anew; never: refuse a used run directory."""


class RecordConfig(Section):
    """`record`: what the run directory keeps."""

    samples_per_step: int = Field(default=32, ge=0)
    """Attempts of a step whose full story (prompt, response, verdict, hindsight, per-token credit) is kept."""
    tensorboard: bool = True
    """Write TensorBoard event files beside metrics.jsonl."""
    trackers: TrackersConfig = TrackersConfig()
    """Experiment trackers that get the metrics as well."""
    trace: bool = True
    """Write down every call of an actor in RUN_DIR/trace, for `sdpo timeline` (see docs/timeline.md)."""
    rollouts: bool = False
    """Record every batch's rollouts and verdicts in RUN_DIR/rollouts, to be trained on again without sampling."""


class Deadlines(Section):
    """`deadlines`: how long each wait may take, in seconds."""

    start_s: float = Field(default=300.0, gt=0)
    """For an actor to come up and load its model."""
    generate_s: float = Field(default=600.0, gt=0)
    """For the next finished attempt of a generation request."""
    environment_s: float = Field(default=300.0, gt=0)
    """For one verdict."""
    score_s: float = Field(default=600.0, gt=0)
    """For the scores of one group."""
    train_s: float = Field(default=900.0, gt=0)
    """For one optimizer step."""
    weights_s: float = Field(default=300.0, gt=0)
    """For one weight bucket or one whole transfer by nccl or ipc, and for an audit."""
    checkpoint_s: float = Field(default=600.0, gt=0)
    """For one checkpoint, with its way into an object store."""
    lease_s: float = Field(default=60.0, gt=0)
    """For the run directory's lock to be renewed; a run that cannot renew it for so long ends."""


class RunConfig(Section):
    """The whole run file. Raises `ValueError` for combinations that cannot work."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run and of its directory."""
    dir: str = "runs"
    """Folder that holds run directories."""
    seed: int = Field(default=0, ge=0)
    """Seed of the run: task order, sampling."""
    steps: int = Field(default=40, ge=0)
    """Rollout batches to train on."""
    deterministic: bool = False
    """Make the run a function of this file to the last bit, also when it is killed and resumed; costs some speed."""
    model: ModelConfig = ModelConfig()
    """The policy."""
    tasks: TasksConfig = TasksConfig()
    """What it is trained and evaluated on."""
    batch: BatchConfig = BatchConfig()
    """Size of a rollout batch."""
    objective: ObjectiveConfig = SdpoObjective(kind="sdpo")
    """What is optimised."""
    hindsight: HindsightConfig = HindsightConfig()
    """What the teacher is shown."""
    placement: PlacementConfig = PlacementConfig()
    """Which actors there are and what each asks of the cluster."""
    rollout: RolloutConfig = RolloutConfig()
    """Rollout workers."""
    env: EnvConfig = EnvConfig()
    """Env workers."""
    teacher: TeacherConfig = TeacherConfig()
    """Teachers."""
    learner: LearnerConfig = LearnerConfig()
    """The learner."""
    weights: WeightsConfig = WeightsConfig()
    """How weights travel."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Held-out evaluation."""
    health: HealthConfig = HealthConfig()
    """Alarms."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Checkpoints and resuming."""
    record: RecordConfig = RecordConfig()
    """What the run directory keeps."""
    max_learner_restarts: int = Field(default=3, ge=0)
    """How often the run goes on by itself from its newest checkpoint after its learner died."""
    max_worker_restarts: int = Field(default=10, ge=0)
    """How often one rollout worker, env worker or teacher is started again before the run stops."""
    deadlines: Deadlines = Deadlines()
    """How long anything may take."""

    @property
    def max_prompt_tokens(self) -> int:
        """Longest prompt that leaves room for a response."""
        return self.model.max_model_len_tokens - self.rollout.sampling.max_response_tokens

    @property
    def num_cpus(self) -> float:
        """Ray CPUs that all actors ask for together when the env pool is at its largest."""
        return sum(count * request.get("CPU", 0.0) for count, request in self.demand.values())

    @property
    def demand(self) -> dict[str, tuple[int, dict[str, float]]]:
        """By role: actors when the env pool is at its largest, and what Ray has to find on one node for each."""
        placement = self.placement
        counts = {"learner": placement.learner.ranks}
        if self.samples:
            counts |= {"rollout": placement.rollout.workers, "env": placement.env.max_workers}
        if self.has_teachers:
            counts["teacher"] = placement.teacher.workers
        return {role: (count, placement.of(role).request) for role, count in counts.items()}

    @property
    def samples(self) -> bool:
        """Whether rollouts are sampled and judged in this run; else they are recorded ones."""
        return self.rollout.recorded is None

    @property
    def weights_backend(self) -> Literal["ray", "nccl", "ipc"]:
        """`weights.backend` with `auto` decided. It concerns rollout workers; teachers always take Ray objects."""
        if self.weights.backend != "auto":
            return self.weights.backend
        return "nccl" if min(self.placement.rollout.num_gpus, self.placement.learner.num_gpus) >= 1 else "ray"

    @property
    def uses_teacher(self) -> bool:
        """Whether the objective compares the student with a teacher in hindsight."""
        return isinstance(self.objective, SdpoObjective)

    @property
    def uses_reference(self) -> bool:
        """Whether the objective is anchored to the initial model."""
        return self.objective.reference_kl > 0

    @property
    def has_teachers(self) -> bool:
        """Whether teacher actors are part of the run: for hindsight, for the reference, or for both."""
        return self.uses_teacher or self.uses_reference

    @property
    def teacher_stream(self) -> Literal["policy", "teacher"] | None:
        """The weights that teachers follow: the average, or the policy (live, trust region); None: never any."""
        if not self.uses_teacher:
            return None
        streams: dict[str, Literal["policy", "teacher"] | None] = {
            "ema": "teacher",
            "live": "policy",
            "trust_region": "policy",
            "frozen": None,
        }
        return streams[self.teacher.regularisation.kind]

    @property
    def scores_after_recall(self) -> bool:
        """Whether teachers wait for the support that the learner chooses when the batch is complete."""
        sdpo = self.objective if isinstance(self.objective, SdpoObjective) else None
        return sdpo is not None and sdpo.needs_support and sdpo.support == "student"

    @property
    def trains_on_unscored(self) -> bool:
        """Whether attempts without a hindsight signal are trained on, too: by their group-relative advantage."""
        return not isinstance(self.objective, SdpoObjective) or self.objective.grpo_weight > 0

    @property
    def steps_per_batch(self) -> int:
        """Optimizer steps of a complete rollout batch."""
        return math.ceil(self.batch.tasks / (self.batch.mini_batch_tasks or self.batch.tasks))

    @property
    def needs_old_policy(self) -> bool:
        """Whether a batch begins with one learner forward that records the policy before its first step."""
        sdpo = self.objective if isinstance(self.objective, SdpoObjective) else None
        looks_back = sdpo is not None and sdpo.estimator == "sequence"
        return looks_back or self.scores_after_recall or self.steps_per_batch > 1

    @property
    def rollout_support_size(self) -> int:
        """Support ids that the engine records per sampled token; 0 where another side chooses the support."""
        sdpo = self.objective if isinstance(self.objective, SdpoObjective) else None
        return sdpo.top_k if sdpo is not None and sdpo.needs_support and sdpo.support == "rollout" else 0

    @model_validator(mode="after")
    def _sampling_unfiltered(self) -> Self:
        for key, neutral in (("top_p", 1.0), ("top_k", -1), ("min_p", 0.0)):
            value = getattr(self.rollout.sampling, key)
            if value != neutral:
                raise ValueError(
                    f"rollout.sampling.{key}={value}: training rollouts need the whole distribution; allowed: {neutral}"
                )
        return self

    @model_validator(mode="after")
    def _support_fits_engine(self) -> Self:
        if self.rollout_support_size > self.rollout.max_logprobs:
            raise ValueError(
                f"objective.top_k={self.objective.top_k}: allowed: at most "
                f"rollout.max_logprobs={self.rollout.max_logprobs}"
            )
        return self

    @model_validator(mode="after")
    def _hindsight_fits_window(self) -> Self:
        room = self.max_prompt_tokens
        if room <= 0:
            raise ValueError(
                f"rollout.sampling.max_response_tokens={self.rollout.sampling.max_response_tokens}: "
                f"allowed: below model.max_model_len_tokens={self.model.max_model_len_tokens}"
            )
        if self.uses_teacher and self.hindsight.max_prompt_tokens > room:
            raise ValueError(
                f"hindsight.max_prompt_tokens={self.hindsight.max_prompt_tokens}: allowed: at most {room} "
                f"(model.max_model_len_tokens - rollout.sampling.max_response_tokens)"
            )
        return self

    @model_validator(mode="after")
    def _weights_path_exists(self) -> Self:
        """NCCL refuses two processes on one GPU; IPC needs them there, and Ray shares out fractions only."""
        for role in ("rollout", "learner"):
            num_gpus = self.placement.of(role).num_gpus
            where = f"placement.{role}.num_gpus={num_gpus:g} with weights.backend={self.weights.backend}"
            if self.weights.backend == "nccl" and num_gpus < 1:
                raise ValueError(f"{where}: allowed: at least 1, or weights.backend=ray")
            if self.weights.backend == "ipc" and not 0 < num_gpus < 1:
                raise ValueError(f"{where}: allowed: between 0 and 1 (a shared GPU), or weights.backend=ray")
        if self.weights.backend == "ipc" and self.placement.mode != "colocated":
            raise ValueError(
                f"placement.mode={self.placement.mode} with weights.backend=ipc: allowed: colocated (both on one GPU), "
                "or weights.backend=ray"
            )
        return self

    @model_validator(mode="after")
    def _colocated_share_a_gpu(self) -> Self:
        """On the fullest rank: engine or teacher i lives with rank i modulo ranks."""
        placement = self.placement
        if placement.mode == "separate":
            return self
        ranks, demand = placement.learner.ranks, self.demand
        shares, words = placement.learner.num_gpus, [f"placement.learner.num_gpus={placement.learner.num_gpus:g}"]
        for role in ("rollout", "teacher"):
            count = math.ceil(demand.get(role, (0, {}))[0] / ranks)
            num_gpus = placement.of(role).num_gpus if count else 0.0
            if num_gpus:
                words.append(f"{f'{count} x ' if count > 1 else ''}placement.{role}.num_gpus={num_gpus:g}")
            shares += count * num_gpus
        if shares > 1 + 1e-6:
            raise ValueError(
                f"{' + '.join(words)} on one rank is {shares:g}: allowed with placement.mode=colocated: at most 1 GPU "
                "a rank (smaller shares, fewer workers, or more ranks)"
            )
        return self

    @model_validator(mode="after")
    def _mini_batches_fit(self) -> Self:
        if (self.batch.mini_batch_tasks or 1) > self.batch.tasks:
            raise ValueError(
                f"batch.mini_batch_tasks={self.batch.mini_batch_tasks}: allowed: at most batch.tasks={self.batch.tasks}"
            )
        return self

    @model_validator(mode="after")
    def _recorded_needs_no_sampling(self) -> Self:
        if self.samples:
            return self
        where = f"with rollout.recorded={self.rollout.recorded}"
        if self.tasks.heldout is not None:
            raise ValueError(f"tasks.heldout={self.tasks.heldout}: nothing is sampled {where}; allowed: none")
        if self.record.rollouts:
            raise ValueError(f"record.rollouts=true: nothing is sampled {where}; allowed: false")
        return self

    @model_validator(mode="after")
    def _best_is_measured(self) -> Self:
        if self.checkpoint.keep_best and self.tasks.heldout is None:
            raise ValueError(f"checkpoint.keep_best={self.checkpoint.keep_best}: allowed without tasks.heldout: 0")
        return self

    @model_validator(mode="after")
    def _repeatable(self) -> Self:
        if self.deterministic and self.rollout.kv_cache_gib is None:
            raise ValueError("rollout.kv_cache_gib=none: allowed with deterministic: a size in GiB")
        return self

    @model_validator(mode="after")
    def _group_size(self) -> Self:
        if self.batch.min_group_size > self.batch.samples_per_task:
            raise ValueError(
                f"batch.min_group_size={self.batch.min_group_size}: allowed: at most "
                f"batch.samples_per_task={self.batch.samples_per_task}"
            )
        return self

    @model_validator(mode="after")
    def _hindsight_can_differ(self) -> Self:
        """A lone attempt has no peer to learn from."""
        alone = self.batch.samples_per_task == 1 and self.hindsight.exclude_own_success
        if self.uses_teacher and alone and not self.hindsight.include_feedback:
            raise ValueError(
                "batch.samples_per_task=1: allowed with hindsight.include_feedback=false and exclude_own_success=true: "
                "at least 2 (no attempt would carry a signal)"
            )
        return self
