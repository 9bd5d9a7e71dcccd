"""What every role of a run takes in memory, from the model's sizes, the config and the lengths. Pure.

P parameters, L layers, H hidden, I intermediate, A = heads x head size, G = key-value heads x head size, V vocabulary,
R learner ranks, b bytes of the compute dtype (2 or 4), S tokens of one packed forward, C positions of a chunk. Times
that buffers are written are not predicted: a role's number is the most that it holds at one time, an upper bound where
lengths are not known. The fixed sizes below were measured (docs/doctor.md says how).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.doctor.model_shape import ModelShape
from orchestrator.doctor.words import GIB, MIB
from orchestrator.model_config import CacheShape
from sdpo.config import RunConfig, SdpoObjective, TrustRegionTeacher

ENGINE_MIB = 950
"""A vLLM engine on CPU without weights and caches."""
ENGINE_ACTOR_MIB = 490
"""The actor that holds the engine, a process of its own."""
TORCH_MIB = 340
"""A learner rank or a teacher without its model: Python, torch, transformers."""
ENV_WORKER_MIB = 90
ORCHESTRATOR_MIB = 460
RAY_MIB = 950
"""Of a node: raylet, control store, agents and the idle workers that Ray keeps."""
CUDA_CONTEXT_MIB = 600
"""Of each process on a GPU: context, kernels, cuBLAS. Not measured here; PyTorch takes 300 to 600."""
ENGINE_SHARE_OF_GPU = 0.92
"""What vLLM takes of a GPU where rollout.kv_cache_gib is none (its gpu_memory_utilization)."""
BATCHED_TOKENS = 4096
SANDBOX_TYPICAL_MIB = 25
DEEPSPEED_BUCKET = 500_000_000
"""Elements of DeepSpeed's reduce bucket."""
FLOAT32 = 4

Place = Literal["host", "gpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Longest, in tokens: prompt, response, hindsight prompt."""

    prompt: int
    response: int
    hindsight: int

    @classmethod
    def allowed(cls, config: RunConfig) -> "Lengths":
        """What the config lets through: an upper bound for any tasks."""
        prompt = min(config.max_prompt_tokens, config.tasks.max_prompt_tokens or config.max_prompt_tokens)
        hindsight = config.hindsight.max_prompt_tokens
        return cls(prompt=prompt, response=config.rollout.sampling.max_response_tokens, hindsight=hindsight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One thing that an actor holds. `place` is host memory or its GPU."""

    what: str
    num_bytes: int
    place: Place = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePlan:
    """`count` actors that hold `parts` each; every actor asks Ray for `gpus` GPUs."""

    role: str
    count: int
    parts: tuple[Part, ...]
    gpus: float = 0.0

    def each(self, place: Place = "host") -> int:
        """Bytes of one actor."""
        return sum(part.num_bytes for part in self.parts if part.place == place)

    def all(self, place: Place = "host") -> int:
        """Bytes of all of them."""
        return self.count * self.each(place)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """All roles of a run. worst_sandboxes: host bytes more if every sandbox goes to its limit at one time."""

    roles: tuple[RolePlan, ...]
    worst_sandboxes: int

    @property
    def host(self) -> int:
        """Bytes of host memory of all roles on one machine."""
        return sum(role.all() for role in self.roles)

    def role(self, name: str) -> RolePlan:
        return next(role for role in self.roles if role.role == name)


def plan_memory(config: RunConfig, model: ModelShape, lengths: Lengths) -> MemoryPlan:
    """The plan of a run on machines of its own."""
    roles = [rollout_plan(config, model, lengths), learner_plan(config, model, lengths)]
    if config.has_teachers:
        roles.append(teacher_plan(config, model, lengths))
    roles += [env_plan(config), RolePlan(role="orchestrator", count=1, parts=(_fixed(ORCHESTRATOR_MIB),))]
    roles.append(ray_plan(config, model, lengths))
    return MemoryPlan(roles=tuple(roles), worst_sandboxes=_sandboxes(config) * _worst_sandbox(config))


def rollout_plan(config: RunConfig, model: ModelShape, lengths: Lengths) -> RolePlan:
    """Weights b P, on CPU the linear layers' once more (vLLM repacks them), cache `rollout.kv_cache_gib`, the widest
    layer's tensors b S (2 H + 3 I + A + 2 G) over the batched tokens S, logits 3 x 4 n V of the n sequences that are
    decoded at once. Split over `tensor_parallel` GPUs.
    """
    b, rollout = dtype_bytes(config), config.rollout
    tokens = max(BATCHED_TOKENS, config.model.max_model_len_tokens)
    place: Place = "gpu" if config.placement.rollout.num_gpus else "host"
    attempts = -(-config.batch.tasks * config.batch.samples_per_task // config.placement.rollout.workers)
    sequences = min(rollout.max_num_seqs, attempts)
    cache = 0 if rollout.kv_cache_gib is None else int(rollout.kv_cache_gib * GIB)
    repacked = 0 if place == "gpu" else b * (model.num_parameters - model.embedding_parameters)
    parts = [
        Part(what="weights", num_bytes=b * model.num_parameters, place=place),
        Part(what="repacked weights", num_bytes=repacked),
        Part(what="KV cache", num_bytes=cache, place=place),
        Part(what="forward", num_bytes=b * tokens * _layer_width(model), place=place),
        Part(what="logits", num_bytes=3 * FLOAT32 * sequences * model.vocab_size, place=place),
        Part(what="weights on their way", num_bytes=2 * _bucket(config, model)),
    ]
    return RolePlan(
        role="rollout",
        count=config.placement.rollout.workers,
        parts=(_fixed(ENGINE_MIB + ENGINE_ACTOR_MIB), *_context(place), *parts),
        gpus=config.placement.rollout.num_gpus,
    )


def learner_plan(config: RunConfig, model: ModelShape, lengths: Lengths) -> RolePlan:
    """One rank. The states, then whichever is more: a training step, or sending weights.

    With T trained parameters (P, or LoRA's): masters 4 T/R, AdamW 8 T/R, the teacher's average 4 T/R (regularisation
    ema), gradients 4 T/R; ZeRO 1 keeps gradients whole, ZeRO 1 and 2 keep whole weights b P besides; with LoRA the
    frozen base is b P/R (ZeRO 1 and 2: b P). A step adds `activation_bytes`, the gathered embedding and its float32
    gradient, and the logits. Loading takes 4 P of the host for each rank.
    """
    learner, b, ranks = config.learner, dtype_bytes(config), config.placement.learner.ranks
    place: Place = "gpu" if config.placement.learner.num_gpus else "host"
    whole = model.num_parameters
    trained = whole if learner.lora is None else model.lora_parameters(learner.lora.rank, learner.lora.targets)
    share = -(-trained // ranks)
    states = {
        "float32 masters": FLOAT32 * share,
        "AdamW": 2 * FLOAT32 * share,
        "teacher's average": FLOAT32 * share if config.teacher_stream == "teacher" else 0,
        "compute weights": _compute_weights(config, model, trained),
        "gradients": FLOAT32 * (trained if learner.backend == "zero1" else share),
    }
    step = {
        "activations": activation_bytes(config, model, packed_tokens(config, lengths)),
        "logits": logits_bytes(config, model, gradients=True),
        "gathered weights": (2 * b + FLOAT32) * model.embedding_parameters + 2 * b * model.largest_layer,
        "reduce bucket": _reduce_bucket(config, trained),
    }
    sending = 2 * b * model.largest_tensor + 2 * _bucket(config, model)
    if sending > sum(step.values()):
        step = {"sending weights": sending}
    parts = [Part(what=name, num_bytes=size, place=place) for name, size in (states | step).items() if size]
    loading = FLOAT32 * whole - (0 if place == "gpu" else sum(states.values()) + sum(step.values()))
    if loading > 0:
        parts.append(Part(what="loading", num_bytes=loading))
    return RolePlan(
        role="learner",
        count=ranks,
        parts=(_fixed(TORCH_MIB), *_context(place), *parts),
        gpus=config.placement.learner.num_gpus,
    )


def teacher_plan(config: RunConfig, model: ModelShape, lengths: Lengths) -> RolePlan:
    """Weights b P, twice with trust_region (and with an anchor to the initial model beside a moving teacher); one
    layer's tensors b S (4 H + 4 I + 2 A + 2 G) over the forward's S tokens; logits 2 x 4 C V; two buckets.
    """
    teacher, b = config.teacher, dtype_bytes(config)
    place: Place = "gpu" if config.placement.teacher.num_gpus else "host"
    moves = config.teacher_stream is not None
    mixes = isinstance(teacher.regularisation, TrustRegionTeacher)
    copies = int(moves) + int(not moves or mixes or config.uses_reference)
    longest = lengths.hindsight + lengths.response
    group = config.batch.samples_per_task * longest  # what is scored at one time is one group
    tokens = min(max(teacher.tokens_per_forward, longest), group)
    parts = [
        Part(what="weights", num_bytes=copies * b * model.num_parameters, place=place),
        Part(what="forward", num_bytes=b * tokens * _layer_width(model), place=place),
        Part(what="logits", num_bytes=logits_bytes(config, model, gradients=False), place=place),
        Part(what="weights on their way", num_bytes=2 * _bucket(config, model) if moves else 0),
    ]
    return RolePlan(
        role="teacher",
        count=config.placement.teacher.workers,
        parts=(_fixed(TORCH_MIB), *_context(place), *parts),
        gpus=config.placement.teacher.num_gpus,
    )


def env_plan(config: RunConfig) -> RolePlan:
    """A worker and what its sandboxes usually take; `MemoryPlan.worst_sandboxes` is what they may take."""
    sandboxes = config.env.sandboxes_per_worker * SANDBOX_TYPICAL_MIB * MIB
    parts = (_fixed(ENV_WORKER_MIB), Part(what="sandboxes", num_bytes=sandboxes))
    return RolePlan(role="env", count=config.placement.env.max_workers, parts=parts)


def ray_plan(config: RunConfig, model: ModelShape, lengths: Lengths) -> RolePlan:
    """Ray itself, and its object store: a batch's arrays and three weight buckets on their way.

    A response token is 8 bytes (id, log-prob), 8 K of the engine's support, 12 of the teacher's scores and 4 K of its
    support (12 K where it chooses); support=full: 4 V.
    """
    attempts = config.batch.tasks * config.batch.samples_per_task
    objective = config.objective
    top_k = objective.top_k
    per_token = 8 + 8 * config.rollout_support_size + (12 + 12 * top_k if config.uses_teacher else 0)
    if isinstance(objective, SdpoObjective) and objective.support == "full":
        per_token += FLOAT32 * model.vocab_size
    arrays = attempts * (lengths.response * per_token + 4 * (lengths.prompt + lengths.hindsight))
    parts = (
        _fixed(RAY_MIB),
        Part(what="batch in the object store", num_bytes=arrays),
        Part(what="weights on their way", num_bytes=3 * _bucket(config, model)),
    )
    return RolePlan(role="ray", count=1, parts=parts)


def packed_tokens(config: RunConfig, lengths: Lengths) -> int:
    """Tokens of the largest micro-batch: the budget, at least one attempt, at most a rank's share of the batch."""
    longest = lengths.prompt + lengths.response
    tasks = config.batch.mini_batch_tasks or config.batch.tasks
    share = -(-tasks * config.batch.samples_per_task // config.placement.learner.ranks) * longest
    return min(max(config.learner.tokens_per_micro_batch, longest), max(share, longest))


def activation_bytes(config: RunConfig, model: ModelShape, tokens: int) -> int:
    """What the forward pass keeps for the backward pass, and the backward pass of one layer.

    A layer keeps per token: two norms (4 + 2 b) H each; queries, keys, values and the attention's output twice,
    b (3 A + 2 G); the gated MLP 4 b I; norms of queries and keys (4 + b)(A + G). With gradient checkpointing only b H a
    layer, and one layer whole. The backward pass of a layer holds b (3 I + 3 H) more.
    """
    b = dtype_bytes(config)
    layer = 2 * (4 + 2 * b) * model.hidden_size
    layer += b * (3 * model.query_size + 2 * model.key_size + 4 * model.intermediate_size)
    if model.has_qk_norm:
        layer += (4 + b) * (model.query_size + model.key_size)
    backward = b * 3 * (model.intermediate_size + model.hidden_size)
    if config.learner.gradient_checkpointing:
        return tokens * (model.num_layers * b * model.hidden_size + layer + backward)
    return tokens * (model.num_layers * layer + backward)


def logits_bytes(config: RunConfig, model: ModelShape, *, gradients: bool) -> int:
    """Two float32 buffers [C, V], one in the compute dtype where that is another; in training the float32 gradient of
    the head [V, H]; support=full: three buffers more (the teacher's rows, and gradients).
    """
    objective = config.objective
    full = isinstance(objective, SdpoObjective) and objective.support == "full"
    narrow = dtype_bytes(config) if dtype_bytes(config) != FLOAT32 else 0
    buffers = FLOAT32 * (2 + 3 * full) + narrow
    head = FLOAT32 * model.largest_tensor if gradients and config.learner.lora is None else 0
    return config.learner.logits_chunk_tokens * model.vocab_size * buffers + head


def dtype_bytes(config: RunConfig) -> int:
    """b."""
    return 2 if config.model.dtype == "bfloat16" else 4


def gpu_loads(plan: MemoryPlan) -> list[int]:
    """Bytes on each GPU, actors put together as Ray does: whole GPUs alone, fractions onto the first that has room."""
    loads: list[int] = []
    rooms: list[float] = []
    actors = [(role.gpus, role.each("gpu")) for role in plan.roles if role.gpus for _ in range(role.count)]
    for share, num_bytes in actors:
        if share >= 1:
            loads += [-(-num_bytes // int(share))] * int(share)
            rooms += [0.0] * int(share)
            continue
        index = next((i for i, room in enumerate(rooms) if room >= share - 1e-9), None)
        if index is None:
            loads.append(num_bytes)
            rooms.append(1 - share)
        else:
            loads[index] += num_bytes
            rooms[index] -= share
    return loads


def kv_bytes_per_token(config: RunConfig, model: CacheShape) -> int:
    """Keys and values of all layers: 2 L G b."""
    return 2 * model.num_layers * model.key_size * dtype_bytes(config)


def _compute_weights(config: RunConfig, model: ModelShape, trained: int) -> int:
    b, learner = dtype_bytes(config), config.learner
    if learner.backend in ("zero1", "zero2"):
        return b * model.num_parameters
    frozen = model.num_parameters if learner.lora is not None else 0
    copies = trained if learner.backend == "zero3" else 0
    return -(-b * (frozen + copies) // config.placement.learner.ranks)


def _reduce_bucket(config: RunConfig, trained: int) -> int:
    if config.learner.backend == "fsdp2":
        return 0
    elements = DEEPSPEED_BUCKET if config.placement.learner.num_gpus else min(DEEPSPEED_BUCKET, trained)
    return elements * dtype_bytes(config)


def _layer_width(model: ModelShape) -> int:
    """Elements per token of one layer's tensors that live at the same time in a forward pass without gradients."""
    return 2 * model.hidden_size + 3 * model.intermediate_size + model.query_size + 2 * model.key_size


def _bucket(config: RunConfig, model: ModelShape) -> int:
    """A larger tensor travels in a bucket of its own; a small model fills less than one."""
    b = dtype_bytes(config)
    return max(min(config.weights.bucket_bytes, b * model.num_parameters), b * model.largest_tensor)


def _sandboxes(config: RunConfig) -> int:
    return config.placement.env.max_workers * config.env.sandboxes_per_worker


def _worst_sandbox(config: RunConfig) -> int:
    sandbox = config.env.sandbox
    return max(0, sandbox.memory_mib + sandbox.disk_mib - SANDBOX_TYPICAL_MIB) * MIB


def _fixed(mib: int) -> Part:
    return Part(what="the process itself", num_bytes=mib * MIB)


def _context(place: Place) -> Sequence[Part]:
    return [Part(what="CUDA", num_bytes=CUDA_CONTEXT_MIB * MIB, place="gpu")] if place == "gpu" else []
