"""Model, tasks and batches."""

from typing import Annotated, Any, Literal

from annotated_types import Gt, Lt
from pydantic import Field

from sdpo.bounds import Count, LargeCount, Rate, Samples, Steps, Temperature, Tokens
from sdpo.section import FreeNumbers, IsPath, Section


class ModelConfig(Section):
    """`model`: the policy and its window."""

    path: Annotated[str, IsPath()] = "examples/tinycoder/model"
    """A Hugging Face causal LM folder."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Compute type of engine, teacher and learner. Master weights, optimizer, EMA and the logits of teacher and learner
    are always float32."""
    max_model_len_tokens: Tokens = 1024
    """Window of the model: prompt, hindsight and response must fit in it."""
    enable_thinking: bool = False
    """Passed to the chat template."""


class TasksConfig(Section):
    """`tasks`: what is trained and evaluated on."""

    train: Annotated[str, IsPath()] = "examples/tinycoder/tasks/train.jsonl"
    """Training tasks: JSONL, JSON or Parquet, one `Task` a line or row; with an adapter, whatever that reads."""
    heldout: Annotated[str | None, IsPath()] = "examples/tinycoder/tasks/heldout.jsonl"
    """Evaluation tasks, as `train`; none switches evaluation off."""
    adapter: str | None = None
    """What makes tasks of foreign records: a built-in adapter (see docs/environments.md) or module:function."""
    options: Annotated[dict[str, Any], FreeNumbers()] = Field(default_factory=dict)
    """Options of the adapter."""
    max_heldout: LargeCount | None = None
    """Evaluate on the first this many held-out tasks only."""
    max_prompt_tokens: Tokens | None = None
    """Longest prompt of a task; a file with a longer one is refused. None: what the window leaves beside a response."""
    seed: Annotated[int, Gt(-(2**32)), Lt(2**32)] = 0
    """Seed of the order in which training tasks are visited."""


class BatchConfig(Section):
    """`batch`: the size of a rollout batch."""

    tasks: Count = 16
    """Tasks per rollout batch."""
    samples_per_task: Samples = 8
    """Attempts per task (G)."""
    mini_batch_tasks: Count | None = None
    """Tasks per optimizer step; a batch is cut into mini-batches of whole groups. None: one step per batch."""
    max_staleness: Literal[0] = 0
    """How many batches old the sampling weights may be (S). 0 is synchronous and on-policy."""
    min_group_size: Samples = 2
    """A group that shrank below this by dropped attempts is dropped whole and counted."""


class EvaluationConfig(Section):
    """`evaluation`: held-out samples, before, during and after training."""

    every_steps: Steps = 10
    """Evaluate on the held-out tasks every this many steps; 0: only before and after."""
    samples_per_task: Samples = 2
    """Samples per held-out task."""
    temperature: Temperature = 1.0
    """Sampling temperature of evaluation: 0, which is greedy, or at least 0.01."""
    top_p: Rate = 1.0
    """Nucleus of evaluation."""
    measure_repair: bool = True
    """Before training, also measure how often the model repairs a failure when shown only its feedback."""
