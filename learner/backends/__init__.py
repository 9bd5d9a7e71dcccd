"""Ways to shard parameters, gradients and AdamW over ranks."""

import torch
from transformers import PreTrainedModel

from learner.backends.base import Backend
from sdpo.config import RunConfig


def make_backend(hf_model: PreTrainedModel, config: RunConfig, device: torch.device) -> Backend:
    """The backend that `learner.backend` names, around `learner.model.load_policy`'s model. A collective."""
    if config.learner.backend == "fsdp2":
        from learner.backends.fsdp2 import Fsdp2Backend

        return Fsdp2Backend(hf_model, config, device)
    from learner.backends.zero import ZeroBackend

    return ZeroBackend(hf_model, config, device)
