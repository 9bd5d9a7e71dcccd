"""Brings `tests.nccl_over_tcp` into vLLM's engine processes: name `EngineExtension` as the worker's extension."""

import tests.nccl_over_tcp  # noqa: F401
from rollout_workers.transfer import EngineExtension

__all__ = ["EngineExtension"]
