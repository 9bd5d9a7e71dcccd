"""The sizes of a model, from its config.json and the headers of its safetensors files. No weights are read."""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

from orchestrator.model_config import CacheShape, head_size, text_part
from rollout_workers.engine import check_model_folder
from sdpo.errors import ModelError

LONGEST_HEADER_BYTES = 100 * 2**20
HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape(CacheShape):
    """num_parameters is exact, a tied head counted once. Sizes in elements.

    query_size: heads x head size; has_qk_norm: whether queries and keys are normalised. matrices: the last part of a
    linear layer's name ("q_proj") to (how many, rows + columns of all).
    """

    num_parameters: int
    hidden_size: int
    intermediate_size: int
    query_size: int
    vocab_size: int
    tied: bool
    has_qk_norm: bool
    largest_layer: int
    matrices: dict[str, tuple[int, int]]

    @property
    def largest_tensor(self) -> int:
        """The embedding, in every model that there is."""
        return self.vocab_size * self.hidden_size

    @property
    def embedding_parameters(self) -> int:
        """Embedding and head."""
        return self.largest_tensor * (1 if self.tied else 2)

    def lora_parameters(self, rank: int, targets: tuple[str, ...]) -> int:
        """Of adapters on `targets`: rank x (rows + columns) each."""
        return rank * sum(self.matrices[target][1] for target in targets if target in self.matrices)


def read_model_shape(path: str) -> ModelShape:
    """Raises `ModelError` for a folder that is no model or whose config.json lacks a size."""
    folder = Path(path)
    raw = check_model_folder(folder)
    config = text_part(raw)
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        shapes |= _header(file)
    tied = bool(config.get("tie_word_embeddings", raw.get("tie_word_embeddings", False))) or HEAD not in shapes
    if tied:
        shapes.pop(HEAD, None)
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        cache = CacheShape.of(config)
        return ModelShape(
            num_parameters=sum(map(math.prod, shapes.values())),
            num_layers=cache.num_layers,
            hidden_size=hidden,
            intermediate_size=int(config["intermediate_size"]),
            query_size=heads * head_size(config),
            key_size=cache.key_size,
            vocab_size=int(config["vocab_size"]),
            tied=tied,
            has_qk_norm=any("q_norm" in name for name in shapes),
            largest_layer=_largest_layer(shapes),
            matrices=_matrices(shapes),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"model.path={path}: config.json does not say {error}; its memory cannot be planned") from None


def _header(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name: 8 bytes of length, then that much JSON."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > LONGEST_HEADER_BYTES:
                raise ValueError("header too long")
            header = json.loads(opened.read(length))
        return {name: tuple(about["shape"]) for name, about in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ModelError(f"{file}: not a safetensors file: {error}") from None


def _largest_layer(shapes: dict[str, tuple[int, ...]]) -> int:
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        before, found, rest = name.partition(".layers.")
        if found:
            key = before + rest.split(".")[0]
            sizes[key] = sizes.get(key, 0) + math.prod(shape)
    return max(sizes.values(), default=0)


def _matrices(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for name, shape in shapes.items():
        parts = name.split(".")
        if len(shape) == 2 and parts[-1] == "weight" and "layers" in parts:
            count, both = found.get(parts[-2], (0, 0))
            found[parts[-2]] = (count + 1, both + sum(shape))
    return found
