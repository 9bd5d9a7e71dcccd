"""A whole run: the sections together, and what the rest of the run asks of them."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sdpo.bounds import Count, CountOrZero, Seconds, Seed, Steps
from sdpo.config.combinations import refusals
from sdpo.config.data import BatchConfig, EvaluationConfig, ModelConfig, TasksConfig
from sdpo.config.env import EnvConfig
from sdpo.config.health import HealthConfig
from sdpo.config.hindsight import HindsightConfig
from sdpo.config.placement import PlacementConfig
from sdpo.config.roles import LearnerConfig, RolloutConfig, TeacherConfig, WeightsConfig
from sdpo.config.trackers import TrackersConfig
from sdpo.objectives.registry import ObjectiveConfig
from sdpo.objectives.sdpo import SdpoObjective
from sdpo.section import IsPath, Section


class CheckpointConfig(Section):
    """`checkpoint`: when, how many, and whether to go on from one."""

    every_steps: Steps = 20
    """Checkpoint every this many steps; 0: only at the end and on interruption."""
    keep_last: Count = 2
    """Newest checkpoints that are kept."""
    keep_best: CountOrZero = 0
    """Checkpoints with the best held-out results that are kept as well; if any, every evaluated step is saved."""
    best_by: Literal["pass_rate", "reward"] = "pass_rate"
    """What makes a checkpoint the best: the highest held-out pass@1 or mean reward; of equals, the higher other one."""
    resume: Literal["auto", "never"] = "auto"
    """auto: go on from the newest complete checkpoint, or start anew; never: refuse a used run directory."""


class RecordConfig(Section):
    """`record`: what the run directory keeps."""

    samples_per_step: CountOrZero = 32
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

    start_s: Seconds = 300.0
    """For an actor to come up and load its model."""
    generate_s: Seconds = 600.0
    """For the next finished attempt of a generation request."""
    environment_s: Seconds = 300.0
    """For one verdict."""
    score_s: Seconds = 600.0
    """For the scores of one group."""
    train_s: Seconds = 900.0
    """For one optimizer step."""
    weights_s: Seconds = 300.0
    """For one weight bucket or one whole transfer by nccl or ipc, and for an audit."""
    checkpoint_s: Seconds = 600.0
    """For one checkpoint, with its way into an object store."""
    lease_s: Seconds = 60.0
    """For the run directory's lock to be renewed; a run that cannot renew it for so long ends."""


class RunConfig(Section):
    """The whole run file. Raises `ValueError` for combinations that cannot work."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run and of its directory."""
    dir: Annotated[str, IsPath()] = "runs"
    """Folder that holds run directories."""
    seed: Seed = 0
    """Seed of the run: task order, sampling."""
    steps: Steps = 40
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
    max_learner_restarts: CountOrZero = 3
    """How often the run goes on by itself from its newest checkpoint after its learner died."""
    max_worker_restarts: CountOrZero = 10
    """How often one rollout worker, env worker or teacher is started again before the run stops."""
    deadlines: Deadlines = Deadlines()
    """How long anything may take."""

    def is_evaluated(self, step: int) -> bool:
        """Whether held-out tasks are measured after `step` steps: at every `every_steps`, and after the last."""
        every = self.evaluation.every_steps
        due = step == self.steps or (every > 0 and step % every == 0)
        return due and self.tasks.heldout is not None

    @property
    def max_prompt_tokens(self) -> int:
        """Return the longest prompt in tokens that the window allows beside a response."""
        return self.model.max_model_len_tokens - self.rollout.sampling.max_response_tokens

    @property
    def num_cpus(self) -> float:
        """Return the Ray CPUs that all actors ask for together when the env pool is at its largest."""
        return sum(count * request.get("CPU", 0.0) for count, request in self.demand.values())

    @property
    def demand(self) -> dict[str, tuple[int, dict[str, float]]]:
        """Return by role: actors when the env pool is at its largest, and what Ray has to find on one node for each."""
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
        """Return `weights.backend` with `auto` decided. Rollout workers only: teachers take Ray objects."""
        if self.weights.backend != "auto":
            return self.weights.backend
        return "nccl" if min(self.placement.rollout.num_gpus, self.placement.learner.num_gpus) >= 1 else "ray"

    @property
    def uses_teacher(self) -> bool:
        """Whether the objective compares the student with a teacher in hindsight."""
        return self.objective.needs.teacher

    @property
    def uses_reference(self) -> bool:
        """Whether the objective is anchored to the initial model."""
        return self.objective.needs.reference

    @property
    def has_teachers(self) -> bool:
        """Whether teacher actors are part of the run: for hindsight, for the reference, or for both."""
        return self.uses_teacher or self.uses_reference

    @property
    def teacher_stream(self) -> Literal["policy", "teacher"] | None:
        """Return the weights that teachers follow: the average, or the policy (live, trust region); None: never any."""
        return self.teacher.regularisation.stream if self.uses_teacher else None

    @property
    def scores_after_old_log_probs(self) -> bool:
        """Whether teachers wait for the support that the learner chooses when the batch is complete."""
        return self.objective.needs.support == "student"

    @property
    def trains_on_unscored(self) -> bool:
        """Whether attempts without a hindsight signal are trained on, too: by their group-relative advantage."""
        return self.objective.needs.unscored

    @property
    def steps_per_batch(self) -> int:
        """Return the optimizer steps of a complete rollout batch."""
        return math.ceil(self.batch.tasks / (self.batch.mini_batch_tasks or self.batch.tasks))

    @property
    def needs_old_policy(self) -> bool:
        """Whether a batch begins with one learner forward that records the policy before its first step."""
        return self.objective.needs.old_policy or self.scores_after_old_log_probs or self.steps_per_batch > 1

    @property
    def rollout_support_size(self) -> int:
        """Return the number of support ids that the engine records per sampled token; 0 where another side chooses the
        support.
        """
        needs = self.objective.needs
        return needs.support_size if needs.support == "rollout" else 0

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        for reason in refusals(self):
            raise ValueError(reason)
        return self
