"""The run file: pydantic models that import neither torch nor ray. `load_run_config` reads one."""

from sdpo.config.algorithm import ClippedPolicyGradient, GrpoObjective, HindsightConfig, ObjectiveConfig, SdpoObjective
from sdpo.config.data import (
    BatchConfig,
    EvaluationConfig,
    ModelConfig,
    TasksConfig,
)
from sdpo.config.health import HealthConfig
from sdpo.config.roles import (
    BubblewrapSandbox,
    EmaTeacher,
    EnvConfig,
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
    "EmaTeacher",
    "EnvConfig",
    "EvaluationConfig",
    "FrozenTeacher",
    "GrpoObjective",
    "HealthConfig",
    "HindsightConfig",
    "LearnerConfig",
    "LiveTeacher",
    "LoraConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "RecordConfig",
    "RolloutConfig",
    "RolloutSampling",
    "RunConfig",
    "SdpoObjective",
    "TasksConfig",
    "TeacherConfig",
    "TrustRegionTeacher",
    "WeightsConfig",
]
