"""Gradient checkpointing of the decoder layers."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def enable_gradient_checkpointing(layers: Iterable[nn.Module]) -> None:
    """Keep only each layer's inputs, and compute the layer again in the backward pass.

    Works in train and in eval mode, with the same gradients. Call it before the model is sharded or gets adapters:
    the layers and their parameters keep their names, and hooks of a sharding backend run around the recomputed part.
    """
    for layer in layers:
        # A partial and not a closure, so that a deep copy of the model recomputes its own layers.
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Any, *inputs: Any, **arguments: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **arguments)
    return checkpoint(forward, *inputs, use_reentrant=False, **arguments)
