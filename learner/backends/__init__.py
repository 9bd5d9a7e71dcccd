"""Ways to shard parameters, gradients and AdamW over ranks; `sdpo.backends.BACKENDS` lists them."""

from importlib import import_module
from typing import Any

import torch
from transformers import PreTrainedModel

from learner.backends.base import Backend
from sdpo.backends import BACKENDS
from sdpo.config import RunConfig


def backend_module(name: str) -> Any:
    """Return the module of the backend that `learner.backend` names; what it needs is imported now."""
    return import_module(BACKENDS[name].module)


def make_backend(hf_model: PreTrainedModel, config: RunConfig, device: torch.device) -> Backend:
    """Return the backend that `learner.backend` names, around `learner.model.load_policy`'s model. A collective."""
    backend: Backend = backend_module(config.learner.backend).make(hf_model, config, device)
    return backend
