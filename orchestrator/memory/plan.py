"""The memory that every role of a run takes, computed from the model's sizes, the config and the lengths. Pure.

P parameters, L layers, H hidden, I intermediate, A = heads x head size, G = key-value heads x head size, V vocabulary,
R learner ranks, b bytes of the compute dtype (2 or 4), S tokens of one packed forward, C positions of a chunk. A
role's number is the most that it takes at one time, an upper bound where lengths are not known. The fixed sizes below
were measured (docs/doctor.md says how).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.inputs.model_config import dtype_bytes
from orchestrator.memory.model_shape import ModelShape
from rollout_workers.engine import batched_tokens
from sdpo.backends import BACKENDS
from sdpo.config import RunConfig
from sdpo.show import GIB, MIB

ENGINE_MIB = 950
"""A vLLM engine on CPU without weights and caches."""
ENGINE_ACTOR_MIB = 490
"""The actor that holds the engine, a process of its own."""
TORCH_MIB = 340
"""A learner rank or a teacher without its model: Python, torch, transformers."""
ENV_WORKER_MIB = 90
ORCHESTRATOR_MIB = 460
RAY_MIB = 950
"""Ray on one node: raylet, control store, agents and the idle workers that Ray keeps."""
CUDA_CONTEXT_MIB = 600
"""Each process on a GPU: context, kernels, cuBLAS. Not measured here; PyTorch takes 300 to 600."""
ENGINE_SHARE_OF_GPU = 0.92
"""The share that vLLM takes of a GPU if rollout.kv_cache_gib is none (its gpu_memory_utilization)."""
SANDBOX_TYPICAL_MIB = 25
CERTAIN = ("weights", "KV cache", "float32 masters", "AdamW", "teacher's average", "compute weights")
"""The parts whose size follows from the model and the run file alone; all others are estimates."""
FLOAT32 = 4

Device = Literal["host", "gpu"]


@dataclass(frozen=True, slots=True)
class Lengths:
    """The longest prompt, response and hindsight prompt, in tokens."""

    prompt: int
    response: int
    hindsight: int

    @classmethod
    def allowed(cls, config: RunConfig) -> "Lengths":
        """Return what the config allows: an upper bound for any tasks."""
        prompt = min(config.max_prompt_tokens, config.tasks.max_prompt_tokens or config.max_prompt_tokens)
        return cls(prompt, config.rollout.sampling.max_response_tokens, config.hindsight.max_prompt_tokens)

    @classmethod
    def measured(cls, config: RunConfig, longest_prompt: int) -> "Lengths":
        """Return the longest prompt of the tasks (0: there are none), and what the config allows of the others."""
        allowed = cls.allowed(config)
        return cls(longest_prompt or allowed.prompt, allowed.response, allowed.hindsight)


@dataclass(frozen=True, slots=True)
class Part:
    """Something that an actor keeps in host memory or on its GPU."""

    what: str
    num_bytes: int
    device: Device = "host"


@dataclass(frozen=True, slots=True)
class RolePlan:
    """`count` actors that take `parts` each; every actor asks Ray for `gpus` GPUs."""

    role: str
    count: int
    parts: Sequence[Part]
    gpus: float = 0.0

    def each(self, device: Device = "host") -> int:
        """Return the bytes of one actor."""
        return sum(part.num_bytes for part in self.parts if part.device == device)

    def least(self, device: Device = "host") -> int:
        """Return the bytes of one actor that are no estimate."""
        return sum(part.num_bytes for part in self.parts if part.device == device and part.what in CERTAIN)

    def all(self, device: Device = "host") -> int:
        """Return the bytes of all actors."""
        return self.count * self.each(device)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """All roles of a run. worst_sandboxes: host bytes more if all sandboxes reach their limits at the same time."""

    roles: Sequence[RolePlan]
    worst_sandboxes: int

    @property
    def host(self) -> int:
        """Return the bytes of host memory that all roles take on one machine."""
        return sum(role.all() for role in self.roles)

    @property
    def largest(self) -> RolePlan:
        """Return the role that takes the most host memory."""
        return max(self.roles, key=lambda role: role.all())

    @property
    def least_host(self) -> int:
        """Return the bytes of host memory of all roles that are no estimate."""
        return sum(role.count * role.least() for role in self.roles)

    def role(self, name: str) -> RolePlan:
        """Return the plan of one role."""
        return next(role for role in self.roles if role.role == name)


def plan_memory(config: RunConfig, model: ModelShape, lengths: Lengths) -> MemoryPlan:
    """Plan all roles of a run that has its machines to itself."""
    roles = [rollout_plan(config, model)] if config.samples else []
    roles.append(learner_plan(config, model, lengths))
    if config.has_teachers:
        roles.append(teacher_plan(config, model, lengths))
    if config.samples:
        roles.append(env_plan(config))
    roles += [RolePlan("orchestrator", 1, [_process(ORCHESTRATOR_MIB)]), ray_plan(config, model, lengths)]
    sandbox, num_sandboxes = config.env.sandbox, config.placement.env.max_workers * config.env.sandboxes_per_worker
    excess_mib = max(0, sandbox.memory_mib + sandbox.disk_mib - SANDBOX_TYPICAL_MIB)
    return MemoryPlan(roles, worst_sandboxes=num_sandboxes * excess_mib * MIB if config.samples else 0)


def rollout_plan(config: RunConfig, model: ModelShape) -> RolePlan:
    """Plan one engine with its actor.

    Weights b P, on CPU the linear layers' once more (vLLM repacks them), cache `rollout.kv_cache_gib`, the widest
    layer's tensors b S (2 H + 3 I + A + 2 G) over the batched tokens S, logits 3 x 4 n V of the n sequences that are
    decoded at once. Split over `tensor_parallel` GPUs.
    """
    b, device = dtype_bytes(config), _device(config, "rollout")
    attempts = -(-config.batch.tasks * config.batch.samples_per_task // config.placement.rollout.workers)
    sequences = min(config.rollout.max_num_seqs, attempts)
    repacked = 0 if device == "gpu" else b * (model.num_parameters - model.embedding_parameters)
    parts = [
        Part("weights", b * model.num_parameters, device),
        Part("repacked weights", repacked),
        Part("KV cache", int((config.rollout.kv_cache_gib or 0) * GIB), device),
        Part("forward", b * batched_tokens(config) * _layer_width(model), device),
        Part("logits", 3 * FLOAT32 * sequences * model.vocab_size, device),
        Part("weights on their way", 2 * _bucket(config, model)),
    ]
    return _role(config, "rollout", ENGINE_MIB + ENGINE_ACTOR_MIB, parts)


def learner_plan(config: RunConfig, model: ModelShape, lengths: Lengths) -> RolePlan:
    """Plan one rank: its states, and the larger of a training step and sending weights.

    With T trained parameters (P, or LoRA's): masters 4 T/R, AdamW 8 T/R, the teacher's average 4 T/R (regularisation
    ema), gradients 4 T/R; ZeRO 1 keeps gradients whole, ZeRO 1 and 2 keep whole weights b P besides; with LoRA the
    frozen base is b P/R (ZeRO 1 and 2: b P). A step adds `activation_bytes`, the gathered embedding and its float32
    gradient, and the logits. Loading takes 4 P of the host for each rank.
    """
    b, device, whole = dtype_bytes(config), _device(config, "learner"), model.num_parameters
    trained = trained_parameters(config, model)
    share = -(-trained // config.placement.learner.ranks)
    states = {
        "float32 masters": FLOAT32 * share,
        "AdamW": 2 * FLOAT32 * share,
        "teacher's average": FLOAT32 * share if config.teacher_stream == "teacher" else 0,
        "compute weights": _compute_weights(config, model, trained),
        "gradients": FLOAT32 * (trained if BACKENDS[config.learner.backend].whole_gradients else share),
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
    parts = [Part(what, num_bytes, device) for what, num_bytes in (states | step).items() if num_bytes]
    loading = FLOAT32 * whole - (0 if device == "gpu" else sum(part.num_bytes for part in parts))
    if loading > 0:
        parts.append(Part("loading", loading))
    return _role(config, "learner", TORCH_MIB, parts)


def teacher_plan(config: RunConfig, model: ModelShape, lengths: Lengths) -> RolePlan:
    """Plan one teacher.

    Weights b P, twice with trust_region (and with an anchor to the initial model beside a moving teacher); one
    layer's tensors b S (4 H + 4 I + 2 A + 2 G) over the forward's S tokens; logits 2 x 4 C V; two buckets.
    """
    b, device = dtype_bytes(config), _device(config, "teacher")
    moves = config.teacher_stream is not None
    copies = int(moves) + int(not moves or config.teacher.regularisation.mixes or config.uses_reference)
    longest = lengths.hindsight + lengths.response
    group = config.batch.samples_per_task * longest  # one group is scored at a time
    tokens = min(max(config.teacher.tokens_per_forward, longest), group)
    parts = [
        Part("weights", copies * b * model.num_parameters, device),
        Part("forward", b * tokens * _layer_width(model), device),
        Part("logits", logits_bytes(config, model, gradients=False), device),
        Part("weights on their way", 2 * _bucket(config, model) if moves else 0),
    ]
    return _role(config, "teacher", TORCH_MIB, parts)


def env_plan(config: RunConfig) -> RolePlan:
    """Plan one env worker with what its sandboxes usually take; `MemoryPlan.worst_sandboxes` is what they may take."""
    sandboxes = config.env.sandboxes_per_worker * SANDBOX_TYPICAL_MIB * MIB
    return _role(config, "env", ENV_WORKER_MIB, [Part("sandboxes", sandboxes)])


def ray_plan(config: RunConfig, model: ModelShape, lengths: Lengths) -> RolePlan:
    """Plan Ray itself and its object store: a batch's arrays and three weight buckets on their way.

    A response token is 8 bytes (id, log-prob), 8 K of the engine's support, 12 of the teacher's scores and 4 K of its
    support (12 K where it chooses); support=full: 4 V.
    """
    attempts = config.batch.tasks * config.batch.samples_per_task
    needs = config.objective.needs
    per_token = 8 + 8 * config.rollout_support_size + (12 + 12 * needs.support_size if needs.teacher else 0)
    if needs.support == "full":
        per_token += FLOAT32 * model.vocab_size
    arrays = attempts * (lengths.response * per_token + 4 * (lengths.prompt + lengths.hindsight))
    store = [Part("batch in the object store", arrays), Part("weights on their way", 3 * _bucket(config, model))]
    return RolePlan("ray", 1, [_process(RAY_MIB), *store])


def trained_parameters(config: RunConfig, model: ModelShape) -> int:
    """Return the number of trained parameters: the model's, or those of its LoRA adapters."""
    lora = config.learner.lora
    return model.num_parameters if lora is None else model.lora_parameters(lora.rank, lora.targets)


def packed_tokens(config: RunConfig, lengths: Lengths) -> int:
    """Return the tokens of the largest micro-batch: the budget, at least one attempt, at most a rank's share."""
    longest = lengths.prompt + lengths.response
    tasks = config.batch.mini_batch_tasks or config.batch.tasks
    share = -(-tasks * config.batch.samples_per_task // config.placement.learner.ranks) * longest
    return min(max(config.learner.tokens_per_micro_batch, longest), max(share, longest))


def activation_bytes(config: RunConfig, model: ModelShape, tokens: int) -> int:
    """Return what the forward pass keeps for the backward pass, and the backward pass of one layer, in bytes.

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
    """Return the bytes of the logits.

    Two float32 buffers [C, V], one in the compute dtype where that is another; in training the float32 gradient of
    the head [V, H]; support=full: three buffers more (the teacher's rows, and gradients).
    """
    full = config.objective.needs.support == "full"
    narrow = dtype_bytes(config) if dtype_bytes(config) != FLOAT32 else 0
    buffers = FLOAT32 * (2 + 3 * full) + narrow
    head = FLOAT32 * model.largest_tensor if gradients and config.learner.lora is None else 0
    return config.learner.logits_chunk_tokens * model.vocab_size * buffers + head


def gpu_loads(plan: MemoryPlan, *, certain: bool = False) -> list[int]:
    """Return the bytes on each GPU, or those of them that are no estimate.

    As in Ray, whole GPUs belong to one actor; fractions share the first that fits.
    """
    loads: list[int] = []
    free_shares: list[float] = []
    size = RolePlan.least if certain else RolePlan.each
    actors = [(role.gpus, size(role, "gpu")) for role in plan.roles if role.gpus for _ in range(role.count)]
    for share, num_bytes in actors:
        if share >= 1:
            loads += [-(-num_bytes // int(share))] * int(share)
            free_shares += [0.0] * int(share)
            continue
        index = next((i for i, free in enumerate(free_shares) if free >= share - 1e-9), len(loads))
        if index == len(loads):
            loads.append(0)
            free_shares.append(1.0)
        loads[index] += num_bytes
        free_shares[index] -= share
    return loads


def _compute_weights(config: RunConfig, model: ModelShape, trained: int) -> int:
    b, backend = dtype_bytes(config), BACKENDS[config.learner.backend]
    if backend.whole_weights:
        return b * model.num_parameters
    frozen = model.num_parameters if config.learner.lora is not None else 0
    copies = trained if backend.copies_weights else 0
    return -(-b * (frozen + copies) // config.placement.learner.ranks)


def _reduce_bucket(config: RunConfig, trained: int) -> int:
    bucket = BACKENDS[config.learner.backend].reduce_bucket
    elements = bucket if config.placement.learner.num_gpus else min(bucket, trained)
    return elements * dtype_bytes(config)


def _layer_width(model: ModelShape) -> int:
    """Return the elements per token of a layer's tensors that exist at the same time in a pass without gradients."""
    return 2 * model.hidden_size + 3 * model.intermediate_size + model.query_size + 2 * model.key_size


def _bucket(config: RunConfig, model: ModelShape) -> int:
    """Return the bytes of a weight bucket: a larger tensor has one of its own; a small model fills less than one."""
    b = dtype_bytes(config)
    return max(min(config.weights.bucket_bytes, b * model.num_parameters), b * model.largest_tensor)


def _device(config: RunConfig, role: str) -> Device:
    return "gpu" if config.placement.of(role).request.get("GPU") else "host"


def _process(mib: int) -> Part:
    return Part("the process itself", mib * MIB)


def _role(config: RunConfig, role: str, process_mib: int, parts: Sequence[Part]) -> RolePlan:
    """Return the plan of all actors of a role, on a GPU with its CUDA context."""
    count, request = config.demand[role]
    gpus = request.get("GPU", 0.0)
    context = [Part("CUDA", CUDA_CONTEXT_MIB * MIB, "gpu")] if gpus else []
    return RolePlan(role, count, [_process(process_mib), *context, *parts], gpus)
