"""Low-rank adapters by peft (imported here only): put into the model in place, and merged when weights leave it.

An adapted layer `q_proj` holds `q_proj.base_layer.weight` [O, I], `q_proj.lora_A.default.weight` [R, I] and
`q_proj.lora_B.default.weight` [O, R]; its weight is base + alpha / R * B A. Outside it is `q_proj.weight` again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from sdpo.config import LoraConfig
from sdpo.errors import ModelError

ADAPTER = "default"
BASE, FACTOR_A, FACTOR_B = ".base_layer.", f".lora_A.{ADAPTER}.", f".lora_B.{ADAPTER}."
WholeTensor = Callable[[str, torch.dtype], torch.Tensor]


def add_adapters(model: PreTrainedModel, lora: LoraConfig, dtype: torch.dtype, seed: int) -> None:
    """Freeze the model in `dtype` and give the linear layers that `targets` names float32 adapters: A random (a
    function of `seed`, the same on every rank), B zero. Raises `ModelError`, one line.
    """
    import peft

    head = model.get_output_embeddings()
    found = {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    for target in lora.targets:
        if target not in found:
            raise ModelError(
                f"learner.lora.targets={target}: no such linear layer; allowed: {', '.join(sorted(found))}"
            )
    model.requires_grad_(False).to(dtype)
    settings = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), lora_dropout=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model, adapter_name=ADAPTER)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def merged(
    names: Iterable[str], whole: WholeTensor, dtype: torch.dtype, lora: LoraConfig | None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name in the Hugging Face checkpoint, tensor in `dtype`) one at a time. `whole` gives a parameter of the
    adapted model in the dtype asked for; where it is a collective, this is one. Products are taken in float32.
    """
    held = set(names)
    for name in names:
        if FACTOR_A in name or FACTOR_B in name:
            continue
        outside = name.replace(BASE, ".")
        factor_a, factor_b = (name.replace(BASE, factor) for factor in (FACTOR_A, FACTOR_B))
        if lora is None or BASE not in name or factor_a not in held:
            yield outside, whole(name, dtype)
            continue
        weight = whole(name, torch.float32)
        product = whole(factor_b, torch.float32) @ whole(factor_a, torch.float32)
        yield outside, weight.add(product, alpha=lora.alpha / lora.rank).to(dtype)


def merged_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes that `merged` yields."""
    outside = {name: shape for name, shape in shapes.items() if FACTOR_A not in name and FACTOR_B not in name}
    return {name.replace(BASE, "."): shape for name, shape in outside.items()}
