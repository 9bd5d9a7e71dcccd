"""The run file: pydantic models that import neither torch nor ray. `load_run_config` reads one."""

from sdpo.config.data import BatchConfig, ModelConfig
from sdpo.config.env import BubblewrapSandbox, DockerSandbox, EnvConfig, GvisorSandbox, SandboxLimits
from sdpo.config.health import HealthConfig
from sdpo.config.hindsight import HindsightConfig
from sdpo.config.placement import EnvPlacement
from sdpo.config.roles import LearnerConfig, LoraConfig, OptimizerConfig
from sdpo.config.run import CheckpointConfig, RunConfig
from sdpo.objectives.grpo import GrpoObjective
from sdpo.objectives.registry import ObjectiveConfig
from sdpo.objectives.sdpo import SdpoObjective
from sdpo.teachers import EmaTeacher, FrozenTeacher

__all__ = [
    "BatchConfig",
    "BubblewrapSandbox",
    "CheckpointConfig",
    "DockerSandbox",
    "EmaTeacher",
    "EnvConfig",
    "EnvPlacement",
    "FrozenTeacher",
    "GrpoObjective",
    "GvisorSandbox",
    "HealthConfig",
    "HindsightConfig",
    "LearnerConfig",
    "LoraConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "RunConfig",
    "SandboxLimits",
    "SdpoObjective",
]
