"""The sizes of a model, from its config.json and the headers of its safetensors files. No weights are read."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.inputs.model_config import CacheShape, head_size
from rollout_workers.engine import check_model_folder, text_part
from sdpo.errors import ModelError

HEAD = "lm_head.weight"
_LAYER = re.compile(r"(?:.*?\.)?layers\.\d+\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape(CacheShape):
    """Sizes in elements. num_parameters is exact, a tied head counted once.

    query_size: heads x head size; has_qk_norm: whether queries and keys are normalised. matrices: by the last part of
    a linear layer's name ("q_proj") the rows and columns of all its matrices together.
    """

    num_parameters: int
    hidden_size: int
    intermediate_size: int
    query_size: int
    vocab_size: int
    tied: bool
    has_qk_norm: bool
    largest_layer: int
    matrices: Mapping[str, int]

    @property
    def largest_tensor(self) -> int:
        """Return the size of the embedding, which is the largest tensor."""
        return self.vocab_size * self.hidden_size

    @property
    def embedding_parameters(self) -> int:
        """Return the size of embedding and head together."""
        return self.largest_tensor * (1 if self.tied else 2)

    def lora_parameters(self, rank: int, targets: tuple[str, ...]) -> int:
        """Return the size of LoRA adapters on `targets`: rank x (rows + columns) each."""
        return rank * sum(self.matrices.get(target, 0) for target in targets)


def read_model_shape(path: str) -> ModelShape:
    """Read the sizes. Raises `ModelError` for a folder that is no model or whose config.json lacks a size."""
    folder = Path(path)
    raw = check_model_folder(folder)
    config = text_part(raw)
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        shapes |= _shapes(file)
    tied = bool(config.get("tie_word_embeddings", raw.get("tie_word_embeddings", False))) or HEAD not in shapes
    if tied:
        shapes.pop(HEAD, None)
    layers, matrices = Counter[str](), Counter[str]()
    for name, shape in shapes.items():
        if layer := _LAYER.match(name):
            layers[layer[0]] += math.prod(shape)
            if len(shape) == 2 and name.endswith(".weight"):
                matrices[name.split(".")[-2]] += sum(shape)
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        return ModelShape(
            num_parameters=sum(map(math.prod, shapes.values())),
            **asdict(CacheShape.of(config)),
            hidden_size=hidden,
            intermediate_size=int(config["intermediate_size"]),
            query_size=heads * head_size(config),
            vocab_size=int(config["vocab_size"]),
            tied=tied,
            has_qk_norm=any("q_norm" in name for name in shapes),
            largest_layer=max(layers.values(), default=0),
            matrices=matrices,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"model.path={path}: config.json does not say {error}; its memory cannot be planned") from None


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: not a safetensors file: {error}") from None
