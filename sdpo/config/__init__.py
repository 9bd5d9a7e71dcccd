"""The run file: pydantic models that import neither torch nor ray. `load_run_config` reads one."""

from sdpo.config.algorithm import ClippedPolicyGradient, GrpoObjective, HindsightConfig, ObjectiveConfig, SdpoObjective
from sdpo.config.data import (
    BatchConfig,
    EvaluationConfig,
    ModelConfig,
    TasksConfig,
)
from sdpo.config.env import BubblewrapSandbox, DockerSandbox, EnvConfig, GvisorSandbox, SandboxKind, SandboxLimits
from sdpo.config.health import HealthConfig
from sdpo.config.placement import (
    EnvPlacement,
    LearnerPlacement,
    PlacementConfig,
    RolloutPlacement,
    TeacherPlacement,
)
from sdpo.config.roles import (
    EmaTeacher,
    FrozenTeacher,
    LearnerConfig,
    LiveTeacher,
    LoraConfig,
    OptimizerConfig,
    RolloutConfig,
    RolloutSampling,
    TeacherConfig,
    TrustRegionTeacher,
    WeightsConfig,
)
from sdpo.config.run import CheckpointConfig, Deadlines, RecordConfig, RunConfig

__all__ = [
    "BatchConfig",
    "BubblewrapSandbox",
    "CheckpointConfig",
    "ClippedPolicyGradient",
    "Deadlines",
    "DockerSandbox",
    "EmaTeacher",
    "EnvConfig",
    "EnvPlacement",
    "EvaluationConfig",
    "FrozenTeacher",
    "GrpoObjective",
    "GvisorSandbox",
    "HealthConfig",
    "HindsightConfig",
    "LearnerConfig",
    "LearnerPlacement",
    "LiveTeacher",
    "LoraConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PlacementConfig",
    "RecordConfig",
    "RolloutConfig",
    "RolloutPlacement",
    "RolloutSampling",
    "RunConfig",
    "SandboxKind",
    "SandboxLimits",
    "SdpoObjective",
    "TasksConfig",
    "TeacherConfig",
    "TeacherPlacement",
    "TrustRegionTeacher",
    "WeightsConfig",
]
