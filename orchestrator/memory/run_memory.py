"""The memory plan of a run that begins: refused where it cannot fit this machine, a warning where it may not."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

from orchestrator.inputs.gpus import Gpu
from orchestrator.inputs.model_config import kv_bytes_per_token, kv_cache_gib, round_up_gib
from orchestrator.memory.advice import Excess, changes
from orchestrator.memory.model_shape import ModelShape, read_model_shape
from orchestrator.memory.plan import Lengths, MemoryPlan, RolePlan, gpu_loads, plan_memory
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, ModelError
from sdpo.show import GIB, show_bytes
from sdpo.storage_cache import fetched

TIGHT_SHARE = 0.9
"""A plan is an estimate: if it takes more than this share of what is free it is called tight."""
CERTAINLY = "weights, optimizer state and KV caches alone take"


def how_it_fits(needed: int, free: int) -> Literal["fits", "tight", "does not fit"]:
    """Return whether an estimate fits into what is free."""
    if needed <= TIGHT_SHARE * free:
        return "fits"
    return "tight" if needed <= free else "does not fit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine that a run starts on, in bytes. most: all memory that its processes may ever have, with swap."""

    most: int
    free: int
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunMemory:
    """What a run's memory is planned from."""

    config: RunConfig
    model: ModelShape
    lengths: Lengths

    @classmethod
    def of(cls, config: RunConfig, longest_prompt: int) -> "RunMemory | None":
        """Read the model's sizes. None, with a warning, for a model whose config.json does not name them."""
        try:
            model = read_model_shape(str(fetched(config.model.path)))
        except ModelError as error:
            warn(str(error))
            return None
        return cls(config=config, model=model, lengths=Lengths.measured(config, longest_prompt))

    @cached_property
    def plan(self) -> MemoryPlan:
        """The plan of all roles."""
        return plan_memory(self.config, self.model, self.lengths)

    def changes(self, excess: Excess) -> str:
        """Return the keys to change so that a plan has no excess, as the end of a sentence."""
        return changes(self.config, self.model, self.lengths, excess)

    def host_changes(self, free: int) -> str:
        """Return the keys to change so that all roles on one machine fit into `free` bytes."""
        return self.changes(lambda other: other.host - int(TIGHT_SHARE * free))

    def gpu_changes(self, free: int) -> str:
        """Return the keys to change so that the fullest GPU fits into `free` bytes."""
        return self.changes(lambda other: _fullest(other) - int(TIGHT_SHARE * free))

    def require(self, machine: Machine) -> None:
        """Raise `ConfigError` where all roles on this machine cannot fit, whatever else runs on it."""
        plan = self.plan
        if plan.least_host > machine.most:
            largest = max(plan.roles, key=lambda role: role.count * role.least())
            allowed = self.changes(lambda other: other.least_host - int(TIGHT_SHARE * machine.most))
            raise ConfigError(
                f"memory: {CERTAINLY} {show_bytes(plan.least_host)}, most of it in {words(largest)}; this machine has "
                f"{show_bytes(machine.most)}; allowed: {allowed}"
            )
        most = max((gpu.total for gpu in machine.gpus), default=0)
        for index, load in enumerate(gpu_loads(plan, certain=True) if machine.gpus else []):
            if load > most:
                allowed = self.changes(lambda other: _fullest(other, certain=True) - int(TIGHT_SHARE * most))
                raise ConfigError(
                    f"memory of GPU {index}: {CERTAINLY} {show_bytes(load)}; it has {show_bytes(most)}; "
                    f"allowed: {allowed}"
                )

    def warnings(self, machine: Machine) -> Iterator[str]:
        """Yield what may not fit on this machine now: an estimate, so no reason to refuse."""
        plan, free = self.plan, machine.free
        if (word := how_it_fits(plan.host, free)) != "fits":
            keys = self.host_changes(free)
            yield (
                f"memory {word}: all roles take about {show_bytes(plan.host)}, {plan.largest.role} the most; "
                f"{show_bytes(free)} are free here; {keys}"
            )
        free = min((gpu.free for gpu in machine.gpus), default=0)
        for index, load in enumerate(gpu_loads(plan) if machine.gpus else []):
            if (word := how_it_fits(load, free)) != "fits":
                keys = self.gpu_changes(free)
                yield f"memory {word}: GPU {index}: about {show_bytes(load)} of {show_bytes(free)}; {keys}"
        if (small := cache_warning(self.config, self.model)) is not None:
            yield small

    def cluster_warnings(self, largest: Mapping[str, int]) -> Iterator[str]:
        """Yield the roles of which one actor takes more host memory than the largest node that may hold it has.

        `largest`: by role, what Ray counts on that node in bytes.
        """
        for role in self.plan.roles:
            if role.role in largest and role.each() > (most := largest[role.role]):
                keys = self.changes(partial(_excess_of_one, role.role, most))
                yield f"memory does not fit: {words(role)}; the largest node for it has {show_bytes(most)}; {keys}"


def warn(line: str) -> None:
    """Print a warning of the start of a run."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


def cache_warning(config: RunConfig, model: ModelShape) -> str | None:
    """Return a line about a KV cache that holds less than a window; None where it holds one or vLLM sizes it."""
    gib, window = config.rollout.kv_cache_gib, config.model.max_model_len_tokens
    if gib is None or not config.samples:
        return None
    tokens, least = cache_tokens(config, model, gib), least_cache_gib(config, model)
    if tokens >= window:
        return None
    return (
        f"rollout.kv_cache_gib={gib:g} holds {tokens} tokens, less than one window of {window}: vLLM may refuse to "
        f"start; rollout.kv_cache_gib={least} or more, or a smaller model.max_model_len_tokens"
    )


def cache_tokens(config: RunConfig, model: ModelShape, gib: float) -> int:
    """Return how many tokens a KV cache of this size holds."""
    return int(gib * GIB) // kv_bytes_per_token(config, model)


def least_cache_gib(config: RunConfig, model: ModelShape) -> float:
    """Return the size of a KV cache that holds one window."""
    return round_up_gib(kv_cache_gib(config, model, 1))


def words(role: RolePlan) -> str:
    """Return the plan of one actor of a role and its largest parts: "rollout 2 GiB (KV cache 1 GiB, …)"."""
    parts = sorted(role.parts, key=lambda part: -part.num_bytes)[:3]
    listed = ", ".join(f"{part.what} {show_bytes(part.num_bytes)}" for part in parts if part.num_bytes)
    times = f"{role.count} x " if role.count > 1 else ""
    return f"{role.role} {times}{show_bytes(role.each() + role.each('gpu'))} ({listed})"


def _fullest(plan: MemoryPlan, *, certain: bool = False) -> int:
    return max(gpu_loads(plan, certain=certain), default=0)


def _excess_of_one(role: str, most: int, plan: MemoryPlan) -> int:
    return plan.role(role).each() - most
