"""The disk space that a run takes: checkpoints, the model at the end, samples. Pure."""

from dataclasses import dataclass

from orchestrator.inputs.model_config import dtype_bytes
from orchestrator.memory.model_shape import ModelShape
from orchestrator.memory.plan import FLOAT32, Lengths, trained_parameters
from sdpo.config import RunConfig

BYTES_PER_RESPONSE_TOKEN = 70
"""A token of a recorded attempt: its text and five rounded numbers as JSON."""
BYTES_PER_PROMPT_TOKEN = 5
BYTES_PER_ATTEMPT = 800


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPlan:
    """Sizes in bytes. checkpoint: one of them; num_checkpoints: the most at one time, one unfinished included."""

    checkpoint: int
    num_checkpoints: int
    model: int
    samples: int

    @property
    def total(self) -> int:
        """Return the bytes of everything."""
        return self.checkpoint * self.num_checkpoints + self.model + self.samples


def plan_disk(config: RunConfig, model: ModelShape, lengths: Lengths) -> DiskPlan:
    """Plan a run's disk space.

    A checkpoint is masters, AdamW and the average: 16 bytes a trained parameter (12 without an average); with LoRA
    FSDP2 saves the adapters only. The model at the end is b P.
    """
    averaged = config.teacher_stream == "teacher"
    attempts = min(config.record.samples_per_step, config.batch.tasks * config.batch.samples_per_task)
    per_attempt = BYTES_PER_ATTEMPT + BYTES_PER_RESPONSE_TOKEN * lengths.response
    per_attempt += BYTES_PER_PROMPT_TOKEN * (lengths.prompt + lengths.hindsight)
    return DiskPlan(
        checkpoint=(3 + averaged) * FLOAT32 * trained_parameters(config, model),
        num_checkpoints=config.checkpoint.keep_last + config.checkpoint.keep_best + 1,
        model=dtype_bytes(config) * model.num_parameters,
        samples=config.steps * attempts * per_attempt,
    )
