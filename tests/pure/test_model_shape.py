"""The sizes of a model, counted exactly from its config.json and the headers of its weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM

from orchestrator.memory.model_shape import read_model_shape
from sdpo.errors import ModelError


def test_the_embedded_model_is_counted_exactly(tinycoder_model: Path) -> None:
    shape = read_model_shape(str(tinycoder_model))
    model = AutoModelForCausalLM.from_pretrained(tinycoder_model)
    assert shape.num_parameters == sum(p.numel() for p in model.parameters())
    assert shape.largest_tensor == max(p.numel() for p in model.parameters())
    assert shape.largest_layer == sum(p.numel() for p in model.model.layers[0].parameters())
    assert (shape.tied, shape.has_qk_norm, shape.num_layers) == (True, True, 4)
    q = model.model.layers[0].self_attn.q_proj.weight
    assert shape.lora_parameters(8, ("q_proj", "nowhere")) == 8 * 4 * sum(q.shape)


def test_a_stored_copy_of_a_tied_head_is_not_counted(tmp_path: Path) -> None:
    shapes = {"model.embed_tokens.weight": (10, 4), "lm_head.weight": (10, 4), "model.norm.weight": (4,)}
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer.json").write_text("{}")
    config = {"vocab_size": 10, "hidden_size": 4, "num_hidden_layers": 0, "num_attention_heads": 2}
    config |= {"intermediate_size": 8, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_model_shape(str(tmp_path)).num_parameters == 44
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert read_model_shape(str(tmp_path)).num_parameters == 84
    (tmp_path / "config.json").write_text(json.dumps({"text_config": config}))
    assert read_model_shape(str(tmp_path)).num_parameters == 44, "a nested config"
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"config\.json does not say 'num_attention_heads'"):
        read_model_shape(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged or cut off"):
        read_model_shape(str(tmp_path))
