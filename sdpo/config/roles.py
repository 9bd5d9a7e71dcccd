"""Rollout workers, teachers, learner: one section a role."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from sdpo.backends import BACKENDS
from sdpo.bounds import Bytes, Clip, Coefficient, Count, Gib, Probability, Rate, Steps, Threads, Tokens
from sdpo.section import IsPath, OneOf, Section
from sdpo.teachers import EmaTeacher, TeacherKind


class RolloutSampling(Section):
    """`rollout.sampling`: how training attempts are sampled."""

    temperature: Annotated[float, Ge(0.01), Le(100)] = 1.0
    """Sampling temperature; the student and the teacher divide their logits by the same value. The engine would sample
    at 0.01 where it is lower, and the learner would not."""
    max_response_tokens: Tokens = 128
    """Longest response; a longer one is cut and counted as truncated. Of an attempt with several turns: all of them
    together, and what the environment says between them."""
    top_p: Probability = 1.0
    """Must be 1: training needs the log-probs of the whole distribution."""
    top_k: Annotated[int, Ge(-1), Le(10**6)] = -1
    """Must be -1: as top_p."""
    min_p: Probability = 0.0
    """Must be 0: as top_p."""


class RolloutConfig(Section):
    """`rollout`: the actors that hold the vLLM engines."""

    recorded: Annotated[str | None, IsPath()] = None
    """Folder of recorded rollouts to train on (see docs/recorded-rollouts.md); none: they are sampled. With it there
    are no rollout workers and no env workers, and `tasks.train` is not read."""
    sampling: RolloutSampling = RolloutSampling()
    """How training attempts are sampled."""
    max_logprobs: Count = 20
    """The engine's limit on log-probs per token; the support size K must not pass it."""
    max_num_seqs: Count = 128
    """Sequences that one engine decodes at once."""
    kv_cache_gib: Gib | None = 0.5
    """KV cache of one engine in GiB; none lets vLLM decide (GPU)."""
    enforce_eager: bool = True
    """Skip graph capture and compilation (faster start; on CPU always sensible)."""
    num_threads: Threads = 2
    """Threads of one engine on CPU."""


class TeacherConfig(Section):
    """`teacher`: the actors that score attempts in hindsight."""

    regularisation: TeacherKind = EmaTeacher(kind="ema")
    """Which weights score the attempts."""
    tokens_per_forward: Tokens = 8192
    """Token budget of one packed scoring forward."""
    num_threads: Threads = 2
    """Torch threads of one teacher on CPU."""


class OptimizerConfig(Section):
    """`learner.optimizer`: AdamW."""

    learning_rate: Annotated[float, Gt(0), Le(10)] = 1e-5
    """AdamW learning rate after warm-up; constant."""
    warmup_steps: Steps = 0
    """Linear warm-up steps."""
    weight_decay: Coefficient = 0.01
    """AdamW weight decay."""
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    """AdamW beta 1."""
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    """AdamW beta 2."""
    eps: Rate = 1e-8
    """AdamW epsilon."""
    max_grad_norm: Clip = 1.0
    """Global gradient clip."""


class LoraConfig(Section):
    """`learner.lora`: train low-rank adapters; engines, teachers and exports get the merged weights. An EMA teacher
    averages the adapters' two factors, not their product.
    """

    rank: Count = 16
    """Rank of the adapters."""
    alpha: Clip = 32.0
    """Adapters are scaled by alpha / rank."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Linear layers that get an adapter, by the last part of their name; never the output layer."""


class LearnerConfig(Section):
    """`learner`: the gang that trains."""

    backend: Annotated[str, OneOf(BACKENDS)] = "fsdp2"
    """How parameters, gradients and optimizer are sharded: PyTorch's FSDP2, or DeepSpeed's ZeRO stage 1, 2 or 3."""
    lora: LoraConfig | None = None
    """Low-rank adapters; none: all weights are trained."""
    gradient_checkpointing: bool = False
    """Recompute every decoder layer in the backward pass: less memory, about a third more time."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW and its schedule."""
    tokens_per_micro_batch: Tokens = 8192
    """Token budget of one packed micro-batch; never changes the result, only memory and speed."""
    logits_chunk_tokens: Tokens = 256
    """Positions whose [chunk, V] logits exist at one time."""
    num_threads: Threads = 2
    """Torch threads of one rank on CPU."""


class WeightsConfig(Section):
    """`weights`: how new weights reach engines and teachers."""

    backend: Literal["auto", "ray", "nccl", "ipc"] = "auto"
    """Path of the policy's weights into vLLM: `ray` (objects, then a shared-memory ring), `nccl` between whole GPUs,
    `ipc` on a shared one; auto: nccl if rollout workers and learner have whole GPUs, else ray."""
    bucket_bytes: Bytes = 64 * 2**20
    """Size of one bucket, of Ray objects as of vLLM's own transfers; two are in flight."""
    audit_tolerance: Annotated[float, Gt(0), Le(100)] | None = None
    """Largest mean absolute difference of a probe's log-probs, in nats, between a receiver and the learner after a
    weight update; none: 0.25 in bfloat16, whose rounding alone gives about 0.05, and 0.01 in float32."""
